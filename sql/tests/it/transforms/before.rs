//! What updated rows were before, as rules make them.

use logweir_core::Transform;

use super::changes::{Cell, LEFT_OUT, batch, changes, unbatched};
use super::*;

/// The images of what a rule makes of changes of `shop.customers`: a line for each change carried, its type and what was before it.
fn images_under(sql: &str, keep: &str, text: &str) -> String {
    let context = SqlContext { before_images: vec![Pattern::new(keep)], ..SqlContext::default() };
    let mut transform = transform(vec![rule(sql)], context);
    transform.output(&customers()).unwrap();
    let mut lines = String::new();
    for carried in transform.apply(batch(&customers(), &changes(text))).unwrap() {
        let images = carried.before.as_ref().map(|before| {
            assert!(before.absent.is_none(), "an image is whole or not there");
            // As a batch of its own, for its text.
            let columns = before.columns.iter().chain(&carried.records.columns()[before.columns.len()..]).cloned().collect();
            let records = arrow::array::RecordBatch::try_new(Arc::clone(carried.relation.schema()), columns).unwrap();
            let texts = unbatched(&logweir_core::ChangeBatch { records, before: None, unchanged: None, ..carried.share() });
            (before.present.clone(), texts)
        });
        for (row, change) in unbatched(&carried).iter().enumerate() {
            let text = |values: &[Cell]| {
                let value =
                    |value: &Cell| value.clone().map_or("NULL".to_owned(), |value| if value == LEFT_OUT { "~".into() } else { value });
                values.iter().map(value).collect::<Vec<_>>().join(" | ")
            };
            lines += &format!("{} {}", change.change_type.name(), text(&change.values));
            match &images {
                Some((present, texts)) if present.value(row) => lines += &format!(" was {}\n", text(&texts[row].values)),
                Some((_, texts)) => {
                    assert!(texts[row].values.iter().all(Option::is_none), "nothing lies where no image is");
                    lines += "\n";
                }
                None => lines += "\n",
            }
        }
    }
    lines
}

const TEXT: &str = "
    insert 1 | ada | 5
    update 1 | ada | 5 -> 1 | ada | 6
    update 1 | ? | ? -> 1 | eve | 6
    update 1 | eve | ? -> 1 | eve | 0
    rekey 1 | eve | 0 -> 2 | eve | NULL
    update 2 | eve | NULL -> 2 | bob | 1
    update 3 | cyd | 7
    delete 2 | bob | 1
    truncate
";

#[test]
fn a_rule_makes_of_them_what_it_makes_of_rows() {
    let expected = "\
INSERT 1 | 5 | ADA
UPDATE-INSERT 1 | 6 | ADA was 1 | 5 | ADA
UPDATE-INSERT 1 | 6 | EVE
UPDATE-INSERT 1 | 0 | EVE
UPDATE-DELETE 1 | 0 | EVE
UPDATE-INSERT 2 | NULL | EVE was 1 | 0 | EVE
UPDATE-INSERT 2 | 1 | BOB was 2 | NULL | EVE
UPDATE-INSERT 3 | 7 | CYD
DELETE 2 | 1 | BOB
TRUNCATE NULL | NULL | NULL
";
    assert_eq!(images_under("SELECT id, age, upper(name) AS name FROM customers", "shop.*", TEXT), expected);
}

#[test]
fn a_rule_needs_of_an_image_what_it_names() {
    let carried = images_under("SELECT id, name FROM customers", "shop.customers", TEXT);
    assert!(carried.contains("UPDATE-INSERT 1 | eve was 1 | eve\n"), "its age alone is not known: {carried}");
    assert!(carried.contains("UPDATE-INSERT 1 | eve\n"), "of its name nothing is known: {carried}");
}

#[test]
fn a_row_that_did_not_pass_stays_out() {
    let text = "
        update 1 | ada | 5 -> 1 | ada | 6
        update 1 | ada | 1 -> 1 | ada | 5
        update 1 | ada | 5 -> 1 | ada | 1
        update 1 | ada | NULL -> 1 | ada | 9
        rekey 1 | ada | 1 -> 2 | ada | 7
        rekey 2 | ada | 7 -> 3 | ada | 8
    ";
    let expected = "\
UPDATE-INSERT 1 | 6 was 1 | 5
INSERT 1 | 5
DELETE 1 | ~
INSERT 1 | 9
INSERT 2 | 7
UPDATE-DELETE 2 | 7
UPDATE-INSERT 3 | 8 was 2 | 7
";
    assert_eq!(images_under("SELECT id, age FROM customers WHERE age > 3", "*", text), expected);
}

#[test]
fn one_that_cannot_be_made_is_not_there() {
    let text = "update 1 | ada | 0 -> 1 | ada | 5\nupdate 1 | ada | 5 -> 1 | ada | 10";
    let expected = "UPDATE-INSERT 1 | 20\nUPDATE-INSERT 1 | 10 was 1 | 20\n";
    assert_eq!(images_under("SELECT id, 100 / age AS share FROM customers", "shop.customers", text), expected);
}

#[test]
fn nobody_asked_for_those_of_other_tables() {
    assert!(!images_under("SELECT id, age FROM customers", "shop.orders", TEXT).contains("was"));
}
