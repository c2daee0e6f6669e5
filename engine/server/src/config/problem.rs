//! A mistake in the configuration, and how it is shown: place, the line itself, a caret, and what is allowed.

use std::fmt::Write as _;

/// A place in the file: line and column from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) length: usize,
}

impl Place {
    /// Where a file begins.
    pub(crate) const START: Place = Place { line: 1, column: 1, length: 1 };
}

/// A mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) place: Place,
    /// What is wrong.
    pub(crate) message: String,
    /// What is allowed or what to do.
    pub(crate) help: Option<String>,
}

impl Problem {
    pub(crate) fn new(place: Place, message: impl Into<String>) -> Self {
        Problem { place, message: message.into(), help: None }
    }

    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// All mistakes of a file.
#[derive(Debug)]
pub(crate) struct Problems {
    /// The file, as it is named in messages.
    pub(crate) file: String,
    pub(crate) problems: Vec<Problem>,
    lines: Vec<String>,
}

/// A line longer than this is shown around the caret only.
const SNIPPET_CHARACTERS_MAX: usize = 120;

impl Problems {
    /// The mistakes `problems` of the file `file` with the content `text`. `hidden` are the places of clear secrets,
    /// which must not be shown even though somebody wrote them into the file.
    pub(crate) fn new(file: &str, text: &str, mut problems: Vec<Problem>, hidden: &[Place]) -> Self {
        problems.sort_by_key(|problem| problem.place);
        for problem in &mut problems {
            problem.message = super::clear::redacted(&problem.message);
            problem.help = problem.help.as_deref().map(super::clear::redacted);
        }
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for place in hidden {
            if let Some(line) = lines.get_mut(place.line - 1) {
                let end = place.column - 1 + place.length;
                *line = line
                    .chars()
                    .enumerate()
                    .map(|(i, character)| if (place.column - 1..end).contains(&i) { '*' } else { character })
                    .collect();
            }
        }
        Problems { file: file.to_owned(), problems, lines }
    }

    /// A file that could not be read at all.
    pub(crate) fn unreadable(file: &str, error: &std::io::Error) -> Self {
        let problem = Problem::new(Place::START, format!("could not read the file: {error}"));
        Problems { file: file.to_owned(), problems: vec![problem], lines: Vec::new() }
    }

    /// The text for a person.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        for problem in &self.problems {
            self.render_one(problem, &mut text);
        }
        let count = self.problems.len();
        let _ = writeln!(text, "{count} {} in {}", if count == 1 { "mistake" } else { "mistakes" }, self.file);
        text
    }

    /// A line of the file with a caret under the place.
    pub(crate) fn render_place(&self, place: Place) -> String {
        let mut text = String::new();
        self.write_place(place, &mut text);
        text
    }

    fn render_one(&self, problem: &Problem, text: &mut String) {
        let _ = writeln!(text, "error: {}", problem.message);
        self.write_place(problem.place, text);
        if let Some(help) = &problem.help {
            let _ = writeln!(text, " = {help}");
        }
        text.push('\n');
    }

    fn write_place(&self, Place { line, column, length }: Place, text: &mut String) {
        if let Some(source) = self.lines.get(line - 1) {
            let _ = writeln!(text, " --> {}:{line}:{column}", self.file);
            let number = line.to_string();
            let margin = " ".repeat(number.len());
            let (source, start) = around(source, column - 1);
            let carets = length.min(source.chars().count().saturating_sub(start)).max(1);
            let _ = writeln!(text, "{margin} |");
            let _ = writeln!(text, "{number} | {source}");
            let _ = writeln!(text, "{margin} | {}{}", " ".repeat(start), "^".repeat(carets));
        } else if !self.lines.is_empty() {
            let _ = writeln!(text, " --> {}:{line}:{column}", self.file);
        }
    }
}

/// The part of a line around a character, and where that character stands in it.
fn around(line: &str, at: usize) -> (String, usize) {
    // A tab would put the caret elsewhere on the screen.
    let characters: Vec<char> = line.chars().map(|c| if c == '\t' { ' ' } else { c }).collect();
    if characters.len() <= SNIPPET_CHARACTERS_MAX {
        return (characters.into_iter().collect(), at);
    }
    let start = at.saturating_sub(SNIPPET_CHARACTERS_MAX / 3).min(characters.len() - 1);
    let end = (start + SNIPPET_CHARACTERS_MAX).min(characters.len());
    (characters[start..end].iter().collect(), at - start)
}

/// The name that was probably meant, if one is near.
pub(crate) fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong_lower = wrong.to_lowercase();
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&wrong_lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= (name.chars().count().max(wrong.chars().count()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
