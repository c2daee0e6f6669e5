//! Changes that are set aside: what is kept of them.

use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::*;
use expect_test::expect;
use logweir_core::{
    ChangeBatch, Column, LogPosition, MetadataColumn, Pattern, Relation, RelationName, Transform, apply_all, output_of_all,
};
use logweir_sql::{BadValue, SqlContext, SqlRule, UdfLimits, UdfRule, UdfTransform, Unresolved};

use super::changes::{batch, changes, printed, table, unbatched};
use super::{applied, customers, rule, transform};

fn context() -> SqlContext {
    SqlContext { bad_value: BadValue::Quarantine, ..SqlContext::default() }
}

#[test]
fn the_row_is_kept_with_the_reason() {
    let rows = "
        insert 1 | a\"b\\ü | 0
        update 2 | ~ | 0
        update 3 | old | 1 -> 3 | ~ | 0
        insert 4 | d | 5
        rekey 5 | e | 1 -> 6 | NULL | 0
        read 7 | g | 0
        delete 8 | h | 0
    ";
    expect![[r#"
        logweir.quarantine: database Utf8, schema Utf8, table Utf8, rule Utf8, reason Utf8, row Utf8
        INSERT NULL | shop | customers | 1 shop.* | x: division by zero | {"id":1,"name":"a\"b\\ü"} @1
        UPDATE-INSERT NULL | shop | customers | 1 shop.* | x: division by zero | {"id":2} @2
        UPDATE-INSERT NULL | shop | customers | 1 shop.* | x: division by zero | {"id":3,"name":"old"} @3
        UPDATE-INSERT NULL | shop | customers | 1 shop.* | x: division by zero | {"id":6,"name":null} @5
        READ NULL | shop | customers | 1 shop.* | x: division by zero | {"id":7,"name":"g"} @6
        shop.customers: id* Int32, name Utf8, x Int64
        DELETE 2 | ~ | ~
        DELETE 3 | ~ | ~
        INSERT 4 | d | 2
        UPDATE-DELETE 5 | e | 10
        DELETE 8 | h | ~
    "#]]
    .assert_eq(&applied(vec![rule("SELECT id, name, 10 / age AS x FROM customers")], context(), &customers(), rows));
    let rows = "insert 1 | a | 0\n update 1 | ~ | 2\n insert 2 | b | 5";
    let two = vec![
        rule("SELECT id, name || age AS x, 10 / age AS y FROM customers WHERE 10 / age > 1"),
        SqlRule { into: Some("x.y".to_owned()), ..rule("SELECT id, 1 / age AS z FROM customers") },
    ];
    expect![[r#"
        logweir.quarantine: database Utf8, schema Utf8, table Utf8, rule Utf8, reason Utf8, row Utf8
        INSERT NULL | shop | customers | 1 shop.* | WHERE: division by zero | {"id":1} @1
        UPDATE-INSERT NULL | shop | customers | 1 shop.* | x: the log left out one of the values that it is made of, because that one did not change | {"id":1} @2
        shop.customers: id* Int32, x Utf8, y Int64
        DELETE 1 | ~ | ~
        INSERT 2 | b5 | 2
        logweir.quarantine: database Utf8, schema Utf8, table Utf8, rule Utf8, reason Utf8, row Utf8
        INSERT NULL | shop | customers | 2 shop.* | z: division by zero | {"id":1} @1
        x.y: id* Int32, z Int64
        UPDATE-INSERT 1 | 0
        INSERT 2 | 0
    "#]].assert_eq(&applied(two, context(), &customers(), rows));
}

#[test]
fn a_delete_that_is_set_aside_is_there() {
    let rows = "delete 70000 | a | 1\n rekey 70000 | a | 1 -> 2 | a | 1\n delete 3 | b | 0";
    expect![[r#"
        logweir.quarantine: database Utf8, schema Utf8, table Utf8, rule Utf8, reason Utf8, row Utf8
        INSERT NULL | shop | customers | 1 shop.* | id: a value cannot be cast (DELETE) | {} @1
        INSERT NULL | shop | customers | 1 shop.* | id: a value cannot be cast (UPDATE-DELETE) | {} @2
        shop.customers: id* Int16, x Int64
        UPDATE-INSERT 2 | 1
        DELETE 3 | ~
    "#]]
    .assert_eq(&applied(vec![rule("SELECT CAST(id AS SMALLINT) AS id, 1 / age AS x FROM customers")], context(), &customers(), rows));
}

/// What is set aside of a row that cannot be carried, at the end of several transforms.
fn set_aside(mut transforms: Vec<Box<dyn Transform>>) -> String {
    let relation = customers();
    output_of_all(&mut transforms, &relation).unwrap();
    let made = apply_all(&transforms, batch(&relation, &changes("insert 1 | a\"b | 0"))).unwrap();
    let aside = made.iter().filter(|batch| batch.relation.name().schema == "logweir").map(printed);
    aside.flat_map(|text| text.lines().skip(1).map(|line| format!("{line}\n")).collect::<Vec<_>>()).collect()
}

fn failing_udf() -> Box<dyn Transform> {
    let script = "function process(json) { if (JSON.parse(json).age === 0) throw new Error(); return json; }".to_owned();
    let rule = UdfRule {
        table: Pattern::new("shop.*"),
        script,
        file: "mask.js".to_owned(),
        function: "process".to_owned(),
        limits: UdfLimits::default(),
        columns: Vec::new(),
        unresolved: Unresolved::default(),
    };
    Box::new(UdfTransform::new(vec![rule], BadValue::Quarantine).unwrap())
}

#[test]
fn what_sql_hides_is_not_in_what_a_udf_sets_aside() {
    let behind = |rules| set_aside(vec![failing_udf(), Box::new(transform(rules, context()))]);
    let kept = "INSERT NULL | shop | customers | mask.js process | the function threw an error at line 1 | {\"id\":1} @1\n";
    let hidden = &kept.replace("{\"id\":1}", "{}");
    assert_eq!(behind(vec![SqlRule::new(Pattern::new("shop.orders"), "SELECT id FROM orders")]), kept);
    assert_eq!(behind(vec![rule("SELECT id, name FROM customers")]), kept);
    assert_eq!(behind(vec![rule("SELECT id AS number FROM customers")]), kept);
    assert_eq!(&behind(vec![rule("SELECT CAST(id AS VARCHAR) AS id FROM customers")]), hidden);
    // One of two rules shows it.
    let two = vec![
        rule("SELECT CAST(id AS VARCHAR) AS id FROM customers"),
        SqlRule { into: Some("x.y".to_owned()), ..rule("SELECT id FROM customers") },
    ];
    assert_eq!(behind(two), kept);
}

#[test]
fn what_a_destination_hides_is_not_in_what_the_stream_sets_aside() {
    let failing = || -> Box<dyn Transform> { Box::new(transform(vec![rule("SELECT id, name, 10 / age AS x FROM customers")], context())) };
    let destination = |table: &str, sql: &str| -> Box<dyn Transform> {
        let rules = vec![SqlRule::new(Pattern::new(table), sql)];
        Box::new(transform(rules, SqlContext { behind_sql: true, ..context() }))
    };
    let kept = "INSERT NULL | shop | customers | 1 shop.* | x: division by zero | {\"id\":1,\"name\":\"a\\\"b\"} @1\n";
    let hidden = &kept.replace(r#"{"id":1,"name":"a\"b"}"#, "{}");
    assert_ne!(hidden, kept);
    assert_eq!(set_aside(vec![failing(), destination("shop.orders", "SELECT id FROM orders")]), kept);
    // Its columns are not those that the stream's rule had.
    assert_eq!(&set_aside(vec![failing(), destination("shop.customers", "SELECT id FROM customers")]), hidden);
    assert_eq!(&set_aside(vec![failing(), destination("*", "SELECT *, 1 AS one FROM customers")]), hidden);
    let renaming: Box<dyn Transform> = {
        let rule = SqlRule { into: Some("crm.people".to_owned()), ..rule("SELECT id, name, 10 / age AS x FROM customers") };
        Box::new(transform(vec![rule], context()))
    };
    assert_eq!(&set_aside(vec![renaming, destination("crm.*", "SELECT id FROM people")]), hidden);
}

/// A destination that goes on behind its mark meets what was set aside of a table before the table itself.
#[test]
fn what_was_set_aside_is_shown_by_a_destination_that_was_told_of_its_table() {
    let relation = customers();
    let shown = |recalled: bool| {
        let mut stream = transform(vec![rule("SELECT id, name, 10 / age AS x FROM customers")], context());
        let outputs = stream.output(&relation).unwrap();
        let mut made = stream.apply(batch(&relation, &changes("insert 1 | a | 0"))).unwrap();
        let rules = vec![SqlRule::new(Pattern::new("shop.orders"), "SELECT id FROM orders")];
        let mut destination = transform(rules, SqlContext { behind_sql: true, ..context() });
        assert!(destination.recalls());
        if recalled {
            outputs.iter().filter(|output| output.name().schema == "shop").for_each(|output| drop(destination.recall(output)));
        }
        destination.output(&made[0].relation).unwrap();
        printed(&destination.apply(made.swap_remove(0)).unwrap()[0])
    };
    assert!(shown(true).contains(r#"{"id":1,"name":"a"}"#), "{}", shown(true));
    assert!(shown(false).contains("{}"), "{}", shown(false));
}

#[test]
fn it_keeps_its_place_in_the_log() {
    let mut transform = transform(vec![rule("SELECT id, 10 / age AS x FROM customers")], context());
    let relation = customers();
    transform.output(&relation).unwrap();
    let source = batch(&relation, &changes("insert 1 | a | 1\n insert 2 | b | 0\n insert 3 | c | 3\n update 4 | d | 0\n insert 5 | e | 5"));
    let (positions, timestamps): (Vec<LogPosition>, ArrayRef) =
        ((0..5).map(|row| source.position(row)).collect(), Arc::clone(source.metadata(MetadataColumn::Timestamp)));
    let made = transform.apply(source).unwrap();
    assert_eq!(made.len(), 2);
    let of = |batch: &ChangeBatch| unbatched(batch).iter().map(|change| change.position).collect::<Vec<_>>();
    assert_eq!(of(&made[0]), [positions[1], positions[3]]);
    // In the target the row of an update that is set aside is gone.
    assert_eq!(of(&made[1]), [positions[0], positions[2], positions[3], positions[4]]);
    assert_eq!(made[0].last, positions[3]);
    let timestamps = timestamps.as_primitive::<TimestampMicrosecondType>();
    let aside = made[0].metadata(MetadataColumn::Timestamp).as_primitive::<TimestampMicrosecondType>();
    assert_eq!(aside.values().as_ref(), [timestamps.value(1), timestamps.value(3)]);
}

#[test]
fn a_value_of_any_type_has_a_form() {
    let list = |values: ArrayRef| -> ArrayRef {
        Arc::new(ListArray::new(
            Arc::new(Field::new_list_field(values.data_type().clone(), true)),
            OffsetBuffer::from_lengths([2]),
            values,
            None,
        ))
    };
    let structure: ArrayRef = Arc::new(StructArray::from(vec![
        (Arc::new(Field::new("x", DataType::Int32, true)), Arc::new(Int32Array::from(vec![1])) as ArrayRef),
        (
            Arc::new(Field::new("d", DataType::Decimal128(10, 2), true)),
            Arc::new(Decimal128Array::from(vec![125]).with_precision_and_scale(10, 2).unwrap()) as ArrayRef,
        ),
        (
            Arc::new(Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true)),
            Arc::new(TimestampMicrosecondArray::from(vec![1])) as ArrayRef,
        ),
    ]));
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    map.keys().append_value("k");
    map.values().append_value(7);
    map.append(true).unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("i8", Arc::new(Int8Array::from(vec![-8]))),
        ("u64", Arc::new(UInt64Array::from(vec![u64::MAX]))),
        ("f32", Arc::new(Float32Array::from(vec![0.1]))),
        ("f64", Arc::new(Float64Array::from(vec![1e300]))),
        ("nan", Arc::new(Float64Array::from(vec![f64::NAN]))),
        ("inf", Arc::new(Float64Array::from(vec![f64::NEG_INFINITY]))),
        ("bool", Arc::new(BooleanArray::from(vec![true]))),
        ("text", Arc::new(StringArray::from(vec!["a\"\n\u{1}ü"]))),
        ("large", Arc::new(LargeStringArray::from(vec!["l"]))),
        ("view", Arc::new(StringViewArray::from(vec!["v"]))),
        ("bytes", Arc::new(BinaryArray::from_vec(vec![b"\x00\xff"]))),
        ("fixed", Arc::new(FixedSizeBinaryArray::try_from_iter([[1_u8, 254]].into_iter()).unwrap())),
        ("decimal", Arc::new(Decimal128Array::from(vec![-1]).with_precision_and_scale(38, 2).unwrap())),
        ("wide", Arc::new(Decimal256Array::from(vec![i256::from_i128(12345)]).with_precision_and_scale(76, 3).unwrap())),
        ("date", Arc::new(Date32Array::from(vec![20_000]))),
        ("late", Arc::new(Date32Array::from(vec![i32::MAX]))),
        ("time", Arc::new(Time64MicrosecondArray::from(vec![3_600_000_001]))),
        ("stamp", Arc::new(TimestampMicrosecondArray::from(vec![1_500_000]))),
        ("zoned", Arc::new(TimestampMicrosecondArray::from(vec![1_500_000]).with_timezone("UTC"))),
        ("far", Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX]))),
        ("span", Arc::new(DurationMicrosecondArray::from(vec![-1_000_000]))),
        ("interval", Arc::new(IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(1, 2, 3)]))),
        ("word", Arc::new(DictionaryArray::<Int32Type>::from_iter(["w"]))),
        ("list", list(Arc::new(StringArray::from(vec![Some("a"), None])))),
        ("prices", list(Arc::new(Decimal128Array::from(vec![1, 2]).with_precision_and_scale(5, 2).unwrap()))),
        ("blobs", list(Arc::new(BinaryArray::from_vec(vec![b"\xff", b""])))),
        ("structure", structure),
        ("map", Arc::new(map.finish())),
        ("null", Arc::new(NullArray::new(1))),
        ("none", Arc::new(Int32Array::from(vec![None]))),
        (
            "nolist",
            Arc::new(ListArray::new(
                Arc::new(Field::new_list_field(DataType::Int32, true)),
                OffsetBuffer::from_lengths([0]),
                Arc::new(Int32Array::from(Vec::<i32>::new())),
                Some(NullBuffer::new_null(1)),
            )),
        ),
    ];
    let mut all: Vec<Column> =
        vec![Column { field: Arc::new(Field::new("id", DataType::Int32, true)), source_type: "int".into(), detail: Default::default() }];
    all.extend(columns.iter().map(|(name, column)| Column {
        field: Arc::new(Field::new(*name, column.data_type().clone(), true)),
        source_type: "any".into(),
        detail: Default::default(),
    }));
    let relation = Arc::new(Relation::new(RelationName::new("shop", "everything"), 1, LogPosition::MIN, all, vec![0]));
    let mut transform = transform(vec![rule("SELECT *, 1 / (id - 1) AS x FROM everything")], context());
    transform.output(&relation).unwrap();
    let one = batch(&table("shop.everything", 1, &[("id", DataType::Int32)], &["id"]), &changes("insert 1"));
    let mut arrays = vec![Arc::clone(one.records.column(0))];
    arrays.extend(columns.iter().map(|(_, column)| Arc::clone(column)));
    arrays.extend(one.records.columns()[1..].iter().cloned());
    let records = RecordBatch::try_new(Arc::clone(relation.schema()), arrays).unwrap();
    let made = transform.apply(ChangeBatch { relation, records, ..one }).unwrap();
    let row = unbatched(&made[0])[0].values[5].clone().unwrap();
    let parsed: serde_json::Value = serde_json::from_str(&row).unwrap();
    let lines: Vec<String> = parsed.as_object().unwrap().iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    expect![[r#"
        blobs: ["ff",""]
        bool: true
        bytes: "00ff"
        date: "2024-10-04"
        decimal: "-0.01"
        f32: 0.1
        f64: 1e+300
        far: 9223372036854775807
        fixed: "01fe"
        i8: -8
        id: 1
        inf: "-inf"
        interval: "1 mons 2 days 0.000000003 secs"
        large: "l"
        late: 2147483647
        list: ["a",null]
        map: {"k":7}
        nan: "NaN"
        nolist: null
        none: null
        null: null
        prices: [0.01,0.02]
        span: "-PT1S"
        stamp: "1970-01-01T00:00:01.500"
        structure: {"at":"1970-01-01T00:00:00.000001","d":1.25,"x":1}
        text: "a\"\n\u0001ü"
        time: "01:00:00.000001"
        u64: 18446744073709551615
        view: "v"
        wide: "12.345"
        word: "w"
        zoned: "1970-01-01T00:00:01.500Z"
    "#]]
    .assert_eq(&lines.concat());
}
