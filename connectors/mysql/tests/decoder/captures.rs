//! Recordings of every type and every kind of change, beside the output they must give.
//!
//! The outputs were compared with what the servers answered to SELECT (the `.select` files); `UPDATE_EXPECT=1` writes
//! them anew.

use logweir_core::{LogEvent, Pattern, TableFilter};
use logweir_mysql::decoder::DecoderOptions;

use crate::text::{decode, path, read, render};

pub(crate) const DECODED: [&str; 13] = [
    "mariadb-10.11/types",
    "mariadb-10.11/types-compressed",
    "mariadb-10.11/changes",
    "mariadb-10.11/image-minimal",
    "mariadb-10.11/image-noblob",
    "mariadb-10.11/old-temporals",
    "mariadb-10.11/rolled-back",
    "mariadb-10.11/no-checksum",
    "mysql-9.7/types",
    "mysql-9.7/types-compressed",
    "mysql-9.7/changes",
    "mysql-9.7/image-minimal",
    "mysql-9.7/image-noblob",
];

#[test]
fn golden_output() {
    for capture in DECODED {
        let (events, result) = decode(&read(capture), DecoderOptions::default());
        result.unwrap_or_else(|error| panic!("{capture}: {error:?}"));
        expect_test::expect_file![path(capture, "expected")].assert_eq(&render(&events, true));
    }
}

#[test]
fn how_a_log_is_written_changes_nothing_but_places() {
    let strip = |capture: &str| {
        let (events, _) = decode(&read(capture), DecoderOptions::default());
        let text = render(&events, false);
        text.lines().filter(|line| line.starts_with("  ")).map(|line| format!("{line}\n")).collect::<String>()
    };
    for server in ["mariadb-10.11", "mysql-9.7"] {
        assert_eq!(strip(&format!("{server}/types")), strip(&format!("{server}/types-compressed")));
    }
    assert_eq!(strip("mariadb-10.11/image-noblob").lines().count(), strip("mariadb-10.11/no-checksum").lines().count());
}

#[test]
fn what_cannot_be_carried_is_told() {
    for (capture, message) in [
        // A recording with what a server logs by default has no names.
        ("mariadb-10.11/types-minimal", "the binlog does not say the names of a table's columns"),
        ("mysql-9.7/types-minimal", "the binlog does not say the names of a table's columns"),
        ("mysql-9.7/partial-json", "the binlog holds parts of JSON documents"),
        ("mariadb-10.11/statement", "the binlog holds a statement instead of the rows it changed"),
        ("mysql-9.7/statement", "the binlog holds a statement instead of the rows it changed"),
        ("mariadb-10.11/load-data", "the binlog holds a statement instead of the rows it changed"),
        ("mysql-9.7/load-data", "the binlog holds a statement instead of the rows it changed"),
        ("mariadb-10.11/xa", "changes of a table come in an XA transaction"),
        ("mysql-9.7/xa", "changes of a table come in an XA transaction"),
        ("mariadb-10.11/zero-date", "zero date"),
        ("mysql-9.7/zero-date", "zero date"),
    ] {
        let (_, result) = decode(&read(capture), DecoderOptions::default());
        let error = result.unwrap_err();
        assert!(error.to_string().starts_with(message), "{capture}: {error}");
        assert_eq!(error.get_context("file"), Some("types.000001"));
        assert!(error.get_context("position").is_some(), "{error}");
        assert!(error.get_remedy().is_some() || error.kind() == logweir_core::ErrorKind::Data, "{error}");
        if error.kind() == logweir_core::ErrorKind::Data {
            assert_eq!((error.get_context("relation"), error.get_context("column")), (Some("t.zero"), Some("d")));
        }
    }
}

#[test]
fn an_error_comes_after_what_was_whole() {
    let (events, result) = decode(&read("mysql-9.7/partial-json"), DecoderOptions::default());
    assert!(result.is_err());
    let rows: usize = events.iter().map(|event| if let LogEvent::Changes(batch) = event { batch.rows() } else { 0 }).sum();
    assert_eq!(rows, 1);
    assert!(matches!(events.last(), Some(LogEvent::Mark(_))));
}

#[test]
fn tables_and_columns_are_left_out() {
    let tables = TableFilter {
        include: vec![Pattern::new("t.keyed"), Pattern::new("t.composite")],
        exclude: vec![],
        exclude_columns: vec![Pattern::new("t.keyed.a"), Pattern::new("*.v")],
        ..TableFilter::all()
    };
    let options = DecoderOptions { tables, ..DecoderOptions::default() };
    let (events, result) = decode(&read("mysql-9.7/changes"), options);
    result.unwrap();
    let text = render(&events, false);
    assert!(!text.contains("keyless") && !text.contains("  a = one") && !text.contains("  v "), "{text}");
    assert!(text.contains("t.keyed v3"));
    let options = DecoderOptions {
        tables: TableFilter { exclude_columns: vec![Pattern::new("t.keyed.id")], ..TableFilter::all() },
        ..DecoderOptions::default()
    };
    let error = decode(&read("mysql-9.7/changes"), options).1.unwrap_err();
    assert!(error.to_string().starts_with("a column of a table's key is left out"), "{error}");
}
