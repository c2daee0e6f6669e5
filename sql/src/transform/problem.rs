//! What is wrong with a rule, and where in its SQL.

use std::fmt;

use datafusion::common::{DataFusionError, Span as PlanSpan};
use datafusion::sql::sqlparser::tokenizer::Span;
use logweir_core::Error;

/// A place in the SQL of a rule: line and column from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SqlPlace {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
    /// How many characters; those of the first line, where it goes over several.
    pub length: usize,
}

/// Why a rule cannot be, or does not fit a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlProblem {
    /// The rule, by its place in the list.
    pub rule: usize,
    /// Where in its SQL; `None` where it is about the rule as a whole.
    pub place: Option<SqlPlace>,
    /// What is wrong: a sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl fmt::Display for SqlProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(place) = self.place {
            write!(f, " (line {}, column {} of the SQL)", place.line, place.column)?;
        }
        Ok(())
    }
}

/// The same while the number of the rule is not at hand.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(super) place: Option<SqlPlace>,
    pub(crate) message: String,
    pub(super) help: Option<String>,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Fault { place: None, message: message.into(), help: None }
    }

    pub(super) fn at(message: impl Into<String>, span: Span) -> Self {
        Fault { place: place(span), message: message.into(), help: None }
    }

    /// What an error says, about the rule as a whole.
    pub(super) fn of(error: &Error) -> Self {
        let report = error.report();
        let help = error.get_remedy().map(str::to_owned);
        let message = help.as_ref().and_then(|help| report.strip_suffix(&format!("; {help}"))).unwrap_or(&report).to_owned();
        Fault { place: None, message, help }
    }

    #[must_use]
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// What DataFusion says about an expression that stands at `span`.
    pub(super) fn of_plan(error: &DataFusionError, span: Span) -> Self {
        let mut fault = match error.diagnostic() {
            Some(diagnostic) => {
                let mut fault = Fault::new(without_full_stop(&diagnostic.message));
                fault.place = diagnostic.span.and_then(plan_place);
                let hints = diagnostic.helps.iter().map(|help| &help.message).chain(diagnostic.notes.iter().map(|note| &note.message));
                fault.help = hint(&hints.map(String::as_str).collect::<Vec<_>>());
                fault
            }
            None => Fault::new(words(error)),
        };
        fault.place = fault.place.or_else(|| place(span));
        fault
    }

    /// What the parser says; it names places in words.
    pub(super) fn of_parser(error: &DataFusionError, sql: &str) -> Self {
        let words = words(error);
        if words.contains("single SQL statement") || words.contains("no SQL statements") {
            return Fault::new("a transform is one SELECT");
        }
        if words.contains("ecursionLimitExceeded") {
            return Fault::new("parentheses or calls are nested too deep");
        }
        let Some((message, at)) = words.rsplit_once(" at Line: ") else {
            // It ended too early.
            let mut fault = Fault::new(words);
            let line = sql.lines().count().max(1);
            let column = sql.lines().last().unwrap_or_default().chars().count() + 1;
            fault.place = Some(SqlPlace { line, column, length: 1 });
            return fault;
        };
        let mut numbers = at.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).map(str::parse);
        let place = match (numbers.next(), numbers.next()) {
            (Some(Ok(line)), Some(Ok(column))) => Some(SqlPlace { line, column, length: 1 }),
            _ => None,
        };
        Fault { place, message: without_full_stop(message), help: None }
    }

    pub(super) fn problem(self, rule: usize) -> SqlProblem {
        SqlProblem { rule, place: self.place, message: self.message, help: self.help }
    }
}

/// What DataFusion says, without the name of its error: the root alone, for the way there repeats it.
fn words(error: &DataFusionError) -> String {
    let text = error.find_root().strip_backtrace();
    let mut text = text.as_str();
    while let Some(rest) = KINDS.iter().find_map(|kind| text.strip_prefix(kind)) {
        text = rest;
    }
    let text = text.strip_prefix("ParserError(\"").or_else(|| text.strip_prefix("TokenizerError(\"")).unwrap_or(text);
    let text = text.strip_suffix("\")").unwrap_or(text).replace("\\\"", "\"");
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    // What the parser made of the SQL is shown by its place.
    let first = if first.contains("Span(") {
        first.split_once(" {").and_then(|(said, _)| said.rsplit_once(' ')).map_or(first, |(said, _)| said)
    } else {
        first
    };
    // A pattern is shown with marks under it, and then what is wrong with it.
    match lines.next_back().and_then(|last| last.strip_prefix("error: ")) {
        Some(last) => format!("{} {}", without_full_stop(first), without_full_stop(last)),
        None => without_full_stop(first),
    }
}

/// What errors say of themselves before they say what is wrong.
const KINDS: [&str; 7] = [
    "Error during planning: ",
    "This feature is not implemented: ",
    "Execution error: ",
    "External error: ",
    "Arrow error: ",
    "Cast error: ",
    "SQL error: ",
];

/// What DataFusion suggests, as a sentence.
fn hint(hints: &[&str]) -> Option<String> {
    /// More than these are no help.
    const HINTS_MAX: usize = 8;
    let after = |start: &str| hints.iter().filter_map(|hint| hint.strip_prefix(start)).take(HINTS_MAX).collect::<Vec<_>>();
    let (columns, types) = (after("possible column "), after("has type "));
    match (columns.as_slice(), types.as_slice()) {
        ([.., _], _) => Some(format!("did you mean {}?", columns.join(" or "))),
        ([], [one, other]) => Some(format!("one is {one}, the other {other}: make them of one type with CAST")),
        _ => Some(hints.join("; ")).filter(|hints| !hints.is_empty()),
    }
}

fn without_full_stop(text: &str) -> String {
    let text = text.trim().trim_end_matches('.').trim_end();
    let mut characters = text.chars();
    match characters.next() {
        // A sentence of ours goes on after a name, so it begins small; an abbreviation stays.
        Some(first) if characters.as_str().chars().next().is_some_and(char::is_lowercase) => {
            first.to_lowercase().collect::<String>() + characters.as_str()
        }
        _ => text.to_owned(),
    }
}

fn place(span: Span) -> Option<SqlPlace> {
    (span.start.line > 0).then(|| located(span.start.line, span.start.column, span.end.line, span.end.column))
}

fn plan_place(span: PlanSpan) -> Option<SqlPlace> {
    (span.start.line > 0).then(|| located(span.start.line, span.start.column, span.end.line, span.end.column))
}

fn located(line: u64, column: u64, end_line: u64, end_column: u64) -> SqlPlace {
    let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let length = if end_line == line { whole(end_column.saturating_sub(column)) } else { 1 };
    SqlPlace { line: whole(line), column: whole(column), length: length.max(1) }
}
