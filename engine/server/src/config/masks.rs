//! Mistakes in masks that the schema does not know of: keys that are missing, in the way or not there.

use super::problem::{Problem, nearest};
use super::tree::{Node, Value};

/// The keys of a rule that some kinds of mask take, and what to write.
const PARAMETERS: [(&str, &str); 4] = [
    ("key", "write key: { env: NAME_OF_A_VARIABLE }, key: { file: /path/of/a/file } or the id of one of `keys`"),
    ("to", "write to: year, quarter, month, day or hour"),
    ("round", "write round: 100 to round, or noise: 0.1 for at most a tenth more or less"),
    ("noise", "write noise: 0.1 for at most a tenth more or less, or round: 100 to round"),
];

/// All mistakes in the masks of a stream. `keys` are those that the file names.
pub(super) fn check(stream: &Node, keys: Option<&Node>, problems: &mut Vec<Problem>) {
    let Some(mask) = stream.get("mask") else { return };
    for rule in mask.get("rules").unwrap_or(mask).items() {
        if let Some(with) = rule.get("with") {
            if ["columns", "names", "types"].iter().all(|name| rule.get(name).is_none()) {
                problems.push(
                    Problem::new(with.place, "a mask rule needs `columns`, `names` or `types`")
                        .help("`columns` are patterns such as \"*.email\", `names` a regular expression over the names of columns, `types` the source's types"),
                );
            }
            check_parameters(rule, with, problems);
        }
        if let Some(key) = rule.get("key") {
            check_id(key, keys, problems);
        }
    }
}

/// A kind of mask must have what it takes, and nothing else.
fn check_parameters(rule: &Node, with: &Node, problems: &mut Vec<Problem>) {
    let noisy = rule.get("noise").is_some();
    let (kind, needed): (&str, &[&str]) = match with.text() {
        Some(kind @ ("hash" | "tokenize")) => (kind, &["key"]),
        Some(kind @ "date") => (kind, &["to"]),
        Some(kind @ "number") if noisy => (kind, &["noise", "key"]),
        Some(kind @ "number") => (kind, &["round"]),
        Some(kind @ ("partial" | "email" | "null" | "keep")) => (kind, &[]),
        _ => return,
    };
    for (name, help) in PARAMETERS {
        match (rule.get(name), needed.contains(&name)) {
            (None, true) => {
                problems.push(Problem::new(with.place, format!("masking with `{kind}` needs a `{name}`")).help(help));
            }
            (Some(node), false) => {
                let beside = if kind == "number" && noisy { " beside `noise`" } else { "" };
                problems.push(Problem::new(node.place, format!("masking with `{kind}` takes no `{name}`{beside}")));
            }
            (Some(node), true) => check_number(name, node, problems),
            (None, false) => {}
        }
    }
}

fn check_number(name: &str, node: &Node, problems: &mut Vec<Problem>) {
    let Value::Number(number) = &node.value else { return };
    let Some(number) = number.as_f64() else { return };
    let wrong = match name {
        "round" => number.to_string().parse::<logweir_sql::Step>().err(),
        "noise" if !(number > 0.0 && number <= 1.0) => Some("it is a share, more than 0 and at most 1: 0.1 for a tenth"),
        _ => None,
    };
    // Of what is below zero the schema speaks.
    if let Some(rule) = wrong.filter(|_| number >= 0.0 && !(name == "noise" && number > 1.0)) {
        problems.push(Problem::new(node.place, format!("`{name}` has a value that is not possible: `{number}`")).help(rule));
    }
}

/// The id of a key must be there. It is not repeated: somebody may have written the key itself.
fn check_id(key: &Node, keys: Option<&Node>, problems: &mut Vec<Problem>) {
    let Some(id) = key.text() else { return };
    let ids: Vec<&str> = keys.map(Node::entries).unwrap_or_default().iter().map(|(key, _)| key.name.as_str()).collect();
    if ids.contains(&id) {
        return;
    }
    let help = match (nearest(id, ids.iter().copied()), ids.is_empty()) {
        (Some(nearest), _) => format!("did you mean `{nearest}`? keys are: {}", ids.join(", ")),
        (None, false) => format!("keys are: {}", ids.join(", ")),
        (None, true) => {
            "write { env: NAME_OF_A_VARIABLE } or { file: /path/of/a/file }, or add the key to `keys` at the top of the file".to_owned()
        }
    };
    problems.push(Problem::new(key.place, "`key` is neither a secret nor the id of one of `keys`").help(help));
}
