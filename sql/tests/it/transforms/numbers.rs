//! Numbers of several kinds side by side: what PostgreSQL 15 and MariaDB 10.11 make of the same expressions.

use std::sync::Arc;

use arrow::datatypes::DataType;
use expect_test::{Expect, expect};
use logweir_core::Relation;
use logweir_sql::{BadValue, SqlContext};

use super::changes::table;
use super::{applied, rule};

fn check(select: &str, changes: &str, expected: Expect) {
    let context = SqlContext { bad_value: BadValue::Quarantine, ..SqlContext::default() };
    expected.assert_eq(&applied(vec![rule(select)], context, &measures(), changes));
}

fn measures() -> Arc<Relation> {
    let columns = [
        ("id", DataType::Int32),
        ("d", DataType::Float64),
        ("r", DataType::Float32),
        ("n", DataType::Decimal128(20, 4)),
        ("w", DataType::Decimal128(38, 0)),
    ];
    table("shop.measures", 1, &columns, &["id"])
}

const DOUBLES: &str = "
    insert 1 | 0.5                | 0.5        | 0.5  | 1
    insert 2 | 1e-16              | 1e-20      | 0    | 2
    insert 3 | 0.3000000000000001 | 0.1        | 0.3  | 3
    insert 4 | 123456789.123456789| 16777217   | 1    | 4
    insert 5 | 1e300              | 1e20       | 9999999999999999.9999 | 5
    insert 6 | NaN                | inf        | -1   | 6
    insert 7 | NULL               | NULL       | NULL | NULL
";

#[test]
fn a_double_stays_one_beside_a_number_with_a_point() {
    for (condition, ids) in [
        ("d > 0.0", "1 2 3 4 5 6"),
        ("d <> 0.3", "1 2 3 4 5 6"),
        ("d = 0.5", "1"),
        ("d <> 0.0", "1 2 3 4 5 6"),
        ("r > 0.5", "4 5 6"),
        ("r = 0.1", ""),
        ("r <> 0.0", "1 2 3 4 5 6"),
        ("d IN (0.5, 0.3)", "1"),
        ("d BETWEEN 0.0 AND 0.5", "1 2 3"),
        ("d < 1e30", "1 2 3 4"),
        ("d < 1e300", "1 2 3 4"),
        ("d = 1e300", "5"),
        ("d > n", "2 3 4 5 6"),
        ("d = r", "1"),
        ("d IS DISTINCT FROM 0.5", "2 3 4 5 6 7"),
        ("-0.5 < -d", "2 3"),
        ("n > 0.25", "1 3 4 5"),
        ("n = 0.3", "3"),
        ("nullif(d, 0.5) IS NULL", "1 7"),
        ("CASE d WHEN 0.5 THEN 1 ELSE 0 END = 1", "1"),
        ("d + 0.5 = 1.0", "1"),
        ("r + 1 = 16777217", "4"),
    ] {
        let select = format!("SELECT id FROM measures WHERE {condition}");
        let made = applied(vec![rule(&select)], SqlContext::default(), &measures(), DOUBLES);
        let passed: Vec<&str> = made.lines().filter_map(|line| line.strip_prefix("INSERT ")).collect();
        assert_eq!(passed.join(" "), ids, "{condition}: {made}");
    }
    check(
        "SELECT id, coalesce(d, 0.0) AS a, CASE WHEN id = 1 THEN 0.0 ELSE d END AS b, greatest(d, n) AS c, r * 3 AS e FROM measures",
        DOUBLES,
        expect![[r#"
            shop.measures: id* Int32, a Float64, b Float64, c Float64, e Float64
            INSERT 1 | 0.5 | 0.0 | 0.5 | 1.5
            INSERT 2 | 1e-16 | 1e-16 | 1e-16 | 2.9999999047965676e-20
            INSERT 3 | 0.3000000000000001 | 0.3000000000000001 | 0.3000000000000001 | 0.30000000447034836
            INSERT 4 | 123456789.12345679 | 123456789.12345679 | 123456789.12345679 | 50331648.0
            INSERT 5 | 1e300 | 1e300 | 1e300 | 3.000000060122632e20
            INSERT 6 | NaN | NaN | NaN | inf
            INSERT 7 | 0.0 | NULL | NULL | NULL
        "#]],
    );
}

#[test]
fn what_has_too_many_digits_or_no_quotient_is_a_bad_value() {
    const WIDE: &str = "
        insert 1 | 1 | 0 | 1 | 60000000000000000000000000000000000000
        insert 2 | 0 | 1 | 0 | 99999999999999999999999999999999999999
        insert 3 | 1 | 1 | 1 | 1
        insert 4 | inf | 1 | 1 | NULL
    ";
    check(
        "SELECT id, w + w AS a FROM measures",
        WIDE,
        expect![[r#"
        logweir.quarantine: database Utf8, schema Utf8, table Utf8, rule Utf8, reason Utf8, row Utf8
        INSERT NULL | shop | measures | 1 shop.* | a: a number is too large | {"id":1} @1
        INSERT NULL | shop | measures | 1 shop.* | a: a number is too large | {"id":2} @2
        shop.measures: id* Int32, a Decimal128(38, 0)
        INSERT 3 | 2
        INSERT 4 | NULL
    "#]],
    );
    check(
        "SELECT id, w + 1 AS a FROM measures",
        WIDE,
        expect![[r#"
        logweir.quarantine: database Utf8, schema Utf8, table Utf8, rule Utf8, reason Utf8, row Utf8
        INSERT NULL | shop | measures | 1 shop.* | a: a number is too large | {"id":2} @2
        shop.measures: id* Int32, a Decimal128(38, 0)
        INSERT 1 | 60000000000000000000000000000000000001
        INSERT 3 | 2
        INSERT 4 | NULL
    "#]],
    );
    check(
        "SELECT id, -w - w AS a FROM measures",
        WIDE,
        expect![[r#"
        logweir.quarantine: database Utf8, schema Utf8, table Utf8, rule Utf8, reason Utf8, row Utf8
        INSERT NULL | shop | measures | 1 shop.* | a: a number is too large | {"id":1} @1
        INSERT NULL | shop | measures | 1 shop.* | a: a number is too large | {"id":2} @2
        shop.measures: id* Int32, a Decimal128(38, 0)
        INSERT 3 | -2
        INSERT 4 | NULL
    "#]],
    );
    check(
        "SELECT id, CAST(w + w AS VARCHAR) AS a FROM measures",
        WIDE,
        expect![[r#"
        logweir.quarantine: database Utf8, schema Utf8, table Utf8, rule Utf8, reason Utf8, row Utf8
        INSERT NULL | shop | measures | 1 shop.* | a: a number is too large | {"id":1} @1
        INSERT NULL | shop | measures | 1 shop.* | a: a number is too large | {"id":2} @2
        shop.measures: id* Int32, a Utf8
        INSERT 3 | 2
        INSERT 4 | NULL
    "#]],
    );
    check(
        "SELECT id, 1 / d AS a, d / 2 AS b FROM measures",
        WIDE,
        expect![[r#"
        logweir.quarantine: database Utf8, schema Utf8, table Utf8, rule Utf8, reason Utf8, row Utf8
        INSERT NULL | shop | measures | 1 shop.* | a: division by zero | {"id":2} @2
        shop.measures: id* Int32, a Float64, b Float64
        INSERT 1 | 1.0 | 0.5
        INSERT 3 | 1.0 | 0.5
        INSERT 4 | 0.0 | inf
    "#]],
    );
    check(
        "SELECT id, d / r AS a, d % r AS b FROM measures",
        WIDE,
        expect![[r#"
        logweir.quarantine: database Utf8, schema Utf8, table Utf8, rule Utf8, reason Utf8, row Utf8
        INSERT NULL | shop | measures | 1 shop.* | a: division by zero | {"id":1} @1
        shop.measures: id* Int32, a Float64, b Float64
        INSERT 2 | 0.0 | 0.0
        INSERT 3 | 1.0 | 0.0
        INSERT 4 | inf | NaN
    "#]],
    );
}

#[test]
fn arrows_are_of_the_last_operand() {
    let documents = table("shop.documents", 1, &[("id", DataType::Int32), ("doc", DataType::Utf8), ("name", DataType::Utf8)], &["id"]);
    const ROWS: &str = r#"
        insert 1 | {"a": "x%", "b": "5"} | xyz
        insert 2 | {"a": "y", "b": "1"} | xyz
    "#;
    for (condition, ids) in [
        ("name LIKE doc->>'a'", "1"),
        ("name NOT LIKE doc->>'a'", "2"),
        ("name IS DISTINCT FROM doc->>'a'", "1 2"),
        ("'y' IS NOT DISTINCT FROM doc->>'a'", "2"),
        ("'3' BETWEEN '0' AND doc->>'b'", "1"),
        ("doc->>'b' BETWEEN '2' AND '6'", "1"),
    ] {
        let select = format!("SELECT id FROM documents WHERE {condition}");
        let made = applied(vec![rule(&select)], SqlContext::default(), &documents, ROWS);
        let passed: Vec<&str> = made.lines().filter_map(|line| line.strip_prefix("INSERT ")).collect();
        assert_eq!(passed.join(" "), ids, "{condition}: {made}");
    }
}
