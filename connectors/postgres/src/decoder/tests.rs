//! Messages in, batches out, as pictures.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use expect_test::{Expect, expect};
use logweir_core::{ChangeType, Pattern};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::message::RelationColumn;
use crate::options::Arrays;

const INT4: u32 = 23;
const TEXT: u32 = 25;

fn options() -> DecoderOptions {
    DecoderOptions {
        tables: TableFilter::all(),
        before_images: Vec::new(),
        incarnation: 0,
        from: Lsn(0x100),
        changed: Lsn(0),
        commit_time: None,
        relations: Vec::new(),
        resume: None,
        types: TypeOptions { arrays: Arrays::List, money_scale: 2 },
        flush_bytes: 1 << 20,
        flush_bytes_max: 2 << 20,
    }
}

/// A table `shop.t` under `oid`, whose columns are `(in key, name, type)`.
fn relation(oid: u32, identity: u8, columns: &[(bool, &str, u32)]) -> Vec<u8> {
    let mut message = vec![tag::RELATION];
    message.extend_from_slice(&oid.to_be_bytes());
    message.extend_from_slice(b"shop\0t\0");
    message.push(identity);
    message.extend_from_slice(&(columns.len() as i16).to_be_bytes());
    for (key, name, type_oid) in columns {
        message.push(u8::from(*key));
        message.extend_from_slice(name.as_bytes());
        message.push(0);
        message.extend_from_slice(&type_oid.to_be_bytes());
        message.extend_from_slice(&(-1i32).to_be_bytes());
    }
    message
}

/// A value: text, `None` for null, `Some("~")` for unchanged.
fn tuple(values: &[Option<&str>]) -> Vec<u8> {
    let mut bytes = (values.len() as i16).to_be_bytes().to_vec();
    for value in values {
        match value {
            None => bytes.push(b'n'),
            Some("~") => bytes.push(b'u'),
            Some(text) => {
                bytes.push(b't');
                bytes.extend_from_slice(&(text.len() as i32).to_be_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
        }
    }
    bytes
}

fn row(kind: u8, oid: u32, old: Option<(u8, &[Option<&str>])>, new: Option<&[Option<&str>]>) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend_from_slice(&oid.to_be_bytes());
    if let Some((part, values)) = old {
        message.push(part);
        message.extend_from_slice(&tuple(values));
    }
    if let Some(values) = new {
        message.push(b'N');
        message.extend_from_slice(&tuple(values));
    }
    message
}

fn insert(oid: u32, values: &[Option<&str>]) -> Vec<u8> {
    row(tag::INSERT, oid, None, Some(values))
}

fn transaction(decoder: &mut PgoutputDecoder, commit: u64, messages: &[Vec<u8>]) -> Result<()> {
    let begin = Begin { commit_lsn: Lsn(commit), commit_time: TimestampMicros(commit as i64), xid: commit as u32 };
    decoder.begin(begin, TimestampMicros(0))?;
    for (index, message) in messages.iter().enumerate() {
        while let Flow::Ask(question) = decoder.message(message, false, Lsn(commit - 1 + index as u64))? {
            decoder.learn(&question.types, Vec::new());
            if let Some(oid) = question.key_of {
                decoder.provide_key(oid, Key { columns: Vec::new(), whole_rows: true, cut: false });
            }
        }
    }
    decoder.commit(Lsn(commit + 0x20))
}

fn values(records: &RecordBatch, row: usize) -> String {
    let columns = records.num_columns() - 6;
    let schema = records.schema();
    let cells = (0..columns).map(|column| format!("{} {}", schema.field(column).name(), value(records.column(column), row)));
    cells.collect::<Vec<_>>().join(", ")
}

fn value(column: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::new().with_null("null");
    ArrayFormatter::try_new(column, &options).unwrap().value(row).to_string()
}

/// What a row was before, as ` (before: …)`; a value that the image does not hold is `?`.
fn before(batch: &ChangeBatch, row: usize) -> String {
    let Some(images) = batch.before.as_ref().filter(|images| images.present.value(row)) else { return String::new() };
    let cell = |(column, values): (usize, &ArrayRef)| {
        assert_eq!(values.len(), batch.rows());
        let value = if images.holds(column, row) { value(values, row) } else { "?".to_owned() };
        assert!(images.holds(column, row) || values.is_null(row));
        format!("{} {value}", batch.relation.columns()[column].name())
    };
    format!(" (before: {})", images.columns.iter().enumerate().map(cell).collect::<Vec<_>>().join(", "))
}

fn picture(decoder: &mut PgoutputDecoder) -> String {
    let mut lines = Vec::new();
    while let Some(decoded) = decoder.next() {
        match decoded {
            Decoded::Relation(relation) => lines.push(format!("{relation:?}")),
            Decoded::Mark(lsn, _) => lines.push(format!("mark {lsn}")),
            Decoded::Changes(batch) => {
                for row in 0..batch.rows() {
                    let position = batch.position(row);
                    let half = position.to_string().ends_with(['0', '2', '4', '6', '8', 'a', 'c', 'e']);
                    let change_type = ChangeType::from_code(batch.change_type_codes()[row]).unwrap();
                    let unchanged: Vec<&str> = (0..batch.relation.columns().len())
                        .filter(|column| batch.unchanged.as_ref().is_some_and(|unchanged| unchanged.is_unchanged(*column, row)))
                        .map(|column| batch.relation.columns()[column].name())
                        .collect();
                    let unchanged = if unchanged.is_empty() { String::new() } else { format!(" (unchanged: {})", unchanged.join(", ")) };
                    lines.push(format!(
                        "v{} {:x}/{}{} {} {}{unchanged}{}",
                        batch.relation.version(),
                        position.commit(),
                        position.ordinal(),
                        if half { "-" } else { "" },
                        change_type.name(),
                        values(&batch.records, row),
                        before(&batch, row)
                    ));
                }
            }
        }
    }
    lines.join("\n") + "\n"
}

fn check(options: DecoderOptions, messages: &[Vec<u8>], expected: Expect) {
    let mut decoder = PgoutputDecoder::new(options);
    transaction(&mut decoder, 0x200, messages).unwrap();
    decoder.flush().unwrap();
    expected.assert_eq(&picture(&mut decoder));
}

const ID_NOTE: &[(bool, &str, u32)] = &[(true, "id", INT4), (false, "note", TEXT)];

#[test]
fn changes_of_a_table_with_a_key() {
    let messages = [
        relation(7, b'd', ID_NOTE),
        insert(7, &[Some("1"), Some("ada")]),
        row(tag::UPDATE, 7, None, Some(&[Some("1"), None])),
        row(tag::UPDATE, 7, Some((b'K', &[Some("1"), None])), Some(&[Some("2"), Some("~")])),
        row(tag::DELETE, 7, Some((b'K', &[Some("2"), None])), None),
    ];
    check(
        options(),
        &messages,
        expect![[r#"
            shop.t v1 (id Int32 key, note Utf8)
            v1 200/1 INSERT id 1, note ada
            v1 200/2 UPDATE-INSERT id 1, note null
            v1 200/3- UPDATE-DELETE id 1, note null (unchanged: note)
            v1 200/3 UPDATE-INSERT id 2, note null (unchanged: note)
            v1 200/4 DELETE id 2, note null (unchanged: note)
            mark 0/220
        "#]],
    );
}

#[test]
fn an_update_that_names_the_same_key_is_one_change() {
    let messages = [relation(7, b'd', ID_NOTE), row(tag::UPDATE, 7, Some((b'K', &[Some("1"), None])), Some(&[Some("1"), Some("x")]))];
    check(
        options(),
        &messages,
        expect![[r#"
            shop.t v1 (id Int32 key, note Utf8)
            v1 200/1 UPDATE-INSERT id 1, note x
            mark 0/220
        "#]],
    );
}

#[test]
fn whole_rows_without_a_key_change_their_key() {
    let messages = [
        relation(7, b'f', &[(true, "a", INT4), (true, "b", TEXT)]),
        row(tag::UPDATE, 7, Some((b'O', &[Some("1"), Some("long")])), Some(&[Some("2"), Some("~")])),
        row(tag::UPDATE, 7, Some((b'O', &[Some("2"), Some("long")])), Some(&[Some("2"), Some("~")])),
        row(tag::DELETE, 7, Some((b'O', &[None, Some("long")])), None),
    ];
    check(
        options(),
        &messages,
        expect![[r#"
            shop.t v1 (a Int32, b Utf8)
            v1 200/1- UPDATE-DELETE a 1, b long
            v1 200/1 UPDATE-INSERT a 2, b long
            v1 200/2 UPDATE-INSERT a 2, b long
            v1 200/3 DELETE a null, b long
            mark 0/220
        "#]],
    );
}

#[test]
fn whole_rows_of_a_table_with_a_key_keep_it() {
    let mut decoder = PgoutputDecoder::new(options());
    let described = relation(7, b'f', &[(true, "id", INT4), (true, "note", TEXT)]);
    decoder.provide_key(7, Key { columns: vec!["id".to_owned()], whole_rows: true, cut: false });
    let update = row(tag::UPDATE, 7, Some((b'O', &[Some("1"), Some("a")])), Some(&[Some("1"), Some("b")]));
    transaction(&mut decoder, 0x200, &[described, update]).unwrap();
    decoder.flush().unwrap();
    expect![[r#"
        shop.t v1 (id Int32 key, note Utf8)
        v1 200/1 UPDATE-INSERT id 1, note b
        mark 0/220
    "#]]
    .assert_eq(&picture(&mut decoder));
}

/// A key that is published in part would make different rows the same.
#[test]
fn a_part_of_a_key_is_no_key() {
    let described = relation(7, b'd', &[(true, "id", INT4), (false, "note", TEXT)]);
    let mut decoder = PgoutputDecoder::new(options());
    decoder.learn_cut_keys([(7, true)].into());
    transaction(&mut decoder, 0x200, &[described.clone(), insert(7, &[Some("1"), Some("a")]), insert(7, &[Some("1"), Some("b")])]).unwrap();
    let update = row(tag::UPDATE, 7, None, Some(&[Some("1"), Some("c")]));
    let error = transaction(&mut decoder, 0x300, std::slice::from_ref(&update)).unwrap_err();
    assert!(error.report().contains("the log does not say which row"), "{}", error.report());
    assert!(error.report().contains("shop.t"), "{}", error.report());
    decoder.abandon().unwrap();
    expect![[r#"
        shop.t v1 (id Int32, note Utf8)
        v1 200/1 INSERT id 1, note a
        v1 200/2 INSERT id 1, note b
        mark 0/220
    "#]]
    .assert_eq(&picture(&mut decoder));

    // From when it is known, also without another description.
    let mut decoder = PgoutputDecoder::new(options());
    decoder.learn_cut_keys([(7, false)].into());
    transaction(&mut decoder, 0x200, &[described.clone(), insert(7, &[Some("1"), Some("a")]), update]).unwrap();
    decoder.learn_cut_keys([(7, true)].into());
    transaction(&mut decoder, 0x300, &[insert(7, &[Some("1"), Some("b")])]).unwrap();
    decoder.flush().unwrap();
    expect![[r#"
        shop.t v1 (id Int32 key, note Utf8)
        v1 200/1 INSERT id 1, note a
        v1 200/2 UPDATE-INSERT id 1, note c
        shop.t v2 (id Int32, note Utf8)
        v2 300/1 INSERT id 1, note b
        mark 0/320
    "#]]
    .assert_eq(&picture(&mut decoder));

    // A table that nobody has looked at is asked about.
    let mut decoder = PgoutputDecoder::new(options());
    decoder.learn_cut_keys(HashMap::new());
    decoder.provide_key(7, Key { cut: true, ..Key::default() });
    transaction(&mut decoder, 0x200, &[described, insert(7, &[Some("1"), Some("a")])]).unwrap();
    decoder.flush().unwrap();
    assert!(picture(&mut decoder).starts_with("shop.t v1 (id Int32, note Utf8)"));
}

/// Old rows as they come under each replica identity, of a table that is asked for and one that is not.
#[test]
fn updates_have_their_before_images() {
    let asked = || DecoderOptions { before_images: vec![Pattern::new("*.t")], ..options() };
    let whole = [
        relation(7, b'f', &[(true, "id", INT4), (true, "note", TEXT), (true, "long", TEXT)]),
        insert(7, &[Some("1"), Some("a"), Some("x")]),
        row(tag::UPDATE, 7, Some((b'O', &[Some("1"), Some("a"), Some("x")])), Some(&[Some("1"), Some("b"), Some("~")])),
        row(tag::UPDATE, 7, Some((b'O', &[Some("1"), Some("b"), Some("x")])), Some(&[Some("2"), None, Some("~")])),
        row(tag::UPDATE, 7, Some((b'O', &[Some("2"), None, Some("x")])), Some(&[Some("2"), Some("c"), Some("y")])),
        row(tag::DELETE, 7, Some((b'O', &[Some("2"), Some("c"), Some("y")])), None),
        insert(7, &[Some("3"), None, None]),
    ];
    let pictured = |options, whole_rows| {
        let mut decoder = PgoutputDecoder::new(options);
        decoder.provide_key(7, Key { columns: vec!["id".to_owned()], whole_rows, cut: false });
        transaction(&mut decoder, 0x200, &whole).unwrap();
        decoder.flush().unwrap();
        picture(&mut decoder)
    };
    expect![[r#"
        shop.t v1 (id Int32 key, note Utf8, long Utf8)
        v1 200/1 INSERT id 1, note a, long x
        v1 200/2 UPDATE-INSERT id 1, note b, long x (before: id 1, note a, long x)
        v1 200/3- UPDATE-DELETE id 1, note b, long x
        v1 200/3 UPDATE-INSERT id 2, note null, long x (before: id 1, note b, long x)
        v1 200/4 UPDATE-INSERT id 2, note c, long y (before: id 2, note null, long x)
        v1 200/5 DELETE id 2, note c, long y
        v1 200/6 INSERT id 3, note null, long null
        mark 0/220
    "#]]
    .assert_eq(&pictured(asked(), true));
    // Rows are said to be whole and are not: a partition with an identity of its own.
    let partly = pictured(asked(), false);
    assert!(partly.contains("UPDATE-INSERT id 1, note b, long null (unchanged: long) (before: id 1, note ?, long ?)"), "{partly}");
    for unasked in [options(), DecoderOptions { before_images: vec![Pattern::new("shop.other")], ..options() }] {
        assert!(!pictured(unasked, true).contains("before"));
    }
    check(
        asked(),
        &[
            relation(7, b'd', ID_NOTE),
            row(tag::UPDATE, 7, None, Some(&[Some("1"), Some("b")])),
            row(tag::UPDATE, 7, Some((b'K', &[Some("1"), None])), Some(&[Some("2"), Some("~")])),
            row(tag::UPDATE, 7, Some((b'K', &[Some("2"), None])), Some(&[Some("2"), Some("c")])),
        ],
        expect![[r#"
            shop.t v1 (id Int32 key, note Utf8)
            v1 200/1 UPDATE-INSERT id 1, note b
            v1 200/2- UPDATE-DELETE id 1, note null (unchanged: note)
            v1 200/2 UPDATE-INSERT id 2, note null (unchanged: note) (before: id 1, note ?)
            v1 200/3 UPDATE-INSERT id 2, note c (before: id 2, note ?)
            mark 0/220
        "#]],
    );
}

#[test]
fn before_images_count_as_held() {
    let long = "x".repeat(1000);
    let described = relation(7, b'f', &[(true, "id", INT4), (true, "note", TEXT)]);
    let update = row(tag::UPDATE, 7, Some((b'O', &[Some("1"), Some(long.as_str())])), Some(&[Some("1"), Some("~")]));
    let held = |options| {
        let mut decoder = PgoutputDecoder::new(options);
        decoder.provide_key(7, Key { columns: vec!["id".to_owned()], whole_rows: true, cut: false });
        transaction(&mut decoder, 0x200, &[described.clone(), update.clone()]).unwrap();
        decoder.held_bytes
    };
    // The value that the new row takes from the old one counts in every case.
    assert!((1000..1500).contains(&held(options())), "{}", held(options()));
    let both = held(DecoderOptions { before_images: vec![Pattern::new("*")], ..options() });
    assert!((2000..2500).contains(&both), "{both}");
}

/// A partition may log its key only, and pgoutput calls its row whole because its table says so.
#[test]
fn rows_of_partitions_that_are_not_whole_are_not_taken_for_whole() {
    let mut decoder = PgoutputDecoder::new(options());
    let described = relation(7, b'f', &[(true, "id", INT4), (true, "note", TEXT)]);
    decoder.provide_key(7, Key { columns: vec!["id".to_owned()], whole_rows: false, cut: false });
    let update = row(tag::UPDATE, 7, Some((b'O', &[Some("1"), None])), Some(&[Some("2"), Some("~")]));
    let delete = row(tag::DELETE, 7, Some((b'O', &[Some("2"), None])), None);
    transaction(&mut decoder, 0x200, &[described, update, delete]).unwrap();
    decoder.flush().unwrap();
    expect![[r#"
        shop.t v1 (id Int32 key, note Utf8)
        v1 200/1- UPDATE-DELETE id 1, note null (unchanged: note)
        v1 200/1 UPDATE-INSERT id 2, note null (unchanged: note)
        v1 200/2 DELETE id 2, note null (unchanged: note)
        mark 0/220
    "#]]
    .assert_eq(&picture(&mut decoder));
}

#[test]
fn rows_that_are_not_whole_any_more_are_taken_so_from_then_on() {
    let mut decoder = PgoutputDecoder::new(options());
    let described = relation(7, b'f', &[(true, "id", INT4), (true, "note", TEXT)]);
    let delete = |id| row(tag::DELETE, 7, Some((b'O', &[Some(id), None])), None);
    for (commit, id, whole_rows) in [(0x200, "1", true), (0x300, "2", false)] {
        decoder.provide_key(7, Key { columns: vec!["id".to_owned()], whole_rows, cut: false });
        transaction(&mut decoder, commit, &[described.clone(), delete(id)]).unwrap();
    }
    decoder.flush().unwrap();
    expect![[r#"
        shop.t v1 (id Int32 key, note Utf8)
        v1 200/1 DELETE id 1, note null
        v1 300/1 DELETE id 2, note null (unchanged: note)
        mark 0/320
    "#]]
    .assert_eq(&picture(&mut decoder));
}

/// The log has a key that is stored apart in the old row's key, if it did not change.
#[test]
fn a_key_that_is_stored_apart_is_known() {
    let messages = [
        relation(7, b'd', &[(true, "id", TEXT), (false, "note", TEXT)]),
        row(tag::UPDATE, 7, Some((b'K', &[Some("long"), None])), Some(&[Some("~"), Some("x")])),
        row(tag::DELETE, 7, Some((b'K', &[Some("long"), None])), None),
    ];
    check(
        options(),
        &messages,
        expect![[r#"
        shop.t v1 (id Utf8 key, note Utf8)
        v1 200/1 UPDATE-INSERT id long, note x
        v1 200/2 DELETE id long, note null (unchanged: note)
        mark 0/220
    "#]],
    );
}

/// A part of a transaction that is taken back may have described another table of the same name.
#[test]
fn a_description_without_changes_changes_nothing() {
    let messages = [
        relation(7, b'd', ID_NOTE),
        insert(7, &[Some("1"), Some("a")]),
        relation(8, b'd', &[(true, "id", INT4), (false, "extra", TEXT)]),
        relation(7, b'd', ID_NOTE),
        insert(7, &[Some("2"), Some("b")]),
    ];
    check(
        options(),
        &messages,
        expect![[r#"
        shop.t v1 (id Int32 key, note Utf8)
        v1 200/1 INSERT id 1, note a
        v1 200/2 INSERT id 2, note b
        mark 0/220
    "#]],
    );
}

/// The catalog speaks of now, the log of then.
#[test]
fn a_key_whose_columns_were_renamed_meanwhile_is_the_one_before() {
    let mut decoder = PgoutputDecoder::new(options());
    let described = relation(7, b'f', &[(true, "a", INT4), (true, "b", INT4)]);
    decoder.provide_key(7, Key { columns: vec!["a".to_owned(), "b".to_owned()], whole_rows: true, cut: false });
    transaction(&mut decoder, 0x200, &[described.clone(), insert(7, &[Some("1"), Some("2")])]).unwrap();
    decoder.provide_key(7, Key { columns: vec!["a2".to_owned(), "b".to_owned()], whole_rows: true, cut: false });
    transaction(&mut decoder, 0x300, &[described, insert(7, &[Some("1"), Some("3")])]).unwrap();
    decoder.flush().unwrap();
    expect![[r#"
        shop.t v1 (a Int32 key, b Int32 key)
        v1 200/1 INSERT a 1, b 2
        v1 300/1 INSERT a 1, b 3
        mark 0/320
    "#]]
    .assert_eq(&picture(&mut decoder));
}

#[test]
fn a_new_column_is_a_new_version_in_the_middle_of_a_transaction() {
    let mut decoder = PgoutputDecoder::new(options());
    let messages = [
        relation(7, b'd', ID_NOTE),
        insert(7, &[Some("1"), Some("a")]),
        relation(7, b'd', &[(true, "id", INT4), (false, "note", INT4), (false, "more", TEXT)]),
        insert(7, &[Some("2"), Some("5"), Some("c")]),
    ];
    transaction(&mut decoder, 0x200, &messages).unwrap();
    decoder.flush().unwrap();
    expect![[r#"
        shop.t v1 (id Int32 key, note Utf8)
        v1 200/1 INSERT id 1, note a
        shop.t v2 (id Int32 key, note Int32, more Utf8)
        v2 200/2 INSERT id 2, note 5, more c
        mark 0/220
    "#]]
    .assert_eq(&picture(&mut decoder));
    let name = RelationName::new("shop", "t");
    let reshaped = Reshaped { oid: 7, name, added: vec!["more".to_owned()], retyped: true, recreated: false };
    assert_eq!(decoder.take_reshaped(), [reshaped]);
}

#[test]
fn the_same_description_again_changes_nothing() {
    let mut decoder = PgoutputDecoder::new(options());
    let described = relation(7, b'd', ID_NOTE);
    transaction(&mut decoder, 0x200, &[described.clone(), insert(7, &[Some("1"), None]), described, insert(7, &[Some("2"), None])])
        .unwrap();
    decoder.flush().unwrap();
    expect![[r#"
        shop.t v1 (id Int32 key, note Utf8)
        v1 200/1 INSERT id 1, note null
        v1 200/2 INSERT id 2, note null
        mark 0/220
    "#]]
    .assert_eq(&picture(&mut decoder));
}

#[test]
fn another_table_of_the_same_name_empties_the_first() {
    let messages =
        [relation(7, b'd', ID_NOTE), insert(7, &[Some("1"), None]), relation(8, b'd', ID_NOTE), insert(8, &[Some("1"), Some("new")])];
    check(
        options(),
        &messages,
        expect![[r#"
            shop.t v1 (id Int32 key, note Utf8)
            v1 200/1 INSERT id 1, note null
            shop.t v2 (id Int32 key, note Utf8)
            v2 200/2 TRUNCATE id null, note null
            v2 200/3 INSERT id 1, note new
            mark 0/220
        "#]],
    );
}

#[test]
fn what_is_not_followed_is_counted_and_skipped() {
    let mut excluding = options();
    excluding.tables.exclude_columns.push(Pattern::new("*.note"));
    let truncate = [&[tag::TRUNCATE][..], &1u32.to_be_bytes(), &[0], &7u32.to_be_bytes()].concat();
    let messages = [relation(7, b'd', ID_NOTE), insert(7, &[Some("1"), Some("secret")]), truncate];
    check(
        excluding,
        &messages,
        expect![[r#"
            shop.t v1 (id Int32 key)
            v1 200/1 INSERT id 1
            v1 200/2 TRUNCATE id null
            mark 0/220
        "#]],
    );
    let mut none = options();
    none.tables.exclude.push(Pattern::new("shop.*"));
    check(
        none,
        &messages,
        expect![[r#"
        mark 0/220
    "#]],
    );
}

#[test]
fn a_key_that_is_left_out_is_refused() {
    let mut excluding = options();
    excluding.tables.exclude_columns.push(Pattern::new("*.id"));
    let mut decoder = PgoutputDecoder::new(excluding);
    let error = transaction(&mut decoder, 0x200, &[relation(7, b'd', ID_NOTE), insert(7, &[Some("1"), None])]).unwrap_err();
    assert!(error.to_string().contains("key is left out"), "{error}");
}

#[test]
fn what_was_handed_out_before_is_skipped_and_goes_on_alike() {
    let mut decoder = PgoutputDecoder::new(options());
    let described = relation(7, b'd', ID_NOTE);
    transaction(&mut decoder, 0x80, &[described, insert(7, &[Some("1"), None])]).unwrap();
    assert!(!decoder.flush().unwrap());
    transaction(&mut decoder, 0x200, &[insert(7, &[Some("2"), None])]).unwrap();
    decoder.flush().unwrap();
    expect![[r#"
        shop.t v1 (id Int32 key, note Utf8)
        v1 200/1 INSERT id 2, note null
        mark 0/220
    "#]]
    .assert_eq(&picture(&mut decoder));
}

#[test]
fn a_version_of_the_checkpoint_is_met_again() {
    let mut first = PgoutputDecoder::new(options());
    transaction(&mut first, 0x200, &[relation(7, b'd', ID_NOTE), insert(7, &[Some("1"), None])]).unwrap();
    transaction(&mut first, 0x300, &[relation(7, b'd', &ID_NOTE[..1]), insert(7, &[Some("2")])]).unwrap();
    first.flush().unwrap();
    let mut relations = Vec::new();
    while let Some(decoded) = first.next() {
        if let Decoded::Relation(relation) = decoded {
            relations.push(relation);
        }
    }
    // From between the two: the second comes as it was.
    let resumed = DecoderOptions { from: Lsn(0x220), resume: Some(mark_position(0, Lsn(0x220))), relations, ..options() };
    let mut again = PgoutputDecoder::new(resumed);
    transaction(&mut again, 0x300, &[relation(7, b'd', &ID_NOTE[..1]), insert(7, &[Some("2")])]).unwrap();
    again.flush().unwrap();
    expect![[r#"
        shop.t v2 (id Int32 key)
        v2 300/1 INSERT id 2
        mark 0/320
    "#]]
    .assert_eq(&picture(&mut again));
}

/// The catalog is asked at another time than before the restart: what it says now is not taken for what a version of the same number was.
#[test]
fn a_number_of_the_checkpoint_is_not_given_to_another_shape() {
    let id = |type_oid| [(true, "id", type_oid)];
    let mut first = PgoutputDecoder::new(options());
    transaction(&mut first, 0x200, &[relation(7, b'd', ID_NOTE), insert(7, &[Some("1"), None])]).unwrap();
    transaction(&mut first, 0x300, &[relation(7, b'd', &id(INT4)), insert(7, &[Some("2")])]).unwrap();
    first.flush().unwrap();
    let relations: Vec<Arc<Relation>> = std::iter::from_fn(|| first.next())
        .filter_map(|decoded| match decoded {
            Decoded::Relation(relation) => Some(relation),
            _ => None,
        })
        .collect();
    assert_eq!(relations.iter().map(|relation| relation.version()).collect::<Vec<_>>(), [1, 2]);
    let resumed = DecoderOptions { from: Lsn(0x220), resume: Some(mark_position(0, Lsn(0x220))), relations, ..options() };
    let mut again = PgoutputDecoder::new(resumed);
    let column = RelationColumn { flags: 1, name: "id".into(), type_oid: TEXT, typmod: -1 };
    let shape = RelationShape { oid: 7, schema: "shop".into(), table: "t".into(), replica_identity: b'd', columns: vec![column] };
    let described = again.describe(&shape, None, false).unwrap();
    assert!(matches!(described, Described::Known { relation, .. } if relation.version() == 3));
    // The log comes to the place of the second one, and then to what the catalog said.
    transaction(&mut again, 0x300, &[relation(7, b'd', &id(INT4)), insert(7, &[Some("2")])]).unwrap();
    transaction(&mut again, 0x400, &[relation(7, b'd', &id(TEXT)), insert(7, &[Some("3")])]).unwrap();
    again.flush().unwrap();
    expect![[r#"
        shop.t v3 (id Utf8 key)
        shop.t v4 (id Int32 key)
        v4 300/1 INSERT id 2
        shop.t v5 (id Utf8 key)
        v5 400/1 INSERT id 3
        mark 0/420
    "#]]
    .assert_eq(&picture(&mut again));
}

#[test]
fn a_large_transaction_is_cut_without_a_mark() {
    let mut decoder = PgoutputDecoder::new(DecoderOptions { flush_bytes: 100, flush_bytes_max: 300, ..options() });
    let begin = Begin { commit_lsn: Lsn(0x200), commit_time: TimestampMicros(1), xid: 1 };
    decoder.begin(begin, TimestampMicros(0)).unwrap();
    decoder.message(&relation(7, b'd', ID_NOTE), false, Lsn(1)).unwrap();
    for id in 0..10 {
        decoder.message(&insert(7, &[Some(&id.to_string()), None]), false, Lsn(1)).unwrap();
    }
    let mut rows = 0;
    while let Some(decoded) = decoder.next() {
        match decoded {
            Decoded::Changes(batch) => rows += batch.rows(),
            Decoded::Mark(..) => panic!("a mark lies between two transactions"),
            Decoded::Relation(_) => {}
        }
    }
    assert!(rows > 0);
    assert!(!decoder.flush().unwrap());
    decoder.commit(Lsn(0x220)).unwrap();
    let picture = picture(&mut decoder);
    assert!(picture.ends_with("mark 0/220\n"), "{picture}");
}

#[test]
fn timestamps_do_not_fall() {
    let mut decoder = PgoutputDecoder::new(DecoderOptions { commit_time: Some(TimestampMicros(0x1000)), ..options() });
    transaction(&mut decoder, 0x200, &[relation(7, b'd', ID_NOTE), insert(7, &[Some("1"), None])]).unwrap();
    decoder.flush().unwrap();
    while let Some(decoded) = decoder.next() {
        if let Decoded::Changes(batch) = decoded {
            let times =
                batch.metadata(logweir_core::MetadataColumn::Timestamp).as_primitive::<arrow_array::types::TimestampMicrosecondType>();
            assert_eq!(times.values().as_ref(), [0x1000]);
        }
    }
}

#[test]
fn a_type_keeps_the_names_that_it_had() {
    const MOOD: u32 = 20_001;
    let table = || relation(7, b'd', &[(true, "id", INT4), (false, "now", MOOD)]);
    let told = |name: &str| [&[tag::TYPE][..], &MOOD.to_be_bytes(), b"public\0", name.as_bytes(), b"\0"].concat();
    let version = |options: DecoderOptions, in_catalog: &str, commit: u64, messages: &[Vec<u8>]| {
        let mut decoder = PgoutputDecoder::new(options);
        let info = TypeInfo { oid: MOOD, schema: "public".into(), name: in_catalog.into(), kind: TypeKind::Enum, sendable: true };
        decoder.learn(&[MOOD], vec![info]);
        transaction(&mut decoder, commit, messages).unwrap();
        decoder.flush().unwrap();
        let relation = std::iter::from_fn(|| decoder.next()).find_map(|decoded| match decoded {
            Decoded::Changes(batch) => Some(batch.relation),
            _ => None,
        });
        relation.unwrap()
    };
    let names = |relation: &Relation| {
        let column = &relation.columns()[1];
        format!("v{} {}: {}", relation.version(), column.source_type, column.may_be().collect::<Vec<_>>().join(" "))
    };
    let row = insert(7, &[Some("1"), Some("fine")]);
    // The log is older than the name.
    let behind = version(options(), "mood", 0x200, &[told("feeling"), table(), row.clone()]);
    assert_eq!(names(&behind), "v1 public.mood: mood public.feeling feeling");
    // After a restart the log has the new one.
    let after = |relation: &Arc<Relation>| DecoderOptions {
        relations: vec![Arc::clone(relation)],
        resume: Some(LogPosition::new(0, 0, 0x300, 0, false)),
        ..options()
    };
    assert_eq!(names(&version(after(&behind), "mood", 0x400, &[told("mood"), table(), row.clone()])), names(&behind));
    assert_eq!(
        names(&version(after(&behind), "state", 0x400, &[told("state"), table(), row])),
        "v2 public.state: state public.mood mood public.feeling feeling"
    );
}

/// Whatever comes is an error or a change, never a panic, and never more memory than there are bytes for.
#[test]
fn damaged_messages_are_refused() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let whole = [
        relation(7, b'd', ID_NOTE),
        insert(7, &[Some("1"), Some("ada")]),
        row(tag::UPDATE, 7, Some((b'O', &[Some("1"), None])), Some(&[Some("2"), Some("~")])),
        row(tag::DELETE, 7, Some((b'K', &[Some("2"), None])), None),
        [&[tag::TRUNCATE][..], &1u32.to_be_bytes(), &[0], &7u32.to_be_bytes()].concat(),
        [&[tag::TYPE][..], &9u32.to_be_bytes(), b"s\0t\0"].concat(),
    ];
    for _ in 0..20_000 {
        let mut decoder = PgoutputDecoder::new(options());
        let mut messages = whole.to_vec();
        for _ in 0..rng.random_range(1..4) {
            let message = &mut messages[rng.random_range(0..whole.len())];
            match rng.random_range(0..3) {
                0 => message.truncate(rng.random_range(0..=message.len())),
                1 if !message.is_empty() => {
                    let at = rng.random_range(0..message.len());
                    message[at] = rng.random();
                }
                _ => message.push(rng.random()),
            }
        }
        let _ = transaction(&mut decoder, 0x200, &messages);
        let _ = decoder.flush();
        while let Some(decoded) = decoder.next() {
            if let Decoded::Changes(batch) = decoded {
                assert!(batch.records.columns().iter().all(|column| column.len() == batch.rows()));
            }
        }
    }
}
