//! Names and texts in statements.

use logweir_core::RelationName;

/// A name as an identifier: `"a ""b"""`.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as a literal. Backslashes mean themselves whatever `standard_conforming_strings` says.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// `"schema"."table"`.
pub(crate) fn relation(name: &RelationName) -> String {
    format!("{}.{}", identifier(&name.schema), identifier(&name.table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes() {
        assert_eq!(identifier("we\"ird"), "\"we\"\"ird\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\'b"), r"E'a\\''b'");
        assert_eq!(relation(&RelationName::new("s", "T")), "\"s\".\"T\"");
    }
}
