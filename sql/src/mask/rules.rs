//! Which columns a mask rule is for.

use std::collections::HashMap;
use std::fmt;

use logweir_core::{Column, Error, Pattern, Result};
use regex::{Regex, RegexBuilder};

use super::{Mask, MaskKind};

/// The key of a masked column's field metadata that says the kind of mask.
pub const MASK: &str = "logweir.mask";
/// The same for the id of the key that was used, if it has one.
const MASK_KEY: &str = "logweir.mask_key";

/// A regular expression over the names of columns: over the whole name, whatever the case of its letters.
#[derive(Clone)]
pub struct ColumnNames(Regex, String);

impl ColumnNames {
    /// An expression from its text. The error is what is wrong with it, in one line.
    pub fn new(text: &str) -> std::result::Result<Self, String> {
        // First as it stands: within a group a stray parenthesis would be another mistake, or none.
        let regex = |text: &str| RegexBuilder::new(text).case_insensitive(true).dot_matches_new_line(true).build();
        let whole = regex(text).and_then(|_| regex(&format!("^(?:{text})$"))).map_err(|error| {
            let words = error.to_string();
            let last = words.lines().last().unwrap_or_default();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        })?;
        Ok(ColumnNames(whole, text.to_owned()))
    }

    fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

impl fmt::Debug for ColumnNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.1)
    }
}

/// Columns, and what becomes of them. Of several rules that are for a column the first holds.
///
/// What a rule says of its columns must hold together; what it does not say holds for every column.
#[derive(Debug, Clone)]
pub struct MaskRule {
    /// Patterns over `schema.table.column`; any of them. Whatever the case of their letters where the rule hides: some sources rename a
    /// column in its case alone, and nobody notices.
    pub columns: Vec<Pattern>,
    /// The names of columns.
    pub names: Option<ColumnNames>,
    /// Patterns over the source's types, such as `varchar*`, whatever the case of their letters; any of them.
    pub types: Vec<Pattern>,
    /// What becomes of the values. NULL stays NULL under every mask.
    pub with: MaskKind,
}

impl MaskRule {
    /// A rule for the columns that any of `columns` matches.
    pub fn new(columns: Vec<Pattern>, with: MaskKind) -> Self {
        MaskRule { columns, names: None, types: Vec::new(), with }
    }
}

/// A rule that is ready, and what of it has been for a column so far.
pub(super) struct Rule {
    columns: Vec<(Pattern, bool)>,
    names: Option<ColumnNames>,
    types: Vec<(Pattern, bool)>,
    matched: bool,
    pub(super) kind: &'static str,
    key_id: Option<String>,
    /// `None` if the values are kept.
    pub(super) mask: Option<Mask>,
}

impl Rule {
    pub(super) fn new(MaskRule { columns, names, types, with }: MaskRule) -> Result<Self> {
        if columns.is_empty() && names.is_none() && types.is_empty() {
            return Err(Error::config("a mask rule must name columns").context("mask", with.name()));
        }
        Ok(Rule {
            columns: columns.into_iter().map(|pattern| (pattern, false)).collect(),
            names,
            types: types.iter().map(|pattern| (Pattern::new(pattern.as_str().to_lowercase()), false)).collect(),
            matched: false,
            kind: with.name(),
            key_id: with.key_id().map(str::to_owned),
            mask: Mask::new(&with)?,
        })
    }

    /// True if the rule is for a column with this full name; what of it says so is marked.
    pub(super) fn is_for(&mut self, name: &str, column: &Column) -> bool {
        let hides = self.mask.is_some();
        // Where the log does not say it, or the type has several names, one that is hidden is taken for granted, and one that is kept is not.
        let names = std::iter::once(column.source_type.as_str()).chain(column.may_be().filter(|_| hides));
        let names: Vec<String> = if self.types.is_empty() { Vec::new() } else { names.map(str::to_lowercase).collect() };
        let is_of = |pattern: &Pattern| names.iter().any(|name| pattern.matches(name));
        if self.names.as_ref().is_some_and(|names| !names.matches(column.name()))
            || !self.types.is_empty() && !self.types.iter().any(|(pattern, _)| is_of(pattern))
        {
            return false;
        }
        let mut holds = self.columns.is_empty();
        for (pattern, matched) in &mut self.columns {
            if if hides { pattern.matches_any_case(name) } else { pattern.matches(name) } {
                *matched = true;
                holds = true;
            }
        }
        for (pattern, matched) in self.types.iter_mut().filter(|_| holds) {
            *matched |= is_of(pattern);
        }
        self.matched |= holds;
        holds
    }

    /// What has been for no column so far: patterns, or the rule as a whole if it has none.
    pub(super) fn unmatched(&self) -> impl Iterator<Item = String> {
        let whole = (self.columns.is_empty() && !self.matched).then(|| self.places());
        let columns = self.columns.iter().filter(|(_, matched)| !matched).map(|(pattern, _)| pattern.to_string());
        let types = self.types.iter().filter(|(_, matched)| self.matched && !matched).map(|(pattern, _)| format!("types {pattern}"));
        columns.chain(types).chain(whole)
    }

    /// What the field of a masked column says of itself.
    pub(super) fn said(&self) -> HashMap<String, String> {
        let kind = (MASK.to_owned(), self.kind.to_owned());
        std::iter::once(kind).chain(self.key_id.iter().map(|id| (MASK_KEY.to_owned(), id.clone()))).collect()
    }

    fn places(&self) -> String {
        let list = |patterns: &mut dyn Iterator<Item = &Pattern>| patterns.map(Pattern::as_str).collect::<Vec<_>>().join(" ");
        let mut places = Vec::new();
        if !self.columns.is_empty() {
            places.push(list(&mut self.columns.iter().map(|(pattern, _)| pattern)));
        }
        places.extend(self.names.as_ref().map(|names| format!("names {names:?}")));
        if !self.types.is_empty() {
            places.push(format!("types {}", list(&mut self.types.iter().map(|(pattern, _)| pattern))));
        }
        places.join(" ")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {}", self.places(), self.kind)
    }
}
