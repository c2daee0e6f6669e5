//! What queries answer over landed files.

use arrow::array::AsArray;
use arrow::datatypes::DataType::{Date32, Decimal128, Int32, Int64, Utf8};
use expect_test::{Expect, expect};
use logweir_core::ChangeType::{Delete, Insert, Read, Truncate, UpdateDelete, UpdateInsert};
use logweir_core::{Column, LogPosition, Relation, RelationName};
use logweir_sql::{LandedTable, MaskKeys, QueryEngine};
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::lake::{Change, InFlight, Lake, MEMORY_BYTES, Version, answer, change};

async fn check(engine: &QueryEngine, sql: &str, expected: Expect) {
    expected.assert_eq(&answer(engine, sql).await);
}

/// A table whose files are given in the order in which they are written, which is not their order in the log.
async fn lake(files: &[(&str, &Version, &[Change])]) -> Lake {
    let lake = Lake::new();
    for (name, version, changes) in files {
        lake.write(&format!("shop/orders/dt=2026-11-20/{name}.parquet"), "orders", version, changes).await;
    }
    lake
}

fn orders() -> Version {
    Version::new(1, &[("id", Int32), ("note", Utf8)], &["id"])
}

#[tokio::test]
async fn the_last_change_of_a_key_holds() {
    let later =
        [change(4, UpdateInsert, [Some("1"), Some("b")]), change(5, Delete, [Some("2"), Some("x")]), change(6, Insert, [Some("4"), None])];
    let earlier =
        [change(1, Insert, [Some("1"), Some("a")]), change(2, Insert, [Some("2"), Some("x")]), change(3, Insert, [Some("3"), Some("y")])];
    // Written last, named first: neither says anything about the order of changes.
    let lake = lake(&[("a", &orders(), &later), ("b", &orders(), &earlier)]).await;
    let engine = lake.engine(&["orders"]);
    check(
        &engine,
        "select * from shop.orders order by id",
        expect![[r#"
            id | note
            1 | b
            3 | y
            4 | NULL
        "#]],
    )
    .await;
    check(
        &engine,
        "select id, note, _metadata_change_type, _metadata_deleted, _metadata_timestamp, _metadata_sequence
         from shop_changes.orders where id < 3 order by _metadata_sequence",
        expect![[r#"
            id | note | _metadata_change_type | _metadata_deleted | _metadata_timestamp | _metadata_sequence
            1 | a | INSERT | false | 1970-01-01T00:00:01Z | 0000000000000001/0000000000000001/0000000000000003
            2 | x | INSERT | false | 1970-01-01T00:00:02Z | 0000000000000001/0000000000000002/0000000000000003
            1 | b | UPDATE-INSERT | false | 1970-01-01T00:00:04Z | 0000000000000001/0000000000000004/0000000000000003
            2 | x | DELETE | true | 1970-01-01T00:00:05Z | 0000000000000001/0000000000000005/0000000000000003
        "#]],
    )
    .await;
    check(
        &engine,
        "select _metadata_source['table'] as t, _metadata_source['log_position'] as p from shop_changes.orders
         where note = 'b' and _metadata_source['schema'] = 'shop'",
        expect![[r#"
            t | p
            orders | 4
        "#]],
    )
    .await;
}

#[tokio::test]
async fn names_are_found_at_every_length_and_case() {
    let lake = lake(&[("a", &orders(), &[change(1, Insert, [Some("1"), Some("a")])])]).await;
    let engine = lake.engine(&["orders"]);
    for name in ["orders", "shop.orders", "shop.shop.orders", "Shop.Orders", "\"ORDERS\"", "`orders`"] {
        assert_eq!(answer(&engine, &format!("select id from {name}")).await, "id\n1\n", "{name}");
    }
}

#[tokio::test]
async fn a_key_change_moves_the_row() {
    let changes = [
        change(1, Insert, [Some("1"), Some("a")]),
        change(2, UpdateDelete, [Some("1"), Some("a")]),
        change(2, UpdateInsert, [Some("7"), Some("b")]),
    ];
    let lake = lake(&[("a", &orders(), &changes)]).await;
    check(
        &lake.engine(&["orders"]),
        "select * from orders",
        expect![[r#"
            id | note
            7 | b
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_key_change_while_rows_are_read_loses_no_value() {
    let version = Version::new(1, &[("id", Int32), ("note", Utf8), ("body", Utf8)], &["id"]);
    let changes = [
        // Read after the change, at a place before it.
        change(1, Read, [Some("2"), Some("b"), Some("long")]),
        change(2, UpdateDelete, [Some("1"), None, None]).unchanged(&["note", "body"]),
        change(2, UpdateInsert, [Some("2"), Some("b"), None]).unchanged(&["body"]),
    ];
    let lake = lake(&[("a", &version, &changes)]).await;
    check(
        &lake.engine(&["orders"]),
        "select * from orders",
        expect![[r#"
            id | note | body
            2 | b | long
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_truncate_is_a_floor() {
    let files: [&[Change]; 3] = [
        &[change(1, Insert, [Some("1"), Some("a")]), change(2, Insert, [Some("2"), Some("a")])],
        &[change(3, Truncate, [None, None]), change(4, Insert, [Some("2"), Some("b")]), change(5, Truncate, [None, None])],
        &[change(6, Insert, [Some("3"), Some("c")])],
    ];
    let version = orders();
    let lake = lake(&[("c", &version, files[0]), ("a", &version, files[1]), ("b", &version, files[2])]).await;
    let engine = lake.engine(&["orders"]);
    check(
        &engine,
        "select * from orders",
        expect![[r#"
            id | note
            3 | c
        "#]],
    )
    .await;
    assert_eq!(answer(&engine, "select count(*) as n from shop_changes.orders").await, "n\n6\n");
    assert_eq!(answer(&engine, "select * from orders where id = 2").await, "id | note\n");
}

#[tokio::test]
async fn a_backfilled_row_yields_to_the_log() {
    let changes = [
        change(5, Read, [Some("1"), Some("old")]),
        change(5, Read, [Some("2"), Some("kept")]),
        change(6, UpdateInsert, [Some("1"), Some("new")]),
    ];
    let lake = lake(&[("a", &orders(), &changes)]).await;
    check(
        &lake.engine(&["orders"]),
        "select * from orders order by id",
        expect![[r#"
            id | note
            1 | new
            2 | kept
        "#]],
    )
    .await;
}

#[tokio::test]
async fn unchanged_values_come_from_the_previous_version() {
    let version = Version::new(1, &[("id", Int32), ("note", Utf8), ("body", Utf8)], &["id"]);
    let first = [
        change(1, Insert, [Some("1"), Some("a"), Some("long")]),
        change(2, Insert, [Some("2"), Some("a"), None]),
        change(3, UpdateInsert, [Some("1"), Some("b"), None]).unchanged(&["body"]),
        change(4, UpdateInsert, [Some("2"), Some("b"), None]).unchanged(&["body"]),
        // Over two changes of the key, with a before image that lacks the value.
        change(5, UpdateDelete, [Some("1"), None, None]).unchanged(&["note", "body"]),
        change(5, UpdateInsert, [Some("5"), None, None]).unchanged(&["note", "body"]),
    ];
    let second = [
        change(6, UpdateDelete, [Some("5"), None, None]).unchanged(&["note", "body"]),
        change(6, UpdateInsert, [Some("6"), Some("c"), None]).unchanged(&["body"]),
        // A key used again begins anew.
        change(7, Insert, [Some("1"), Some("d"), None]),
        change(8, UpdateInsert, [Some("1"), Some("e"), None]).unchanged(&["body"]),
        // The log begins after the row did: the rest of it nobody knows.
        change(9, UpdateInsert, [Some("9"), Some("f"), None]).unchanged(&["body"]),
    ];
    let lake = lake(&[("b", &version, &first), ("a", &version, &second)]).await;
    let engine = lake.engine(&["orders"]);
    check(
        &engine,
        "select * from orders order by id",
        expect![[r#"
            id | note | body
            1 | e | NULL
            2 | b | NULL
            6 | c | long
        "#]],
    )
    .await;
    check(
        &engine,
        "select body, id from orders where note = 'c' limit 1",
        expect![[r#"
            body | id
            long | 6
        "#]],
    )
    .await;
    check(
        &engine,
        "select id, _metadata_unchanged from shop_changes.orders where id = 5",
        expect![[r#"
            id | _metadata_unchanged
            5 | [note, body]
            5 | [note, body]
        "#]],
    )
    .await;
}

#[tokio::test]
async fn the_newest_schema_is_shown() {
    let v1 = Version::new(1, &[("id", Int32), ("price", Decimal128(6, 2)), ("gone", Utf8), ("day", Utf8)], &["id"]);
    let v2 = Version::new(2, &[("id", Int64), ("day", Utf8), ("price", Decimal128(10, 4)), ("added", Int32)], &["id"]);
    // The column `gone` is back, as another one; `day` became a date, which not every text is.
    let v3 = Version::new(3, &[("id", Int64), ("day", Date32), ("price", Decimal128(10, 4)), ("added", Int32), ("gone", Int32)], &["id"]);
    let lake = lake(&[
        (
            "c",
            &v1,
            &[
                change(1, Insert, [Some("1"), Some("1.25"), Some("x"), Some("yesterday")]),
                change(2, Insert, [Some("2"), Some("2.50"), Some("x"), None]),
            ],
        ),
        ("b", &v2, &[change(3, Insert, [Some("9000000000"), None, Some("0.0001"), Some("7")])]),
        ("a", &v3, &[change(4, UpdateInsert, [Some("2"), Some("2026-11-20"), Some("3"), None, Some("5")])]),
    ])
    .await;
    let engine = lake.engine(&["orders"]);
    assert_eq!(
        answer(&engine, "select _metadata_source['table'] as t, count(*) as n from shop_changes.orders where price > 1 group by t").await,
        "t | n\norders | 3\n"
    );
    check(
        &engine,
        "select *, arrow_typeof(price) as price_type from orders order by id",
        expect![[r#"
            id | day | price | added | gone | price_type
            1 | yesterday | 1.2500 | NULL | NULL | Decimal128(10, 4)
            2 | 2026-11-20 | 3.0000 | NULL | 5 | Decimal128(10, 4)
            9000000000 | NULL | 0.0001 | 7 | NULL | Decimal128(10, 4)
        "#]],
    )
    .await;
    check(
        &engine,
        "select id, day, price, added, gone from shop_changes.orders order by _metadata_sequence",
        expect![[r#"
            id | day | price | added | gone
            1 | yesterday | 1.2500 | NULL | x
            2 | NULL | 2.5000 | NULL | x
            9000000000 | NULL | 0.0001 | 7 | NULL
            2 | 2026-11-20 | 3.0000 | NULL | 5
        "#]],
    )
    .await;
}

#[tokio::test]
async fn keys_may_be_composite_or_absent() {
    let lake = Lake::new();
    let composite = Version::new(1, &[("a", Int32), ("v", Utf8), ("b", Utf8)], &["b", "a"]);
    let changes = [
        change(1, Insert, [Some("1"), Some("one"), Some("x")]),
        change(2, Insert, [Some("1"), Some("two"), Some("y")]),
        change(3, UpdateInsert, [Some("1"), Some("three"), Some("x")]),
    ];
    lake.write("shop/composite/f.parquet", "composite", &composite, &changes).await;
    let keyless = Version::new(1, &[("a", Int32), ("b", Utf8)], &[]);
    let changes = [
        change(1, Insert, [Some("1"), None]),
        change(2, Insert, [None, None]),
        change(3, Insert, [Some("2"), Some("x")]),
        change(4, Delete, [Some("1"), None]),
        change(5, Truncate, [None, None]),
        change(6, Insert, [None, None]),
        change(7, Insert, [None, Some("y")]),
        change(8, Delete, [None, Some("y")]),
    ];
    lake.write("shop/keyless/f.parquet", "keyless", &keyless, &changes).await;
    let engine = lake.engine(&["composite", "keyless"]);
    check(
        &engine,
        "select * from composite order by b",
        expect![[r#"
            a | v | b
            1 | three | x
            1 | two | y
        "#]],
    )
    .await;
    check(
        &engine,
        "select * from keyless",
        expect![[r#"
            a | b
            NULL | NULL
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_renamed_key_column_is_the_same_column() {
    let v1 = Version::new(1, &[("id", Int32), ("v", Utf8), ("w", Int32)], &["id"]);
    let v2 = Version::new(2, &[("ident", Int32), ("v", Utf8), ("w", Int32)], &["ident"]);
    // Renamed again and widened; the first name is back, for another column.
    let v3 = Version::new(3, &[("number", Int64), ("v", Utf8), ("w", Int32), ("id", Int32)], &["number"]);
    let first: Vec<Change> =
        ["1", "2", "3", "4", "5"].into_iter().zip(1..).map(|(id, n)| change(n, Insert, [Some(id), Some("a"), Some("7")])).collect();
    let second = [change(6, UpdateInsert, [Some("2"), Some("a"), Some("8")]), change(7, Delete, [Some("3"), Some("a"), Some("7")])];
    let renamed = lake(&[("b", &v1, &first), ("a", &v2, &second)]).await;
    check(
        &renamed.engine(&["orders"]),
        "select * from orders order by ident",
        expect![[r#"
            ident | v | w
            1 | a | 7
            2 | a | 8
            4 | a | 7
            5 | a | 7
        "#]],
    )
    .await;
    // A filter on the new name finds older rows too, and the changes keep both names.
    assert_eq!(answer(&renamed.engine(&["orders"]), "select w from orders where ident = 4").await, "w\n7\n");
    assert_eq!(
        answer(&renamed.engine(&["orders"]), "select count(id) as old, count(ident) as new from shop_changes.orders").await,
        "old | new\n5 | 2\n"
    );

    // An update that did not log what it left alone finds its row under the older name.
    let third = [
        change(8, UpdateInsert, [Some("5"), None, Some("9"), Some("1")]).unchanged(&["v"]),
        change(9, Insert, [Some("9000000000"), None, None, None]),
    ];
    let again = lake(&[("c", &v1, &first), ("b", &v2, &second), ("a", &v3, &third)]).await;
    check(
        &again.engine(&["orders"]),
        "select * from orders order by number",
        expect![[r#"
            number | v | w | id
            1 | a | 7 | NULL
            2 | a | 8 | NULL
            4 | a | 7 | NULL
            5 | a | 9 | 1
            9000000000 | NULL | NULL | NULL
        "#]],
    )
    .await;
}

#[tokio::test]
async fn columns_of_a_composite_key_are_matched_by_place() {
    let v1 = Version::new(1, &[("a", Int32), ("v", Utf8), ("b", Int32)], &["b", "a"]);
    let v2 = Version::new(2, &[("a", Int32), ("v", Utf8), ("c", Int32)], &["c", "a"]);
    // The same columns in another order: places say nothing then.
    let v3 = Version::new(3, &[("a", Int32), ("v", Utf8), ("c", Int32)], &["a", "c"]);
    let lake = lake(&[
        (
            "c",
            &v1,
            &[
                change(1, Insert, [Some("1"), Some("x"), Some("2")]),
                change(2, Insert, [Some("2"), Some("y"), Some("1")]),
                change(3, Insert, [Some("1"), Some("z"), Some("3")]),
            ],
        ),
        ("b", &v2, &[change(4, UpdateInsert, [Some("1"), Some("new"), Some("2")])]),
        ("a", &v3, &[change(5, Delete, [Some("2"), Some("y"), Some("1")])]),
    ])
    .await;
    check(
        &lake.engine(&["orders"]),
        "select * from orders order by a, c",
        expect![[r#"
            a | v | c
            1 | new | 2
            1 | z | 3
        "#]],
    )
    .await;
}

#[tokio::test]
async fn no_state_is_made_up_across_another_key() {
    let older = Version::new(1, &[("id", Int32), ("other", Int32)], &["id"]);
    let insert = change(1, Insert, [Some("1"), Some("2")]);
    for (newer, then) in [
        // More columns, none, one of another type, and one that was another column before.
        (Version::new(2, &[("id", Int32), ("other", Int32)], &["id", "other"]), "2 (id, other)"),
        (Version::new(2, &[("id", Int32), ("other", Int32)], &[]), "2 (none)"),
        (Version::new(2, &[("name", Utf8), ("other", Int32)], &["name"]), "2 (name)"),
        (Version::new(2, &[("id", Int32), ("other", Int32)], &["other"]), "2 (other)"),
    ] {
        let later = change(2, Insert, [Some("3"), Some("4")]);
        let lake = lake(&[("a", &older, std::slice::from_ref(&insert)), ("b", &newer, &[later])]).await;
        let engine = lake.engine(&["orders"]);
        assert_eq!(
            answer(&engine, "select * from orders").await,
            format!(
                "Config: the table's key has changed, so its rows cannot be followed to a current state \
                 (table: shop.orders, version and key: 1 (id), then: {then}); \
                 query shop_changes.orders, which has every change\n"
            )
        );
        // It can be described, and its changes read.
        assert!(answer(&engine, "describe shop.orders").await.contains("other | Int32"), "{then}");
        assert_eq!(answer(&engine, "select count(*) as n from shop_changes.orders").await, "n\n2\n");
    }
}

#[tokio::test]
async fn only_data_files_of_the_table_are_read() {
    let lake = lake(&[("a", &orders(), &[change(1, Insert, [Some("1"), Some("a")])])]).await;
    let other = Version::new(1, &[("id", Int32)], &["id"]);
    lake.write("shop/orders/other.parquet", "other", &other, &[change(1, Insert, [Some("8")])]).await;
    for hidden in ["shop/orders/_tmp/b.parquet", "shop/orders/.b.parquet", "shop/orders_old/b.parquet", "shop/orders/dt=1/_b.parquet"] {
        lake.write(hidden, "orders", &orders(), &[change(1, Insert, [Some("9"), Some("hidden")])]).await;
    }
    lake.store.put(&Path::from("shop/orders/readme.txt"), "not Parquet".into()).await.unwrap();
    let engine = lake.engine(&["orders"]);
    assert_eq!(answer(&engine, "select id from orders").await, "id\n1\n");
    // A new file is seen by the next query.
    lake.write("shop/orders/b.parquet", "orders", &orders(), &[change(2, Insert, [Some("2"), None])]).await;
    assert_eq!(answer(&engine, "select id from orders order by id").await, "id\n1\n2\n");
    lake.store.put(&Path::from("shop/orders/broken.parquet"), "PAR1".into()).await.unwrap();
    check(
        &engine,
        "select id from orders",
        expect![[r#"
            Corrupt: a file is not whole Parquet (file: shop/orders/broken.parquet): EOF: Parquet file too small. Size is 4 but need 8
        "#]],
    )
    .await;
}

#[tokio::test]
async fn mistakes_are_answered_in_plain_words() {
    let lake = lake(&[("a", &orders(), &[change(1, Insert, [Some("1"), Some("a")])])]).await;
    let engine = lake.engine(&["orders", "customers"]);
    for (sql, expected) in [
        (
            "select * from shop.ordres",
            expect![[r#"
                Config: there is no such table (table: shop.ordres); did you mean shop.orders? SHOW TABLES lists all
            "#]],
        ),
        (
            "select * from order_lines",
            expect![[r#"
                Config: there is no such table (table: order_lines); SHOW TABLES lists all there are
            "#]],
        ),
        (
            "select * from warehouse.orders",
            expect![[r#"
                Config: there is no such table (table: warehouse.orders); did you mean shop.orders? SHOW TABLES lists all
            "#]],
        ),
        (
            "select * from shoop.shop.orders",
            expect![[r#"
                Config: there is no such stream (stream: shoop); there is shop
            "#]],
        ),
        (
            "select * from customers",
            expect![[r#"
                Config: no files of the table have been landed yet (table: shop.customers, destination: memory:///); start the stream with logweir run, and wait for its first checkpoint
            "#]],
        ),
        (
            "select nope from orders",
            expect![[r#"
                Config: the query cannot be planned: Schema error: No field named nope. Did you mean 'orders.note'?
                Valid fields are orders.id, orders.note.
            "#]],
        ),
        (
            "selec 1",
            expect![[r#"
                Config: the query cannot be planned: SQL error: ParserError("Expected: an SQL statement, found: selec at Line: 1, Column: 1")
            "#]],
        ),
        (
            "select 1; select 2",
            expect![[r#"
                Config: the query cannot be planned: This feature is not implemented: The context currently only supports a single SQL statement
            "#]],
        ),
    ] {
        check(&engine, sql, expected).await;
    }
}

#[tokio::test]
async fn nothing_can_be_written() {
    let lake = lake(&[("a", &orders(), &[change(1, Insert, [Some("1"), Some("a")])])]).await;
    let engine = lake.engine(&["orders"]);
    for sql in [
        "create table t as select 1",
        "create external table t stored as parquet location '/etc'",
        "create view v as select 1",
        "drop table orders",
        "insert into shop.orders values (2, 'b')",
        "delete from shop.orders",
        "update shop.orders set note = 'b'",
        "copy shop.orders to '/tmp/stolen.parquet'",
        "set datafusion.execution.batch_size = 1",
    ] {
        let error = engine.sql(sql).await.map(drop).unwrap_err();
        assert_eq!(error.message(), "the statement does more than read", "{sql}: {}", error.report());
    }
    assert!(engine.sql("select * from '/etc/passwd'").await.is_err());
    assert_eq!(answer(&engine, "select * from orders").await, "id | note\n1 | a\n");
}

#[tokio::test]
async fn the_tables_can_be_listed() {
    let lake = lake(&[
        ("a", &orders(), &[change(1, Insert, [Some("1"), Some("a")]), change(2, Insert, [Some("2"), Some("a")])]),
        ("b", &orders(), &[change(3, Insert, [Some("3"), Some("a")])]),
    ])
    .await;
    let engine = lake.engine(&["orders", "customers"]);
    check(
        &engine,
        "select stream, destination, schema, \"table\", version, key, files, rows, bytes > 0 as has_bytes, location from logweir.tables",
        expect![[r#"
            stream | destination | schema | table | version | key | files | rows | has_bytes | location
            shop | lake | shop | orders | 1 | id | 2 | 3 | true | memory:///shop/orders
            shop | lake | shop | customers | NULL | NULL | 0 | 0 | false | memory:///shop/customers
        "#]],
    )
    .await;
    let tables = answer(&engine, "show tables").await;
    assert!(tables.contains("shop | shop | orders | VIEW") && tables.contains("shop | shop_changes | orders | BASE TABLE"), "{tables}");
    check(
        &engine,
        "show columns from shop.orders",
        expect![[r#"
            table_catalog | table_schema | table_name | column_name | data_type | is_nullable
            shop | shop | orders | id | Int32 | YES
            shop | shop | orders | note | Utf8 | YES
        "#]],
    )
    .await;
    check(
        &engine,
        "describe shop.orders",
        expect![[r#"
            column_name | data_type | is_nullable
            id | Int32 | YES
            note | Utf8 | YES
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_known_table_without_files_is_empty() {
    let lake = Lake::new();
    let column = |name: &str, data_type| Column {
        field: std::sync::Arc::new(arrow::datatypes::Field::new(name, data_type, true)),
        source_type: "x".into(),
        detail: serde_json::Value::Null,
    };
    let relation = |version, commit| {
        let columns = vec![column("id", Int32), column("note", Utf8), column("added", Date32)];
        Relation::new(RelationName::new("shop", "orders"), version, LogPosition::new(0, 1, commit, 0, false), columns, vec![0])
    };
    let engine = |relation| QueryEngine::new(vec![LandedTable { relation: Some(relation), ..lake.table("orders") }], MEMORY_BYTES).unwrap();
    let empty = engine(relation(1, 1));
    assert_eq!(answer(&empty, "select * from orders").await, "id | note | added\n");
    assert_eq!(answer(&empty, "select count(*) as n, max(_metadata_sequence) as m from shop_changes.orders").await, "n | m\n0 | NULL\n");

    // The checkpoint knows of a column that no file has yet, but not of one that the files are ahead of.
    lake.write("shop/orders/a.parquet", "orders", &orders(), &[change(5, Insert, [Some("1"), Some("a")])]).await;
    assert_eq!(answer(&engine(relation(2, 6)), "select * from orders").await, "id | note | added\n1 | a | NULL\n");
    assert_eq!(answer(&engine(relation(1, 2)), "select * from orders").await, "id | note\n1 | a\n");
}

#[tokio::test]
async fn of_two_destinations_the_first_is_read() {
    let (first, second) = (Lake::new(), Lake::new());
    first.write("shop/orders/a.parquet", "orders", &orders(), &[change(1, Insert, [Some("1"), None])]).await;
    second.write("shop/orders/a.parquet", "orders", &orders(), &[change(1, Insert, [Some("2"), None])]).await;
    let tables = vec![first.table("orders"), LandedTable { destination: "cold".into(), ..second.table("orders") }];
    let engine = QueryEngine::new(tables, MEMORY_BYTES).unwrap();
    assert_eq!(answer(&engine, "select id from orders").await, "id\n1\n");
    assert_eq!(answer(&engine, "select id from \"shop/cold\".shop.orders").await, "id\n2\n");
    assert_eq!(answer(&engine, "select count(*) as n from logweir.tables").await, "n\n2\n");
}

/// As PostgreSQL takes them; here each has a name of its own.
#[tokio::test]
async fn a_list_may_have_one_expression_twice() {
    let rows =
        [change(1, Insert, [Some("1"), Some("a")]), change(2, Insert, [Some("2"), Some("b")]), change(3, Insert, [Some("3"), Some("b")])];
    let lake = lake(&[("a", &orders(), &rows)]).await;
    let engine = lake.engine(&["orders"]);
    for (sql, expected) in [
        ("select 1, 1", "Int64(1) | Int64(1)_2\n1 | 1\n"),
        ("select 1, 1::text, 1", "Int64(1) | Int64(1)_2 | Int64(1)_3\n1 | 1 | 1\n"),
        ("select count(*), COUNT(*) from orders", "count(*) | count(*)_2\n3 | 3\n"),
        ("select count(*), count(*) from orders having count(*) > 1 order by count(*)", "count(*) | count(*)_2\n3 | 3\n"),
        ("select id, orders.id, id::text from orders order by id desc limit 1", "id | id_2 | id_3\n3 | 3 | 3\n"),
        ("select *, id from orders order by 3 desc limit 1", "id | note | id_2\n3 | b | 3\n"),
        ("select id, o.* from orders o order by id limit 1", "id | id_2 | note\n1 | 1 | a\n"),
        (
            "select note, note, count(*), count(*) from orders group by note order by 1",
            "note | note_2 | count(*) | count(*)_2\na | a | 1 | 1\nb | b | 2 | 2\n",
        ),
        (
            "select note, note, count(*) from orders group by 2, 1 order by count(*) desc",
            "note | note_2 | count(*)\nb | b | 2\na | a | 1\n",
        ),
        ("select distinct note, note from orders order by note desc", "note | note_2\nb | b\na | a\n"),
        ("select 1, 1 union select 2, 2 order by 2 desc", "Int64(1) | Int64(1)_2\n2 | 2\n1 | 1\n"),
        ("select * from (select count(*), count(*) from orders) s", "count(*) | count(*)_2\n3 | 3\n"),
        ("select x + y as z from (select id, id from orders) s (x, y) order by z limit 1", "z\n2\n"),
        ("with s (x, y) as (select max(id), max(id) from orders) select x, y, x from s", "x | y | x_2\n3 | 3 | 3\n"),
        ("select sum(id) over (), sum(id) over () from orders limit 1", "6 | 6"),
        ("select substr(note, 1), substring(note, 1) from orders order by id limit 1", "a | a"),
        ("select 1 as a, 2 as a", "a | a_2\n1 | 2\n"),
        ("select id as note, note from orders order by id limit 1", "note | note_2\n1 | a\n"),
        ("select 'a', 'A', 'a'", "Utf8(\"a\") | Utf8(\"A\") | Utf8(\"a\")_2\na | A | a\n"),
    ] {
        let found = answer(&engine, sql).await;
        let fits = if expected.ends_with('\n') { found == expected } else { found.lines().nth(1) == Some(expected) };
        assert!(fits, "{sql}\n{found}");
        assert!(!found.contains('\u{2063}'), "{sql}\n{found}");
    }
    // Which one is meant would be in doubt.
    for sql in ["select a from (select 1 as a, 2 as a) s", "select 1 as a, 2 as a order by a"] {
        let refused = engine.sql(sql).await.unwrap_err().report();
        assert!(refused.contains("unique expression names"), "{refused}");
    }
}

#[tokio::test]
async fn distinct_from_binds_closer_than_and() {
    let engine = QueryEngine::new(vec![], MEMORY_BYTES).unwrap();
    for (sql, expected) in [
        ("true is distinct from true and false", "false"),
        ("true is distinct from (true and false)", "true"),
        ("false and 1 is distinct from 1 or true", "true"),
        ("not 1 is distinct from 1 and false", "false"),
        ("null is not distinct from null and 1 = 1 and 2 = 2 or false", "true"),
        ("1 is distinct from 1 or 2 is distinct from 2 or 1 is distinct from 2", "true"),
    ] {
        let sql = format!("select {sql} as a");
        assert_eq!(answer(&engine, &sql).await, format!("a\n{expected}\n"), "{sql}");
    }
}

#[tokio::test]
async fn a_filter_on_the_key_reaches_the_files() {
    let lake = lake(&[("a", &orders(), &[change(1, Insert, [Some("1"), Some("a")])])]).await;
    let plan = answer(&lake.engine(&["orders"]), "explain select note from orders where id = 1").await;
    let scan = plan.lines().find(|line| line.contains("DataSourceExec")).unwrap_or_else(|| panic!("{plan}"));
    assert!(scan.contains("predicate=id"), "{plan}");
    // And one on another column does not: it would bring back rows that are no more.
    let plan = answer(&lake.engine(&["orders"]), "explain select id from orders where note = 'a'").await;
    let place = |plan: &str, word: &str| plan.lines().position(|line| line.contains(word)).unwrap_or_else(|| panic!("{plan}"));
    assert!(place(&plan, "FilterExec: note") < place(&plan, "MergeScan: key=[id], sorted=log"), "{plan}");
    let lake = Lake::without_order();
    lake.write("shop/orders/a.parquet", "orders", &orders(), &[change(1, Insert, [Some("1"), Some("a")])]).await;
    let plan = answer(&lake.engine(&["orders"]), "explain select id from orders where note = 'a'").await;
    assert!(place(&plan, "FilterExec: note") < place(&plan, "MergeExec: key=[id], sorted=false"), "{plan}");
    let scan = plan.lines().find(|line| line.contains("DataSourceExec")).unwrap_or_else(|| panic!("{plan}"));
    assert!(!scan.contains("predicate"), "{plan}");
}

/// The value of a metric in the line of an operator.
fn metric<'a>(plan: &'a str, operator: &str, name: &str) -> &'a str {
    let line = plan.lines().find(|line| line.contains(operator)).unwrap_or_else(|| panic!("{plan}"));
    let (_, value) = line.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("{line}"));
    value.split([',', ']']).next().unwrap()
}

#[tokio::test]
async fn what_is_in_flight_is_merged_with_the_files() {
    let lake = Lake::new();
    let row = |n, kind, id: &'static str, note: &'static str| change(n, kind, [Some(id), Some(note)]);
    lake.write(
        "shop/orders/a.parquet",
        "orders",
        &orders(),
        &[row(1, Insert, "1", "a"), row(2, Insert, "2", "b"), row(3, Insert, "3", "c")],
    )
    .await;
    // A key that lies outside of what the statistics of the files say, a delete, and a row that comes back.
    let changes = [
        row(4, Insert, "900", "d"),
        row(5, Delete, "2", "b"),
        row(6, UpdateInsert, "1", "e"),
        row(7, Delete, "3", "c"),
        row(8, Insert, "3", "f"),
    ];
    let engine = |changes: &[Change]| {
        let tail = InFlight::new("orders", LogPosition::new(0, 1, 3, 1, true), &[(orders(), changes.to_vec())], 2);
        QueryEngine::new(vec![LandedTable { tail: Some(std::sync::Arc::new(tail)), ..lake.table("orders") }], MEMORY_BYTES).unwrap()
    };
    let ordered = engine(&changes);
    assert_eq!(answer(&ordered, "select * from orders order by id").await, "id | note\n1 | e\n3 | f\n900 | d\n");
    let plan = answer(&ordered, "explain select note from orders").await;
    assert!(plan.contains("MergeScan: key=[id], sorted=log, keys=range, files=1, in_flight=5"), "{plan}");
    // A backfill's rows come when they come.
    let unordered = engine(&[changes[1].clone(), changes[0].clone(), changes[2].clone()]);
    assert_eq!(answer(&unordered, "select * from orders order by id").await, "id | note\n1 | e\n3 | c\n900 | d\n");
    let plan = answer(&unordered, "explain select note from orders").await;
    assert!(plan.contains("MergeExec: key=[id]"), "{plan}");
}

#[tokio::test]
async fn nothing_is_lost_of_a_table_that_was_emptied_once() {
    const ROWS: u64 = 60_000;
    let lake = Lake::new();
    let note = "n".repeat(200);
    let row = |n: u64| change(n, Insert, [Some(n.to_string().as_str()), Some(note.as_str())]);
    lake.write("shop/orders/a.parquet", "orders", &orders(), &[row(1), change(2, Truncate, [None, None])]).await;
    let changes: Vec<Change> = (3..3 + ROWS).map(row).collect();
    let tail = || InFlight::new("orders", LogPosition::new(0, 1, 2, 1, true), &[(orders(), changes.clone())], 1000).not_held();
    // What is read when it is asked for has no statistics, and not all of it goes into memory.
    let engine =
        || QueryEngine::new(vec![LandedTable { tail: Some(std::sync::Arc::new(tail())), ..lake.table("orders") }], 16 << 20).unwrap();
    for sql in [
        "select count(*) as n, sum(length(note)) as l from orders",
        "select count(*) as n, sum(length(note)) as l from orders where id < 1000000",
        "select count(*) as n, sum(length(note)) as l from orders where note > 'm'",
    ] {
        assert_eq!(answer(&engine(), sql).await, format!("n | l\n{ROWS} | {}\n", ROWS * 200), "{sql}");
    }
    // Neither is of a join that holds too much: it says so.
    let sql = "select count(o.note || p.note) as n from orders o, (select distinct id from orders where id < 10) as p, orders q where o.id > p.id and q.id > o.id";
    let sql = sql.replace("p.note", "o.note");
    assert!(answer(&engine(), &sql).await.contains("the query needs more memory than it may have"), "{}", answer(&engine(), &sql).await);
}

#[tokio::test]
async fn a_query_that_meets_a_compaction_begins_anew() {
    let lake = Lake::new();
    let row = |n, id: &'static str| change(n, UpdateInsert, [Some(id), Some("x")]);
    let place = |n| LogPosition::new(0, 1, n, 1, true);
    // Of the rows before place 3 one does not stand any more behind it.
    lake.write_compacted("shop/orders/a.parquet", "orders", &orders(), &[row(2, "2")], place(5)).await;
    lake.write_compacted("shop/orders/b.parquet", "orders", &orders(), &[row(5, "1")], place(5)).await;
    let engine = |after, behind: &[Change]| {
        let tail = InFlight::new("orders", place(after), &[(orders(), behind.to_vec())], 2);
        QueryEngine::new(vec![LandedTable { tail: Some(std::sync::Arc::new(tail)), ..lake.table("orders") }], MEMORY_BYTES).unwrap()
    };
    let sql = "select id from orders order by id";
    let begun = std::cell::Cell::new(0);
    let begin = |after_first: u64| {
        begun.set(0);
        let (engine, begun) = (&engine, &begun);
        logweir_sql::begin_query(move || async move {
            begun.set(begun.get() + 1);
            let after = if begun.get() == 1 { after_first } else { 5 };
            engine(after, &[row(4, "1"), row(6, "3")][if after < 4 { 0 } else { 1 }..]).sql(sql).await?.collect().await
        })
    };
    for (after, times) in [(3, 2), (5, 1)] {
        let rows = begin(after).await.unwrap();
        assert_eq!((rows.iter().map(|batch| batch.num_rows()).sum::<usize>(), begun.get()), (3, times), "from {after}");
    }
    // One that was compacted behind the place alone is none of its business.
    assert!(answer(&engine(1, &[row(2, "2")]), sql).await.contains("files of a table were compacted while the query began"));
}

#[tokio::test]
async fn keys_that_memory_does_not_hold_are_merged_in_shares() {
    const ROWS: u64 = 40_000;
    let version = Version::new(1, &[("id", Utf8), ("note", Int64)], &["id"]);
    let files: Vec<Vec<Change>> = (0..4)
        .map(|file| {
            let row = |i: u64| {
                let n = file * ROWS / 4 + i;
                let (id, note) = (format!("customer {}", n * 7919 % 27_011), n.to_string());
                let kind = if n.is_multiple_of(9) { Delete } else { UpdateInsert };
                change(n + 1, kind, [Some(id.as_str()), Some(note.as_str())])
            };
            (0..ROWS / 4).map(row).collect()
        })
        .collect();
    let (ordered, other) = (Lake::new(), Lake::without_order());
    for lake in [&ordered, &other] {
        for (i, changes) in files.iter().enumerate() {
            lake.write(&format!("shop/t/{i}.parquet"), "t", &version, changes).await;
        }
    }
    let sql = "select count(*) as n, sum(note) as s, count(distinct id) as d from t";
    let expected = answer(&other.engine(&["t"]), sql).await;
    for (memory_bytes, in_shares) in [(64 << 20, false), (3 << 20, true), (1 << 20, true)] {
        let engine = QueryEngine::new(vec![ordered.table("t")], memory_bytes).unwrap();
        assert_eq!(answer(&engine, "select count(*) as n, sum(note) as s from t").await, {
            let columns = |line: &str| line.rsplit_once(" | ").map(|(rest, _)| format!("{rest}\n"));
            expected.lines().filter_map(columns).collect::<String>()
        });
        let plan = answer(&engine, "explain analyze select count(*) as n from t").await;
        assert_eq!(metric(&plan, "MergeScan", "walks") != "1", in_shares, "{plan}");
        assert_eq!(metric(&plan, "MergeScan", "input_rows"), "40.00 K", "{plan}");
    }
}

#[tokio::test]
async fn a_large_table_spills_within_its_memory() {
    const ROWS: u64 = 60_000;
    let lake = Lake::without_order();
    let version = orders();
    let note = "n".repeat(200);
    for file in 0..4 {
        let changes: Vec<Change> = (0..ROWS / 4)
            .map(|i| change(file * ROWS + i + 1, Insert, [Some((i * 4 + file).to_string().as_str()), Some(note.as_str())]))
            .collect();
        lake.write(&format!("shop/orders/{file}.parquet"), "orders", &version, &changes).await;
    }
    let engine = QueryEngine::new(vec![lake.table("orders")], 16 << 20).unwrap();
    assert_eq!(answer(&engine, "select count(*) as n, sum(length(note)) as l from orders").await, "n | l\n60000 | 12000000\n");
    let plan = answer(&engine, "explain analyze select count(*) as n, sum(length(note)) as l from orders").await;
    assert_eq!(metric(&plan, "MergeExec", "input_rows"), "60.00 K", "{plan}");
    assert!(plan.contains("peak_mem_used="), "{plan}");
    assert_ne!(metric(&plan, "MergeExec", "spill_count"), "0", "{plan}");
    let tiny = QueryEngine::new(vec![lake.table("orders")], 64 << 10).unwrap();
    let answer = answer(&tiny, "select max(n) as n from (select row_number() over (order by note) as n from shop_changes.orders)").await;
    assert!(answer.contains("Config: the query needs more memory than it may have"), "{answer}");
}

#[tokio::test]
async fn tokens_are_turned_back_by_the_holder_of_the_key() {
    let keys = |key: &str| MaskKeys::new([("pii".to_owned(), key.into())]).unwrap();
    let engine = || QueryEngine::new(vec![], MEMORY_BYTES).unwrap();
    let sql = "SELECT unmask(token, 'pii') = 'Ada.Lovelace@example.com' AS back, token <> 'Ada.Lovelace@example.com' AS hidden
               FROM (SELECT mask_tokenize(name) AS token FROM (VALUES ('Ada.Lovelace@example.com')) AS t (name))";
    let back = engine().with_masks(&keys("0123456789abcdef")).sql(sql).await.unwrap().collect().await.unwrap();
    assert!(back[0].column(0).as_boolean().value(0) && back[0].column(1).as_boolean().value(0));
    for (sql, expected) in [
        ("SELECT unmask('x', 'pii2')", "there is no key of the id that unmask names; keys are: pii"),
        ("SELECT mask_tokenize(true)", "tokens are for text"),
    ] {
        let error = engine().with_masks(&keys("0123456789abcdef")).sql(sql).await.unwrap_err().report();
        assert!(error.contains(expected), "{error}");
    }
}
