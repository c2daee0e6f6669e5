//! The configuration file: read once, checked as a whole, every mistake shown where it stands.

mod check;
mod model;
mod problem;
mod references;
mod schema;
mod secret;
mod tree;
mod units;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;

pub(crate) use model::{Config, Destination, Mask, MaskWith, Mysql, MysqlFiles, OptionValue, Profile, Start, State, Stream, TlsMode};
use problem::{Place, Problem};
pub(crate) use problem::{Problems, nearest};
pub(crate) use schema::published as published_schema;
pub(crate) use secret::Secret;
use tree::{Node, Value};

/// A configuration that has no mistakes, and where it came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// What relative paths in it begin at: the file's directory, or for standard input the current one.
    pub(crate) directory: PathBuf,
    /// The file as it was named, for messages and suggested commands.
    pub(crate) name: String,
}

/// A configuration file larger than this is a wrong file.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Reads the file `name`; `-` is standard input.
pub(crate) fn load(name: &str) -> Result<Loaded, Problems> {
    let (text, directory) = read(name).map_err(|error| Problems::unreadable(name, &error))?;
    let shown = if name == "-" { "standard input" } else { name };
    let config = parse(shown, &text, &directory)?;
    Ok(Loaded { config, directory, name: name.to_owned() })
}

fn read(name: &str) -> std::io::Result<(String, PathBuf)> {
    let mut text = String::new();
    let current = std::env::current_dir()?;
    if name == "-" {
        std::io::stdin().lock().take(FILE_BYTES_MAX).read_to_string(&mut text)?;
        return Ok((text, current));
    }
    std::fs::File::open(name)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    let parent = Path::new(name).parent().unwrap_or(Path::new(""));
    Ok((text, current.join(parent)))
}

/// Parses and checks the text of a file.
pub(crate) fn parse(file: &str, text: &str, directory: &Path) -> Result<Config, Problems> {
    let root = Node::parse(text).map_err(|problem| Problems::new(file, text, vec![problem], &lines_with_secrets(text)))?;
    let mut problems = check::check(&root, schema::full(), directory);
    problems.extend(references::check(&root));
    if problems.is_empty() {
        match Config::deserialize(root.to_json()) {
            Ok(config) => return Ok(config),
            // The schema is derived from the types, so this says that the two disagree; still better told than hidden.
            Err(error) => problems.push(Problem::new(Place::START, format!("the file could not be understood: {error}"))),
        }
    }
    let mut hidden = Vec::new();
    clear_secrets(&root, &mut hidden);
    Err(Problems::new(file, text, problems, &hidden))
}

/// True if a value under this key is better not shown.
fn names_a_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    ["password", "secret", "token", "key", "credential"].iter().any(|word| key.contains(word))
}

/// The places of values that somebody wrote into the file although they look like secrets.
fn clear_secrets(node: &Node, hidden: &mut Vec<Place>) {
    for (key, value) in node.entries() {
        match &value.value {
            Value::Text(_) | Value::Number(_) if names_a_secret(&key.name) => hidden.push(value.place),
            _ => clear_secrets(value, hidden),
        }
    }
    node.items().iter().for_each(|item| clear_secrets(item, hidden));
}

/// The same for a text that is not YAML: the rest of every line that looks like one.
fn lines_with_secrets(text: &str) -> Vec<Place> {
    let after_secret = |line: &str| {
        line.match_indices(':')
            .find(|(at, _)| {
                let name = line[..*at].rsplit(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '"' | '\''))).next();
                name.is_some_and(names_a_secret)
            })
            .map(|(at, _)| line[..=at].chars().count())
    };
    text.lines()
        .enumerate()
        .filter_map(|(i, line)| after_secret(line).map(|start| Place { line: i + 1, column: start + 1, length: line.len() }))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
