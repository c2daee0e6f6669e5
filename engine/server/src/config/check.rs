//! Checks a file against the schema and collects every mistake.
//!
//! Knows the part of JSON Schema that the schema of [`Config`](super::Config) uses, and marks of our own: `format` names a check
//! that a pattern would explain badly, `x-secret` fetches a secret to see that it is there, `x-later` is refused with the
//! sentence it holds.

use std::path::Path;

use serde_json::Value as Json;
use url::Url;

use super::problem::{Place, Problem, nearest};
use super::schema::is_later;
use super::secret::Secret;
use super::tree::{Key, Node, Value};
use super::units::{Size, Span, check_name, check_publication, check_slot};

/// Checks `root` against `schema`. Relative paths begin at `directory`.
pub(crate) fn check(root: &Node, schema: &Json, directory: &Path) -> Vec<Problem> {
    let mut checker = Checker { directory, problems: Vec::new() };
    checker.node(root, schema, &Owner { name: "the file", place: root.place });
    checker.problems
}

/// Who a value belongs to: its key, or the item's list.
struct Owner<'a> {
    name: &'a str,
    place: Place,
}

impl Owner<'_> {
    /// The name as it reads in a sentence.
    fn quoted(&self) -> String {
        if self.name == "the file" { self.name.to_owned() } else { format!("`{}`", self.name) }
    }
}

struct Checker<'a> {
    directory: &'a Path,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn node(&mut self, node: &Node, schema: &Json, owner: &Owner<'_>) {
        if let Some(sentence) = schema.get("x-later").and_then(Json::as_str) {
            let place = node.entries().first().map_or(node.place, |(key, _)| key.place);
            self.problems.push(Problem::new(place, sentence));
            return;
        }
        let before = self.problems.len();
        if let Some(branches) = branches(schema) {
            self.choose(node, &branches, schema, owner);
        } else if let Some(values) = schema.get("enum").and_then(Json::as_array) {
            self.word(node, values.iter().filter_map(Json::as_str), owner);
        } else if let Some(value) = schema.get("const").and_then(Json::as_str) {
            self.word(node, [value], owner);
        } else {
            self.plain(node, schema, owner);
        }
        if schema.get("x-secret").is_some() && self.problems.len() == before {
            self.secret(node);
        }
    }

    /// A schema without branches.
    fn plain(&mut self, node: &Node, schema: &Json, owner: &Owner<'_>) {
        let types = types(schema);
        if types.is_empty() {
            return;
        }
        let fits = types.iter().any(|name| fits(&node.value, name));
        if !fits {
            self.wrong_kind(node, schema, owner);
            return;
        }
        match &node.value {
            Value::Map(entries) => self.map(entries, schema, owner),
            Value::List(items) => self.list(node, items, schema, owner),
            Value::Text(text) => self.text(node, text, schema, owner),
            Value::Number(number) => self.number(node, number, schema, owner),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn wrong_kind(&mut self, node: &Node, schema: &Json, owner: &Owner<'_>) {
        let mut problem = match &node.value {
            Value::Null => Problem::new(owner.place, format!("{} is empty", owner.quoted())),
            _ => Problem::new(node.place, format!("{} must be {}, not {}", owner.quoted(), describe(schema), node.kind())),
        };
        let format = schema.get("format").and_then(Json::as_str);
        if owner.name == "the file" {
            problem = problem.help("it begins with the keys `profiles` and `streams`; `logweir quickstart` writes one that works");
        } else if matches!(node.value, Value::Number(_)) && matches!(format, Some("size" | "duration")) {
            problem = problem.help("give the number its unit");
        } else if matches!(node.value, Value::Number(_) | Value::Bool(_)) && types(schema).contains(&"string") {
            problem = problem.help("put it in quotes");
        } else if matches!(node.value, Value::Text(_)) && types(schema).contains(&"array") {
            problem = problem.help("put it in brackets: [ … ]");
        } else if matches!(node.value, Value::Null) {
            problem = problem.help(format!("it must be {}; leave the key out for the default, if there is one", describe(schema)));
        }
        self.problems.push(problem);
    }

    fn map(&mut self, entries: &[(Key, Node)], schema: &Json, owner: &Owner<'_>) {
        let properties = schema.get("properties").and_then(Json::as_object);
        let others = others(schema);
        for (i, (key, value)) in entries.iter().enumerate() {
            if let Some((first, _)) = entries[..i].iter().find(|(other, _)| other.name == key.name) {
                let message = format!("the key `{}` is given twice", key.name);
                self.problems.push(Problem::new(key.place, message).help(format!("the first is on line {}", first.place.line)));
                continue;
            }
            let inner = Owner { name: &key.name, place: key.place };
            match (properties.and_then(|properties| properties.get(&key.name)), &others) {
                (Some(schema), _) => {
                    // Refused where it is asked for: at the key.
                    if let Some(sentence) = schema.get("x-later").and_then(Json::as_str) {
                        self.problems.push(Problem::new(key.place, sentence));
                    } else {
                        self.node(value, schema, &inner);
                    }
                }
                (None, Others::Named(schema)) => {
                    if let Err(rule) = check_name(&key.name) {
                        self.problems.push(Problem::new(key.place, format!("`{}` cannot be a name", key.name)).help(rule));
                    }
                    self.node(value, schema, &inner);
                }
                (None, Others::Free(schema)) => self.node(value, schema, &inner),
                (None, Others::Refused) => {
                    let names = properties.map(available).unwrap_or_default();
                    let mut help = format!("allowed here: {}", names.join(", "));
                    if let Some(name) = nearest(&key.name, names.iter().copied()) {
                        help = format!("did you mean `{name}`? {help}");
                    }
                    self.problems.push(Problem::new(key.place, format!("unknown key `{}`", key.name)).help(help));
                }
            }
        }
        for name in required(schema) {
            if !entries.iter().any(|(key, _)| key.name == name) {
                let message = format!("{} lacks the key `{name}`", owner.quoted());
                let described = properties.and_then(|properties| properties.get(name)).and_then(|schema| schema.get("description"));
                let mut problem = Problem::new(owner.place, message);
                if let Some(text) = described.and_then(Json::as_str) {
                    problem = problem.help(format!("`{name}`: {}", text.replace('\n', " ")));
                }
                self.problems.push(problem);
            }
        }
    }

    fn list(&mut self, node: &Node, items: &[Node], schema: &Json, owner: &Owner<'_>) {
        let least = schema.get("minItems").and_then(Json::as_u64).unwrap_or(0);
        if (items.len() as u64) < least {
            self.problems.push(Problem::new(node.place, format!("{} needs at least one item", owner.quoted())));
        }
        if let Some(schema) = schema.get("items") {
            for item in items {
                self.node(item, schema, &Owner { name: owner.name, place: item.place });
            }
        }
    }

    fn text(&mut self, node: &Node, text: &str, schema: &Json, owner: &Owner<'_>) {
        let outcome = match schema.get("format").and_then(Json::as_str) {
            Some("size") => Size::parse(text).map(|_| ()).map_err(str::to_owned),
            Some("duration") => Span::parse(text).map(|_| ()).map_err(str::to_owned),
            Some("name") => check_name(text).map_err(str::to_owned),
            Some("socket") => text
                .parse::<std::net::SocketAddr>()
                .map(|_| ())
                .map_err(|_| "write an address and a port, as in 127.0.0.1:9290 or [::1]:9290".to_owned()),
            Some("store-url") => store_url(text),
            Some("path-template") => logweir_files::layout::PathTemplate::parse(text).map(|_| ()).map_err(|error| error.to_string()),
            Some("slot") => check_slot(text).map_err(str::to_owned),
            Some("publication") => check_publication(text).map_err(str::to_owned),
            Some("lsn") => {
                let lsn = text.parse::<logweir_postgres::Lsn>().map(|_| ());
                lsn.map_err(|_| "write it as the server does, in quotes: \"16/B374D848\"".to_owned())
            }
            Some("column-names") => logweir_sql::ColumnNames::new(text).map(|_| ()),
            Some("udf-type") => text.parse::<logweir_sql::UdfType>().map(|_| ()),
            Some("table-pattern") => dots(text, 1),
            Some("column-pattern") => dots(text, 2),
            _ if text.is_empty() => Err("it is empty".to_owned()),
            _ => Ok(()),
        };
        if let Err(rule) = outcome {
            let message = format!("{} has a value that is not possible: `{text}`", owner.quoted());
            self.problems.push(Problem::new(node.place, message).help(rule));
        }
    }

    fn number(&mut self, node: &Node, number: &serde_json::Number, schema: &Json, owner: &Owner<'_>) {
        let bound = |name: &str| schema.get(name).and_then(Json::as_f64);
        let least = bound("minimum");
        // The formats of schemars are the Rust types; JSON Schema itself says nothing of their ends.
        let most = bound("maximum").or(match schema.get("format").and_then(Json::as_str) {
            Some("uint16") => Some(f64::from(u16::MAX)),
            Some("uint32") => Some(f64::from(u32::MAX)),
            _ => None,
        });
        let value = number.as_f64().unwrap_or(f64::NAN);
        if least.is_some_and(|least| value < least) || most.is_some_and(|most| value > most) {
            let range = match (least, most) {
                (Some(least), Some(most)) => format!("{least} to {most}"),
                (Some(least), None) => format!("{least} or more"),
                (None, Some(most)) => format!("{most} or less"),
                (None, None) => return,
            };
            self.problems.push(Problem::new(node.place, format!("{} must be {range}", owner.quoted())));
        }
    }

    /// One of several shapes: takes the one that was probably meant, and checks that.
    fn choose(&mut self, node: &Node, branches: &[&Json], schema: &Json, owner: &Owner<'_>) {
        match &node.value {
            Value::Text(text) => {
                if let Some(branch) = branches.iter().find(|branch| words(branch).contains(&text.as_str())) {
                    // Of several words in one branch, none carries a mark of its own.
                    if branch.get("x-later").is_some() {
                        self.node(node, branch, owner);
                    }
                    return;
                }
                if let Some(branch) = branches.iter().find(|branch| words(branch).is_empty() && accepts(branch, "string")) {
                    self.node(node, branch, owner);
                    return;
                }
                let words: Vec<&str> = branches.iter().filter(|branch| !is_later(branch)).flat_map(|branch| words(branch)).collect();
                if words.is_empty() {
                    self.not_a_branch(node, schema, branches, owner);
                } else {
                    self.wrong_word(node, text, &words, &describe(schema), owner);
                }
            }
            Value::Map(entries) => {
                let candidates: Vec<&&Json> = branches.iter().filter(|branch| accepts(branch, "object")).collect();
                let score = |branch: &Json| {
                    let known = branch.get("properties").and_then(Json::as_object);
                    let hits = entries.iter().filter(|(key, _)| known.is_some_and(|known| known.contains_key(&key.name))).count();
                    let missing = required(branch).filter(|name| !entries.iter().any(|(key, _)| key.name == *name)).count();
                    (hits, usize::MAX - missing)
                };
                match candidates.iter().max_by_key(|branch| score(branch)) {
                    Some(branch) if candidates.len() == 1 || score(branch).0 > 0 => self.node(node, branch, owner),
                    Some(_) => self.none_of_the_keys(node, &candidates, owner),
                    None => self.not_a_branch(node, schema, branches, owner),
                }
            }
            value => {
                let plain = kinds(value).iter().find_map(|kind| branches.iter().find(|branch| accepts(branch, kind)));
                match plain {
                    Some(branch) => self.node(node, branch, owner),
                    None => self.not_a_branch(node, schema, branches, owner),
                }
            }
        }
    }

    /// A map that has a key of none of the shapes.
    fn none_of_the_keys(&mut self, node: &Node, candidates: &[&&Json], owner: &Owner<'_>) {
        let mut names: Vec<&str> = Vec::new();
        for branch in candidates.iter().filter(|branch| !is_later(branch)) {
            names.extend(required(branch));
        }
        names.dedup();
        let expected = format!("one of the keys {} is needed", names.join(", "));
        match node.entries().first() {
            None => self.problems.push(Problem::new(owner.place, format!("{} is empty", owner.quoted())).help(expected)),
            Some((key, _)) => {
                let help = match nearest(&key.name, names.iter().copied()) {
                    Some(name) => format!("did you mean `{name}`? {expected}"),
                    None => expected,
                };
                self.problems.push(Problem::new(key.place, format!("unknown key `{}`", key.name)).help(help));
            }
        }
    }

    fn not_a_branch(&mut self, node: &Node, schema: &Json, branches: &[&Json], owner: &Owner<'_>) {
        if is_secret(schema) && matches!(node.value, Value::Text(_) | Value::Number(_) | Value::Bool(_)) {
            self.problems.push(
                Problem::new(node.place, format!("{} is a secret and must not stand in the file", owner.quoted()))
                    .help("write { env: NAME_OF_A_VARIABLE } or { file: /path/of/a/file }"),
            );
            return;
        }
        if matches!(node.value, Value::Null) && branches.iter().any(|branch| words(branch).contains(&"null")) {
            self.problems.push(Problem::new(node.place, format!("{} is empty", owner.quoted())).help("put the word in quotes: \"null\""));
            return;
        }
        self.wrong_kind(node, schema, owner);
    }

    fn word<'b>(&mut self, node: &Node, words: impl IntoIterator<Item = &'b str>, owner: &Owner<'_>) {
        let words: Vec<&str> = words.into_iter().collect();
        match &node.value {
            Value::Text(text) if words.contains(&text.as_str()) => {}
            Value::Text(text) => self.wrong_word(node, text, &words, &words.join(", "), owner),
            _ => {
                let message = format!("{} must be one of {}", owner.quoted(), words.join(", "));
                self.problems.push(Problem::new(node.place, message));
            }
        }
    }

    fn wrong_word(&mut self, node: &Node, text: &str, words: &[&str], allowed: &str, owner: &Owner<'_>) {
        let mut help = format!("allowed: {allowed}");
        if let Some(word) = nearest(text, words.iter().copied()) {
            help = format!("did you mean `{word}`? {help}");
        }
        let message = format!("{} has a value that is not possible: `{text}`", owner.quoted());
        self.problems.push(Problem::new(node.place, message).help(help));
    }

    /// Fetches a secret to see that it is there.
    fn secret(&mut self, node: &Node) {
        if matches!(node.value, Value::Null) {
            return;
        }
        let place = node.entries().first().map_or(node.place, |(_, value)| value.place);
        match serde_json::from_value::<Secret>(node.to_json()) {
            Ok(secret) => {
                if let Err(sentence) = secret.resolve(self.directory) {
                    self.problems.push(Problem::new(place, sentence));
                }
            }
            Err(_) => self.problems.push(Problem::new(place, "a secret is { env: NAME } or { file: PATH }")),
        }
    }
}

fn branches(schema: &Json) -> Option<Vec<&Json>> {
    let branches = schema.get("anyOf").or_else(|| schema.get("oneOf"))?.as_array()?;
    // An optional choice is a choice in a choice.
    Some(
        branches
            .iter()
            .flat_map(|branch| if is_secret(branch) { vec![branch] } else { self::branches(branch).unwrap_or_else(|| vec![branch]) })
            .collect(),
    )
}

fn is_secret(schema: &Json) -> bool {
    let marked = |schema: &Json| schema.get("x-secret").is_some();
    marked(schema) || schema.get("anyOf").and_then(Json::as_array).is_some_and(|branches| branches.iter().any(marked))
}

fn required(schema: &Json) -> impl Iterator<Item = &str> {
    schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str)
}

/// The keys that this version takes.
fn available(properties: &serde_json::Map<String, Json>) -> Vec<&str> {
    properties.iter().filter(|(_, schema)| schema.get("x-later").is_none()).map(|(name, _)| name.as_str()).collect()
}

/// What is done with keys that are not listed.
enum Others<'a> {
    /// They are names of ours.
    Named(&'a Json),
    /// They are anything.
    Free(&'a Json),
    Refused,
}

fn others(schema: &Json) -> Others<'_> {
    if let Some(schema) = schema.get("patternProperties").and_then(Json::as_object).and_then(|patterns| patterns.values().next()) {
        return Others::Named(schema);
    }
    match schema.get("additionalProperties") {
        Some(schema @ Json::Object(_)) => Others::Free(schema),
        _ => Others::Refused,
    }
}

fn types(schema: &Json) -> Vec<&str> {
    match schema.get("type") {
        Some(Json::String(name)) => vec![name],
        Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

fn accepts(schema: &Json, kind: &str) -> bool {
    let types = types(schema);
    // Without a type it is a mark such as `x-later` over anything, or a choice whose own branches decide.
    types.contains(&kind)
        || types.is_empty()
            && branches(schema).is_none_or(|branches| branches.iter().any(|branch| accepts(branch, kind)))
            && words(schema).is_empty()
}

fn words(schema: &Json) -> Vec<&str> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(Json::String(word)), _) => vec![word],
        (_, Some(Json::Array(words))) => words.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

fn kinds(value: &Value) -> &'static [&'static str] {
    match value {
        Value::Null => &["null"],
        Value::Bool(_) => &["boolean"],
        Value::Number(number) if number.is_f64() => &["number"],
        Value::Number(_) => &["integer", "number"],
        Value::Text(_) => &["string"],
        Value::List(_) => &["array"],
        Value::Map(_) => &["object"],
    }
}

fn fits(value: &Value, name: &str) -> bool {
    kinds(value).contains(&name)
}

/// What a schema takes, in a few words.
fn describe(schema: &Json) -> String {
    let mut parts: Vec<String> = Vec::new();
    let all = branches(schema).unwrap_or_else(|| vec![schema]);
    for branch in all.into_iter().filter(|branch| !is_later(branch)) {
        if is_secret(branch) {
            parts.push("a secret ({ env: NAME } or { file: PATH })".to_owned());
            continue;
        }
        let words = words(branch);
        if !words.is_empty() {
            parts.extend(words.iter().map(|word| format!("`{word}`")));
            continue;
        }
        let required: Vec<&str> = required(branch).collect();
        for kind in types(branch) {
            parts.push(match kind {
                "object" if required.is_empty() => "a map".to_owned(),
                "object" => format!("a map with {}", required.join(" and ")),
                "array" => "a list".to_owned(),
                "string" => match branch.get("format").and_then(Json::as_str) {
                    Some("size") => "a size such as 128MiB".to_owned(),
                    Some("duration") => "a duration such as 30s".to_owned(),
                    _ => "text".to_owned(),
                },
                "integer" => "a whole number".to_owned(),
                "number" => "a number".to_owned(),
                "boolean" => "true or false".to_owned(),
                _ => continue,
            });
        }
    }
    parts.dedup();
    parts.join(" or ")
}

fn store_url(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|_| "write file:///absolute/directory or s3://bucket/prefix".to_owned())?;
    match url.scheme() {
        "file" if url.host_str().is_some_and(|host| !host.is_empty()) => {
            Err("the path after file:// must be absolute: file:///data/lake has three slashes".to_owned())
        }
        "file" => Ok(()),
        "s3" | "s3a" if url.host_str().is_some_and(|host| !host.is_empty()) => Ok(()),
        "s3" | "s3a" => Err("the bucket is missing: s3://bucket/prefix".to_owned()),
        scheme @ ("gs" | "az" | "abfs" | "abfss" | "adl" | "azure") => {
            Err(format!("{scheme}:// is not available yet; file:// and s3:// are"))
        }
        scheme => Err(format!("`{scheme}` is not a scheme of a store; file:// and s3:// are")),
    }
}

/// A pattern must be able to match a name with so many dots.
fn dots(text: &str, least: usize) -> Result<(), String> {
    if text.contains('*') || text.matches('.').count() >= least {
        return Ok(());
    }
    let (form, example) = if least == 1 { ("schema.table", "shop.*") } else { ("schema.table.column", "*.email") };
    Err(format!("a pattern is over `{form}`, as in `{example}`"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_stores() {
        for (text, fine) in [
            ("file:///data/lake", true),
            ("file://data/lake", false),
            ("s3://bucket/a", true),
            ("s3:///a", false),
            ("gs://bucket", false),
            ("/data/lake", false),
            ("http://host/", false),
        ] {
            assert_eq!(store_url(text).is_ok(), fine, "{text}");
        }
    }

    #[test]
    fn patterns_must_be_able_to_match() {
        assert!(dots("shop.orders", 1).is_ok() && dots("shop*", 1).is_ok() && dots("orders", 1).is_err());
        assert!(dots("*.email", 2).is_ok() && dots("orders.email", 2).is_err());
    }
}
