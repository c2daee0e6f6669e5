//! The SQL in the file: what is wrong with it on its face, and where in the file a place in it lies.

use logweir_core::Pattern;
use logweir_sql::{SqlContext, SqlPlace, SqlProblem, SqlRule, SqlTransform};

use super::problem::{Place, Problem};
use super::tree::Node;

/// All mistakes of the kind: what can be told without the tables.
pub(super) fn check(root: &Node, text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let streams = root.get("streams").map(Node::entries).unwrap_or_default().iter().map(|(_, stream)| stream);
    let owners = streams.flat_map(|stream| std::iter::once(stream).chain(stream.get("destinations").map(Node::items).unwrap_or_default()));
    for owner in owners {
        let rules = owner.get("transforms").map(Node::items).unwrap_or_default();
        // What lacks its SQL has been found already.
        let whole: Vec<(&Node, &Node)> = rules.iter().filter_map(|rule| Some((rule, rule.get("sql")?))).collect();
        let parsed = whole.iter().map(|(rule, sql)| SqlRule {
            into: rule.get("into").and_then(Node::text).map(str::to_owned),
            ..SqlRule::new(Pattern::new("*"), sql.text().unwrap_or_default())
        });
        if let Err(found) = SqlTransform::new(parsed.collect(), SqlContext::default()) {
            for problem in found {
                let Some((rule, sql)) = whole.get(problem.rule) else { continue };
                let into = if problem.place.is_none() && problem.message.starts_with("`into") { rule.get("into") } else { None };
                problems.push(shown(&problem, into.unwrap_or(sql), text));
            }
        }
    }
    problems
}

/// A problem of a rule as one of the file. `node` is the rule's SQL.
pub(super) fn shown(problem: &SqlProblem, node: &Node, text: &str) -> Problem {
    let place = problem.place.and_then(|place| place_of(node, place, text)).unwrap_or(Place { length: 1, ..node.place });
    let mut shown = Problem::new(place, &problem.message);
    if let Some(help) = &problem.help {
        shown = shown.help(help);
    }
    shown
}

/// Where in the file a place in a text of it lies.
///
/// YAML writes a text in many ways: in one line or folded over several, indented, in quotes. All of them leave alone what is
/// not blank, so the characters that are not blank are counted.
fn place_of(node: &Node, place: SqlPlace, file: &str) -> Option<Place> {
    let sql = node.text()?;
    let line = sql.split('\n').nth(place.line - 1)?;
    let before: usize = sql.split('\n').take(place.line - 1).map(visible).sum();
    let wanted = before + visible(&line.chars().take(place.column - 1).collect::<String>());
    let expected = sql.chars().filter(|c| !c.is_whitespace()).nth(wanted)?;

    let mut lines = file.split('\n').skip(node.place.line - 1);
    let first: String = lines.next()?.chars().skip(node.place.column - 1).collect();
    let (mut number, mut column) = (node.place.line, node.place.column);
    let mut rest = std::iter::once(first).chain(lines.map(str::to_owned));
    let mut current = rest.next()?;
    let quote = match current.chars().next() {
        Some('|' | '>') => {
            current = rest.next()?;
            (number, column) = (number + 1, 1);
            None
        }
        Some(quote @ ('"' | '\'')) => {
            current = current.chars().skip(1).collect();
            column += 1;
            Some(quote)
        }
        _ => None,
    };
    let mut seen = 0;
    loop {
        let mut characters = current.chars().peekable();
        while let Some(character) = characters.next() {
            let escape = match quote {
                Some('"') => character == '\\',
                Some(_) => character == '\'' && characters.peek() == Some(&'\''),
                None => false,
            };
            if escape || character.is_whitespace() {
                column += 1;
                continue;
            }
            if seen == wanted {
                // Anything else and the count has gone wrong: better no place than a wrong one.
                return (character == expected).then_some(Place { line: number, column, length: place.length });
            }
            seen += 1;
            column += 1;
        }
        current = rest.next()?;
        (number, column) = (number + 1, 1);
    }
}

fn visible(text: &str) -> usize {
    text.chars().filter(|c| !c.is_whitespace()).count()
}
