//! Rows look values up in reference tables.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray, StringViewArray,
};
use arrow::datatypes::{DataType, Int32Type};
use expect_test::{Expect, expect};
use logweir_core::{Relation, Transform};
use logweir_sql::{Reference, References, SqlContext, SqlTransform};

use super::changes::{batch, changes, printed, table};
use super::{applied, refused, rule, transform};

fn text(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn rows(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

fn countries() -> RecordBatch {
    rows(vec![
        ("code", text(&[Some("de"), Some("fr"), None, Some("it")])),
        ("label", text(&[Some("Germany"), Some("France"), Some("Nowhere"), None])),
        ("number", Arc::new(Int64Array::from(vec![Some(49), Some(33), None, Some(39)]))),
        ("active", Arc::new(BooleanArray::from(vec![Some(true), Some(false), Some(true), None]))),
    ])
}

fn regions() -> RecordBatch {
    rows(vec![
        ("country", text(&[Some("de"), Some("de"), Some("fr")])),
        ("Zone", Arc::new(Int32Array::from(vec![1, 2, 1]))),
        ("boss", text(&[Some("ada"), Some("bob"), Some("cid")])),
    ])
}

fn context() -> SqlContext {
    let references = References::from_iter([Reference::new("countries", countries()), Reference::new("regions", regions())]);
    SqlContext { references, ..SqlContext::default() }
}

fn orders() -> Arc<Relation> {
    table("shop.orders", 1, &[("id", DataType::Int32), ("country", DataType::Utf8), ("zone", DataType::Int32)], &["id"])
}

const ROWS: &str = "
    insert 1 | de | 2
    update 2 | fr | 1
    insert 3 | xx | 1
    insert 4 | NULL | 1
    insert 5 | it | NULL
    insert 6 | de | 49
    delete 1 | de | 2
    delete 2 | ~ | ~
    update 3 | ~ | 7
    truncate
";

fn check(sql: &str, expected: Expect) {
    expected.assert_eq(&applied(vec![rule(sql)], context(), &orders(), ROWS));
}

/// The same without the update that lacks a value.
fn check_whole(sql: &str, expected: Expect) {
    expected.assert_eq(&applied(vec![rule(sql)], context(), &orders(), &ROWS.replace("update 3 | ~ | 7", "")));
}

#[test]
fn a_row_without_a_match_has_null() {
    check(
        "SELECT o.id, c.label FROM orders o LEFT JOIN countries c ON o.country = c.code",
        expect![[r#"
        shop.orders: id* Int32, label Utf8
        INSERT 1 | Germany
        UPDATE-INSERT 2 | France
        INSERT 3 | NULL
        INSERT 4 | NULL
        INSERT 5 | NULL
        INSERT 6 | Germany
        DELETE 1 | Germany
        DELETE 2 | ~
        UPDATE-INSERT 3 | ~
        TRUNCATE NULL | NULL
    "#]],
    );
    check(
        "SELECT o.*, label, c.number AS n FROM orders o LEFT OUTER JOIN countries AS c ON c.code = o.country",
        expect![[r#"
        shop.orders: id* Int32, country Utf8, zone Int32, label Utf8, n Int64
        INSERT 1 | de | 2 | Germany | 49
        UPDATE-INSERT 2 | fr | 1 | France | 33
        INSERT 3 | xx | 1 | NULL | NULL
        INSERT 4 | NULL | 1 | NULL | NULL
        INSERT 5 | it | NULL | NULL | 39
        INSERT 6 | de | 49 | Germany | 49
        DELETE 1 | de | 2 | Germany | 49
        DELETE 2 | ~ | ~ | ~ | ~
        UPDATE-INSERT 3 | ~ | 7 | ~ | ~
        TRUNCATE NULL | NULL | NULL | NULL | NULL
    "#]],
    );
    check(
        "SELECT * EXCEPT (code, active) FROM orders o LEFT JOIN countries c ON o.country = c.code",
        expect![[r#"
        shop.orders: id* Int32, country Utf8, zone Int32, label Utf8, number Int64
        INSERT 1 | de | 2 | Germany | 49
        UPDATE-INSERT 2 | fr | 1 | France | 33
        INSERT 3 | xx | 1 | NULL | NULL
        INSERT 4 | NULL | 1 | NULL | NULL
        INSERT 5 | it | NULL | NULL | 39
        INSERT 6 | de | 49 | Germany | 49
        DELETE 1 | de | 2 | Germany | 49
        DELETE 2 | ~ | ~ | ~ | ~
        UPDATE-INSERT 3 | ~ | 7 | ~ | ~
        TRUNCATE NULL | NULL | NULL | NULL | NULL
    "#]],
    );
    check(
        "SELECT o.id, c.* EXCLUDE (number) FROM orders o LEFT JOIN countries c ON o.country = c.code",
        expect![[r#"
        shop.orders: id* Int32, code Utf8, label Utf8, active Boolean
        INSERT 1 | de | Germany | true
        UPDATE-INSERT 2 | fr | France | false
        INSERT 3 | NULL | NULL | NULL
        INSERT 4 | NULL | NULL | NULL
        INSERT 5 | it | NULL | NULL
        INSERT 6 | de | Germany | true
        DELETE 1 | de | Germany | true
        DELETE 2 | ~ | ~ | ~
        UPDATE-INSERT 3 | ~ | ~ | ~
        TRUNCATE NULL | NULL | NULL | NULL
    "#]],
    );
}

#[test]
fn keys_are_compared_as_sql_compares_them() {
    check(
        "SELECT id, label FROM orders LEFT JOIN countries ON zone = number",
        expect![[r#"
        shop.orders: id* Int32, label Utf8
        INSERT 1 | NULL
        UPDATE-INSERT 2 | NULL
        INSERT 3 | NULL
        INSERT 4 | NULL
        INSERT 5 | NULL
        INSERT 6 | Germany
        DELETE 1 | NULL
        DELETE 2 | ~
        UPDATE-INSERT 3 | NULL
        TRUNCATE NULL | NULL
    "#]],
    );
    check(
        "SELECT id, label FROM orders LEFT JOIN countries ON upper(country) = upper(code)",
        expect![[r#"
        shop.orders: id* Int32, label Utf8
        INSERT 1 | Germany
        UPDATE-INSERT 2 | France
        INSERT 3 | NULL
        INSERT 4 | NULL
        INSERT 5 | NULL
        INSERT 6 | Germany
        DELETE 1 | Germany
        DELETE 2 | ~
        UPDATE-INSERT 3 | ~
        TRUNCATE NULL | NULL
    "#]],
    );
    check(
        "SELECT id, label FROM orders LEFT JOIN countries ON zone + 47 = number",
        expect![[r#"
        shop.orders: id* Int32, label Utf8
        INSERT 1 | Germany
        UPDATE-INSERT 2 | NULL
        INSERT 3 | NULL
        INSERT 4 | NULL
        INSERT 5 | NULL
        INSERT 6 | NULL
        DELETE 1 | Germany
        DELETE 2 | ~
        UPDATE-INSERT 3 | NULL
        TRUNCATE NULL | NULL
    "#]],
    );
    check(
        "SELECT id, label FROM orders LEFT JOIN countries ON CAST(zone AS VARCHAR) = CAST(number AS VARCHAR)",
        expect![[r#"
        shop.orders: id* Int32, label Utf8
        INSERT 1 | NULL
        UPDATE-INSERT 2 | NULL
        INSERT 3 | NULL
        INSERT 4 | NULL
        INSERT 5 | NULL
        INSERT 6 | Germany
        DELETE 1 | NULL
        DELETE 2 | ~
        UPDATE-INSERT 3 | NULL
        TRUNCATE NULL | NULL
    "#]],
    );
    check_whole(
        "SELECT o.id, boss FROM orders o LEFT JOIN regions r ON o.country = r.country AND o.zone = r.zone",
        expect![[r#"
        shop.orders: id* Int32, boss Utf8
        INSERT 1 | bob
        UPDATE-INSERT 2 | cid
        INSERT 3 | NULL
        INSERT 4 | NULL
        INSERT 5 | NULL
        INSERT 6 | NULL
        DELETE 1 | bob
        DELETE 2 | ~
        TRUNCATE NULL | NULL
    "#]],
    );
}

#[test]
fn types_of_keys_may_differ() {
    let lookup = |codes: ArrayRef| {
        let names = text(&vec![Some("found"); codes.len()]);
        let references = References::from_iter([Reference::new("names", rows(vec![("code", codes), ("found", names)]))]);
        let context = SqlContext { references, ..SqlContext::default() };
        let of = |column: &str| {
            let sql = format!("SELECT id, found FROM orders LEFT JOIN names ON {column} = code");
            applied(vec![rule(&sql)], context.clone(), &orders(), "insert 1 | 2 | 2\n insert 2 | x | 3\n insert 3 | NULL | NULL")
        };
        format!("{}{}", of("country"), of("zone"))
    };
    let columns: [(&str, ArrayRef); 6] = [
        ("bigint", Arc::new(Int64Array::from(vec![2, 4]))),
        ("text", text(&[Some("2"), Some("03"), None])),
        ("text view", Arc::new(StringViewArray::from(vec!["2", "x"]))),
        ("dictionary", Arc::new(DictionaryArray::<Int32Type>::from_iter(["2", "x"]))),
        ("decimal", Arc::new(Decimal128Array::from(vec![200, 301]).with_precision_and_scale(10, 2).unwrap())),
        ("double", Arc::new(arrow::array::Float64Array::from(vec![2.0, 3.5]))),
    ];
    let out: String = columns.into_iter().map(|(name, column)| format!("{name}\n{}", lookup(column))).collect();
    expect![[r#"
        bigint
        shop.orders: id* Int32, found Utf8
        INSERT 1 | found
        INSERT 2 | NULL
        INSERT 3 | NULL
        shop.orders: id* Int32, found Utf8
        INSERT 1 | found
        INSERT 2 | NULL
        INSERT 3 | NULL
        text
        shop.orders: id* Int32, found Utf8
        INSERT 1 | found
        INSERT 2 | NULL
        INSERT 3 | NULL
        shop.orders: id* Int32, found Utf8
        INSERT 1 | found
        INSERT 2 | found
        INSERT 3 | NULL
        text view
        shop.orders: id* Int32, found Utf8
        INSERT 1 | found
        INSERT 2 | found
        INSERT 3 | NULL
        the join of a reference table cannot be computed over its rows (reference: names)
        help: text is compared with a number as a number: CAST the number to VARCHAR, or use TRY_CAST
        dictionary
        shop.orders: id* Int32, found Utf8
        INSERT 1 | found
        INSERT 2 | found
        INSERT 3 | NULL
        the join of a reference table cannot be computed over its rows (reference: names)
        help: text is compared with a number as a number: CAST the number to VARCHAR, or use TRY_CAST
        decimal
        shop.orders: id* Int32, found Utf8
        INSERT 1 | found
        INSERT 2 | NULL
        INSERT 3 | NULL
        shop.orders: id* Int32, found Utf8
        INSERT 1 | found
        INSERT 2 | NULL
        INSERT 3 | NULL
        double
        shop.orders: id* Int32, found Utf8
        INSERT 1 | found
        INSERT 2 | NULL
        INSERT 3 | NULL
        shop.orders: id* Int32, found Utf8
        INSERT 1 | found
        INSERT 2 | NULL
        INSERT 3 | NULL
    "#]]
    .assert_eq(&out);
}

#[test]
fn a_join_may_demand_something_of_the_reference_table() {
    check(
        "SELECT id, label FROM orders LEFT JOIN countries ON country = code AND active",
        expect![[r#"
        shop.orders: id* Int32, label Utf8
        INSERT 1 | Germany
        UPDATE-INSERT 2 | NULL
        INSERT 3 | NULL
        INSERT 4 | NULL
        INSERT 5 | NULL
        INSERT 6 | Germany
        DELETE 1 | Germany
        DELETE 2 | ~
        UPDATE-INSERT 3 | ~
        TRUNCATE NULL | NULL
    "#]],
    );
    check(
        "SELECT id, label FROM orders LEFT JOIN countries c ON country = code AND c.number > 40 AND NOT label = 'Spain'",
        expect![[r#"
        shop.orders: id* Int32, label Utf8
        INSERT 1 | Germany
        UPDATE-INSERT 2 | NULL
        INSERT 3 | NULL
        INSERT 4 | NULL
        INSERT 5 | NULL
        INSERT 6 | Germany
        DELETE 1 | Germany
        DELETE 2 | ~
        UPDATE-INSERT 3 | ~
        TRUNCATE NULL | NULL
    "#]],
    );
    check(
        "SELECT o.id, boss FROM orders o LEFT JOIN regions r ON o.country = r.country AND r.zone = 1",
        expect![[r#"
        shop.orders: id* Int32, boss Utf8
        INSERT 1 | ada
        UPDATE-INSERT 2 | cid
        INSERT 3 | NULL
        INSERT 4 | NULL
        INSERT 5 | NULL
        INSERT 6 | ada
        DELETE 1 | ada
        DELETE 2 | ~
        UPDATE-INSERT 3 | ~
        TRUNCATE NULL | NULL
    "#]],
    );
    check(
        "SELECT o.id, boss FROM orders o LEFT JOIN regions r ON r.zone = 1 AND o.country = r.country AND r.country = upper('de')",
        expect![[r#"
        shop.orders: id* Int32, boss Utf8
        INSERT 1 | NULL
        UPDATE-INSERT 2 | NULL
        INSERT 3 | NULL
        INSERT 4 | NULL
        INSERT 5 | NULL
        INSERT 6 | NULL
        DELETE 1 | NULL
        DELETE 2 | ~
        UPDATE-INSERT 3 | ~
        TRUNCATE NULL | NULL
    "#]],
    );
}

#[test]
fn several_tables_are_joined_and_one_twice() {
    check_whole(
        "SELECT o.id, c.label, r.boss, d.label AS by_number FROM orders o LEFT JOIN countries c ON o.country = c.code \
         LEFT JOIN regions r ON r.country = o.country AND r.zone = o.zone LEFT JOIN countries d ON d.number = o.zone",
        expect![[r#"
            shop.orders: id* Int32, label Utf8, boss Utf8, by_number Utf8
            INSERT 1 | Germany | bob | NULL
            UPDATE-INSERT 2 | France | cid | NULL
            INSERT 3 | NULL | NULL | NULL
            INSERT 4 | NULL | NULL | NULL
            INSERT 5 | NULL | NULL | NULL
            INSERT 6 | Germany | NULL | Germany
            DELETE 1 | Germany | bob | NULL
            DELETE 2 | ~ | ~ | ~
            TRUNCATE NULL | NULL | NULL | NULL
        "#]],
    );
}

#[test]
fn what_is_looked_up_by_what_the_log_left_out_is_unchanged() {
    let of = |sql: &str, rows: &str| applied(vec![rule(sql)], context(), &orders(), rows);
    let rows = "update 1 | ~ | 2\n update 1 | de | 3 -> 1 | ~ | 3\n delete 1 | ~ | ~";
    expect![[r#"
        shop.orders: id* Int32, label Utf8, loud Utf8
        UPDATE-INSERT 1 | ~ | ~
        UPDATE-INSERT 1 | Germany | GERMANY
        DELETE 1 | ~ | ~
    "#]]
    .assert_eq(&of("SELECT id, label, upper(label) AS loud FROM orders LEFT JOIN countries ON country = code", rows));
    expect![[r#"
        a change cannot be carried by a transform (reason: the log left out one of the values that it is made of, because that one did not change, table: shop.orders, rule: 1 shop.*, column: boss, position: 0000000000000001/0000000000000001/0000000000000003); make the expression fit such rows (TRY_CAST, NULLIF, CASE), have the source log whole rows (REPLICA IDENTITY FULL, binlog_row_image=FULL), or set on_bad_value: quarantine
    "#]].assert_eq(&of("SELECT o.id, boss FROM orders o LEFT JOIN regions r ON o.country = r.country AND o.zone = r.zone", rows));
    expect![[r#"
        a change cannot be carried by a transform (reason: the condition needs a value that the log left out because it did not change, table: shop.orders, rule: 1 shop.*, column: WHERE, position: 0000000000000001/0000000000000001/0000000000000003); make the expression fit such rows (TRY_CAST, NULLIF, CASE), have the source log whole rows (REPLICA IDENTITY FULL, binlog_row_image=FULL), or set on_bad_value: quarantine
    "#]].assert_eq(&of("SELECT id, label FROM orders LEFT JOIN countries ON country = code WHERE label LIKE 'G%'", rows));
}

#[test]
fn a_condition_on_the_match() {
    check_whole(
        "SELECT id, label FROM orders LEFT JOIN countries ON country = code WHERE code IS NULL",
        expect![[r#"
        shop.orders: id* Int32, label Utf8
        DELETE 2 | ~
        INSERT 3 | NULL
        INSERT 4 | NULL
        DELETE 1 | ~
        DELETE 2 | ~
        TRUNCATE NULL | NULL
    "#]],
    );
    check_whole(
        "SELECT id FROM orders LEFT JOIN countries ON country = code WHERE number > 40",
        expect![[r#"
        shop.orders: id* Int32
        INSERT 1
        DELETE 2
        INSERT 6
        DELETE 1
        DELETE 2
        TRUNCATE NULL
    "#]],
    );
    check(
        "SELECT id FROM orders LEFT JOIN countries ON country = code WHERE id < 3",
        expect![[r#"
        shop.orders: id* Int32
        INSERT 1
        UPDATE-INSERT 2
        DELETE 1
        DELETE 2
        TRUNCATE NULL
    "#]],
    );
}

#[test]
fn several_rows_for_one_key_are_refused() {
    let refused = |sql: &str| refused(vec![rule(sql)], context(), &orders());
    expect![[r#"
        a reference table has several rows for one key, so that one change would become several (reference: regions)
        help: join by all columns of its key, or make its rows unique with a query: SELECT DISTINCT ON …
    "#]]
    .assert_eq(&refused("SELECT o.id, boss FROM orders o LEFT JOIN regions r ON o.country = r.country"));
    expect![[r#"
        a reference table has several rows for one key, so that one change would become several (reference: countries)
        help: join by all columns of its key, or make its rows unique with a query: SELECT DISTINCT ON …
    "#]]
    .assert_eq(&refused("SELECT o.id, r.code FROM orders o LEFT JOIN countries r ON o.country = left(r.code, 0)"));
    // NULL equals nothing, so it is not there twice.
    let references = References::from_iter([Reference::new(
        "r",
        rows(vec![("k", text(&[None, None, Some("de")])), ("v", text(&[Some("a"), Some("b"), Some("c")]))]),
    )]);
    let context = SqlContext { references, ..SqlContext::default() };
    expect![[r#"
        shop.orders: id* Int32, v Utf8
        INSERT 1 | c
        UPDATE-INSERT 2 | NULL
        INSERT 3 | NULL
        INSERT 4 | NULL
        INSERT 5 | NULL
        INSERT 6 | c
        DELETE 1 | c
        DELETE 2 | ~
        UPDATE-INSERT 3 | ~
        TRUNCATE NULL | NULL
    "#]]
    .assert_eq(&applied(vec![rule("SELECT id, v FROM orders LEFT JOIN r ON country = k")], context, &orders(), ROWS));
}

#[test]
fn a_key_that_cannot_be_computed_finds_nothing() {
    let rows = "insert 1 | 49 | 0\n insert 2 | de | 1\n insert 3 | 33 | 2";
    let of = |sql: &str| applied(vec![rule(sql)], context(), &orders(), rows);
    expect![[r#"
        shop.orders: id* Int32, label Utf8
        INSERT 1 | Germany
        INSERT 2 | NULL
        INSERT 3 | France
    "#]]
    .assert_eq(&of("SELECT id, label FROM orders LEFT JOIN countries ON CAST(country AS INT) = number"));
    expect![[r#"
        shop.orders: id* Int32, label Utf8
        INSERT 1 | NULL
        INSERT 2 | NULL
        INSERT 3 | Germany
    "#]]
    .assert_eq(&of("SELECT id, label FROM orders LEFT JOIN countries ON 98 / zone = number"));
}

#[test]
fn an_empty_table_has_no_matches() {
    let references = References::from_iter([Reference::new("countries", countries().slice(0, 0))]);
    let context = SqlContext { references, ..SqlContext::default() };
    let sql = "SELECT id, label FROM orders LEFT JOIN countries ON country = code AND active";
    expect![[r#"
        shop.orders: id* Int32, label Utf8
        INSERT 1 | NULL
        UPDATE-INSERT 2 | NULL
        INSERT 3 | NULL
        INSERT 4 | NULL
        INSERT 5 | NULL
        INSERT 6 | NULL
        DELETE 1 | NULL
        DELETE 2 | ~
        UPDATE-INSERT 3 | ~
        TRUNCATE NULL | NULL
    "#]]
    .assert_eq(&applied(vec![rule(sql)], context, &orders(), ROWS));
}

fn looked_up(transform: &SqlTransform) -> String {
    let made = transform.apply(batch(&orders(), &changes("insert 1 | de | 1\n insert 2 | fr | 1"))).unwrap();
    made.iter().map(printed).collect()
}

#[test]
fn a_table_is_replaced_while_the_stream_runs() {
    let context = context();
    let reference = Arc::clone(context.references.iter().next().unwrap());
    let mut transform = transform(vec![rule("SELECT id, label FROM orders LEFT JOIN countries ON country = code")], context);
    transform.output(&orders()).unwrap();
    expect![[r#"
        shop.orders: id* Int32, label Utf8
        INSERT 1 | Germany
        INSERT 2 | France
    "#]]
    .assert_eq(&looked_up(&transform));
    let two = |codes: [&str; 2]| {
        let number: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let active: ArrayRef = Arc::new(BooleanArray::from(vec![true, true]));
        rows(vec![
            ("code", text(&codes.map(Some))),
            ("label", text(&[Some("first"), Some("second")])),
            ("number", number),
            ("active", active),
        ])
    };
    reference.replace(two(["de", "it"])).unwrap();
    expect![[r#"
        shop.orders: id* Int32, label Utf8
        INSERT 1 | first
        INSERT 2 | NULL
    "#]]
    .assert_eq(&looked_up(&transform));
    // With two rows for one key the earlier ones stay, also for a version of the table that comes then.
    reference.replace(two(["fr", "fr"])).unwrap();
    let altered = table("shop.orders", 2, &[("id", DataType::Int32), ("country", DataType::Utf8), ("more", DataType::Utf8)], &["id"]);
    transform.output(&altered).unwrap();
    let made = transform.apply(batch(&altered, &changes("insert 3 | de | x\n insert 4 | fr | x"))).unwrap();
    assert_eq!(made.iter().map(printed).collect::<String>(), "shop.orders v2: id* Int32, label Utf8\nINSERT 3 | first\nINSERT 4 | NULL\n");
    expect![[r#"
        shop.orders: id* Int32, label Utf8
        INSERT 1 | first
        INSERT 2 | NULL
    "#]]
    .assert_eq(&looked_up(&transform));
    reference.replace(two(["de", "fr"])).unwrap();
    expect![[r#"
        shop.orders: id* Int32, label Utf8
        INSERT 1 | first
        INSERT 2 | second
    "#]]
    .assert_eq(&looked_up(&transform));
    let error = reference.replace(regions()).unwrap_err();
    expect![
        "a reference table came back with other columns (reference: countries); restart the stream, so that its rules are planned anew"
    ]
    .assert_eq(&error.report());
    assert_eq!(format!("{reference:?}"), "Reference(countries, 2 rows)", "never the values");
}

#[test]
fn a_table_is_replaced_while_it_is_read() {
    let context = context();
    let reference = Arc::clone(context.references.iter().next().unwrap());
    let filtered = "SELECT id, label FROM orders LEFT JOIN countries ON country = code WHERE label < 'A'";
    let mut filtered = transform(vec![rule(filtered)], context.clone());
    filtered.output(&orders()).unwrap();
    let mut transform = transform(vec![rule("SELECT id, label, number FROM orders LEFT JOIN countries ON country = code")], context);
    transform.output(&orders()).unwrap();
    let other = rows(vec![
        ("code", text(&[Some("fr"), Some("de")])),
        ("label", text(&[Some("33"), Some("49")])),
        ("number", Arc::new(Int64Array::from(vec![Some(33), Some(49)]))),
        ("active", Arc::new(BooleanArray::from(vec![true, true]))),
    ]);
    std::thread::scope(|scope| {
        scope.spawn(|| (0..200).for_each(|round| reference.replace(if round % 2 == 0 { other.clone() } else { countries() }).unwrap()));
        for _ in 0..200 {
            // Both values of a row are of one version of the table.
            for line in looked_up(&transform).lines().skip(1) {
                assert!(
                    ["1 | Germany | 49", "1 | 49 | 49", "2 | France | 33", "2 | 33 | 33"].contains(&line.trim_start_matches("INSERT ")),
                    "{line}"
                );
            }
            // And so are the condition and what is selected by it.
            for line in looked_up(&filtered).lines().filter(|line| line.starts_with("INSERT")) {
                assert!(["INSERT 1 | 49", "INSERT 2 | 33"].contains(&line), "{line}");
            }
        }
    });
}

/// A file that cannot be read says where, and quotes nothing of its rows.
#[tokio::test]
async fn a_broken_file_is_told_by_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let rows: String = (0..3000).map(|row| format!("{row},a\n")).collect();
    let json: String = (0..3000).map(|row| format!("{{\"n\":{row}}}\n")).collect();
    let mut told = String::new();
    for (name, content) in [
        ("types.csv", format!("n,label\n{rows}clear-value,b\n")),
        ("columns.csv", format!("n,label\n{rows}1,clear-value,c\n")),
        ("quotes.csv", format!("n,label\n{rows}\"clear-value,b\n")),
        ("types.json", format!("{json}{{\"n\":\"clear-value\"}}\n")),
        ("broken.json", format!("{json}{{\"n\":clear-value}}\n")),
        ("first.json", "clear-value".to_owned()),
        ("no.parquet", "clear-value PAR1".to_owned()),
    ] {
        std::fs::write(directory.path().join(name), content).unwrap();
        let store = Arc::new(object_store::local::LocalFileSystem::new_with_prefix(directory.path()).unwrap());
        let read = logweir_sql::read_reference_file(store, &object_store::path::Path::from(name), 1 << 20).await;
        let report = read.map_or_else(|error| error.report(), |rows| format!("{} rows", rows.num_rows()));
        assert!(!report.contains("clear-value"), "{report}");
        told += &format!("{report}\n");
    }
    expect_test::expect![[r#"
        a reference table is not what its ending says (file: types.csv, column: 0, line: 3001); make all its rows fit: the first 1,000 rows of a CSV or JSON file decide the types of its columns
        a reference table is not what its ending says (file: columns.csv, line: 3002); make all its rows fit: the first 1,000 rows of a CSV or JSON file decide the types of its columns
        a reference table is not what its ending says (file: quotes.csv, line: 3002); make all its rows fit: the first 1,000 rows of a CSV or JSON file decide the types of its columns
        a reference table is not what its ending says (file: types.json); make all its rows fit: the first 1,000 rows of a CSV or JSON file decide the types of its columns
        a reference table is not what its ending says (file: broken.json); make all its rows fit: the first 1,000 rows of a CSV or JSON file decide the types of its columns
        a reference table is not what its ending says (file: first.json, line: 1); make all its rows fit: the first 1,000 rows of a CSV or JSON file decide the types of its columns
        a reference table is not what its ending says (file: no.parquet)
    "#]].assert_eq(&told);
}
