//! The configuration file: read once, checked as a whole, every mistake shown where it stands.

mod change_log;
mod check;
mod clear;
mod masks;
mod model;
mod problem;
mod profiles;
mod references;
mod schema;
mod secret;
mod sql;
mod sql_endpoint;
mod tree;
mod udf;
mod units;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use logweir_sql::SqlProblem;
use serde::Deserialize as _;

pub(crate) use change_log::{Acknowledge, ChangeLog, ChangeLogOptions, Compression};
pub(crate) use model::{
    Backfill, Config, DateUnit, Destination, Mask, MaskKey, MaskWith, OnBadValue, Reference, SchemaChange, SharedTruncate, SqlRule, Start,
    State, Stream, Unlisted,
};
use problem::{Place, Problem};
pub(crate) use problem::{Problems, nearest};
pub(crate) use profiles::{Arrays, Mysql, MysqlFiles, MysqlTlsMode, OptionValue, Origin, Postgres, PostgresTlsMode, Profile, Streaming};
pub(crate) use schema::published as published_schema;
pub(crate) use secret::Secret;
pub(crate) use sql_endpoint::SqlUser;
use tree::Node;
pub(crate) use units::Span;

/// A configuration that has no mistakes, and where it came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// What relative paths in it begin at: the file's directory, or for standard input the current one.
    pub(crate) directory: PathBuf,
    /// The file as it was named, for messages and suggested commands.
    pub(crate) name: String,
    /// What stands in it, to point into.
    text: String,
}

/// What of a stream decides what becomes of a change before it is kept.
const RULES: [&str; 6] = ["tables", "mask", "udf", "transforms", "references", "on_bad_value"];

impl Loaded {
    /// The rules of a stream as they stand in the file, whatever its spaces, comments and the order of keys.
    pub(crate) fn rules_text(&self, stream: &str) -> String {
        let mut text = String::new();
        let root = Node::parse(&self.text).ok();
        let stream = root.as_ref().and_then(|root| root.get("streams")?.get(stream));
        for (name, rules) in RULES.iter().filter_map(|name| Some((name, stream?.get(name)?))) {
            text.push_str(name);
            text.push(':');
            rules.canonical(&mut text);
            text.push('\n');
        }
        text
    }

    /// Where in the file the problem of a transform lies, of the stream or of one of its destinations: line, column, and the line itself with a
    /// caret under it.
    pub(crate) fn sql_place(&self, stream: &str, destination: Option<usize>, problem: &SqlProblem) -> Option<(usize, usize, String)> {
        let root = Node::parse(&self.text).ok()?;
        let stream = root.get("streams")?.get(stream)?;
        let owner = match destination {
            Some(index) => stream.get("destinations")?.items().get(index)?,
            None => stream,
        };
        let rule = owner.get("transforms")?.items().get(problem.rule)?;
        let shown = sql::shown(problem, rule.get("sql")?, &self.text);
        Some(self.shown(shown))
    }

    /// The same for what is wrong with a masking rule of a stream, by its index, or without one with what becomes of columns that no rule is
    /// for. `pattern` is the pattern of the rule that it is about, if it is about one.
    pub(crate) fn mask_place(&self, stream: &str, rule: Option<usize>, pattern: Option<&str>) -> Option<(usize, usize, String)> {
        let root = Node::parse(&self.text).ok()?;
        let mask = root.get("streams")?.get(stream)?.get("mask")?;
        let node = match rule {
            Some(index) => {
                let rule = mask.get("rules").unwrap_or(mask).items().get(index)?;
                let columns = rule.get("columns").map(Node::items).unwrap_or_default();
                let is_it = |node: &&Node| pattern.is_some() && node.text() == pattern;
                columns.iter().find(is_it).or_else(|| rule.get("with")).unwrap_or(rule)
            }
            None => mask.get("unlisted")?,
        };
        Some(self.shown(Problem::new(node.place, "")))
    }

    fn shown(&self, problem: Problem) -> (usize, usize, String) {
        let place = problem.place;
        let problems = Problems::new(&self.name, &self.text, vec![problem], &clear::lines(&self.text));
        (place.line, place.column, problems.render_place(place))
    }
}

/// A configuration file larger than this is a wrong file.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Reads the file `name`; `-` is standard input.
pub(crate) fn load(name: &str) -> Result<Loaded, Problems> {
    let (text, directory) = read(name).map_err(|error| Problems::unreadable(name, &error))?;
    let shown = if name == "-" { "standard input" } else { name };
    let config = parse(shown, &text, &directory)?;
    Ok(Loaded { config, directory, name: name.to_owned(), text })
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
    let root = Node::parse(text).map_err(|problem| Problems::new(file, text, vec![problem], &clear::lines(text)))?;
    let mut problems = check::check(&root, schema::full(), directory);
    problems.extend(references::check(&root));
    problems.extend(change_log::check(&root));
    problems.extend(clear::check(&root));
    problems.extend(sql::check(&root, text));
    problems.extend(sql_endpoint::check(&root, directory));
    problems.extend(udf::check(&root, directory));
    if problems.is_empty() {
        match Config::deserialize(root.to_json()) {
            Ok(config) => return Ok(config),
            // The schema is derived from the types, so this says that the two disagree; still better told than hidden.
            Err(error) => problems.push(Problem::new(Place::START, format!("the file could not be understood: {error}"))),
        }
    }
    let mut hidden = Vec::new();
    clear::places(&root, &mut hidden);
    Err(Problems::new(file, text, problems, &hidden))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
