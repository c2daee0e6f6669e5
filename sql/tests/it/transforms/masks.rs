//! Masks as functions of SQL.

use std::sync::Arc;

use arrow::datatypes::DataType;
use expect_test::expect;
use logweir_sql::{MaskKeys, MaskKind, SqlContext, mask_functions};

use super::changes::table;
use super::{applied, customers, refused, rule};
use crate::masks::masked_text;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn context(ids: &[&str]) -> SqlContext {
    let keys = MaskKeys::new(ids.iter().map(|id| (id.to_string(), KEY.into()))).unwrap();
    assert!(!format!("{keys:?}").contains(KEY));
    SqlContext { functions: mask_functions(&keys), ..SqlContext::default() }
}

#[test]
fn a_function_makes_what_a_rule_makes() {
    let hash = masked_text(MaskKind::Hash { key: KEY.into() }, "ada@example.com");
    let sql = "SELECT id, mask_hash(name) AS hash, mask_hash(name, 'pii') AS same, mask_email(name) AS email, mask_partial(name) AS partial, \
               mask_null(name) AS nothing, mask_partial('4012888888881881') AS literal, mask_hash(NULL) AS null_too FROM customers";
    let made = applied(vec![rule(sql)], context(&["pii"]), &customers(), "insert 1 | ada@example.com | 20\ninsert 2 | NULL | 20");
    let row = format!("{hash} | {hash} | a***@example.com | ****.com | NULL | ****1881 | NULL");
    assert!(made.contains(&row), "{made}\n{row}");
    assert!(made.contains("2 | NULL | NULL | NULL | NULL | NULL | ****1881 | NULL"), "{made}");
}

#[test]
fn tokens_dates_and_numbers_are_made_too() {
    use DataType::*;
    let columns = [("id", Int32), ("card", Utf8), ("day", Date32), ("pay", Decimal128(10, 2))];
    let relation = table("shop.payments", 1, &columns, &["id"]);
    let token = masked_text(MaskKind::Tokenize { key: KEY.into() }, "4012888888881881");
    let sql = "SELECT mask_tokenize(id, 'pii') AS id, mask_tokenize(card) AS card, mask_date(day, 'quarter') AS day, \
               mask_number(pay, 100) AS pay, mask_number(pay, 0.5) AS half, abs(mask_number_noise(pay, 0.1) - pay) <= pay / 10 AS near FROM payments";
    let made = applied(vec![rule(sql)], context(&["pii"]), &relation, "insert 1 | 4012888888881881 | 2026-11-20 | 1234.56");
    assert!(made.contains(&format!("{token} | 2026-10-01 | 1200.00 | 1234.50 | true")), "{made}");
}

#[test]
fn a_hashed_key_is_a_key() {
    let sql = "SELECT mask_hash(id) AS id, name FROM customers";
    expect![[r#"
        shop.customers: id* Utf8, name Utf8
    "#]]
    .assert_eq(&refused(vec![rule(sql)], context(&["pii"]), &customers()));
}

#[test]
fn calls_that_cannot_be_are_refused_where_they_stand() {
    let list = Arc::new(arrow::datatypes::Field::new_list_field(DataType::Utf8, true));
    let relation =
        table("shop.customers", 1, &[("id", DataType::Int32), ("name", DataType::Utf8), ("tags", DataType::List(list))], &["id"]);
    let mut out = String::new();
    for (ids, call) in [
        (&[][..], "mask_hash(name)"),
        (&["pii-2025", "pii-2026"], "mask_hash(name)"),
        (&["pii-2025", "pii-2026"], "mask_hash(name, 'my secret')"),
        (&["pii-2025", "pii-2026"], "mask_hash(name, name)"),
        (&["pii-2026"], "uper(name) AS upper, mask_hash(name, 'my secret')"),
        (&["pii-2026"], "mask_hash(tags)"),
        (&["pii-2026"], "mask_email(id)"),
        (&["pii-2026"], "mask_date(name, 'month')"),
        (&["pii-2026"], "mask_date(id, 'week')"),
        (&["pii-2026"], "mask_number(id, 0)"),
        (&["pii-2026"], "mask_number(id, id)"),
        (&["pii-2026"], "mask_number_noise(id, 2)"),
        (&["pii-2026"], "unmask(name)"),
        (&["pii-2026"], "mask_partial(name, 'pii-2026')"),
    ] {
        let shown = refused(vec![rule(&format!("SELECT id, {call} AS masked FROM customers"))], context(ids), &relation);
        assert!(!shown.split('^').next_back().unwrap().contains("my secret"), "no argument is repeated");
        out += &shown;
    }
    expect![[r#"
        mask_hash needs a key, and there is none
          SELECT id, mask_hash(name) AS masked FROM customers
                     ^^^^^^^^^^^^^^
        help: add one to `keys` in the configuration: keys: { pii: { env: NAME_OF_A_VARIABLE } }
        mask_hash needs to know which key
          SELECT id, mask_hash(name) AS masked FROM customers
                     ^^^^^^^^^^^^^^
        help: name one, as in mask_hash(value) or mask_hash(value, 'key id'); keys are: pii-2025, pii-2026
        there is no key of the id that mask_hash names
          SELECT id, mask_hash(name, 'my secret') AS masked FROM customers
                     ^^^^^^^^^^^^^^^^^^^^^^^^^^^
        help: keys are: pii-2025, pii-2026
        the key id of mask_hash is not a text literal
          SELECT id, mask_hash(name, name) AS masked FROM customers
                     ^^^^^^^^^^^^^^^^^^^^
        help: write mask_hash(value) or mask_hash(value, 'key id')
        there is no function uper
          SELECT id, uper(name) AS upper, mask_hash(name, 'my secret') AS masked FROM customers
                     ^^^^
        help: did you mean upper?
        there is no key of the id that mask_hash names
          SELECT id, uper(name) AS upper, mask_hash(name, 'my secret') AS masked FROM customers
                                          ^^^^^^^^^^^^^^^^^^^^^^^^^^^
        help: keys are: pii-2026
        a hash is for single values, and mask_hash got List(Utf8)
          SELECT id, mask_hash(tags) AS masked FROM customers
                     ^^^^^^^^^^^^^^
        help: mask the column with null or exclude it
        an email mask is for text, and mask_email got Int32
          SELECT id, mask_email(id) AS masked FROM customers
                     ^^^^^^^^^^^^^
        help: mask the column with hash or null
        a date mask is for timestamps and, from month on, for dates, and mask_date got Utf8
          SELECT id, mask_date(name, 'month') AS masked FROM customers
                     ^^^^^^^^^^^^^^^^^^^^^^^
        help: mask a date to year, quarter or month, and other columns with hash or null
        mask_date takes other arguments
          SELECT id, mask_date(id, 'week') AS masked FROM customers
                     ^^^^^^^^^^^^^^^^^^^^
        help: write mask_date(value, 'month'), with year, quarter, month, day or hour
        mask_number takes other arguments
          SELECT id, mask_number(id, 0) AS masked FROM customers
                     ^^^^^^^^^^^^^^^^^
        help: write mask_number(value, 100), with the step above zero to round to
        mask_number takes other arguments
          SELECT id, mask_number(id, id) AS masked FROM customers
                     ^^^^^^^^^^^^^^^^^^
        help: write mask_number(value, 100), with the step above zero to round to
        mask_number_noise takes other arguments
          SELECT id, mask_number_noise(id, 2) AS masked FROM customers
                     ^^^^^^^^^^^^^^^^^^^^^^^
        help: write mask_number_noise(value, 0.1) or mask_number_noise(value, 0.1, 'key id'), with a share of at most 1
        there is no function unmask
          SELECT id, unmask(name) AS masked FROM customers
                     ^^^^^^
        mask_partial takes other arguments
          SELECT id, mask_partial(name, 'pii-2026') AS masked FROM customers
                     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        help: write mask_partial(value)
    "#]]
    .assert_eq(&out);
}
