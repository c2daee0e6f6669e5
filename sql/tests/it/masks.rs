//! Masks on change batches.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, DurationMicrosecondArray,
    Float64Array, Int32Array, Int64Array, LargeStringArray, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt8Array,
};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, Float32Type, Int8Type};
use expect_test::expect;
use logweir_core::{
    BeforeImages, ChangeBatch, ChangeType, Column, LogPosition, MemoryPermit, MetadataBuilder, Pattern, Relation, RelationName,
    SourcePlace, TimestampMicros, Transform, Unchanged,
};
use logweir_sql::{MaskKind, MaskRule, MaskTransform};
use proptest::prelude::*;

fn hash() -> MaskKind {
    MaskKind::Hash { key: "0123456789abcdef0123456789abcdef".into() }
}

fn rule(pattern: &str, with: MaskKind) -> MaskRule {
    MaskRule { columns: vec![Pattern::new(pattern)], with }
}

fn relation(version: u32, columns: &[(&str, DataType)], key: Vec<usize>) -> Arc<Relation> {
    let columns = columns
        .iter()
        .map(|(name, data_type)| Column {
            field: Arc::new(Field::new(*name, data_type.clone(), true).with_metadata([("default".into(), "secret".into())].into())),
            source_type: "enum('secret')".into(),
            detail: serde_json::json!({ "labels": ["secret"] }),
        })
        .collect();
    Arc::new(Relation::new(RelationName::new("shop", "customers"), version, LogPosition::MIN, columns, key))
}

fn batch(relation: &Arc<Relation>, mut columns: Vec<ArrayRef>) -> ChangeBatch {
    let mut metadata = MetadataBuilder::new("test");
    for row in 0..columns[0].len() {
        let place = SourcePlace { log_position: 4, log_file: None, transaction: None };
        let position = LogPosition::new(0, 1, row as u64 + 1, 1, true);
        metadata.push(TimestampMicros(1), position, ChangeType::Insert, TimestampMicros(2), place);
    }
    let last = metadata.last_position().unwrap();
    columns.extend(metadata.finish());
    let records = RecordBatch::try_new(Arc::clone(relation.schema()), columns).unwrap();
    ChangeBatch {
        relation: Arc::clone(relation),
        records,
        unchanged: None,
        before: None,
        last,
        memory: Arc::new(MemoryPermit::uncounted()),
    }
}

/// One column under one mask.
fn masked(with: MaskKind, column: ArrayRef) -> ArrayRef {
    let mut transform = MaskTransform::new(vec![rule("*.c", with)]).unwrap();
    let relation = relation(1, &[("id", DataType::Int32), ("c", column.data_type().clone())], vec![0]);
    transform.output(&relation).unwrap();
    let id: ArrayRef = Arc::new(Int32Array::from_iter_values(0..column.len() as i32));
    let batches = transform.apply(batch(&relation, vec![id, column])).unwrap();
    Arc::clone(batches[0].records.column(1))
}

/// One text under one mask.
pub(crate) fn masked_text(with: MaskKind, text: &str) -> String {
    let masked = masked(with, Arc::new(StringArray::from(vec![text])));
    masked.as_string::<i32>().value(0).to_owned()
}

fn texts(array: &ArrayRef) -> Vec<Option<&str>> {
    array.as_string::<i32>().iter().collect()
}

/// As `hmac.new(key, text, hashlib.sha256).hexdigest()` in Python.
fn hmac(text: &str) -> String {
    use hmac::Mac;
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(b"0123456789abcdef0123456789abcdef").unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_hash_is_of_the_canonical_text() {
    let columns: Vec<(ArrayRef, &str)> = vec![
        (Arc::new(StringArray::from(vec!["größe "])), "größe "),
        (Arc::new(LargeStringArray::from(vec![""])), ""),
        (Arc::new(BinaryArray::from_vec(vec![b"ada"])), "ada"),
        (Arc::new(BooleanArray::from(vec![true])), "true"),
        (Arc::new(Int64Array::from(vec![-42])), "-42"),
        (Arc::new(UInt8Array::from(vec![5])), "5"),
        (Arc::new(Decimal128Array::from(vec![-1250]).with_precision_and_scale(10, 2).unwrap()), "-12.5"),
        (Arc::new(Decimal128Array::from(vec![500]).with_precision_and_scale(10, 2).unwrap()), "5"),
        (Arc::new(Decimal128Array::from(vec![500]).with_precision_and_scale(10, 0).unwrap()), "500"),
        (Arc::new(Float64Array::from(vec![-0.0])), "0"),
        (Arc::new(Float64Array::from(vec![0.1])), "0.1"),
        (Arc::new(Float64Array::from(vec![1e21])), "1000000000000000000000"),
        (Arc::new(Date32Array::from(vec![20_777])), "2026-11-20"),
        (Arc::new(TimestampMicrosecondArray::from(vec![1_500_000])), "1970-01-01 00:00:01.5"),
        (Arc::new(TimestampMicrosecondArray::from(vec![1_500_000]).with_timezone("UTC")), "1970-01-01 00:00:01.5Z"),
        (Arc::new(DurationMicrosecondArray::from(vec![-3_020_399_000_000])), "-838:59:59"),
    ];
    for (column, text) in columns {
        let hashes = masked(hash(), Arc::clone(&column));
        assert_eq!(texts(&hashes), [Some(hmac(text).as_str())], "{}", column.data_type());
    }
}

#[test]
fn null_stays_null_and_others_are_masked() {
    let column: ArrayRef = Arc::new(StringArray::from(vec![Some("ada@example.com"), None, Some("12345678"), Some("")]));
    assert_eq!(texts(&masked(MaskKind::Partial, Arc::clone(&column))), [Some("****.com"), None, Some("****5678"), Some("****")]);
    assert_eq!(texts(&masked(MaskKind::Email, Arc::clone(&column))), [Some("a***@example.com"), None, Some("***"), Some("***")]);
    let hashes = masked(hash(), Arc::clone(&column));
    assert_eq!(texts(&hashes), [Some(hmac("ada@example.com").as_str()), None, Some(hmac("12345678").as_str()), Some(hmac("").as_str())]);
    let nulls = masked(MaskKind::Null, Arc::clone(&column));
    assert_eq!((nulls.null_count(), nulls.data_type()), (4, &DataType::Utf8));
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(4_012_888_888_881_881), None, Some(-1)]));
    assert_eq!(texts(&masked(MaskKind::Partial, numbers)), [Some("****1881"), None, Some("****")]);
}

#[test]
fn dictionaries_are_masked_by_value() {
    let labels: ArrayRef = Arc::new(StringArray::from(vec![Some("confidential"), Some("restricted"), None]));
    let keys = arrow::array::Int8Array::from(vec![Some(0), Some(1), None, Some(0), Some(2)]);
    let column: ArrayRef = Arc::new(DictionaryArray::<Int8Type>::try_new(keys, labels).unwrap());
    let (a, b) = (hmac("confidential"), hmac("restricted"));
    let expected = [Some(a.as_str()), Some(b.as_str()), None, Some(a.as_str()), None];
    assert_eq!(texts(&masked(hash(), Arc::clone(&column))), expected);
    // With more values than rows, and of a slice.
    assert_eq!(texts(&masked(hash(), column.slice(1, 2))), expected[1..3]);
    let nulls = masked(MaskKind::Null, Arc::clone(&column));
    assert_eq!((nulls.logical_null_count(), nulls.data_type()), (5, column.data_type()));
    assert!(nulls.as_any_dictionary().values().is_empty() || nulls.as_any_dictionary().values().is_null(0), "no label is left");
}

#[test]
fn the_first_rule_wins_and_later_columns_are_caught() {
    let mut transform =
        MaskTransform::new(vec![rule("shop.customers.email", MaskKind::Email), rule("*.email*", hash()), rule("*.emial", MaskKind::Null)])
            .unwrap();
    assert_eq!(transform.unmatched().len(), 3);
    let first = relation(1, &[("id", DataType::Int32), ("email", DataType::Utf8)], vec![0]);
    let second = relation(2, &[("id", DataType::Int32), ("email", DataType::Utf8), ("email2", DataType::Utf8)], vec![0]);
    transform.output(&first).unwrap();
    let planned = transform.output(&second).unwrap().remove(0);
    assert_eq!(transform.unmatched(), [&Pattern::new("*.emial")]);

    let column = |text| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
    let id: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    let records = batch(&second, vec![Arc::clone(&id), column("ada@example.com"), column("ada@example.com")]);
    let out = transform.apply(records).unwrap().remove(0);
    assert_eq!(out.relation, planned);
    assert_eq!(texts(out.records.column(1)), [Some("a***@example.com")]);
    assert_eq!(texts(out.records.column(2)), [Some(hmac("ada@example.com").as_str())]);
    // A batch of the version before is masked by its own plan.
    let out = transform.apply(batch(&first, vec![id, column("ada@example.com")])).unwrap().remove(0);
    assert_eq!((out.relation.version(), texts(out.records.column(1))), (1, vec![Some("a***@example.com")]));
}

#[test]
fn what_is_said_of_a_masked_column_says_nothing_of_its_values() {
    let mut transform = MaskTransform::new(vec![rule("*.c", hash())]).unwrap();
    let source = relation(3, &[("id", DataType::Int32), ("c", DataType::Utf8), ("d", DataType::Int32)], vec![1]);
    let planned = transform.output(&source).unwrap().remove(0);
    let column = &planned.columns()[1];
    assert_eq!((column.name(), column.source_type.as_str(), column.field.data_type()), ("c", "masked(hash)", &DataType::Utf8));
    assert!(column.detail.is_null() && column.field.metadata().is_empty());
    assert_eq!((planned.name(), planned.version(), planned.key(), planned.key_declared()), (source.name(), 3, &[1][..], true));
    assert_eq!((&planned.columns()[0], &planned.columns()[2]), (&source.columns()[0], &source.columns()[2]));
}

#[test]
fn other_columns_pass_by_reference_with_their_unchanged_bits() {
    let mut transform = MaskTransform::new(vec![rule("*.c", hash())]).unwrap();
    let relation = relation(1, &[("id", DataType::Int32), ("c", DataType::Utf8)], vec![0]);
    transform.output(&relation).unwrap();
    let id: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let unchanged = Unchanged { columns: vec![(1, BooleanBuffer::from(vec![true, false]))] };
    let mut before = batch(&relation, vec![Arc::clone(&id), Arc::new(StringArray::from(vec![None, Some("x")]))]);
    before.unchanged = Some(unchanged.clone());
    let metadata = before.records.columns()[2..].to_vec();
    let after = transform.apply(before).unwrap().remove(0);
    assert!(Arc::ptr_eq(after.records.column(0), &id));
    assert!(after.records.columns()[2..].iter().zip(&metadata).all(|(after, before)| Arc::ptr_eq(after, before)));
    assert_eq!(after.unchanged, Some(unchanged));
    assert!(after.records.column(1).is_null(0));
}

#[test]
fn before_images_are_masked_too() {
    let mut transform = MaskTransform::new(vec![rule("*.email", hash()), rule("*.phone", MaskKind::Null)]).unwrap();
    let relation = relation(1, &[("id", DataType::Int32), ("email", DataType::Utf8), ("phone", DataType::Utf8)], vec![0]);
    transform.output(&relation).unwrap();
    let id: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let text = |first, second| -> ArrayRef { Arc::new(StringArray::from(vec![first, second])) };
    let mut updates = batch(&relation, vec![Arc::clone(&id), text(Some("new@example.com"), None), text(None, None)]);
    updates.before = Some(BeforeImages {
        columns: vec![Arc::new(Int32Array::from(vec![Some(1), None])), text(Some("old@example.com"), None), text(Some("0301234567"), None)],
        present: BooleanBuffer::from(vec![true, false]),
        absent: None,
    });
    let clear = updates.before.clone().unwrap();
    let masked = transform.apply(updates).unwrap().remove(0).before.unwrap();
    assert!(Arc::ptr_eq(&masked.columns[0], &clear.columns[0]));
    assert_eq!(texts(&masked.columns[1]), [Some(hmac("old@example.com").as_str()), None]);
    assert_eq!(masked.columns[2].null_count(), 2);
    assert_eq!((masked.present, masked.absent), (clear.present, None));
    let left: Vec<u8> = masked.columns.iter().flat_map(bytes).collect();
    for value in ["old@example.com", "0301234567"] {
        assert!(!left.windows(value.len()).any(|window| window == value.as_bytes()), "a value is left");
    }
}

#[test]
fn impossible_masks_are_refused_by_name() {
    let vector = ListArray::from_iter_primitive::<Float32Type, _, _>([None::<Vec<Option<f32>>>]).data_type().clone();
    let mut messages = String::new();
    for (with, data_type, key) in [
        (MaskKind::Partial, DataType::Binary, false),
        (MaskKind::Partial, DataType::Date32, false),
        (MaskKind::Email, DataType::Int32, false),
        (hash(), vector, false),
        (MaskKind::Null, DataType::Utf8, true),
        (MaskKind::Partial, DataType::Int64, true),
    ] {
        let mut transform = MaskTransform::new(vec![rule("*.c", with)]).unwrap();
        let relation = relation(1, &[("id", DataType::Int32), ("c", data_type)], vec![usize::from(key)]);
        let error = transform.output(&relation).unwrap_err();
        assert_eq!(error.kind(), logweir_core::ErrorKind::Config);
        messages += &format!("{error}\n");
    }
    expect![[r#"
        a partial mask is for text and whole numbers (mask: *.c with partial, table: shop.customers, column: c, type: Binary); mask the column with hash or null
        a partial mask is for text and whole numbers (mask: *.c with partial, table: shop.customers, column: c, type: Date32); mask the column with hash or null
        an email mask is for text (mask: *.c with email, table: shop.customers, column: c, type: Int32); mask the column with hash or null
        a hash is for single values (mask: *.c with hash, table: shop.customers, column: c, type: List(Float32)); mask the column with null or exclude it
        this mask would make different keys equal (mask: *.c with null, table: shop.customers, column: c, type: Utf8); mask a key column with hash
        this mask would make different keys equal (mask: *.c with partial, table: shop.customers, column: c, type: Int64); mask a key column with hash
    "#]]
    .assert_eq(&messages);
    assert!(MaskTransform::new(vec![rule("*", MaskKind::Hash { key: "".into() })]).is_err());
    assert!(MaskTransform::new(vec![MaskRule { columns: vec![], with: MaskKind::Null }]).is_err());
    // Nothing passes that no rule was held against.
    let unplanned = relation(1, &[("c", DataType::Utf8)], vec![]);
    let batch = batch(&unplanned, vec![Arc::new(StringArray::from(vec!["x"]))]);
    assert!(MaskTransform::new(vec![]).unwrap().apply(batch).is_err());
}

/// The bytes of an array, everything that a writer could come across.
fn bytes(array: &ArrayRef) -> Vec<u8> {
    fn add(data: &arrow::array::ArrayData, bytes: &mut Vec<u8>) {
        data.buffers().iter().for_each(|buffer| bytes.extend_from_slice(buffer.as_slice()));
        data.child_data().iter().for_each(|child| add(child, bytes));
    }
    let mut bytes = Vec::new();
    add(&array.to_data(), &mut bytes);
    bytes
}

fn value() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        1 => Just(None),
        // A letter that no hash has, so that a match is no accident.
        3 => "[a-z0-9@. äöü]{5,24}".prop_map(|text| Some(format!("z{text}"))),
        2 => "z[a-z]{1,8}@[a-z]{1,5}\\.(com|example)".prop_map(Some),
        1 => "[a-z]@[a-z]{1,5}\\.com".prop_map(Some),
        1 => "[A-Z]{0,5}".prop_map(Some),
    ]
}

proptest! {
    #[test]
    fn no_clear_value_is_left(values in proptest::collection::vec(value(), 1..40), which in 0..4, dictionary: bool, from in 0..5usize) {
        let with = [hash(), MaskKind::Partial, MaskKind::Email, MaskKind::Null][which as usize].clone();
        let mut column: ArrayRef = Arc::new(StringArray::from_iter(values.iter().map(Option::as_deref)));
        if dictionary {
            column = Arc::new(values.iter().map(Option::as_deref).collect::<DictionaryArray<Int8Type>>());
        }
        // Of a slice too, whose array still holds what lies outside.
        let from = from.min(values.len() - 1);
        let masked = masked(with.clone(), column.slice(from, values.len() - from));
        let left = bytes(&masked);
        for text in values.iter().flatten().filter(|text| text.chars().count() >= 6) {
            prop_assert!(!left.windows(text.len()).any(|window| window == text.as_bytes()), "{} leaves a value", with.name());
        }
        for (row, value) in values[from..].iter().enumerate() {
            prop_assert_eq!(masked.logical_nulls().is_some_and(|nulls| nulls.is_null(row)), value.is_none() || matches!(with, MaskKind::Null));
        }
        if matches!(with, MaskKind::Hash { .. }) {
            let hashes = texts(&masked);
            for (hash, value) in hashes.iter().zip(&values[from..]) {
                prop_assert_eq!(hash.map(str::to_owned), value.as_deref().map(hmac));
            }
        }
    }
}
