//! Which tables changes go to, in which versions, and what becomes of them as a table changes.

use std::sync::Arc;

use arrow::datatypes::DataType;
use expect_test::{Expect, expect};
use logweir_core::{Pattern, Relation, Transform};
use logweir_sql::{BadValue, SchemaChange, SharedTruncate, SqlContext, SqlRule, SqlTransform};

use super::changes::{batch, changes, described, printed, table};
use super::{applied, customers, rule, transform};

use DataType::*;

fn into(table: &str, sql: &str, into: &str) -> SqlRule {
    SqlRule { into: Some(into.to_owned()), ..SqlRule::new(Pattern::new(table), sql) }
}

/// Plans versions of tables one after another, and says what each becomes.
fn planned(transform: &mut SqlTransform, relations: &[Arc<Relation>]) -> String {
    let one = |relation: &Arc<Relation>| match transform.output(relation) {
        Ok(targets) => {
            let targets: Vec<String> = targets.iter().map(|target| format!("{} of {}", described(target), target.origin())).collect();
            format!("{} v{} -> {}\n", relation.name(), relation.version(), targets.join("; "))
        }
        Err(error) => format!("{} v{} {}: {}\n", relation.name(), relation.version(), error.kind().as_str(), error.report()),
    };
    relations.iter().map(one).collect()
}

#[test]
fn two_rules_split_a_table() {
    let rules = vec![
        into("shop.customers", "SELECT * FROM customers WHERE age < 18", "{schema}.young_{table}"),
        into("shop.customers", "SELECT id AS customer, age FROM customers WHERE age >= 18", "adult.customers"),
        rule("SELECT id FROM source"),
    ];
    let rows =
        "insert 1 | ada | 20\n update 1 | ada | 20 -> 1 | ada | 17\n update 1 | ada | 17 -> 1 | ada | 18\n delete 1 | ada | 18\n truncate";
    expect![[r#"
        shop.young_customers: id* Int32, name Utf8, age Int32
        INSERT 1 | ada | 17
        DELETE 1 | ~ | ~
        TRUNCATE NULL | NULL | NULL
        adult.customers: customer* Int32, age Int32
        INSERT 1 | 20
        DELETE 1 | ~
        INSERT 1 | 18
        DELETE 1 | 18
        TRUNCATE NULL | NULL
        shop.customers: id* Int32
        INSERT 1
        UPDATE-INSERT 1
        UPDATE-INSERT 1
        DELETE 1
        TRUNCATE NULL
    "#]]
    .assert_eq(&applied(rules, SqlContext::default(), &customers(), rows));
}

#[test]
fn a_table_without_a_rule_passes() {
    let mut transform = transform(vec![into("shop.orders", "SELECT * FROM orders", "x.orders")], SqlContext::default());
    let relation = customers();
    assert!(Arc::ptr_eq(&transform.output(&relation).unwrap()[0], &relation));
    assert_eq!(transform.unmatched(), [0]);
    let made = transform.apply(batch(&relation, &changes("update 1 | ada | 3 -> 1 | ~ | 4\n truncate"))).unwrap();
    assert!(made[0].before.is_some(), "what rows were before passes, too");
    expect![[r#"
        shop.customers: id* Int32, name Utf8, age Int32
        UPDATE-INSERT 1 | ~ | 4
        TRUNCATE NULL | NULL | NULL
    "#]]
    .assert_eq(&printed(&made[0]));
}

#[test]
fn shards_are_brought_together() {
    let rules = || {
        vec![SqlRule {
            key: vec!["shard".to_owned(), "id".to_owned()],
            ..into("shop_*.orders", "SELECT _metadata_source['schema'] AS shard, * FROM source", "all.orders")
        }]
    };
    let shard = |name: &str, version, wide: bool| {
        let mut columns = vec![("id", Int32), ("note", Utf8)];
        if wide {
            columns.push(("more", Int32));
        }
        table(&format!("{name}.orders"), version, &columns, &["id"])
    };
    let mut transform = transform(rules(), SqlContext::default());
    let versions = [
        shard("shop_a", 1, false),
        shard("shop_b", 1, false),
        shard("shop_b", 2, true),
        shard("shop_a", 2, true),
        shard("shop_c", 7, false),
        shard("shop_a", 1, false),
    ];
    expect![[r#"
        shop_a.orders v1 -> all.orders: shard* Utf8, id* Int32, note Utf8 of shop_a.orders
        shop_b.orders v1 -> all.orders: shard* Utf8, id* Int32, note Utf8 of shop_b.orders
        shop_b.orders v2 -> all.orders v2: shard* Utf8, id* Int32, note Utf8, more Int32 of shop_b.orders
        shop_a.orders v2 -> all.orders v2: shard* Utf8, id* Int32, note Utf8, more Int32 of shop_a.orders
        shop_c.orders v7 -> all.orders v7: shard* Utf8, id* Int32, note Utf8 of shop_c.orders
        shop_a.orders v1 -> all.orders: shard* Utf8, id* Int32, note Utf8 of shop_a.orders
    "#]]
    .assert_eq(&planned(&mut transform, &versions));
    let of = |relation: &Arc<Relation>, rows: &str| match transform.apply(batch(relation, &changes(rows))) {
        Ok(batches) => batches.iter().map(printed).collect(),
        Err(error) => error.report(),
    };
    expect![[r#"
        all.orders: shard* Utf8, id* Int32, note Utf8
        INSERT shop_b | 1 | x
        DELETE shop_b | 1 | ~
    "#]]
    .assert_eq(&of(&versions[1], "insert 1 | x\n delete 1 | ~"));
    expect![[r#"
        all.orders v2: shard* Utf8, id* Int32, note Utf8, more Int32
        INSERT shop_b | 1 | x | 5
    "#]]
    .assert_eq(&of(&versions[2], "insert 1 | x | 5"));
    expect!["a table was emptied whose target holds rows of other tables, too (table: shop_b.orders, target: all.orders); set shared_truncate: ignore in the rule, so that its rows stay in the target, or give the table a target of its own"].assert_eq(&of(&versions[2], "insert 1 | x | 5\n truncate"));
}

#[test]
fn a_shared_target_is_not_emptied_by_one_of_its_tables() {
    let rules = vec![SqlRule { shared_truncate: SharedTruncate::Ignore, ..into("shop.*", "SELECT id FROM source", "all.ids") }];
    let mut transform = transform(rules, SqlContext::default());
    let (a, b) = (table("shop.a", 1, &[("id", Int32)], &["id"]), table("shop.b", 1, &[("id", Int32)], &["id"]));
    let made = |transform: &SqlTransform, rows: &str| -> String {
        transform.apply(batch(&a, &changes(rows))).unwrap().iter().map(printed).collect()
    };
    transform.output(&a).unwrap();
    // Not before the other comes, either: its rows may have been landed by a process before.
    expect![[r#"
        all.ids: id* Int32
        INSERT 1
        INSERT 2
    "#]]
    .assert_eq(&made(&transform, "insert 1\n truncate\n insert 2"));
    transform.output(&b).unwrap();
    expect![[r#"
        all.ids: id* Int32
        INSERT 1
        INSERT 2
    "#]]
    .assert_eq(&made(&transform, "insert 1\n truncate\n insert 2"));
    expect![""].assert_eq(&made(&transform, "truncate"));
    // What is known of the stream's tables tells it before the other one has come.
    let rules = vec![SqlRule { shared_truncate: SharedTruncate::Ignore, ..into("shop.*", "SELECT id FROM source", "all.ids") }];
    let mut transform = super::transform(rules, SqlContext { known: vec![Arc::clone(&b), Arc::clone(&a)], ..SqlContext::default() });
    transform.output(&a).unwrap();
    expect![[r#"
        all.ids: id* Int32
        INSERT 1
        INSERT 2
    "#]]
    .assert_eq(&made(&transform, "insert 1\n truncate\n insert 2"));
}

/// Also where the rule that shares it writes its name otherwise, and none of its tables has come.
#[test]
fn a_target_is_shared_whatever_its_rules_call_it() {
    let rules = vec![into("shop.orders", "SELECT id FROM orders", "all.orders"), into("us.orders", "SELECT id FROM orders", "all.{table}")];
    let mut transform = transform(rules, SqlContext::default());
    let orders = table("shop.orders", 1, &[("id", Int32)], &["id"]);
    transform.output(&orders).unwrap();
    let error = transform.apply(batch(&orders, &changes("truncate"))).unwrap_err();
    assert!(error.report().contains("a table was emptied whose target holds rows of other tables"), "{}", error.report());
}

/// What is to tell tables apart is another constant for each.
#[test]
fn tables_that_a_target_cannot_tell_apart_are_warned_of() {
    let warnings = |select: &str, tables: [&str; 2], key: &[&str]| -> usize {
        let keys = key.iter().map(|name| (*name).to_owned()).collect();
        let rules = vec![SqlRule { key: keys, ..into("*.*", select, "all.orders") }];
        let mut transform = transform(rules, SqlContext::default());
        let declared: &[&str] = if key.is_empty() { &[] } else { &["id"] };
        let mut warned = 0;
        for name in tables {
            let (_, warnings) = transform.plan(&table(name, 1, &[("id", Int32)], declared)).unwrap();
            warned += warnings.iter().filter(|warning| warning.message.contains("nothing in its key says which")).count();
        }
        warned
    };
    let of_schema = "SELECT _metadata_source['schema'] AS shop, id FROM source";
    assert_eq!(warnings(of_schema, ["a.orders", "b.orders"], &["shop", "id"]), 0);
    assert_eq!(warnings(of_schema, ["a.orders_1", "a.orders_2"], &["shop", "id"]), 1, "both are of one schema");
    assert_eq!(warnings("SELECT 'x' AS shop, id FROM source", ["a.orders", "b.orders"], &["shop", "id"]), 1);
    assert_eq!(warnings("SELECT id FROM source", ["a.orders", "b.orders"], &["id"]), 1);
    let both = "SELECT _metadata_source['schema'] AS shop, _metadata_source['table'] AS part, id FROM source";
    assert_eq!(warnings(both, ["a.orders_1", "a.orders_2"], &["shop", "part", "id"]), 0);
    // Without a key all columns are one; when a change was read tells no tables apart.
    assert_eq!(warnings("SELECT _metadata_timestamp AS at, id FROM source", ["a.orders", "b.orders"], &[]), 1);
    assert_eq!(warnings(of_schema, ["a.orders", "b.orders"], &[]), 0);
}

#[test]
fn a_table_of_the_stream_keeps_its_name_to_itself() {
    let (a, b) = (table("shop.a", 1, &[("id", Int32)], &["id"]), table("shop.b", 1, &[("id", Int32)], &["id"]));
    let rules = || vec![into("shop.x", "SELECT * FROM source", "y.y"), into("shop.a", "SELECT * FROM source", "shop.b")];
    expect![[r#"
        shop.a v1 -> shop.b: id* Int32 of shop.a
        shop.b v1 config: a transform does not fit a table (table: shop.b, rule: 2, problem: the rule sends shop.a to shop.b, which is a table of the stream itself); give the rule another `into`
    "#]]
    .assert_eq(&planned(&mut transform(rules(), SqlContext::default()), &[Arc::clone(&a), Arc::clone(&b)]));
    expect![[r#"
        shop.b v1 -> shop.b: id* Int32 of shop.b
        shop.a v1 config: a transform does not fit a table (table: shop.a, rule: 2, problem: the rule sends shop.a to shop.b, which is a table of the stream itself); give the rule another `into`
    "#]].assert_eq(&planned(&mut transform(rules(), SqlContext::default()), &[Arc::clone(&b), Arc::clone(&a)]));
    let context = SqlContext { known: vec![b, Arc::clone(&a)], ..SqlContext::default() };
    expect![[r#"
        shop.a v1 config: a transform does not fit a table (table: shop.a, rule: 2, problem: the rule sends shop.a to shop.b, which is a table of the stream itself); give the rule another `into`
    "#]].assert_eq(&planned(&mut transform(rules(), context), &[a]));
}

#[test]
fn columns_come_and_go() {
    let v1 = customers();
    let added = table("shop.customers", 2, &[("id", Int32), ("name", Utf8), ("age", Int32), ("email", Utf8)], &["id"]);
    let dropped = table("shop.customers", 3, &[("id", Int32), ("name", Utf8), ("email", Utf8)], &["id"]);
    let retyped = table("shop.customers", 4, &[("id", Int64), ("name", Utf8), ("email", Utf8), ("age", Utf8)], &["id"]);
    let versions = [v1, added, dropped, retyped];
    let check =
        |rules: Vec<SqlRule>, expected: Expect| expected.assert_eq(&planned(&mut transform(rules, SqlContext::default()), &versions));
    check(
        vec![rule("SELECT * FROM customers")],
        expect![[r#"
        shop.customers v1 -> shop.customers: id* Int32, name Utf8, age Int32 of shop.customers
        shop.customers v2 -> shop.customers v2: id* Int32, name Utf8, age Int32, email Utf8 of shop.customers
        shop.customers v3 -> shop.customers v3: id* Int32, name Utf8, email Utf8 of shop.customers
        shop.customers v4 -> shop.customers v4: id* Int64, name Utf8, email Utf8, age Utf8 of shop.customers
    "#]],
    );
    check(
        vec![rule("SELECT id, name FROM customers")],
        expect![[r#"
        shop.customers v1 -> shop.customers: id* Int32, name Utf8 of shop.customers
        shop.customers v2 -> shop.customers v2: id* Int32, name Utf8 of shop.customers
        shop.customers v3 -> shop.customers v3: id* Int32, name Utf8 of shop.customers
        shop.customers v4 -> shop.customers v4: id* Int64, name Utf8 of shop.customers
    "#]],
    );
    check(
        vec![rule("SELECT id, age + 1 AS next FROM customers WHERE age > 3")],
        expect![[r#"
            shop.customers v1 -> shop.customers: id* Int32, next Int64 of shop.customers
            shop.customers v2 -> shop.customers v2: id* Int32, next Int64 of shop.customers
            shop.customers v3 config: a transform does not fit a table (table: shop.customers, rule: 1, problem: column 'age' not found (line 1, column 12 of the SQL), rule: 1, problem: column 'age' not found (line 1, column 49 of the SQL)); did you mean customers.name?
            shop.customers v4 config: a transform does not fit a table (table: shop.customers, rule: 1, problem: expressions have incompatible types (line 1, column 12 of the SQL)); one is Utf8, the other Int64: make them of one type with CAST
        "#]],
    );
    check(
        vec![rule("SELECT * EXCEPT (age) FROM customers")],
        expect![[r#"
        shop.customers v1 -> shop.customers: id* Int32, name Utf8 of shop.customers
        shop.customers v2 -> shop.customers v2: id* Int32, name Utf8, email Utf8 of shop.customers
        shop.customers v3 config: a transform does not fit a table (table: shop.customers, rule: 1, problem: there is no column age in * (line 1, column 18 of the SQL)); logweir check shows where in the SQL
        shop.customers v4 -> shop.customers v4: id* Int64, name Utf8, email Utf8 of shop.customers
    "#]],
    );
    let null = |sql: &str| SqlRule { schema_change: SchemaChange::Null, ..rule(sql) };
    check(
        vec![null("SELECT id, age + 1 AS next, name FROM customers")],
        expect![[r#"
        shop.customers v1 -> shop.customers: id* Int32, next Int64, name Utf8 of shop.customers
        shop.customers v2 -> shop.customers v2: id* Int32, next Int64, name Utf8 of shop.customers
        shop.customers v3 -> shop.customers v3: id* Int32, next Int64, name Utf8 of shop.customers
        shop.customers v4 config: a transform does not fit a table (table: shop.customers, rule: 1, problem: expressions have incompatible types (line 1, column 12 of the SQL)); one is Utf8, the other Int64: make them of one type with CAST
    "#]],
    );
    check(
        vec![null("SELECT id, nmae FROM customers")],
        expect![[r#"
        shop.customers v1 config: a transform does not fit a table (table: shop.customers, rule: 1, problem: column 'nmae' not found (line 1, column 12 of the SQL)); did you mean customers.name?
        shop.customers v2 config: a transform does not fit a table (table: shop.customers, rule: 1, problem: column 'nmae' not found (line 1, column 12 of the SQL)); did you mean customers.name?
        shop.customers v3 config: a transform does not fit a table (table: shop.customers, rule: 1, problem: column 'nmae' not found (line 1, column 12 of the SQL)); did you mean customers.name?
        shop.customers v4 config: a transform does not fit a table (table: shop.customers, rule: 1, problem: column 'nmae' not found (line 1, column 12 of the SQL)); did you mean customers.name?
    "#]],
    );
    check(
        vec![null("SELECT * EXCEPT (age) FROM customers")],
        expect![[r#"
        shop.customers v1 -> shop.customers: id* Int32, name Utf8 of shop.customers
        shop.customers v2 -> shop.customers v2: id* Int32, name Utf8, email Utf8 of shop.customers
        shop.customers v3 -> shop.customers v3: id* Int32, name Utf8, email Utf8 of shop.customers
        shop.customers v4 -> shop.customers v4: id* Int64, name Utf8, email Utf8 of shop.customers
    "#]],
    );
}

#[test]
fn a_column_that_is_gone_is_null() {
    let v1 = customers();
    let v2 = table("shop.customers", 2, &[("id", Int32), ("name", Utf8)], &["id"]);
    let v3 = table("shop.customers", 3, &[("id", Int32), ("name", Utf8), ("x", Utf8)], &["id"]);
    let null = |sql: &str| vec![SqlRule { schema_change: SchemaChange::Null, ..rule(sql) }];
    let of = |sql: &str| {
        let mut transform = transform(null(sql), SqlContext::default());
        let mut out = planned(&mut transform, &[Arc::clone(&v1), Arc::clone(&v2), Arc::clone(&v3)]);
        for (relation, rows) in
            [(&v2, "insert 1 | ada\n update 1 | ada -> 1 | ~\n update 1 | ~\n delete 1 | ~\n truncate"), (&v3, "insert 1 | ada | x")]
        {
            match transform.apply(batch(relation, &changes(rows))) {
                Ok(batches) => out += &batches.iter().map(printed).collect::<String>(),
                Err(error) => out += &format!("{}\n", error.report()),
            }
        }
        out
    };
    expect![[r#"
        shop.customers v1 -> shop.customers: id* Int32, age Int32, n Utf8, a Int64 of shop.customers
        shop.customers v2 -> shop.customers v2: id* Int32, age Int32, n Utf8, a Int64 of shop.customers
        shop.customers v3 -> shop.customers v3: id* Int32, age Int32, n Utf8, a Int64 of shop.customers
        shop.customers v2: id* Int32, age Int32, n Utf8, a Int64
        INSERT 1 | NULL | adax | -1
        UPDATE-INSERT 1 | NULL | adax | -1
        UPDATE-INSERT 1 | NULL | ~ | -1
        DELETE 1 | NULL | ~ | -1
        TRUNCATE NULL | NULL | NULL | NULL
        shop.customers v3: id* Int32, age Int32, n Utf8, a Int64
        INSERT 1 | NULL | adax | -1
    "#]]
    .assert_eq(&of("SELECT id, age, name || 'x' AS n, coalesce(age, -1) AS a FROM customers"));
    expect![[r#"
        shop.customers v1 -> shop.customers: id* Int32, name Utf8 of shop.customers
        shop.customers v2 -> shop.customers v2: id* Int32, name Utf8 of shop.customers
        shop.customers v3 -> shop.customers v3: id* Int32, name Utf8 of shop.customers
        a change cannot be carried by a transform (reason: the log left a value out because it did not change, and the row may be new to the target, table: shop.customers, rule: 1 shop.*, column: name, position: 0000000000000001/0000000000000003/0000000000000003); make the expression fit such rows (TRY_CAST, NULLIF, CASE), have the source log whole rows (REPLICA IDENTITY FULL, binlog_row_image=FULL), or set on_bad_value: quarantine
        shop.customers v3: id* Int32, name Utf8
        INSERT 1 | ada
    "#]].assert_eq(&of("SELECT id, name FROM customers WHERE age IS NULL"));
    expect![[r#"
        shop.customers v1 -> shop.customers: id* Int32, name Utf8 of shop.customers
        shop.customers v2 -> shop.customers v2: id* Int32, name Utf8 of shop.customers
        shop.customers v3 -> shop.customers v3: id* Int32, name Utf8 of shop.customers
        shop.customers v2: id* Int32, name Utf8
        DELETE 1 | ~
        DELETE 1 | ~
        DELETE 1 | ~
        TRUNCATE NULL | NULL
    "#]]
    .assert_eq(&of("SELECT id, name FROM customers WHERE age > 3"));
    expect![[r#"
        shop.customers v1 config: a transform does not fit a table (table: shop.customers, rule: 1, problem: two columns of the target are called id (line 1, column 12 of the SQL)); give one another name with AS, or leave it out of * with EXCEPT
        shop.customers v2 config: a transform does not fit a table (table: shop.customers, rule: 1, problem: two columns of the target are called id (line 1, column 12 of the SQL), rule: 1, problem: column 'age' not found (line 1, column 15 of the SQL)); give one another name with AS, or leave it out of * with EXCEPT
        shop.customers v3 config: a transform does not fit a table (table: shop.customers, rule: 1, problem: two columns of the target are called id (line 1, column 12 of the SQL), rule: 1, problem: column 'age' not found (line 1, column 15 of the SQL)); give one another name with AS, or leave it out of * with EXCEPT
        a batch came before its relation (table: shop.customers, version: 2)
        a batch came before its relation (table: shop.customers, version: 3)
    "#]].assert_eq(&of("SELECT id, *, age AS old FROM customers"));
    // A table as it is now tells what a column is that an earlier version does not have.
    let context = SqlContext { known: vec![Arc::clone(&v1)], ..SqlContext::default() };
    let mut earlier = transform(null("SELECT id, age FROM customers"), context);
    expect![[r#"
        shop.customers v2 -> shop.customers v2: id* Int32, age Int32 of shop.customers
        shop.customers v1 -> shop.customers: id* Int32, age Int32 of shop.customers
    "#]]
    .assert_eq(&planned(&mut earlier, &[v2, v1]));
}

#[test]
fn a_table_without_a_key() {
    let relation = table("shop.log", 1, &[("at", Int32), ("line", Utf8)], &[]);
    let of = |sql: &str, key: &[&str]| {
        let rule = SqlRule { key: key.iter().map(|name| (*name).to_owned()).collect(), ..rule(sql) };
        applied(vec![rule], SqlContext::default(), &relation, "insert 1 | a\n rekey 1 | a -> 1 | b\n delete 1 | b\n truncate")
    };
    expect![[r#"
        shop.log: at Int32, line Utf8
        INSERT 1 | a
        UPDATE-DELETE 1 | a
        UPDATE-INSERT 1 | b
        DELETE 1 | b
        TRUNCATE NULL | NULL
    "#]]
    .assert_eq(&of("SELECT * FROM log", &[]));
    let differs = of("SELECT *, _metadata_change_type AS op, _metadata_timestamp AS changed FROM log", &[]);
    assert!(
        differs.starts_with("warning: shop.log has no key, so its rows are found by all their values, and op, changed may differ"),
        "{differs}"
    );
    let by_time = of("SELECT * FROM log WHERE _metadata_timestamp > '2020-01-01'", &[]);
    assert!(by_time.starts_with("warning: shop.log has no key, and the condition may be true of a row when it comes"), "{by_time}");
    expect![[r#"
        warning: shop.log has no key, so all its columns are one, and without at rows may become equal that were not: their current state cannot tell them apart
        shop.log: line Utf8
        INSERT a
        UPDATE-DELETE a
        UPDATE-INSERT b
        DELETE b
        TRUNCATE NULL
    "#]].assert_eq(&of("SELECT line FROM log", &[]));
    expect![[r#"
        warning: shop.log has no key, so all its columns are one, and without line rows may become equal that were not: their current state cannot tell them apart
        shop.log: at Int32, line Utf8
        INSERT 1 | A
        UPDATE-DELETE 1 | A
        UPDATE-INSERT 1 | B
        DELETE 1 | B
        TRUNCATE NULL | NULL
    "#]].assert_eq(&of("SELECT at, upper(line) AS line FROM log", &[]));
    expect![[r#"
        shop.log: t Utf8, l Utf8, m Utf8
        INSERT 1 | a | a
        UPDATE-DELETE 1 | a | a
        UPDATE-INSERT 1 | b | b
        DELETE 1 | b | b
        TRUNCATE NULL | NULL | NULL
    "#]]
    .assert_eq(&of("SELECT CAST(at AS VARCHAR) AS t, line AS l, line AS m FROM log", &[]));
    expect![[r#"
        shop.log: at* Int32, line Utf8
        INSERT 1 | a
        UPDATE-DELETE 1 | a
        UPDATE-INSERT 1 | b
        DELETE 1 | b
        TRUNCATE NULL | NULL
    "#]]
    .assert_eq(&of("SELECT * FROM log", &["at"]));
}

#[test]
fn a_quarantine_is_a_target_of_every_table_that_has_a_rule() {
    let context = SqlContext { bad_value: BadValue::Quarantine, ..SqlContext::default() };
    let mut transform = transform(vec![into("shop.customers", "SELECT * FROM source", "x.y")], context);
    let other = table("shop.other", 1, &[("id", Int32)], &["id"]);
    expect![[r#"
        shop.customers v1 -> x.y: id* Int32, name Utf8, age Int32 of shop.customers; logweir.quarantine: database Utf8, schema Utf8, table Utf8, rule Utf8, reason Utf8, row Utf8 of logweir.quarantine
        shop.other v1 -> shop.other: id* Int32 of shop.other
    "#]].assert_eq(&planned(&mut transform, &[customers(), other]));
}

#[test]
fn only_tables_with_a_condition_need_the_row_before() {
    let rules = vec![
        into("shop.a*", "SELECT * FROM source WHERE id > 3", "x.a"),
        into("shop.b", "SELECT * FROM source", "x.b"),
        into("*.c", "SELECT * FROM source WHERE true", "x.c"),
    ];
    let transform = transform(rules, SqlContext::default());
    assert_eq!(transform.before_images().iter().map(Pattern::as_str).collect::<Vec<_>>(), ["shop.a*", "*.c"]);
}
