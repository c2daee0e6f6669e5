//! What a filter makes of changes.

use arrow::datatypes::DataType;
use expect_test::{Expect, expect};
use logweir_sql::{BadValue, Reference, References, SqlContext, SqlRule, Unresolved};

use super::changes::{Change, LEFT_OUT, batch, changes, printed, table};
use super::{applied, customers, customers_under, rule, transform};

fn check(condition: &str, changes: &str, expected: Expect) {
    expected.assert_eq(&customers_under(&format!("SELECT * FROM customers WHERE {condition}"), changes));
}

/// What becomes of each change alone where its before image is whole, of the key alone, and where there is none.
fn check_images(rule: SqlRule, context: &SqlContext, text: &str, expected: Expect) {
    let relation = customers();
    let mut transform = transform(vec![rule], context.clone());
    transform.plan(&relation).unwrap();
    let one = |changes: &[Change]| match logweir_core::Transform::apply(&transform, batch(&relation, changes)) {
        Ok(batches) if batches.is_empty() => "nothing".to_owned(),
        Ok(batches) => {
            let lines: Vec<String> =
                batches.iter().flat_map(|batch| printed(batch).lines().skip(1).map(str::to_owned).collect::<Vec<_>>()).collect();
            lines.join("; ")
        }
        Err(error) => format!("BAD {}", error.report().split("reason: ").nth(1).unwrap().split(", table").next().unwrap()),
    };
    let mut out = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let whole = changes(line);
        let key_only = |values: &mut Vec<Option<String>>| values.iter_mut().skip(1).for_each(|value| *value = Some(LEFT_OUT.to_owned()));
        let mut key = whole.clone();
        for change in &mut key {
            if let Some(before) = &mut change.before {
                key_only(before);
            }
            if change.change_type.deletes() {
                key_only(&mut change.values);
            }
        }
        let mut none = key.clone();
        none.iter_mut().for_each(|change| change.before = None);
        out += &format!("{line}\n  whole: {}\n  key:   {}\n  none:  {}\n", one(&whole), one(&key), one(&none));
    }
    expected.assert_eq(&out);
}

const UPDATES: &str = "
    update 1 | ada | 20 -> 1 | ada | 21
    update 1 | ada | 17 -> 1 | ada | 18
    update 1 | ada | 18 -> 1 | ada | 17
    update 1 | ada | 10 -> 1 | ada | 11
    update 1 | ada | NULL -> 1 | ada | 30
    update 1 | ada | 30 -> 1 | ada | NULL
    rekey 1 | ada | 20 -> 2 | ada | 21
    rekey 1 | ada | 17 -> 2 | ada | 18
    rekey 1 | ada | 18 -> 2 | ada | 17
    rekey 1 | ada | 10 -> 2 | ada | 11
    delete 1 | ada | 20
    delete 1 | ada | 17
    delete 1 | ada | NULL
    insert 1 | ada | 20
    insert 1 | ada | 17
    insert 1 | ada | NULL
    read 1 | ada | 20
    read 1 | ada | 17
    truncate
";

#[test]
fn a_condition_on_other_columns() {
    let rule = rule("SELECT * FROM customers WHERE age >= 18");
    check_images(
        rule,
        &SqlContext::default(),
        UPDATES,
        expect![[r#"
        update 1 | ada | 20 -> 1 | ada | 21
          whole: UPDATE-INSERT 1 | ada | 21
          key:   UPDATE-INSERT 1 | ada | 21
          none:  UPDATE-INSERT 1 | ada | 21
        update 1 | ada | 17 -> 1 | ada | 18
          whole: INSERT 1 | ada | 18
          key:   UPDATE-INSERT 1 | ada | 18
          none:  UPDATE-INSERT 1 | ada | 18
        update 1 | ada | 18 -> 1 | ada | 17
          whole: DELETE 1 | ~ | ~
          key:   DELETE 1 | ~ | ~
          none:  DELETE 1 | ~ | ~
        update 1 | ada | 10 -> 1 | ada | 11
          whole: nothing
          key:   DELETE 1 | ~ | ~
          none:  DELETE 1 | ~ | ~
        update 1 | ada | NULL -> 1 | ada | 30
          whole: INSERT 1 | ada | 30
          key:   UPDATE-INSERT 1 | ada | 30
          none:  UPDATE-INSERT 1 | ada | 30
        update 1 | ada | 30 -> 1 | ada | NULL
          whole: DELETE 1 | ~ | ~
          key:   DELETE 1 | ~ | ~
          none:  DELETE 1 | ~ | ~
        rekey 1 | ada | 20 -> 2 | ada | 21
          whole: UPDATE-DELETE 1 | ada | 20; UPDATE-INSERT 2 | ada | 21
          key:   UPDATE-DELETE 1 | ~ | ~; UPDATE-INSERT 2 | ada | 21
          none:  UPDATE-DELETE 1 | ~ | ~; UPDATE-INSERT 2 | ada | 21
        rekey 1 | ada | 17 -> 2 | ada | 18
          whole: INSERT 2 | ada | 18
          key:   UPDATE-DELETE 1 | ~ | ~; UPDATE-INSERT 2 | ada | 18
          none:  UPDATE-DELETE 1 | ~ | ~; UPDATE-INSERT 2 | ada | 18
        rekey 1 | ada | 18 -> 2 | ada | 17
          whole: UPDATE-DELETE 1 | ada | 18
          key:   UPDATE-DELETE 1 | ~ | ~
          none:  UPDATE-DELETE 1 | ~ | ~
        rekey 1 | ada | 10 -> 2 | ada | 11
          whole: nothing
          key:   UPDATE-DELETE 1 | ~ | ~
          none:  UPDATE-DELETE 1 | ~ | ~
        delete 1 | ada | 20
          whole: DELETE 1 | ada | 20
          key:   DELETE 1 | ~ | ~
          none:  DELETE 1 | ~ | ~
        delete 1 | ada | 17
          whole: nothing
          key:   DELETE 1 | ~ | ~
          none:  DELETE 1 | ~ | ~
        delete 1 | ada | NULL
          whole: nothing
          key:   DELETE 1 | ~ | ~
          none:  DELETE 1 | ~ | ~
        insert 1 | ada | 20
          whole: INSERT 1 | ada | 20
          key:   INSERT 1 | ada | 20
          none:  INSERT 1 | ada | 20
        insert 1 | ada | 17
          whole: nothing
          key:   nothing
          none:  nothing
        insert 1 | ada | NULL
          whole: nothing
          key:   nothing
          none:  nothing
        read 1 | ada | 20
          whole: READ 1 | ada | 20
          key:   READ 1 | ada | 20
          none:  READ 1 | ada | 20
        read 1 | ada | 17
          whole: nothing
          key:   nothing
          none:  nothing
        truncate
          whole: TRUNCATE NULL | NULL | NULL
          key:   TRUNCATE NULL | NULL | NULL
          none:  TRUNCATE NULL | NULL | NULL
    "#]],
    );
}

#[test]
fn a_condition_on_the_key_alone() {
    let rule = rule("SELECT * FROM customers WHERE id < 10");
    let updates = "
        update 1 | ada | 20 -> 1 | ada | 21
        update 1 | ~ | 20 -> 1 | ~ | 21
        update 10 | ada | 20 -> 10 | ada | 21
        rekey 1 | ada | 20 -> 2 | ada | 20
        rekey 1 | ada | 20 -> 2 | ~ | 20
        rekey 1 | ada | 20 -> 12 | ada | 20
        rekey 11 | ada | 20 -> 2 | ada | 20
        rekey 11 | ada | 20 -> 2 | ~ | 20
        rekey 11 | ada | 20 -> 12 | ada | 20
        delete 1 | ada | 20
        delete 11 | ada | 20
        insert 1 | ada | 20
        insert 11 | ada | 20
        truncate
    ";
    check_images(
        rule,
        &SqlContext::default(),
        updates,
        expect![[r#"
        update 1 | ada | 20 -> 1 | ada | 21
          whole: UPDATE-INSERT 1 | ada | 21
          key:   UPDATE-INSERT 1 | ada | 21
          none:  UPDATE-INSERT 1 | ada | 21
        update 1 | ~ | 20 -> 1 | ~ | 21
          whole: UPDATE-INSERT 1 | ~ | 21
          key:   UPDATE-INSERT 1 | ~ | 21
          none:  UPDATE-INSERT 1 | ~ | 21
        update 10 | ada | 20 -> 10 | ada | 21
          whole: nothing
          key:   nothing
          none:  nothing
        rekey 1 | ada | 20 -> 2 | ada | 20
          whole: UPDATE-DELETE 1 | ada | 20; UPDATE-INSERT 2 | ada | 20
          key:   UPDATE-DELETE 1 | ~ | ~; UPDATE-INSERT 2 | ada | 20
          none:  UPDATE-DELETE 1 | ~ | ~; UPDATE-INSERT 2 | ada | 20
        rekey 1 | ada | 20 -> 2 | ~ | 20
          whole: UPDATE-DELETE 1 | ada | 20; UPDATE-INSERT 2 | ada | 20
          key:   UPDATE-DELETE 1 | ~ | ~; UPDATE-INSERT 2 | ~ | 20
          none:  UPDATE-DELETE 1 | ~ | ~; UPDATE-INSERT 2 | ~ | 20
        rekey 1 | ada | 20 -> 12 | ada | 20
          whole: UPDATE-DELETE 1 | ada | 20
          key:   UPDATE-DELETE 1 | ~ | ~
          none:  UPDATE-DELETE 1 | ~ | ~
        rekey 11 | ada | 20 -> 2 | ada | 20
          whole: INSERT 2 | ada | 20
          key:   INSERT 2 | ada | 20
          none:  INSERT 2 | ada | 20
        rekey 11 | ada | 20 -> 2 | ~ | 20
          whole: INSERT 2 | ada | 20
          key:   BAD the log left a value out because it did not change, and the row may be new to the target
          none:  BAD the log left a value out because it did not change, and the row may be new to the target
        rekey 11 | ada | 20 -> 12 | ada | 20
          whole: nothing
          key:   nothing
          none:  nothing
        delete 1 | ada | 20
          whole: DELETE 1 | ada | 20
          key:   DELETE 1 | ~ | ~
          none:  DELETE 1 | ~ | ~
        delete 11 | ada | 20
          whole: nothing
          key:   nothing
          none:  nothing
        insert 1 | ada | 20
          whole: INSERT 1 | ada | 20
          key:   INSERT 1 | ada | 20
          none:  INSERT 1 | ada | 20
        insert 11 | ada | 20
          whole: nothing
          key:   nothing
          none:  nothing
        truncate
          whole: TRUNCATE NULL | NULL | NULL
          key:   TRUNCATE NULL | NULL | NULL
          none:  TRUNCATE NULL | NULL | NULL
    "#]],
    );
}

#[test]
fn a_condition_on_what_the_log_left_out() {
    let updates = "
        update 1 | ada | 20 -> 1 | ~ | 21
        update 1 | bob | 20 -> 1 | ~ | 21
        rekey 1 | ada | 20 -> 2 | ~ | 21
        rekey 1 | bob | 20 -> 2 | ~ | 21
    ";
    check_images(
        rule("SELECT * FROM customers WHERE name = 'ada'"),
        &SqlContext::default(),
        updates,
        expect![[r#"
        update 1 | ada | 20 -> 1 | ~ | 21
          whole: UPDATE-INSERT 1 | ada | 21
          key:   BAD the condition needs a value that the log left out because it did not change
          none:  BAD the condition needs a value that the log left out because it did not change
        update 1 | bob | 20 -> 1 | ~ | 21
          whole: nothing
          key:   BAD the condition needs a value that the log left out because it did not change
          none:  BAD the condition needs a value that the log left out because it did not change
        rekey 1 | ada | 20 -> 2 | ~ | 21
          whole: UPDATE-DELETE 1 | ada | 20; UPDATE-INSERT 2 | ada | 21
          key:   BAD the condition needs a value that the log left out because it did not change
          none:  BAD the condition needs a value that the log left out because it did not change
        rekey 1 | bob | 20 -> 2 | ~ | 21
          whole: nothing
          key:   BAD the condition needs a value that the log left out because it did not change
          none:  BAD the condition needs a value that the log left out because it did not change
    "#]],
    );
    // What is known decides, but not for what is not.
    check_images(
        rule("SELECT * FROM customers WHERE name = 'ada' AND age > 50"),
        &SqlContext::default(),
        updates,
        expect![[r#"
        update 1 | ada | 20 -> 1 | ~ | 21
          whole: nothing
          key:   BAD the condition needs a value that the log left out because it did not change
          none:  BAD the condition needs a value that the log left out because it did not change
        update 1 | bob | 20 -> 1 | ~ | 21
          whole: nothing
          key:   BAD the condition needs a value that the log left out because it did not change
          none:  BAD the condition needs a value that the log left out because it did not change
        rekey 1 | ada | 20 -> 2 | ~ | 21
          whole: nothing
          key:   BAD the condition needs a value that the log left out because it did not change
          none:  BAD the condition needs a value that the log left out because it did not change
        rekey 1 | bob | 20 -> 2 | ~ | 21
          whole: nothing
          key:   BAD the condition needs a value that the log left out because it did not change
          none:  BAD the condition needs a value that the log left out because it did not change
    "#]],
    );
}

#[test]
fn a_row_that_may_be_new_lacks_what_the_log_left_out() {
    let updates = "
        update 1 | ada | 20 -> 1 | ~ | 21
        update 1 | ada | 17 -> 1 | ~ | 21
        update 1 | ada | 20 -> 1 | ~ | 12
        rekey 1 | ada | 20 -> 2 | ~ | 21
        rekey 1 | ada | 17 -> 2 | ~ | 21
    ";
    let rule = rule("SELECT * FROM customers WHERE age >= 18");
    check_images(
        rule.clone(),
        &SqlContext::default(),
        updates,
        expect![[r#"
        update 1 | ada | 20 -> 1 | ~ | 21
          whole: UPDATE-INSERT 1 | ada | 21
          key:   BAD the log left a value out because it did not change, and the row may be new to the target
          none:  BAD the log left a value out because it did not change, and the row may be new to the target
        update 1 | ada | 17 -> 1 | ~ | 21
          whole: INSERT 1 | ada | 21
          key:   BAD the log left a value out because it did not change, and the row may be new to the target
          none:  BAD the log left a value out because it did not change, and the row may be new to the target
        update 1 | ada | 20 -> 1 | ~ | 12
          whole: DELETE 1 | ~ | ~
          key:   DELETE 1 | ~ | ~
          none:  DELETE 1 | ~ | ~
        rekey 1 | ada | 20 -> 2 | ~ | 21
          whole: UPDATE-DELETE 1 | ada | 20; UPDATE-INSERT 2 | ada | 21
          key:   BAD the log left a value out because it did not change, and the row may be new to the target
          none:  BAD the log left a value out because it did not change, and the row may be new to the target
        rekey 1 | ada | 17 -> 2 | ~ | 21
          whole: INSERT 2 | ada | 21
          key:   BAD the log left a value out because it did not change, and the row may be new to the target
          none:  BAD the log left a value out because it did not change, and the row may be new to the target
    "#]],
    );
    let keep = SqlRule { unresolved: Unresolved::Keep, ..rule };
    check_images(
        keep,
        &SqlContext::default(),
        updates,
        expect![[r#"
        update 1 | ada | 20 -> 1 | ~ | 21
          whole: UPDATE-INSERT 1 | ada | 21
          key:   UPDATE-INSERT 1 | ~ | 21
          none:  UPDATE-INSERT 1 | ~ | 21
        update 1 | ada | 17 -> 1 | ~ | 21
          whole: INSERT 1 | ada | 21
          key:   UPDATE-INSERT 1 | ~ | 21
          none:  UPDATE-INSERT 1 | ~ | 21
        update 1 | ada | 20 -> 1 | ~ | 12
          whole: DELETE 1 | ~ | ~
          key:   DELETE 1 | ~ | ~
          none:  DELETE 1 | ~ | ~
        rekey 1 | ada | 20 -> 2 | ~ | 21
          whole: UPDATE-DELETE 1 | ada | 20; UPDATE-INSERT 2 | ada | 21
          key:   UPDATE-DELETE 1 | ~ | ~; UPDATE-INSERT 2 | ~ | 21
          none:  UPDATE-DELETE 1 | ~ | ~; UPDATE-INSERT 2 | ~ | 21
        rekey 1 | ada | 17 -> 2 | ~ | 21
          whole: INSERT 2 | ada | 21
          key:   UPDATE-DELETE 1 | ~ | ~; UPDATE-INSERT 2 | ~ | 21
          none:  UPDATE-DELETE 1 | ~ | ~; UPDATE-INSERT 2 | ~ | 21
    "#]],
    );
}

/// A change of another kind is as if it had not been, whatever its row is, and whether anybody knows.
#[test]
fn a_condition_on_kinds_and_rows() {
    check_images(
        rule("SELECT * FROM customers WHERE age > 18 AND _metadata_change_type <> 'DELETE'"),
        &SqlContext::default(),
        "delete 1 | ada | 20
         delete 1 | ada | 5
         update 1 | ada | 20 -> 1 | ada | 5",
        expect![[r#"
            delete 1 | ada | 20
              whole: nothing
              key:   nothing
              none:  nothing
            delete 1 | ada | 5
              whole: nothing
              key:   nothing
              none:  nothing
            update 1 | ada | 20 -> 1 | ada | 5
              whole: DELETE 1 | ~ | ~
              key:   DELETE 1 | ~ | ~
              none:  DELETE 1 | ~ | ~
        "#]],
    );
    for (version, sql, rows) in [
        (1, "SELECT * FROM customers WHERE _metadata_change_type <> 'READ'", "read 1 | ada | 20"),
        (2, "SELECT * FROM customers WHERE _metadata_change_type <> 'READ'", "read 1 | ada | 20"),
        (2, "SELECT * FROM customers WHERE age > 18 AND _metadata_change_type = 'INSERT'", "read 1 | ada | 20\n update 1 | ada | 3"),
        (2, "SELECT * FROM customers WHERE 10 / age > 1 AND NOT _metadata_deleted", "delete 1 | ada | 0"),
    ] {
        let relation =
            table("shop.customers", version, &[("id", DataType::Int32), ("name", DataType::Utf8), ("age", DataType::Int32)], &["id"]);
        assert_eq!(applied(vec![rule(sql)], SqlContext::default(), &relation, rows), "", "{sql}");
    }
}

#[test]
fn a_condition_on_metadata() {
    let updates = "
        update 1 | ada | 20 -> 1 | ada | 21
        update 1 | ~ | 20 -> 1 | ~ | 21
        delete 1 | ada | 20
        rekey 1 | ada | 20 -> 2 | ada | 20
        insert 1 | ada | 20
    ";
    check_images(
        rule("SELECT * FROM customers WHERE _metadata_change_type <> 'DELETE'"),
        &SqlContext::default(),
        updates,
        expect![[r#"
        update 1 | ada | 20 -> 1 | ada | 21
          whole: UPDATE-INSERT 1 | ada | 21
          key:   UPDATE-INSERT 1 | ada | 21
          none:  UPDATE-INSERT 1 | ada | 21
        update 1 | ~ | 20 -> 1 | ~ | 21
          whole: UPDATE-INSERT 1 | ~ | 21
          key:   UPDATE-INSERT 1 | ~ | 21
          none:  UPDATE-INSERT 1 | ~ | 21
        delete 1 | ada | 20
          whole: nothing
          key:   nothing
          none:  nothing
        rekey 1 | ada | 20 -> 2 | ada | 20
          whole: UPDATE-DELETE 1 | ada | 20; UPDATE-INSERT 2 | ada | 20
          key:   UPDATE-DELETE 1 | ~ | ~; UPDATE-INSERT 2 | ada | 20
          none:  UPDATE-DELETE 1 | ~ | ~; UPDATE-INSERT 2 | ada | 20
        insert 1 | ada | 20
          whole: INSERT 1 | ada | 20
          key:   INSERT 1 | ada | 20
          none:  INSERT 1 | ada | 20
    "#]],
    );
    check_images(
        rule("SELECT * FROM customers WHERE NOT _metadata_deleted"),
        &SqlContext::default(),
        updates,
        expect![[r#"
        update 1 | ada | 20 -> 1 | ada | 21
          whole: UPDATE-INSERT 1 | ada | 21
          key:   UPDATE-INSERT 1 | ada | 21
          none:  UPDATE-INSERT 1 | ada | 21
        update 1 | ~ | 20 -> 1 | ~ | 21
          whole: UPDATE-INSERT 1 | ~ | 21
          key:   UPDATE-INSERT 1 | ~ | 21
          none:  UPDATE-INSERT 1 | ~ | 21
        delete 1 | ada | 20
          whole: nothing
          key:   nothing
          none:  nothing
        rekey 1 | ada | 20 -> 2 | ada | 20
          whole: INSERT 2 | ada | 20
          key:   INSERT 2 | ada | 20
          none:  INSERT 2 | ada | 20
        insert 1 | ada | 20
          whole: INSERT 1 | ada | 20
          key:   INSERT 1 | ada | 20
          none:  INSERT 1 | ada | 20
    "#]],
    );
    check_images(
        rule("SELECT * FROM customers WHERE _metadata_timestamp < TIMESTAMP '1970-01-01'"),
        &SqlContext::default(),
        updates,
        expect![[r#"
            update 1 | ada | 20 -> 1 | ada | 21
              whole: DELETE 1 | ~ | ~
              key:   DELETE 1 | ~ | ~
              none:  DELETE 1 | ~ | ~
            update 1 | ~ | 20 -> 1 | ~ | 21
              whole: DELETE 1 | ~ | ~
              key:   DELETE 1 | ~ | ~
              none:  DELETE 1 | ~ | ~
            delete 1 | ada | 20
              whole: DELETE 1 | ~ | ~
              key:   DELETE 1 | ~ | ~
              none:  DELETE 1 | ~ | ~
            rekey 1 | ada | 20 -> 2 | ada | 20
              whole: UPDATE-DELETE 1 | ~ | ~
              key:   UPDATE-DELETE 1 | ~ | ~
              none:  UPDATE-DELETE 1 | ~ | ~
            insert 1 | ada | 20
              whole: nothing
              key:   nothing
              none:  nothing
        "#]],
    );
    check_images(
        rule("SELECT * FROM customers WHERE _metadata_source['table'] = 'customers'"),
        &SqlContext::default(),
        updates,
        expect![[r#"
        update 1 | ada | 20 -> 1 | ada | 21
          whole: UPDATE-INSERT 1 | ada | 21
          key:   UPDATE-INSERT 1 | ada | 21
          none:  UPDATE-INSERT 1 | ada | 21
        update 1 | ~ | 20 -> 1 | ~ | 21
          whole: UPDATE-INSERT 1 | ~ | 21
          key:   UPDATE-INSERT 1 | ~ | 21
          none:  UPDATE-INSERT 1 | ~ | 21
        delete 1 | ada | 20
          whole: DELETE 1 | ada | 20
          key:   DELETE 1 | ~ | ~
          none:  DELETE 1 | ~ | ~
        rekey 1 | ada | 20 -> 2 | ada | 20
          whole: UPDATE-DELETE 1 | ada | 20; UPDATE-INSERT 2 | ada | 20
          key:   UPDATE-DELETE 1 | ~ | ~; UPDATE-INSERT 2 | ada | 20
          none:  UPDATE-DELETE 1 | ~ | ~; UPDATE-INSERT 2 | ada | 20
        insert 1 | ada | 20
          whole: INSERT 1 | ada | 20
          key:   INSERT 1 | ada | 20
          none:  INSERT 1 | ada | 20
    "#]],
    );
}

#[test]
fn a_condition_on_a_reference_table() {
    use arrow::array::{Int32Array, RecordBatch, StringArray};
    let wanted = RecordBatch::try_from_iter([
        ("name", std::sync::Arc::new(StringArray::from(vec!["ada", "bob"])) as arrow::array::ArrayRef),
        ("least", std::sync::Arc::new(Int32Array::from(vec![18, 30]))),
    ]);
    let references = References::from_iter([Reference::new("ages", wanted.unwrap())]);
    let context = SqlContext { references, ..SqlContext::default() };
    let sql = "SELECT c.*, least FROM customers c LEFT JOIN ages a ON c.name = a.name WHERE age >= least";
    check_images(
        rule(sql),
        &context,
        UPDATES,
        expect![[r#"
        update 1 | ada | 20 -> 1 | ada | 21
          whole: UPDATE-INSERT 1 | ada | 21 | 18
          key:   UPDATE-INSERT 1 | ada | 21 | 18
          none:  UPDATE-INSERT 1 | ada | 21 | 18
        update 1 | ada | 17 -> 1 | ada | 18
          whole: UPDATE-INSERT 1 | ada | 18 | 18
          key:   UPDATE-INSERT 1 | ada | 18 | 18
          none:  UPDATE-INSERT 1 | ada | 18 | 18
        update 1 | ada | 18 -> 1 | ada | 17
          whole: DELETE 1 | ~ | ~ | ~
          key:   DELETE 1 | ~ | ~ | ~
          none:  DELETE 1 | ~ | ~ | ~
        update 1 | ada | 10 -> 1 | ada | 11
          whole: DELETE 1 | ~ | ~ | ~
          key:   DELETE 1 | ~ | ~ | ~
          none:  DELETE 1 | ~ | ~ | ~
        update 1 | ada | NULL -> 1 | ada | 30
          whole: UPDATE-INSERT 1 | ada | 30 | 18
          key:   UPDATE-INSERT 1 | ada | 30 | 18
          none:  UPDATE-INSERT 1 | ada | 30 | 18
        update 1 | ada | 30 -> 1 | ada | NULL
          whole: DELETE 1 | ~ | ~ | ~
          key:   DELETE 1 | ~ | ~ | ~
          none:  DELETE 1 | ~ | ~ | ~
        rekey 1 | ada | 20 -> 2 | ada | 21
          whole: UPDATE-DELETE 1 | ada | 20 | 18; UPDATE-INSERT 2 | ada | 21 | 18
          key:   UPDATE-DELETE 1 | ~ | ~ | ~; UPDATE-INSERT 2 | ada | 21 | 18
          none:  UPDATE-DELETE 1 | ~ | ~ | ~; UPDATE-INSERT 2 | ada | 21 | 18
        rekey 1 | ada | 17 -> 2 | ada | 18
          whole: UPDATE-DELETE 1 | ~ | ~ | ~; UPDATE-INSERT 2 | ada | 18 | 18
          key:   UPDATE-DELETE 1 | ~ | ~ | ~; UPDATE-INSERT 2 | ada | 18 | 18
          none:  UPDATE-DELETE 1 | ~ | ~ | ~; UPDATE-INSERT 2 | ada | 18 | 18
        rekey 1 | ada | 18 -> 2 | ada | 17
          whole: UPDATE-DELETE 1 | ada | 18 | 18
          key:   UPDATE-DELETE 1 | ~ | ~ | ~
          none:  UPDATE-DELETE 1 | ~ | ~ | ~
        rekey 1 | ada | 10 -> 2 | ada | 11
          whole: UPDATE-DELETE 1 | ~ | ~ | ~
          key:   UPDATE-DELETE 1 | ~ | ~ | ~
          none:  UPDATE-DELETE 1 | ~ | ~ | ~
        delete 1 | ada | 20
          whole: DELETE 1 | ada | 20 | 18
          key:   DELETE 1 | ~ | ~ | ~
          none:  DELETE 1 | ~ | ~ | ~
        delete 1 | ada | 17
          whole: DELETE 1 | ~ | ~ | ~
          key:   DELETE 1 | ~ | ~ | ~
          none:  DELETE 1 | ~ | ~ | ~
        delete 1 | ada | NULL
          whole: DELETE 1 | ~ | ~ | ~
          key:   DELETE 1 | ~ | ~ | ~
          none:  DELETE 1 | ~ | ~ | ~
        insert 1 | ada | 20
          whole: INSERT 1 | ada | 20 | 18
          key:   INSERT 1 | ada | 20 | 18
          none:  INSERT 1 | ada | 20 | 18
        insert 1 | ada | 17
          whole: nothing
          key:   nothing
          none:  nothing
        insert 1 | ada | NULL
          whole: nothing
          key:   nothing
          none:  nothing
        read 1 | ada | 20
          whole: READ 1 | ada | 20 | 18
          key:   READ 1 | ada | 20 | 18
          none:  READ 1 | ada | 20 | 18
        read 1 | ada | 17
          whole: nothing
          key:   nothing
          none:  nothing
        truncate
          whole: TRUNCATE NULL | NULL | NULL | NULL
          key:   TRUNCATE NULL | NULL | NULL | NULL
          none:  TRUNCATE NULL | NULL | NULL | NULL
    "#]],
    );
}

#[test]
fn rows_read_again_may_have_been_landed() {
    let text = "
        read 1 | ada | 20
        read 2 | bob | 17
        read 3 | cid | NULL
        update 3 | cid | NULL -> 3 | cid | 10
    ";
    use DataType::*;
    let again = table("shop.customers", 2, &[("id", Int32), ("name", Utf8), ("age", Int32)], &["id"]);
    let rules = || vec![rule("SELECT * FROM customers WHERE age >= 18")];
    expect![[r#"
        shop.customers: id* Int32, name Utf8, age Int32
        READ 1 | ada | 20
    "#]]
    .assert_eq(&applied(rules(), SqlContext::default(), &customers(), text));
    expect![[r#"
        shop.customers v2: id* Int32, name Utf8, age Int32
        READ 1 | ada | 20
        DELETE 2 | ~ | ~
        DELETE 3 | ~ | ~
        DELETE 3 | ~ | ~
    "#]]
    .assert_eq(&applied(rules(), SqlContext::default(), &again, text));
}

#[test]
fn without_a_key_a_row_is_all_its_columns() {
    use DataType::*;
    let relation = table("shop.events", 1, &[("name", Utf8), ("age", Int32)], &[]);
    let text = "
        insert ada | 20
        insert bob | 17
        rekey ada | 20 -> ada | 21
        rekey ada | 21 -> ada | 12
        rekey ada | 12 -> ada | 22
        rekey bob | 17 -> bob | 16
        update ada | 22 -> ada | 22
        delete ada | 22
        delete bob | 16
        truncate
    ";
    expect![[r#"
        shop.events: name Utf8, age Int32
        INSERT ada | 20
        UPDATE-DELETE ada | 20
        UPDATE-INSERT ada | 21
        UPDATE-DELETE ada | 21
        INSERT ada | 22
        UPDATE-INSERT ada | 22
        DELETE ada | 22
        TRUNCATE NULL | NULL
    "#]]
    .assert_eq(&applied(vec![rule("SELECT * FROM events WHERE age >= 18")], SqlContext::default(), &relation, text));
    // All of a row is its key, so nothing of one that does not pass, or that nobody can judge, is carried, altered table or not.
    let altered = table("shop.events", 2, &[("name", Utf8), ("age", Int32)], &[]);
    let of = |relation, sql: &str, text: &str| {
        let context = SqlContext { bad_value: BadValue::Quarantine, ..SqlContext::default() };
        applied(vec![rule(sql)], context, relation, text)
    };
    let adults = "SELECT * FROM events WHERE age >= 18";
    assert_eq!(of(&altered, adults, text).replace(" v2:", ":"), of(&relation, adults, text));
    assert_eq!(of(&altered, adults, "delete bob | 16\n read bob | 15\n rekey bob | 14 -> bob | 13"), "");
    assert_eq!(of(&relation, "SELECT * FROM events WHERE 100 / (age - 17) > 0", "delete bob | 17"), "");
}

#[test]
fn a_condition_that_is_always_the_same() {
    check(
        "true",
        "update 1 | ~ | 20\n delete 1 | ~ | ~",
        expect![[r#"
        shop.customers: id* Int32, name Utf8, age Int32
        UPDATE-INSERT 1 | ~ | 20
        DELETE 1 | ~ | ~
    "#]],
    );
    check(
        "NULL",
        "update 1 | ~ | 20\n delete 1 | ~ | ~ \n truncate",
        expect![[r#"
        shop.customers: id* Int32, name Utf8, age Int32
        TRUNCATE NULL | NULL | NULL
    "#]],
    );
    check("1 = 2", "insert 1 | ada | 20", expect![[""]]);
}

#[test]
fn a_condition_that_cannot_be_computed_is_bad_for_its_row_alone() {
    let text = "
        insert 1 | ada | 20
        insert 2 | bob | 0
        update 3 | cid | 0 -> 3 | cid | 5
        update 3 | cid | 5 -> 3 | cid | 0
        delete 4 | dan | 0
        delete 5 | eve | 1
        delete 6 | fay | ~
        insert 7 | gus | NULL
    ";
    check(
        "100 / age > 5",
        text,
        expect![[r#"
        a change cannot be carried by a transform (reason: division by zero, table: shop.customers, rule: 1 shop.*, column: WHERE, position: 0000000000000001/0000000000000002/0000000000000003); make the expression fit such rows (TRY_CAST, NULLIF, CASE), have the source log whole rows (REPLICA IDENTITY FULL, binlog_row_image=FULL), or set on_bad_value: quarantine
    "#]],
    );
    let context = SqlContext { bad_value: BadValue::Quarantine, ..SqlContext::default() };
    let rules = vec![rule("SELECT * FROM customers WHERE 100 / age > 5")];
    expect![[r#"
        logweir.quarantine: database Utf8, schema Utf8, table Utf8, rule Utf8, reason Utf8, row Utf8
        INSERT NULL | shop | customers | 1 shop.* | WHERE: division by zero | {"id":2} @2
        UPDATE-INSERT NULL | shop | customers | 1 shop.* | WHERE: division by zero | {"id":3} @4
        shop.customers: id* Int32, name Utf8, age Int32
        UPDATE-INSERT 3 | cid | 5
        DELETE 3 | ~ | ~
        DELETE 4 | ~ | ~
        DELETE 5 | eve | 1
        DELETE 6 | ~ | ~
    "#]]
    .assert_eq(&applied(rules, context, &customers(), text));
    // What stands in front of it guards it, whatever the rows beside.
    check(
        "age <> 0 AND 100 / age > 5",
        text,
        expect![[r#"
        shop.customers: id* Int32, name Utf8, age Int32
        INSERT 3 | cid | 5
        DELETE 3 | ~ | ~
        DELETE 5 | eve | 1
        DELETE 6 | ~ | ~
    "#]],
    );
}

/// A function that panics on a value, and a number that is too large without its sign.
#[test]
fn what_panics_or_wraps_is_bad_for_its_row_alone() {
    let context = || SqlContext { bad_value: BadValue::Quarantine, ..SqlContext::default() };
    let text = "
        insert 1 | ada | 3
        insert 2 | bob | -1
        insert 3 | cid | -2147483648
    ";
    expect![[r#"
        logweir.quarantine: database Utf8, schema Utf8, table Utf8, rule Utf8, reason Utf8, row Utf8
        INSERT NULL | shop | customers | 1 shop.* | name: the expression cannot be computed | {"id":2} @2
        INSERT NULL | shop | customers | 1 shop.* | name: the expression cannot be computed | {"id":3} @3
        shop.customers: id* Int32, name Utf8
        INSERT 1 | ada
    "#]]
    .assert_eq(&applied(vec![rule("SELECT id, lpad(name, age) AS name FROM customers")], context(), &customers(), text));
    expect![[r#"
        logweir.quarantine: database Utf8, schema Utf8, table Utf8, rule Utf8, reason Utf8, row Utf8
        INSERT NULL | shop | customers | 1 shop.* | less: a number is too large | {"id":3} @3
        shop.customers: id* Int32, less Int32
        INSERT 1 | -3
        INSERT 2 | 1
    "#]]
    .assert_eq(&applied(vec![rule("SELECT id, -age AS less FROM customers")], context(), &customers(), text));
}
