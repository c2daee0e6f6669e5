//! Which tables and columns a stream follows.

use std::fmt;

use crate::relation::RelationName;

/// A glob over dotted names: `*` stands for any run of characters (dots too), `?` for one character.
///
/// Matching is case-sensitive, as the names in a log are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern from its text.
    pub fn new(text: impl Into<String>) -> Self {
        Pattern(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if any of the patterns fits the table, as `schema.table`.
    pub fn any_matches(patterns: &[Pattern], table: &RelationName) -> bool {
        if patterns.is_empty() {
            return false;
        }
        let name = table.to_string();
        patterns.iter().any(|pattern| pattern.matches(&name))
    }

    /// True if the whole of `name` fits, whatever the case of letters.
    pub fn matches_any_case(&self, name: &str) -> bool {
        Pattern(self.0.to_lowercase()).matches(&name.to_lowercase())
    }

    /// True if the whole of `name` fits. Linear in pattern × name at worst, no recursion.
    pub fn matches(&self, name: &str) -> bool {
        let pattern: Vec<char> = self.0.chars().collect();
        let name: Vec<char> = name.chars().collect();
        let (mut p, mut n) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while n < name.len() {
            if p < pattern.len() && pattern[p] == '*' {
                star = Some((p, n));
                p += 1;
            } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == name[n]) {
                p += 1;
                n += 1;
            } else if let Some((star_p, star_n)) = star {
                p = star_p + 1;
                n = star_n + 1;
                star = Some((star_p, star_n + 1));
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|c| *c == '*')
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The tables of a stream: those that an `include` pattern names and no `exclude` pattern does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableFilter {
    /// Patterns over `schema.table`; empty means every table.
    pub include: Vec<Pattern>,
    /// Patterns over `schema.table`.
    pub exclude: Vec<Pattern>,
    /// Patterns over `schema.table.column`: columns that are never decoded. Whatever the case of letters: what is not to be read
    /// must not come because its name is written another way.
    pub exclude_columns: Vec<Pattern>,
    /// True if a column must be known by the name that it had when a change was logged, because something is hidden by its name: a source
    /// whose log has no names and that knows those of now alone must refuse the table's changes.
    pub exact_names: bool,
    /// Patterns over `schema.table`: tables whose updates are to be told with the whole row before, which is worth a warning where the
    /// source does not log it.
    pub before_images: Vec<Pattern>,
}

impl TableFilter {
    /// Every table and column.
    pub fn all() -> Self {
        TableFilter::default()
    }

    /// True if changes of the table are wanted.
    pub fn accepts(&self, name: &RelationName) -> bool {
        let name = name.to_string();
        (self.include.is_empty() || self.include.iter().any(|pattern| pattern.matches(&name)))
            && !self.exclude.iter().any(|pattern| pattern.matches(&name))
    }

    /// True if the column of an accepted table is wanted.
    pub fn accepts_column(&self, name: &RelationName, column: &str) -> bool {
        if self.exclude_columns.is_empty() {
            return true;
        }
        let name = format!("{name}.{column}");
        !self.exclude_columns.iter().any(|pattern| pattern.matches_any_case(&name))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("shop.*", "shop.orders", true),
            ("shop.*", "shopping.orders", false),
            ("shop_*.orders", "shop_7.orders", true),
            ("shop.order?", "shop.orders", true),
            ("shop.order?", "shop.order", false),
            ("*.email", "shop.customers.email", true),
            ("*.email", "shop.customers.email2", false),
            ("*", "a.b", true),
            ("", "", true),
            ("a*b*c", "a.xx.b.yy.c", true),
            ("a*b*c", "a.xx.c", false),
            ("*ü?", "shop.güß", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn exclusion_wins() {
        let filter = TableFilter {
            include: vec![Pattern::new("shop.*")],
            exclude: vec![Pattern::new("shop.tmp_*")],
            exclude_columns: vec![Pattern::new("*.card_number")],
            ..TableFilter::all()
        };
        assert!(filter.accepts(&RelationName::new("shop", "orders")));
        assert!(!filter.accepts(&RelationName::new("shop", "tmp_1")));
        assert!(!filter.accepts(&RelationName::new("other", "orders")));
        assert!(!filter.accepts_column(&RelationName::new("shop", "orders"), "card_number"));
        assert!(!filter.accepts_column(&RelationName::new("shop", "orders"), "Card_Number"));
        assert!(filter.accepts_column(&RelationName::new("shop", "orders"), "card"));
    }
}
