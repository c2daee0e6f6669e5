//! Masks on change batches.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, DurationMicrosecondArray,
    Float64Array, Int32Array, Int64Array, LargeStringArray, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt8Array,
};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Decimal128Type, Field, Float32Type, Int8Type};
use expect_test::expect;
use logweir_core::{
    BeforeImages, ChangeBatch, ChangeType, Column, LogPosition, MemoryPermit, MetadataBuilder, Pattern, Relation, RelationName,
    SourcePlace, TimestampMicros, Transform, Unchanged,
};
use logweir_sql::{ColumnNames, DateUnit, MaskKey, MaskKind, MaskRule, MaskTransform};
use proptest::prelude::*;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn hash() -> MaskKind {
    MaskKind::Hash { key: KEY.into() }
}

fn tokenize() -> MaskKind {
    MaskKind::Tokenize { key: KEY.into() }
}

fn rule(pattern: &str, with: MaskKind) -> MaskRule {
    MaskRule::new(vec![Pattern::new(pattern)], with)
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
    assert_eq!(transform.unmatched(), [(2, "*.emial".to_owned())]);

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
    assert!(column.detail.is_null());
    assert_eq!(column.field.metadata(), &[("logweir.mask".to_owned(), "hash".to_owned())].into());
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
        (tokenize(), DataType::Int16, false),
        (tokenize(), DataType::Decimal128(5, 0), false),
        (tokenize(), DataType::Float64, false),
        (MaskKind::Date { to: DateUnit::Day }, DataType::Date32, false),
        (MaskKind::Round { step: "1".parse().unwrap() }, DataType::Int32, false),
        (MaskKind::Noise { share: 0.5, key: KEY.into() }, DataType::Utf8, false),
        (MaskKind::Date { to: DateUnit::Year }, DataType::Date32, true),
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
        tokens are for text, and for whole numbers of types with a million values and more: fewer are soon tried (mask: *.c with tokenize, table: shop.customers, column: c, type: Int16); mask the column with hash or null
        tokens are for text, and for whole numbers of types with a million values and more: fewer are soon tried (mask: *.c with tokenize, table: shop.customers, column: c, type: Decimal128(5, 0)); mask the column with hash or null
        tokens are for text, and for whole numbers of types with a million values and more: fewer are soon tried (mask: *.c with tokenize, table: shop.customers, column: c, type: Float64); mask the column with hash or null
        a date mask is for timestamps and, from month on, for dates (mask: *.c with date, table: shop.customers, column: c, type: Date32); mask a date to year, quarter or month, and other columns with hash or null
        rounding is for numbers, and its step for some that are finer (mask: *.c with number, table: shop.customers, column: c, type: Int32); round to more than the last digit of the column, or mask it with hash or null
        noise is for numbers (mask: *.c with number, table: shop.customers, column: c, type: Utf8); mask the column with hash or null
        this mask would make different keys equal (mask: *.c with date, table: shop.customers, column: c, type: Date32); mask a key column with hash or tokenize
        this mask would make different keys equal (mask: *.c with null, table: shop.customers, column: c, type: Utf8); mask a key column with hash or tokenize
        this mask would make different keys equal (mask: *.c with partial, table: shop.customers, column: c, type: Int64); mask a key column with hash or tokenize
    "#]]
    .assert_eq(&messages);
    assert!(MaskTransform::new(vec![rule("*", MaskKind::Hash { key: "".into() })]).is_err());
    assert!(MaskTransform::new(vec![MaskRule::new(vec![], MaskKind::Null)]).is_err());
    // Nothing passes that no rule was held against.
    let unplanned = relation(1, &[("c", DataType::Utf8)], vec![]);
    let batch = batch(&unplanned, vec![Arc::new(StringArray::from(vec!["x"]))]);
    assert!(MaskTransform::new(vec![]).unwrap().apply(batch).is_err());
}

#[test]
fn all_that_is_wrong_with_a_table_is_told_at_once() {
    let rules =
        vec![rule("*.id", MaskKind::Null), rule("*.email", MaskKind::Email), rule("*.born", MaskKind::Partial), rule("*.name", hash())];
    let mut transform = MaskTransform::new(rules).unwrap().refusing_unlisted();
    let columns = [
        ("id", DataType::Int64),
        ("email", DataType::Int64),
        ("born", DataType::Date32),
        ("name", DataType::Utf8),
        ("more", DataType::Utf8),
    ];
    let relation = relation(1, &columns, vec![0]);
    let (output, problems) = transform.plan(&relation);
    assert_eq!(problems.iter().map(|problem| problem.rule).collect::<Vec<_>>(), [Some(0), Some(1), Some(2), None]);
    assert!(transform.unmatched().is_empty(), "a rule that cannot be has been for a column");
    // What follows can be planned over the rest.
    assert_eq!(output.columns()[3].source_type, "masked(hash)");
    assert_eq!(output.columns()[1].field.data_type(), &DataType::Int64);
    assert_eq!(transform.output(&relation).unwrap_err().to_string(), problems[0].error.to_string());
    let batch = batch(&relation, columns.iter().map(|(_, data_type)| arrow::array::new_null_array(data_type, 1)).collect());
    assert!(transform.apply(batch).is_err(), "nothing passes that could not be planned");
}

/// What becomes of each column of a relation, as a list of source types.
fn decided(rules: Vec<MaskRule>, columns: &[(&str, &str)]) -> String {
    let columns = columns.iter().map(|(name, source_type)| Column {
        field: Arc::new(Field::new(*name, DataType::Utf8, true)),
        source_type: source_type.to_string(),
        detail: Default::default(),
    });
    let relation = Relation::new(RelationName::new("shop", "customers"), 1, LogPosition::MIN, columns.collect(), vec![]);
    match MaskTransform::new(rules).unwrap().refusing_unlisted().output(&Arc::new(relation)) {
        Ok(planned) => planned[0].columns().iter().map(|column| column.source_type.as_str()).collect::<Vec<_>>().join(" "),
        Err(error) => error.to_string(),
    }
}

#[test]
fn rules_are_for_names_and_types_and_all_that_they_say() {
    let names = |text| Some(ColumnNames::new(text).unwrap());
    let types = |patterns: &[&str]| patterns.iter().map(|pattern| Pattern::new(*pattern)).collect::<Vec<_>>();
    let keep_all = || MaskRule::new(vec![Pattern::new("*")], MaskKind::Keep);
    let rules = vec![
        MaskRule { names: names("email_verified"), ..MaskRule::new(vec![], MaskKind::Keep) },
        MaskRule { names: names(".*(email|phone)"), types: types(&["VARCHAR*", "text"]), ..MaskRule::new(vec![], hash()) },
        MaskRule { types: types(&["json?"]), ..MaskRule::new(vec![Pattern::new("shop.*")], MaskKind::Null) },
        keep_all(),
    ];
    let columns = [
        ("Work_Email", "varchar(40)"),
        ("email_verified", "text"),
        ("phone", "TEXT"),
        ("phone_type", "text"),
        ("phone", "bigint"),
        ("settings", "JSONB"),
    ];
    assert_eq!(decided(rules.clone(), &columns), "masked(hash) text masked(hash) text bigint masked(null)");
    expect!["no mask rule decides on a column, and `unlisted: fail` refuses that (table: shop.customers, columns: phone_type, phone); add a rule for it: a mask, or `with: keep` if it may be seen"]
        .assert_eq(&decided(rules[..3].to_vec(), &columns));

    let mut transform = MaskTransform::new(rules).unwrap();
    transform.output(&relation(1, &[("phone", DataType::Utf8)], vec![])).unwrap();
    // The relation's type is no text by its name.
    let unmatched = [(0, "names email_verified"), (1, "names .*(email|phone) types varchar* text"), (2, "shop.*")];
    assert_eq!(transform.unmatched(), unmatched.map(|(rule, told)| (rule, told.to_owned())));
    // A type may have other names: of a domain, what it is made of. Who hides means them all, who keeps the one that is told.
    let of_domain = Relation::new(
        RelationName::new("shop", "customers"),
        1,
        LogPosition::MIN,
        vec![Column {
            field: Arc::new(Field::new("home", DataType::Utf8, true)),
            source_type: "public.mail".to_owned(),
            detail: serde_json::json!({ Column::MAY_BE: ["mail", "character varying(60)"] }),
        }],
        vec![],
    );
    for (pattern, hidden) in [("mail", true), ("public.mail", true), ("character varying*", true), ("text", false)] {
        let made = |with| {
            let rule = MaskRule { types: types(&[pattern, "bigint"]), ..MaskRule::new(vec![], with) };
            let mut transform = MaskTransform::new(vec![rule]).unwrap();
            transform.output(&Arc::new(of_domain.clone())).unwrap();
            (transform.masked_columns(&of_domain).len(), transform.unmatched())
        };
        let unmatched = if hidden { "types bigint".to_owned() } else { format!("types {pattern} bigint") };
        assert_eq!(made(hash()), (usize::from(hidden), vec![(0, unmatched)]), "{pattern}");
        assert_eq!(made(MaskKind::Keep).1.len(), 1, "{pattern}");
    }
    for wrong in ["(", "a)", "a)(b", "[", "*"] {
        assert!(ColumnNames::new(wrong).is_err_and(|error| !error.contains('\n') && !error.is_empty()), "{wrong}");
    }
}

/// What hides is for a column however its name is written, and for every type that it may be of; what keeps is not.
#[test]
fn what_hides_hides_in_doubt() {
    let null = |columns: &[&str]| MaskRule::new(columns.iter().map(|pattern| Pattern::new(*pattern)).collect(), MaskKind::Null);
    let keep_all = || MaskRule { names: Some(ColumnNames::new(".*").unwrap()), ..MaskRule::new(vec![], MaskKind::Keep) };
    let columns = [("Email", "text"), ("PHONE", "text"), ("id", "int")];
    let rules = vec![null(&["*.email", "SHOP.Customers.phone"]), keep_all()];
    assert_eq!(decided(rules, &columns), "masked(null) masked(null) int");
    let keep = MaskRule::new(vec![Pattern::new("*.email")], MaskKind::Keep);
    assert!(decided(vec![keep], &columns[..1]).contains("no mask rule decides"));
    // A name may hold a line break.
    let rules = vec![MaskRule { names: Some(ColumnNames::new(".*mail.*").unwrap()), ..null(&[]) }, keep_all()];
    assert_eq!(decided(rules, &[("e\nmail", "text"), ("mail\n", "text")]), "masked(null) masked(null)");

    let column = |detail| Column { field: Arc::new(Field::new("doc", DataType::Utf8, true)), source_type: "longtext".to_owned(), detail };
    let doubtful = column(serde_json::json!({ "ordinal": 1, "may_be": ["json"] }));
    for (with, expected) in [(MaskKind::Null, "masked(null)"), (MaskKind::Keep, "longtext")] {
        let rule = MaskRule { types: vec![Pattern::new("json*")], ..MaskRule::new(vec![], with) };
        let planned = |column: &Column| {
            let relation = Relation::new(RelationName::new("shop", "customers"), 1, LogPosition::MIN, vec![column.clone()], vec![]);
            MaskTransform::new(vec![rule.clone()]).unwrap().output(&Arc::new(relation)).unwrap()[0].columns()[0].source_type.clone()
        };
        assert_eq!(planned(&doubtful), expected);
        assert_eq!(planned(&column(serde_json::Value::Null)), "longtext");
    }
}

#[test]
fn a_named_key_is_said_and_a_key_column_may_have_a_token() {
    let key = MaskKey { id: Some("pii-2026".to_owned()), secret: KEY.into() };
    let mut transform = MaskTransform::new(vec![rule("*.id", MaskKind::Tokenize { key })]).unwrap();
    assert!(!format!("{transform:?}").contains(KEY));
    let relation = relation(1, &[("id", DataType::Int64)], vec![0]);
    let planned = transform.output(&relation).unwrap().remove(0);
    let field = &planned.columns()[0].field;
    assert_eq!((field.data_type(), planned.key(), field.metadata().len()), (&DataType::Int64, &[0][..], 2));
    assert_eq!((field.metadata()["logweir.mask"].as_str(), field.metadata()["logweir.mask_key"].as_str()), ("tokenize", "pii-2026"));
}

#[test]
fn dates_and_numbers_keep_their_types() {
    let dates: ArrayRef = Arc::new(Date32Array::from(vec![Some(20_777), None]));
    let month = masked(MaskKind::Date { to: DateUnit::Month }, dates);
    assert_eq!(month.as_ref(), &Date32Array::from(vec![Some(20_758), None]) as &dyn Array);
    let money: ArrayRef = Arc::new(Decimal128Array::from(vec![Some(123_456), None]).with_precision_and_scale(10, 2).unwrap());
    let rounded = masked(MaskKind::Round { step: "100".parse().unwrap() }, Arc::clone(&money));
    assert_eq!(rounded.as_ref(), &Decimal128Array::from(vec![Some(120_000), None]).with_precision_and_scale(10, 2).unwrap() as &dyn Array);
    let noise = || MaskKind::Noise { share: 0.1, key: KEY.into() };
    let noisy = masked(noise(), Arc::clone(&money));
    assert_eq!((&noisy, noisy.data_type()), (&masked(noise(), Arc::clone(&money)), money.data_type()));
    let value = noisy.as_primitive::<Decimal128Type>().value(0);
    assert!((111_100..=135_802).contains(&value) && value != 123_456, "{value}");
    assert!(MaskTransform::new(vec![rule("*.c", MaskKind::Noise { share: 0.0, key: KEY.into() })]).is_err());
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
    fn no_clear_value_is_left(values in proptest::collection::vec(value(), 1..40), which in 0..5, dictionary: bool, from in 0..5usize) {
        let with = [hash(), MaskKind::Partial, MaskKind::Email, MaskKind::Null, tokenize()][which as usize].clone();
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
