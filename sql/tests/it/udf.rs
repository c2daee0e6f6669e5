//! Rows through JavaScript.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array, DurationMicrosecondArray,
    FixedSizeBinaryArray, Float32Array, Float64Array, Int8Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
    Time64MicrosecondArray, TimestampMicrosecondArray, UInt8Array, UInt32Array, UInt64Array,
};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, Float32Type, Int32Type, i256};
use arrow::util::pretty::pretty_format_batches;
use expect_test::expect;
use logweir_core::ChangeType::{Delete, Insert, Read, Truncate, UpdateDelete, UpdateInsert};
use logweir_core::{
    ChangeBatch, ChangeType, Column, ErrorKind, LogPosition, MemoryPermit, MetadataBuilder, Pattern, Relation, RelationName, SourcePlace,
    TimestampMicros, Transform, Unchanged,
};
use logweir_sql::{BadValue, UdfLimits, UdfRule, UdfTransform, UdfType, Unresolved};
use proptest::prelude::*;

const IDENTITY: &str = "function process(inJson) { const row = JSON.parse(inJson); return JSON.stringify(row); }";

fn rule(script: &str) -> UdfRule {
    UdfRule {
        table: Pattern::new("shop.*"),
        script: script.to_owned(),
        file: "mask.js".to_owned(),
        function: "process".to_owned(),
        limits: UdfLimits::default(),
        columns: Vec::new(),
        unresolved: Unresolved::default(),
    }
}

fn relation(version: u32, columns: &[(&str, ArrayRef)], key: Vec<usize>) -> Arc<Relation> {
    let column = |(name, array): &(&str, ArrayRef)| {
        let mut field = Field::new(*name, array.data_type().clone(), true);
        if *name == "doc" {
            field = field.with_metadata([("ARROW:extension:name".to_owned(), "arrow.json".to_owned())].into());
        }
        Column { field: Arc::new(field), source_type: "t".into(), detail: Default::default() }
    };
    let columns = columns.iter().map(column).collect();
    Arc::new(Relation::new(RelationName::new("shop", "customers"), version, LogPosition::MIN, columns, key))
}

fn batch(relation: &Arc<Relation>, changes: &[ChangeType], mut columns: Vec<ArrayRef>) -> ChangeBatch {
    let mut metadata = MetadataBuilder::new("test");
    let mut number = 0;
    for (row, change_type) in changes.iter().enumerate() {
        let place = SourcePlace { log_position: 4, log_file: None, transaction: None };
        let second_half = *change_type == UpdateInsert && row > 0 && changes[row - 1] == UpdateDelete;
        number += u64::from(!second_half);
        let position = LogPosition::new(0, 1, number, 1, *change_type != UpdateDelete);
        let timestamp = TimestampMicros(1_700_000_000_000_000 + row as i64 * 1_500_000);
        metadata.push(timestamp, position, *change_type, TimestampMicros(2), place);
    }
    let last = metadata.last_position().unwrap();
    columns.extend(metadata.finish());
    let records = RecordBatch::try_new(Arc::clone(relation.schema()), columns).unwrap();
    let memory = Arc::new(MemoryPermit::uncounted());
    ChangeBatch { relation: Arc::clone(relation), records, unchanged: None, before: None, last, memory }
}

/// Rows of `id` and `name` of which the first is the key.
fn people(changes: &[ChangeType], rows: &[(i32, Option<&str>)]) -> ChangeBatch {
    people_of(1, changes, rows)
}

fn people_of(version: u32, changes: &[ChangeType], rows: &[(i32, Option<&str>)]) -> ChangeBatch {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int32Array::from_iter_values(rows.iter().map(|(id, _)| *id)))),
        ("name", Arc::new(StringArray::from_iter(rows.iter().map(|(_, name)| *name)))),
    ];
    let relation = relation(version, &columns, vec![0]);
    batch(&relation, changes, columns.into_iter().map(|(_, array)| array).collect())
}

/// A rule over a batch.
fn through(rule: UdfRule, bad_value: BadValue, batch: ChangeBatch) -> logweir_core::Result<Vec<ChangeBatch>> {
    let mut transform = UdfTransform::new(vec![rule], bad_value)?;
    transform.output(&batch.relation)?;
    transform.apply(batch)
}

/// The changes as people read them; what the log left out as `-`.
fn shown(batches: &[ChangeBatch]) -> String {
    let mut text = String::new();
    for batch in batches {
        for row in 0..batch.rows() {
            let change_type = ChangeType::from_code(batch.change_type_codes()[row]).unwrap();
            text += change_type.name();
            for (index, column) in batch.relation.columns().iter().enumerate() {
                let array = batch.records.column(index).slice(row, 1);
                let left_out = batch.unchanged.as_ref().is_some_and(|unchanged| unchanged.is_unchanged(index, row));
                assert!(!left_out || array.is_null(0), "what is left out is null");
                let value = match left_out {
                    true => "-".to_owned(),
                    false if array.is_null(0) => "NULL".to_owned(),
                    false => arrow::util::display::array_value_to_string(&array, 0).unwrap(),
                };
                text += &format!(" | {} {value}", column.name());
            }
            text += "\n";
        }
    }
    text
}

/// What a script makes of two inserts.
fn inserts(script: &str) -> String {
    match through(rule(script), BadValue::Fail, people(&[Insert, Insert], &[(1, Some("ada")), (2, None)])) {
        Ok(batches) => shown(&batches),
        Err(error) => format!("{error}\n"),
    }
}

fn every_type() -> Vec<(&'static str, ArrayRef)> {
    let huge = i256::from_string("-9999999999999999999999999999999999999999999999999999999999999999").unwrap();
    let nan = f64::from_bits(0x7ff8_dead_beef_0001);
    let floats =
        vec![Some(vec![Some(-0.0), None, Some(f32::from_bits(0x7fc0_0001)), Some(1e-40)]), None, Some(vec![]), Some(vec![Some(0.1)])];
    let whole = |values: [Option<i32>; 4]| -> ArrayRef { Arc::new(Int32Array::from(values.to_vec())) };
    let nested: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)]), None, Some(vec![None]), None]));
    vec![
        ("id", Arc::new(Int64Array::from(vec![i64::MAX, i64::MIN, (1 << 53) + 1, 4]))),
        ("yes", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), Some(true)]))),
        ("tiny", Arc::new(Int8Array::from(vec![Some(i8::MIN), None, Some(0), Some(i8::MAX)]))),
        ("byte", Arc::new(UInt8Array::from(vec![Some(0), None, Some(255), Some(1)]))),
        ("word", Arc::new(UInt32Array::from(vec![Some(0), None, Some(u32::MAX), Some(1)]))),
        ("unsigned", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None, Some(1 << 53), Some((1 << 53) - 1)]))),
        ("single", Arc::new(Float32Array::from(vec![Some(0.1), Some(-0.0), Some(f32::MIN_POSITIVE), Some(f32::NEG_INFINITY)]))),
        ("double", Arc::new(Float64Array::from(vec![Some(nan), Some(-0.0), Some(f64::MAX), Some(5e-324)]))),
        ("more", Arc::new(Float64Array::from(vec![Some(1e21), Some(1e20), Some(1.5e-7), Some(123_456.789)]))),
        ("price", Arc::new(Decimal128Array::from(vec![Some(-5), None, Some(1250), Some(0)]).with_precision_and_scale(38, 2).unwrap())),
        (
            "huge",
            Arc::new(Decimal256Array::from(vec![Some(huge), None, Some(i256::ONE), Some(huge)]).with_precision_and_scale(65, 30).unwrap()),
        ),
        (
            "text",
            Arc::new(StringArray::from(vec![
                Some("größe \u{1f600} \u{2028}\u{7f}"),
                None,
                Some(""),
                Some("\"\\\u{0}\n\r\t\u{8}\u{c}\u{1f}/"),
            ])),
        ),
        ("doc", Arc::new(StringArray::from(vec![Some("{\"a\": 1.10, \"a\":2}"), None, Some("[]"), Some("12345678901234567890")]))),
        ("bytes", Arc::new(BinaryArray::from_opt_vec(vec![Some(b"\x00\xff"), None, Some(b""), Some(b"a")]))),
        ("fixed", Arc::new(FixedSizeBinaryArray::try_from_iter([[1_u8; 4], [2; 4], [3; 4], [255; 4]].into_iter()).unwrap())),
        ("day", Arc::new(Date32Array::from(vec![Some(20_777), Some(i32::MAX), Some(-i32::MAX), Some(-735_160)]))),
        ("time", Arc::new(Time64MicrosecondArray::from(vec![Some(86_400_000_000), None, Some(1), Some(1_500_000)]))),
        ("span", Arc::new(DurationMicrosecondArray::from(vec![Some(-3_020_399_000_000), None, Some(1), Some(-1)]))),
        (
            "at",
            Arc::new(TimestampMicrosecondArray::from(vec![Some(i64::MAX), Some(-i64::MAX), Some(i64::MIN), Some(1_700_000_000_250_001)])),
        ),
        ("utc", Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), None, Some(0), Some(i64::MAX - 1)]).with_timezone("UTC"))),
        ("vector", Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(floats))),
        ("lists", nested),
        ("constructor", whole([Some(1), None, Some(3), Some(4)])),
        ("__proto__", whole([Some(1), None, Some(3), Some(4)])),
        ("7", whole([Some(1), None, Some(3), Some(4)])),
    ]
}

#[test]
fn what_comes_back_is_what_it_was() {
    let columns = every_type();
    let relation = relation(1, &columns, vec![0]);
    let arrays: Vec<ArrayRef> = columns.iter().map(|(_, array)| Arc::clone(array)).collect();
    for script in [IDENTITY, "const process = (json) => json;", "function process(json) { return JSON.parse(json); }"] {
        let out = through(rule(script), BadValue::Fail, batch(&relation, &[Insert; 4], arrays.clone())).unwrap();
        assert_eq!(out.len(), 1);
        for ((name, before), after) in columns.iter().zip(out[0].records.columns()) {
            assert!(before.to_data().ptr_eq(&after.to_data()), "{name} is the same array");
        }
    }
    // Every other row is dropped, and one column changed in one row: the others are the same values in other arrays.
    let script = "function process(json) { const row = JSON.parse(json); if (row.constructor === 3) { return null; } \
                  if (row.constructor === null) { row.text = 'x'; row.lists = [[1][0]]; } return row; }";
    let out = through(rule(script), BadValue::Fail, batch(&relation, &[Insert; 4], arrays.clone())).unwrap();
    let kept = UInt32Array::from(vec![0, 1, 3]);
    for ((name, before), after) in columns.iter().zip(out[0].records.columns()) {
        if !["text", "lists"].contains(name) {
            let expected = arrow::compute::take(before, &kept, None).unwrap();
            // Bits, so that a NaN and a zero count.
            assert_eq!(format!("{:?}", bits(&expected)), format!("{:?}", bits(after)), "{name}");
        }
    }
    let texts: Vec<_> = out[0].records.column(11).as_string::<i32>().iter().collect();
    assert_eq!(texts[1], Some("x"));
    assert_eq!(texts[0], Some("größe \u{1f600} \u{2028}\u{7f}"));
}

fn bits(array: &ArrayRef) -> Vec<Option<Vec<u64>>> {
    let floats = |row: usize| -> Vec<u64> {
        match array.data_type() {
            DataType::Float32 => vec![array.as_primitive::<Float32Type>().value(row).to_bits().into()],
            DataType::Float64 => vec![array.as_primitive::<arrow::datatypes::Float64Type>().value(row).to_bits()],
            DataType::List(_) if array.as_list::<i32>().values().data_type() == &DataType::Float32 => {
                let items = array.as_list::<i32>().value(row);
                let items = items.as_primitive::<Float32Type>();
                (0..items.len()).map(|item| if items.is_null(item) { 1 << 40 } else { items.value(item).to_bits().into() }).collect()
            }
            _ => format!("{:?}", array.slice(row, 1)).bytes().map(u64::from).collect(),
        }
    };
    (0..array.len()).map(|row| array.is_valid(row).then(|| floats(row))).collect()
}

#[test]
fn what_a_function_sees() {
    let columns = every_type();
    let relation = relation(1, &columns, vec![0]);
    let mut rule = rule("function process(json) { const row = JSON.parse(json); return { id: row.id, seen: json }; }");
    rule.columns = vec![("seen".to_owned(), UdfType::Text)];
    let arrays = columns.iter().map(|(_, array)| Arc::clone(array)).collect();
    let out = through(rule, BadValue::Fail, batch(&relation, &[Insert, Read, UpdateInsert, Insert], arrays)).unwrap();
    let seen = out[0].records.column(columns.len()).as_string::<i32>();
    expect![[r#"
        {"id":"9223372036854775807","yes":true,"tiny":-128,"byte":0,"word":0,"unsigned":"18446744073709551615","single":0.1,"double":"NaN","more":1e+21,"price":"-0.05","huge":"-9999999999999999999999999999999999.999999999999999999999999999999","text":"größe 😀 

        ","doc":"{\"a\": 1.10, \"a\":2}","bytes":"00ff","fixed":"01010101","day":"2026-11-20","time":"24:00:00","span":"-838:59:59","at":"infinity","utc":"1969-12-31T23:59:59.999999Z","vector":[0,null,"NaN",1e-40],"lists":[1],"constructor":1,"__proto__":1,"7":1,"_metadata_change_type":"INSERT","_metadata_timestamp":"2023-11-14T22:13:20Z","_metadata_schema":"shop","_metadata_table":"customers"}
    "#]]
    .assert_eq(&format!("{}\n", seen.value(0).replace(['\u{2028}', '\u{7f}'], "\n")));
    assert!(seen.value(3).contains("\"day\":\"-0043-03-15\""));
    assert!(seen.value(1).contains("\"at\":\"-infinity\""));
    assert!(seen.value(2).contains("\"id\":\"9007199254740993\""), "what JavaScript has no number for is text");
    assert!(out[0].records.column(11).is_null(0), "a field that is not returned is NULL");
}

#[test]
fn values_are_changed_dropped_and_added() {
    let mut rule = rule(
        "function process(json) {
           const row = JSON.parse(json);
           if (row.name === 'bob') return null;
           row.full_name = row.name && row.name.toUpperCase();
           row.score = row.id / 4;
           row.total = '12.50';
           row.seen = new Date();
           row.flags = { a: [1, null] };
           delete row.name;
           return JSON.stringify(row);
         }",
    );
    let columns = [
        ("full_name", "text"),
        ("score", "double"),
        ("total", "decimal(10,2)"),
        ("seen", "timestamptz"),
        ("flags", "json"),
        ("none", "date"),
    ];
    rule.columns = columns.iter().map(|(name, data_type)| (name.to_string(), data_type.parse().unwrap())).collect();
    let out = through(rule, BadValue::Fail, people(&[Insert; 3], &[(1, Some("ada")), (2, Some("bob")), (3, None)])).unwrap();
    expect![[r#"
        INSERT | id 1 | name NULL | full_name ADA | score 0.25 | total 12.50 | seen 2023-11-14T22:13:20Z | flags {"a":[1,null]} | none NULL
        INSERT | id 3 | name NULL | full_name NULL | score 0.75 | total 12.50 | seen 2023-11-14T22:13:23Z | flags {"a":[1,null]} | none NULL
    "#]]
    .assert_eq(&shown(&out));
    assert_eq!(out[0].relation.columns()[4].source_type, "decimal(10,2)");
    assert_eq!(out[0].relation.key(), [0]);
    assert_eq!(out[0].last, out[0].position(1));
}

#[test]
fn a_row_that_is_not_wanted_is_gone() {
    let script = "function process(json) { const row = JSON.parse(json); return row.name === 'no' ? 'null' : row; }";
    let changes =
        [Insert, Insert, UpdateInsert, UpdateInsert, Delete, UpdateDelete, UpdateInsert, UpdateDelete, UpdateInsert, Truncate, Read, Read];
    let rows = [
        (1, Some("a")),
        (2, Some("no")),
        (3, Some("b")),
        (4, Some("no")),
        (5, Some("no")),
        (6, Some("c")),
        (7, Some("c")),
        (8, Some("no")),
        (9, Some("no")),
        (0, None),
        (10, Some("no")),
        (11, Some("d")),
    ];
    let out = through(rule(script), BadValue::Fail, people(&changes, &rows)).unwrap();
    // Of the truncate's row nothing is said; in this batch it has a 0.
    expect![[r#"
        INSERT | id 1 | name a
        UPDATE-INSERT | id 3 | name b
        DELETE | id 4 | name -
        DELETE | id 5 | name -
        UPDATE-DELETE | id 6 | name -
        UPDATE-INSERT | id 7 | name c
        UPDATE-DELETE | id 8 | name -
        TRUNCATE | id NULL | name NULL
        READ | id 11 | name d
    "#]]
    .assert_eq(&shown(&out));
    // Read again, because the table was changed otherwise: the row may have been landed.
    let out = through(rule(script), BadValue::Fail, people_of(2, &[Read], &[(10, Some("no"))])).unwrap();
    assert_eq!(shown(&out), "DELETE | id 10 | name -\n");
    assert!(through(rule("function process() {}"), BadValue::Fail, people(&[Insert], &[(1, None)])).unwrap().is_empty());
}

#[test]
fn a_table_without_a_key_is_found_by_all_its_values() {
    let columns: Vec<(&str, ArrayRef)> = vec![("name", Arc::new(StringArray::from(vec!["ada", "ada", "bob", "bob"])))];
    let relation = relation(1, &columns, vec![]);
    let script =
        "function process(json) { const row = JSON.parse(json); if (row.name === 'bob') return; row.name += '!'; row.n = 1; return row; }";
    let mut rule = rule(script);
    rule.columns = vec![("n".to_owned(), UdfType::Int)];
    let changes = [Insert, Delete, UpdateDelete, UpdateInsert];
    let out = through(rule, BadValue::Fail, batch(&relation, &changes, vec![Arc::clone(&columns[0].1)])).unwrap();
    assert_eq!(shown(&out), "INSERT | name ada! | n 1\nDELETE | name ada! | n 1\n");
    assert!(!out[0].relation.key_declared());
    assert_eq!(out[0].relation.key(), [0, 1]);
}

#[test]
fn what_the_log_left_out_stays_left_out() {
    let script = "function process(json) { const row = JSON.parse(json); \
                  if (row.id === 2) row.name = 'new'; row.note = String(row._metadata_unchanged) + ('name' in row); return row; }";
    let mut rule = rule(script);
    rule.columns = vec![("note".to_owned(), UdfType::Text)];
    rule.unresolved = Unresolved::Keep;
    let mut changes = people(&[UpdateInsert; 3], &[(1, None), (2, None), (3, Some("c"))]);
    changes.unchanged = Some(Unchanged { columns: vec![(1, BooleanBuffer::from(vec![true, true, false]))] });
    let out = through(rule, BadValue::Fail, changes).unwrap();
    expect![[r#"
        UPDATE-INSERT | id 1 | name - | note namefalse
        UPDATE-INSERT | id 2 | name new | note nametrue
        UPDATE-INSERT | id 3 | name c | note undefinedtrue
    "#]]
    .assert_eq(&shown(&out));
}

/// A row that passes for the first time by such a change would lack the value for good.
#[test]
fn what_the_log_left_out_is_a_bad_value_unless_the_function_makes_it() {
    let script = "function process(json) { const row = JSON.parse(json); if (row.id === 2) row.name = 'new'; if (row.id === 3) return null; return row; }";
    let changes = || {
        let mut changes = people(&[UpdateInsert; 4], &[(1, None), (2, None), (3, None), (4, Some("d"))]);
        changes.unchanged = Some(Unchanged { columns: vec![(1, BooleanBuffer::from(vec![true, true, true, false]))] });
        changes
    };
    let error = through(rule(script), BadValue::Fail, changes()).unwrap_err();
    assert_eq!(error.get_context("field"), Some("name"));
    assert!(error.get_remedy().unwrap().contains("unresolved: keep"), "{error}");
    let out = through(rule(script), BadValue::Quarantine, changes()).unwrap();
    let carried: String =
        out.iter().filter(|batch| batch.relation.name().schema != "logweir").map(|batch| shown(std::slice::from_ref(batch))).collect();
    expect![[r#"
        DELETE | id 1 | name -
        UPDATE-INSERT | id 2 | name new
        DELETE | id 3 | name -
        UPDATE-INSERT | id 4 | name d
    "#]]
    .assert_eq(&carried);
}

#[test]
fn values_that_do_not_fit_are_bad() {
    let mut told = String::new();
    for (column, value) in [
        ("tiny", "128"),
        ("tiny", "1.5"),
        ("tiny", "'7'"),
        ("tiny", "true"),
        ("tiny", "''"),
        ("id2", "2 ** 53"),
        ("id2", "'9223372036854775808'"),
        ("id2", "'9223372036854775807'"),
        ("unsigned", "-1"),
        ("price", "0.1 + 0.2"),
        ("price", "0.3"),
        ("price", "'123456789.00'"),
        ("price", "1e3"),
        ("single", "1e39"),
        ("single", "0.1 + 0.2"),
        ("single", "'Infinity'"),
        ("single", "'infinite'"),
        ("text", "5"),
        ("text", "{}"),
        ("text", "'\\ud800'"),
        ("doc", "'{'"),
        ("doc", "[1]"),
        ("bytes", "'0'"),
        ("bytes", "'0G'"),
        ("bytes", "'00FF'"),
        ("fixed", "'00'"),
        ("day", "'2026-02-29'"),
        ("day", "'2026-02-28T00:00:00'"),
        ("time", "'24:00:00.000001'"),
        ("time", "'-00:00:01'"),
        ("span", "'-00:00:01'"),
        ("at", "new Date(0)"),
        ("at", "'1970-01-01T00:00:00+01:00'"),
        ("at", "'1970-01-01T00:00:00.0000001'"),
        ("utc", "'1970-01-01T00:00:00+01:00'"),
        ("vector", "[1, 'x']"),
        ("vector", "[1, null]"),
        ("yes", "1"),
        ("yes", "NaN"),
        ("yes", "() => 1"),
    ] {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(Int32Array::from(vec![1]))),
            ("tiny", Arc::new(Int8Array::from(vec![1]))),
            ("id2", Arc::new(Int64Array::from(vec![1]))),
            ("unsigned", Arc::new(UInt64Array::from(vec![1]))),
            ("price", Arc::new(Decimal128Array::from(vec![1]).with_precision_and_scale(10, 2).unwrap())),
            ("single", Arc::new(Float32Array::from(vec![1.0]))),
            ("text", Arc::new(StringArray::from(vec!["x"]))),
            ("doc", Arc::new(StringArray::from(vec!["{}"]))),
            ("bytes", Arc::new(BinaryArray::from_vec(vec![b"x"]))),
            ("fixed", Arc::new(FixedSizeBinaryArray::try_from_iter([[1_u8; 4]].into_iter()).unwrap())),
            ("day", Arc::new(Date32Array::from(vec![1]))),
            ("time", Arc::new(Time64MicrosecondArray::from(vec![1]))),
            ("span", Arc::new(DurationMicrosecondArray::from(vec![1]))),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![1]))),
            ("utc", Arc::new(TimestampMicrosecondArray::from(vec![1]).with_timezone("UTC"))),
            ("vector", Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>([Some(vec![Some(1.0)])]))),
            ("yes", Arc::new(BooleanArray::from(vec![true]))),
        ];
        let relation = relation(1, &columns, vec![0]);
        let place = columns.iter().position(|(name, _)| *name == column).unwrap();
        let script = format!("function process(json) {{ const row = JSON.parse(json); row.{column} = {value}; return row; }}");
        let arrays = columns.into_iter().map(|(_, array)| array).collect();
        let became = match through(rule(&script), BadValue::Fail, batch(&relation, &[Insert], arrays)) {
            Ok(out) if out[0].records.column(place).is_null(0) => "NULL".to_owned(),
            Ok(out) => arrow::util::display::array_value_to_string(out[0].records.column(place), 0).unwrap(),
            Err(error) => {
                assert_eq!((error.kind(), error.get_context("field").unwrap_or(column)), (ErrorKind::Data, column));
                error.get_context("reason").unwrap().to_owned()
            }
        };
        told += &format!("{column} = {value}: {became}\n");
    }
    expect![[r#"
        tiny = 128: the value is beyond what the column can hold
        tiny = 1.5: the number has digits behind the point that the column has no place for
        tiny = '7': 7
        tiny = true: the value is of another type
        tiny = '': the text is no number
        id2 = 2 ** 53: a number beyond 2^53 is not exact in JavaScript: return its digits as text
        id2 = '9223372036854775808': the value is beyond what the column can hold
        id2 = '9223372036854775807': 9223372036854775807
        unsigned = -1: the value is beyond what the column can hold
        price = 0.1 + 0.2: the number has digits behind the point that the column has no place for
        price = 0.3: 0.30
        price = '123456789.00': the value is beyond what the column can hold
        price = 1e3: 1000.00
        single = 1e39: the value is beyond what the column can hold
        single = 0.1 + 0.2: 0.3
        single = 'Infinity': inf
        single = 'infinite': the text is no number
        text = 5: the value is of another type
        text = {}: the value is of another type
        text = '\ud800': the function returned no JSON object
        doc = '{': the text is no JSON
        doc = [1]: [1]
        bytes = '0': the text is no hexadecimal digits, two a byte
        bytes = '0G': the text is no hexadecimal digits, two a byte
        bytes = '00FF': 00ff
        fixed = '00': the value is beyond what the column can hold
        day = '2026-02-29': the text is no such date or time
        day = '2026-02-28T00:00:00': the text is no such date or time
        time = '24:00:00.000001': the value is beyond what the column can hold
        time = '-00:00:01': the value is beyond what the column can hold
        span = '-00:00:01': -PT1S
        at = new Date(0): 1970-01-01T00:00:00
        at = '1970-01-01T00:00:00+01:00': the text is no such date or time
        at = '1970-01-01T00:00:00.0000001': the text is no such date or time
        utc = '1970-01-01T00:00:00+01:00': 1969-12-31T23:00:00Z
        vector = [1, 'x']: the text is no number
        vector = [1, null]: [1.0, ]
        yes = 1: the value is of another type
        yes = NaN: NULL
        yes = () => 1: NULL
    "#]]
    .assert_eq(&told);
}

#[test]
fn rows_that_are_none_are_bad() {
    let mut told = String::new();
    for script in [
        "function process(json) { return 5; }",
        "function process(json) { return 'no'; }",
        "function process(json) { return ''; }",
        "function process(json) { return [JSON.parse(json)]; }",
        "function process(json) { return json + json; }",
        "function process(json) { return json.slice(0, -1); }",
        "function process(json) { return '{\"id\":1,\"id\":1}'; }",
        "function process(json) { return {}; }",
        "function process(json) { return { id: 7 }; }",
        "function process(json) { return { id: 1, nmae: 'x' }; }",
        "function process(json) { const row = JSON.parse(json); row[row.name + '@example'] = 1; return row; }",
        "function process(json) { const row = JSON.parse(json); row._metadata_table = 'other'; return row; }",
        "async function process(json) { return json; }",
        "function process(json) {\n  throw new TypeError('not ' + json);\n}",
        "function process(json) {\n  class Own extends Error { constructor() { super(json); this.name = json; } }\n  throw new Own();\n}",
        "function process(json) { throw json; }",
        "function process(json) { throw null; }",
        "function process(json) {\n\n  return missing.field; }",
        "function process(json) { return process(json) + 1; }",
        "function process(json) { return { toJSON() { throw new RangeError(json); } }; }",
        "function process(json) { const a = []; a[0] = a; return { id: 1, name: a }; }",
        "function process(json) { return '[' .repeat(100000); }",
        "function process(json) { return '{\"id\":1,\"name\":' + '['.repeat(100000) + ']'.repeat(100000) + '}'; }",
        "function process(json) { return '\\ud800' + json; }",
        "function process(json) { Math.random(); return json; }",
        "function process(json) { console.log(json); return json; }",
    ] {
        let error = through(rule(script), BadValue::Fail, people(&[Insert], &[(1, Some("ada-secret"))])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        let message = error.report();
        assert!(!message.contains("secret"), "{message}");
        told += &format!("{}: {}\n", error.get_context("field").unwrap_or("-"), error.get_context("reason").unwrap());
    }
    expect![[r#"
        -: the function returned neither a row nor null
        -: the function returned no JSON object
        -: the function returned no JSON object
        -: the function returned no JSON object
        -: the function returned no JSON object
        -: the function returned no JSON object
        id: the function returned a field twice
        id: a key stays as it is, for updates and deletes would not find the row
        id: a key stays as it is, for updates and deletes would not find the row
        nmae: the table has no such column, and the rule adds none
        -: the function returned a field that is no column, under a name that is not in its script
        _metadata_table: what is told of a change cannot be changed
        -: the function returned a promise, and nothing waits for it
        -: the function threw a TypeError at line 2
        -: the function threw an error at line 2
        -: the function threw a value that is no error
        -: the function threw null, or had no memory left for an error
        -: the function threw a ReferenceError at line 3
        -: the function recursed too deep
        -: the function threw a RangeError at line 1
        -: the function threw a TypeError
        -: the function returned no JSON object
        -: the function returned no JSON object
        -: the function returned text with half a character
        -: the function threw a TypeError at line 1
        -: the function threw a ReferenceError at line 1
    "#]]
    .assert_eq(&told);
    let error = inserts("function process(json) {\n  null.x; }");
    expect![[r#"
        a change cannot be carried by a UDF (reason: the function threw a TypeError at line 2, table: shop.customers, file: mask.js, function: process, position: 0000000000000001/0000000000000001/0000000000000003); make the function take such rows, or set on_bad_value: quarantine; what it throws is not shown, for it may hold values
    "#]].assert_eq(&error);
}

#[test]
fn bad_rows_are_set_aside() {
    let script = "function process(json) { const row = JSON.parse(json); if (row.id === 2) row.name.x(); if (row.id === 3) row.name = 1; return row; }";
    let rows = [(1, Some("a")), (2, Some("b")), (3, Some("c")), (4, Some("d"))];
    let changes = people(&[Insert; 4], &rows);
    let mut transform = UdfTransform::new(vec![rule(script)], BadValue::Quarantine).unwrap();
    let output = transform.output(&changes.relation).unwrap();
    assert_eq!(output.iter().map(|relation| relation.name().to_string()).collect::<Vec<_>>(), ["shop.customers", "logweir.quarantine"]);
    let out = transform.apply(changes).unwrap();
    assert_eq!(out[0].relation.name().to_string(), "logweir.quarantine");
    let shown_aside = out[0].records.project(&[1, 2, 3, 4, 5]).unwrap();
    expect![[r#"
        +--------+-----------+-----------------+------------------------------------------+----------+
        | schema | table     | rule            | reason                                   | row      |
        +--------+-----------+-----------------+------------------------------------------+----------+
        | shop   | customers | mask.js process | the function threw a TypeError at line 1 | {"id":2} |
        | shop   | customers | mask.js process | name: the value is of another type       | {"id":3} |
        +--------+-----------+-----------------+------------------------------------------+----------+
        INSERT | id 1 | name a
        INSERT | id 4 | name d
    "#]]
    .assert_eq(&format!("{}\n{}", pretty_format_batches(&[shown_aside]).unwrap(), shown(&out[1..])));
}

#[test]
fn limits_end_a_call_and_nothing_else() {
    let limited = |body: &str| {
        let mut rule = rule(&format!(
            "let calls = 0; function process(json) {{ calls++; const row = JSON.parse(json); if (row.id === 2) {{ {body} }} row.name = String(calls); return row; }}"
        ));
        rule.limits = UdfLimits { time: Duration::from_millis(300), memory_bytes: 8 << 20 };
        let changes = people(&[Insert; 3], &[(1, None), (2, None), (3, None)]);
        let out = through(rule, BadValue::Quarantine, changes).unwrap();
        assert_eq!(out[0].relation.name().schema, "logweir", "{body}");
        let reason = out[0].records.column(4).as_string::<i32>().value(0).to_owned();
        let names = out[1].records.column(1).as_string::<i32>();
        format!("{body}: {reason}; then {} {}\n", names.value(0), names.value(1))
    };
    let mut told = String::new();
    for body in [
        "while (true) {}",
        "while (true) { try { while (true) {} } catch (e) {} finally { continue; } }",
        "/^(a+)+$/.test('a'.repeat(40) + 'b');",
        "for (const x of (function* () { while (true) yield 1; })()) {}",
        "[].reverse.call({ length: 2 ** 53 - 1 });",
        "const a = []; a.length = 2 ** 32 - 1; a.join('');",
        "const a = []; a.length = 2 ** 32 - 1; a.indexOf(1);",
        "String(Object.assign([], { length: 2 ** 32 - 1 }));",
        "const a = []; while (true) a.push(new Array(1000).fill(0));",
        "let s = 'x'; while (true) s = s + s;",
        "new Uint8Array(1e9);",
        "(function f() { f(); })();",
        "JSON.parse('['.repeat(1e5));",
        "let a = []; for (let i = 0; i < 2e4; i++) a = [a]; row.name = a; return row;",
        "(function again() { Promise.resolve().then(again); })();",
    ] {
        told += &limited(body);
    }
    expect![[r#"
        while (true) {}: the function took longer than 300ms; then 1 1
        while (true) { try { while (true) {} } catch (e) {} finally { continue; } }: the function took longer than 300ms; then 1 1
        /^(a+)+$/.test('a'.repeat(40) + 'b');: the function took longer than 300ms; then 1 1
        for (const x of (function* () { while (true) yield 1; })()) {}: the function took longer than 300ms; then 1 1
        [].reverse.call({ length: 2 ** 53 - 1 });: the function threw a RangeError at line 1; then 1 3
        const a = []; a.length = 2 ** 32 - 1; a.join('');: the function threw a RangeError at line 1; then 1 3
        const a = []; a.length = 2 ** 32 - 1; a.indexOf(1);: the function took longer than 300ms; then 1 1
        String(Object.assign([], { length: 2 ** 32 - 1 }));: the function threw a RangeError at line 1; then 1 3
        const a = []; while (true) a.push(new Array(1000).fill(0));: the function needs more memory than 8192 KiB; then 1 1
        let s = 'x'; while (true) s = s + s;: the function threw a InternalError at line 1; then 1 3
        new Uint8Array(1e9);: the function needs more memory than 8192 KiB; then 1 1
        (function f() { f(); })();: the function recursed too deep; then 1 3
        JSON.parse('['.repeat(1e5));: the function recursed too deep; then 1 3
        let a = []; for (let i = 0; i < 2e4; i++) a = [a]; row.name = a; return row;: the function recursed too deep; then 1 3
        (function again() { Promise.resolve().then(again); })();: the function took longer than 300ms; then 1 1
    "#]]
    .assert_eq(&told);
    // Each is ended, and its place taken by two.
    let said = limited("(function again() { Promise.resolve().then(again); Promise.resolve().then(again); })();");
    assert!(said.contains("took longer than 300ms") || said.contains("needs more memory"), "{said}");
}

/// What is built in is not interrupted, but its time counts, and for every row alike.
#[test]
fn time_in_what_is_built_in_counts() {
    let mut rule = rule(
        "const doc = '[' + '1,'.repeat(200000) + '1]'; function process(json) { for (let i = 0; i < 20; i++) JSON.parse(doc); return json; }",
    );
    // A fiftieth of what it takes.
    rule.limits.time = Duration::from_millis(20);
    let rows: Vec<(i32, Option<&str>)> = (0..6).map(|id| (id, None)).collect();
    let out = through(rule, BadValue::Quarantine, people(&[Insert; 6], &rows)).unwrap();
    assert_eq!((out.len(), out[0].rows()), (1, 6));
    let reasons = out[0].records.column(4).as_string::<i32>();
    assert!(reasons.iter().all(|reason| reason == Some("the function took longer than 20ms")));
}

#[test]
fn memory_that_earlier_rows_took_is_not_this_rows_fault() {
    // A world that fills up is replaced, and the row that found it full has another try.
    let mut rule = rule("const kept = []; function process(json) { kept.push(new Array(5000).fill(json)); return json; }");
    rule.limits.memory_bytes = 4 << 20;
    let rows: Vec<(i32, Option<&str>)> = (0..300).map(|id| (id, None)).collect();
    let out = through(rule, BadValue::Fail, people(&[Insert; 300], &rows)).unwrap();
    assert_eq!(out[0].rows(), 300);
}

#[test]
fn what_the_language_brings_stays() {
    let mut told = String::new();
    for body in [
        "JSON.parse = () => 1;",
        "Object.prototype.x = 1;",
        "Array.prototype.map = null;",
        "String.prototype.trim = null;",
        "globalThis.leak = 1;",
        "leak = 1;",
        "Date = 1;",
        "process = null;",
        "Object.defineProperty(Object.prototype, 'toJSON', { value: () => 1 });",
        "Object.setPrototypeOf(Array.prototype, null);",
        "Object.getPrototypeOf(function* () {}).x = 1;",
        "Object.getPrototypeOf([][Symbol.iterator]()).next = null;",
        "Object.getPrototypeOf(async function () {}).x = 1;",
        "Reflect.apply = null;",
        "eval('var leaked = 1');",
        "row.constructor = 1; delete row.constructor;",
        "const e = new Error(); e.name = 'x'; e.message = 'y';",
        "function Old() {} Old.prototype.toString = () => 'x'; `${new Old()}`;",
        "class Own extends Map { get(k) { return 1; } } new Own().get(1);",
        "new Function('this.x = 1')();",
    ] {
        let script = format!("function process(json) {{\n const row = JSON.parse(json);\n {body}\n return JSON.stringify(row); }}");
        let line = inserts(&script);
        told += &format!("{body}: {}\n", if line.starts_with("INSERT") { "passes" } else { line.split(['(', ',']).nth(1).unwrap() });
    }
    expect![[r#"
        JSON.parse = () => 1;: reason: the function threw a TypeError at line 3
        Object.prototype.x = 1;: reason: the function threw a TypeError at line 3
        Array.prototype.map = null;: reason: the function threw a TypeError at line 3
        String.prototype.trim = null;: reason: the function threw a TypeError at line 3
        globalThis.leak = 1;: reason: the function threw a TypeError at line 3
        leak = 1;: reason: the function threw a ReferenceError at line 3
        Date = 1;: reason: the function threw a TypeError at line 3
        process = null;: reason: the function threw a TypeError at line 3
        Object.defineProperty(Object.prototype, 'toJSON', { value: () => 1 });: reason: the function threw a TypeError at line 3
        Object.setPrototypeOf(Array.prototype, null);: reason: the function threw a TypeError at line 3
        Object.getPrototypeOf(function* () {}).x = 1;: reason: the function threw a TypeError at line 3
        Object.getPrototypeOf([][Symbol.iterator]()).next = null;: reason: the function threw a TypeError at line 3
        Object.getPrototypeOf(async function () {}).x = 1;: reason: the function threw a TypeError at line 3
        Reflect.apply = null;: reason: the function threw a TypeError at line 3
        eval('var leaked = 1');: passes
        row.constructor = 1; delete row.constructor;: passes
        const e = new Error(); e.name = 'x'; e.message = 'y';: passes
        function Old() {} Old.prototype.toString = () => 'x'; `${new Old()}`;: passes
        class Own extends Map { get(k) { return 1; } } new Own().get(1);: passes
        new Function('this.x = 1')();: passes
    "#]]
    .assert_eq(&told);
    // While it is loaded a script may add what it misses.
    let script = "String.prototype.shout = function () { return this.toUpperCase() + '!'; };
                  function process(json) { const row = JSON.parse(json); row.name = row.name && row.name.shout(); return row; }";
    assert_eq!(inserts(script), "INSERT | id 1 | name ADA!\nINSERT | id 2 | name NULL\n");
    // And whoever replaces what is used here harms its own rows alone.
    let script = "JSON.stringify = Object.freeze = Reflect.ownKeys = Set.prototype.has = Function.prototype.call = null;
                  function process(json) { return json; }";
    assert_eq!(inserts(script), "INSERT | id 1 | name ada\nINSERT | id 2 | name NULL\n");
}

#[test]
fn a_row_becomes_the_same_at_any_time_and_place() {
    let script = "function process(json) { const row = JSON.parse(json); row.name = [
        Date.now(), new Date().toISOString(), Date(), new Date('2026-01-02T03:04:05').toISOString(), new Date(2026, 0, 2, 3).toISOString(),
        new Date('2026-01-02T03:04:05+01:00').getHours(), new Date('2026-01-02').getTime(), new Date(NaN).toString(), new Date(0).getTimezoneOffset(),
        new Date('Jan 2 2026 03:04').toISOString(), Date.parse('2026-01-02 03:04'), typeof performance, typeof WeakRef, typeof Math.random,
        new Date(new Date(5)).getTime(), new Date(0).toLocaleString(), new Date() instanceof Date, JSON.stringify(new Date(0)),
        new (class extends Date { twice() { return this.getTime() * 2; } })(21).twice(),
        new Date(new String('2026-01-02T03:04:05')).toISOString(), new Date({ toString: () => '2026-01-02 03:04' }).getHours(),
        new Date({ [Symbol.toPrimitive]: () => 7 }).getTime(), new Date(new Number(8)).getTime(), new Date(null).getTime(),
      ].join('\\n'); return row; }";
    let line = inserts(script);
    expect![[r#"
        INSERT | id 1 | name 1700000000000
        2023-11-14T22:13:20.000Z
        Tue Nov 14 2023 22:13:20 GMT+0000
        2026-01-02T03:04:05.000Z
        2026-01-02T03:00:00.000Z
        2
        1767312000000
        Invalid Date
        0
        2026-01-02T03:04:00.000Z
        1767323040000
        undefined
        undefined
        undefined
        5
        Thu Jan 01 1970 00:00:00 GMT+0000
        true
        "1970-01-01T00:00:00.000Z"
        42
        2026-01-02T03:04:05.000Z
        3
        7
        8
        0
        INSERT | id 2 | name 1700000001500
        2023-11-14T22:13:21.500Z
        Tue Nov 14 2023 22:13:21 GMT+0000
        2026-01-02T03:04:05.000Z
        2026-01-02T03:00:00.000Z
        2
        1767312000000
        Invalid Date
        0
        2026-01-02T03:04:00.000Z
        1767323040000
        undefined
        undefined
        undefined
        5
        Thu Jan 01 1970 00:00:00 GMT+0000
        true
        "1970-01-01T00:00:00.000Z"
        42
        2026-01-02T03:04:05.000Z
        3
        7
        8
        0
    "#]]
    .assert_eq(&line);
}

#[test]
fn scripts_that_cannot_be_used() {
    let mut told = String::new();
    for (script, function) in [
        ("function process(json) {\n  return json +;\n}", "process"),
        ("function other() {}", "process"),
        ("const process = 5;", "process"),
        ("let process; throw new Error('at the start');", "process"),
        ("export function process(json) { return json; }", "process"),
        ("while (true) {}", "process"),
        ("const a = []; while (true) a.push(new Array(1000).fill(0));", "process"),
        ("undeclared = 1;", "process"),
        ("function process() {}\u{0}", "process"),
        ("", "process"),
        ("function process() {}", "process(); alert"),
        ("function process() {}", ""),
    ] {
        let error = UdfTransform::new(vec![UdfRule { function: function.to_owned(), ..rule(script) }], BadValue::Fail).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        told += &format!("{error}\n");
    }
    let add = |columns: &[(&str, UdfType)]| UdfRule {
        columns: columns.iter().map(|(name, data_type)| (name.to_string(), *data_type)).collect(),
        ..rule(IDENTITY)
    };
    for columns in [vec![("_metadata_x", UdfType::Int)], vec![("a", UdfType::Int), ("a", UdfType::Int)]] {
        told += &format!("{}\n", UdfTransform::new(vec![add(&columns)], BadValue::Fail).unwrap_err());
    }
    let changes = people(&[Insert], &[(1, None)]);
    told += &format!("{}\n", through(add(&[("Name", UdfType::Text)]), BadValue::Fail, changes).unwrap_err());
    let odd: Vec<(&str, ArrayRef)> =
        vec![("odd", arrow::array::new_null_array(&DataType::Interval(arrow::datatypes::IntervalUnit::DayTime), 1))];
    let relation = relation(1, &odd, vec![]);
    let mut transform = UdfTransform::new(vec![rule(IDENTITY)], BadValue::Fail).unwrap();
    told += &format!("{}\n", transform.output(&relation).unwrap_err());
    expect![[r#"
        the script of a UDF cannot be used (file: mask.js, line: 2, column: 16, problem: SyntaxError: unexpected token in expression: ';')
        the script of a UDF cannot be used (file: mask.js, problem: the script has no function process)
        the script of a UDF cannot be used (file: mask.js, problem: the script has no function process)
        the script of a UDF cannot be used (file: mask.js, line: 1, column: 24, problem: Error: at the start)
        the script of a UDF cannot be used (file: mask.js, line: 1, column: 1, problem: SyntaxError: unsupported keyword: export)
        the script of a UDF cannot be used (file: mask.js, problem: the script took longer than 1s to load)
        the script of a UDF cannot be used (file: mask.js, problem: the script has no memory left)
        the script of a UDF cannot be used (file: mask.js, line: 1, column: 1, problem: ReferenceError: undeclared is not defined)
        the script of a UDF cannot be used (file: mask.js, problem: the script holds a NUL)
        the script of a UDF cannot be used (file: mask.js, problem: the script has no function process)
        the function of a UDF is no name (file: mask.js, function: process(); alert)
        the function of a UDF is no name (file: mask.js, function: )
        a UDF cannot add a column of this name (file: mask.js, column: _metadata_x)
        a UDF adds a column twice (file: mask.js, column: a)
        a UDF adds a column that the table has already (table: shop.customers, column: Name, file: mask.js); give it another name under `columns`, or a rule of its own for this table
        a UDF cannot have a column of this type (table: shop.customers, column: odd, file: mask.js, type: Interval(DayTime)); leave the column out with tables.exclude_columns
    "#]].assert_eq(&told);
}

#[test]
fn tables_without_a_rule_pass() {
    let other = UdfRule { table: Pattern::new("other.*"), ..rule("function process() { throw 1; }") };
    let first = UdfRule { table: Pattern::new("shop.customers"), ..rule("function process(json) { return json; }") };
    let second = rule("function process() { throw 1; }");
    let mut transform = UdfTransform::new(vec![other, first, second], BadValue::Fail).unwrap();
    let changes = people(&[Insert], &[(1, Some("a"))]);
    transform.output(&changes.relation).unwrap();
    assert_eq!(shown(&transform.apply(changes).unwrap()), "INSERT | id 1 | name a\n");
    assert_eq!(transform.unmatched().iter().map(|pattern| pattern.as_str()).collect::<Vec<_>>(), ["other.*"]);
    assert_eq!(format!("{transform:?}"), r#"["other.* through mask.js", "shop.customers through mask.js", "shop.* through mask.js"]"#);
    let unplanned = UdfTransform::new(vec![], BadValue::Fail).unwrap().apply(people(&[Insert], &[(1, None)]));
    assert!(unplanned.is_err(), "nothing passes that no rule was held against");
}

#[test]
fn a_transform_goes_from_thread_to_thread() {
    let mut transform = UdfTransform::new(
        vec![rule("function process(json) { const row = JSON.parse(json); row.name = 'x'; return row; }")],
        BadValue::Fail,
    )
    .unwrap();
    transform.output(&people(&[Insert], &[(1, None)]).relation).unwrap();
    let transform: Arc<dyn Transform> = Arc::new(transform);
    let threads = (0..4).map(|thread| {
        let transform = Arc::clone(&transform);
        std::thread::spawn(move || {
            for row in 0..50 {
                let out = transform.apply(people(&[Insert], &[(thread * 100 + row, None)])).unwrap();
                assert_eq!(shown(&out), format!("INSERT | id {} | name x\n", thread * 100 + row));
            }
        })
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a function returns is a row, no row or a bad one.
    #[test]
    fn anything_may_be_returned(texts in proptest::collection::vec(returned(), 1..8)) {
        let script = format!(
            "const all = {}; let next = 0; function process(json) {{ return all[next++]; }}",
            serde_json::to_string(&texts).unwrap()
        );
        let rows: Vec<(i32, Option<&str>)> = texts.iter().map(|_| (1, Some("ada"))).collect();
        let changes = people(&vec![Insert; rows.len()], &rows);
        let out = through(rule(&script), BadValue::Quarantine, changes).unwrap();
        let carried: usize = out.iter().map(ChangeBatch::rows).sum();
        prop_assert_eq!(carried, texts.iter().filter(|text| *text != "null").count());
        for batch in out.iter().filter(|batch| batch.relation.name().schema == "shop") {
            prop_assert!(batch.records.column(0).as_primitive::<Int32Type>().iter().all(|id| id == Some(1)));
        }
    }

    /// What a function does not touch is what it was, whatever text and numbers these are.
    #[test]
    fn values_survive(texts in proptest::collection::vec(proptest::option::of(".{0,12}"), 1..12), numbers: [i64; 12], floats: [u64; 12]) {
        let rows = texts.len();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(Int64Array::from_iter_values(numbers[..rows].iter().copied()))),
            ("text", Arc::new(StringArray::from_iter(texts.iter().map(Option::as_deref)))),
            ("double", Arc::new(Float64Array::from_iter_values(floats[..rows].iter().map(|bits| f64::from_bits(*bits))))),
            ("single", Arc::new(Float32Array::from_iter_values(floats[..rows].iter().map(|bits| f32::from_bits(*bits as u32))))),
            ("at", Arc::new(TimestampMicrosecondArray::from_iter_values(numbers[..rows].iter().copied()))),
            ("day", Arc::new(Date32Array::from_iter_values(numbers[..rows].iter().map(|number| *number as i32)))),
        ];
        let relation = relation(1, &columns, vec![0]);
        let arrays: Vec<ArrayRef> = columns.iter().map(|(_, array)| Arc::clone(array)).collect();
        let out = through(rule(IDENTITY), BadValue::Fail, batch(&relation, &vec![Insert; rows], arrays)).unwrap();
        for ((name, before), after) in columns.iter().zip(out[0].records.columns()) {
            prop_assert!(before.to_data().ptr_eq(&after.to_data()), "{}", name);
        }
    }
}

/// Texts that are nearly rows.
fn returned() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("null".to_owned()),
        Just("\"x\"".to_owned()),
        Just("\"\\ud83d\\ude00\"".to_owned()),
        Just("\"\\ud800\"".to_owned()),
        Just("[{}]".to_owned()),
        Just("1e400".to_owned()),
        Just("-".to_owned()),
        ".{0,6}",
    ];
    let name =
        prop_oneof![Just("\"id\""), Just("\"name\""), Just("\"n\\u0061me\""), Just("\"other\""), Just("\"_metadata_table\""), Just("id")];
    let row = proptest::collection::vec((name, value), 0..4).prop_map(|fields| {
        let fields: Vec<String> = fields.into_iter().map(|(name, value)| format!("{name}:{value}")).collect();
        format!("{{\"id\":1,{}}}", fields.join(","))
    });
    prop_oneof![
        3 => row,
        1 => Just("{\"id\":1,\"name\":\"ada\"}".to_owned()),
        1 => Just("null".to_owned()),
        1 => ".{0,20}",
    ]
}
