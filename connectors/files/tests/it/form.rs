//! What a row is in a file.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int8Type, Int32Type, TimestampMicrosecondType, UInt64Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array, DictionaryArray, DurationMicrosecondArray,
    FixedSizeBinaryArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, LargeBinaryArray, LargeStringArray,
    ListArray, StringArray, StringViewArray, TimestampMicrosecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use arrow_buffer::{BooleanBuffer, i256};
use arrow_schema::{DataType, Field};
use logweir_core::{ChangeType, Column, ErrorKind, LogPosition, Relation, RelationName, Sink, Unchanged};

use crate::rows::{Folder, MIDNIGHT, batch, column, context, inserts, land, relation};

#[tokio::test]
async fn a_change_carries_its_public_metadata() {
    let folder = Folder::new();
    let relation = relation("orders", 3);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1, 1, 2, 2, 0])),
        Arc::new(StringArray::from(vec![Some("a"), Some("b"), Some("c"), None, None])),
    ];
    let changes = [
        (ChangeType::Insert, 1, MIDNIGHT),
        (ChangeType::UpdateDelete, 2, MIDNIGHT + 1),
        (ChangeType::UpdateInsert, 2, MIDNIGHT + 1),
        (ChangeType::Delete, 3, MIDNIGHT + 2),
        (ChangeType::Truncate, 4, MIDNIGHT + 3),
    ];
    land(&folder.sink(), vec![batch(&relation, columns, changes)]).await;

    let files = folder.files().await;
    let [file] = files.as_slice() else { panic!("one file, not {}", files.len()) };
    assert_eq!(file.path, "shop/orders/dt=2026-11-20/shop-000000000000000700000000000000680000000000000003-00000001-0000.parquet");
    let names: Vec<_> = file.records.schema().fields().iter().map(|field| field.name().clone()).collect();
    let expected = [
        "id",
        "name",
        "_metadata_timestamp",
        "_metadata_sequence",
        "_metadata_change_type",
        "_metadata_deleted",
        "_metadata_read_timestamp",
        "_metadata_read_method",
        "_metadata_source",
        "_metadata_unchanged",
    ];
    assert_eq!(names, expected);
    let timestamps = file.column("_metadata_timestamp").as_primitive::<TimestampMicrosecondType>();
    assert_eq!(timestamps.values().to_vec(), [0, 1, 1, 2, 3].map(|micros| MIDNIGHT + micros));
    assert_eq!(timestamps.timezone(), Some("UTC"));
    let sequences = file.texts("_metadata_sequence");
    assert_eq!(sequences[0], "0000000000000007/0000000000000068/0000000000000003");
    assert_eq!(sequences[1], "0000000000000007/00000000000000cc/0000000000000002");
    assert_eq!(sequences[2], "0000000000000007/00000000000000cc/0000000000000003");
    assert!(sequences.is_sorted());
    let types = ["INSERT", "UPDATE-DELETE", "UPDATE-INSERT", "DELETE", "TRUNCATE"];
    assert_eq!(file.texts("_metadata_change_type"), types);
    let deleted: Vec<bool> = file.column("_metadata_deleted").as_boolean().values().iter().collect();
    assert_eq!(deleted, [false, true, false, true, true]);
    assert_eq!(file.texts("_metadata_read_method"), ["mysql-cdc-binlog"; 5]);

    let source = file.column("_metadata_source").as_struct();
    let text = |name: &str| source.column_by_name(name).unwrap().as_string::<i32>().iter().collect::<Vec<_>>();
    assert_eq!(text("database"), [None; 5]);
    assert_eq!((text("schema"), text("table")), (vec![Some("shop"); 5], vec![Some("orders"); 5]));
    assert_eq!(text("log_file"), [Some("mysql-bin.000007"); 5]);
    assert_eq!(text("transaction"), [None, Some("0-1-2"), Some("0-1-2"), None, Some("0-1-4")]);
    let positions = source.column_by_name("log_position").unwrap().as_primitive::<UInt64Type>();
    assert_eq!(positions.values().to_vec(), [104, 204, 204, 304, 404]);
    assert_eq!(file.column("_metadata_unchanged").null_count(), 5);
}

#[tokio::test]
async fn the_footer_says_what_the_file_holds() {
    let folder = Folder::new();
    land(&folder.sink(), vec![inserts(&relation("orders", 3), 1..4, MIDNIGHT)]).await;
    let files = folder.files().await;
    for (key, expected) in [
        ("logweir.version", env!("CARGO_PKG_VERSION")),
        ("logweir.stream", "shop"),
        ("logweir.relation", r#"{"schema":"shop","table":"orders"}"#),
        ("logweir.schema_version", "3"),
        ("logweir.key", r#"["id"]"#),
        ("logweir.source_types", r#"{"id":"bigint","name":"varchar(20)"}"#),
        ("logweir.first", "0000000000000007/0000000000000068/0000000000000003"),
        ("logweir.last", "0000000000000007/0000000000000130/0000000000000003"),
        ("logweir.in_log_order", "true"),
    ] {
        assert_eq!(files[0].footer[key], expected, "{key}");
    }
}

#[tokio::test]
async fn the_footer_says_whether_rows_are_in_the_order_of_the_log() {
    let relation = relation("orders", 3);
    for (batches, expected) in [
        (vec![inserts(&relation, 1..4, MIDNIGHT), inserts(&relation, 4..7, MIDNIGHT)], "true"),
        (vec![inserts(&relation, 4..7, MIDNIGHT), inserts(&relation, 1..4, MIDNIGHT)], "false"),
        (vec![inserts(&relation, 1..4, MIDNIGHT), inserts(&relation, 3..7, MIDNIGHT)], "false"),
        (vec![inserts(&relation, 1..4, MIDNIGHT + 60_000_000), inserts(&relation, 4..7, MIDNIGHT)], "false"),
    ] {
        let folder = Folder::new();
        land(&folder.sink(), batches).await;
        assert_eq!(folder.files().await[0].footer["logweir.in_log_order"], expected);
    }
}

#[tokio::test]
async fn an_undeclared_key_is_none_in_the_footer() {
    let folder = Folder::new();
    let columns = relation("orders", 1).columns().to_vec();
    let keyless = Arc::new(Relation::new(RelationName::new("shop", "orders"), 1, LogPosition::MIN, columns, vec![]));
    land(&folder.sink(), vec![inserts(&keyless, 1..4, MIDNIGHT)]).await;
    assert_eq!(folder.files().await[0].footer["logweir.key"], "[]");
}

#[tokio::test]
async fn unchanged_columns_are_named() {
    let folder = Folder::new();
    let mut batch = inserts(&relation("orders", 1), 1..4, MIDNIGHT);
    let bits = BooleanBuffer::from(vec![false, true, true]);
    batch.unchanged = Some(Unchanged { columns: vec![(0, BooleanBuffer::from(vec![false, false, true])), (1, bits)] });
    // A part of a batch takes the right part of the bits along.
    land(&folder.sink(), vec![batch.slice(1, 2), inserts(&relation("orders", 1), 7..8, MIDNIGHT)]).await;
    let files = folder.files().await;
    let lists = files[0].column("_metadata_unchanged").as_list::<i32>();
    let lists: Vec<Option<Vec<String>>> =
        lists.iter().map(|list| list.map(|list| list.as_string::<i32>().iter().flatten().map(str::to_owned).collect())).collect();
    assert_eq!(lists, [Some(vec!["name".to_owned()]), Some(vec!["id".to_owned(), "name".to_owned()]), None]);
}

/// Every type that a source may use, with an edge of its range and a null.
fn every_type() -> Vec<(Column, ArrayRef)> {
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(vec![Some(true), None])),
        Arc::new(Int8Array::from(vec![Some(i8::MIN), None])),
        Arc::new(Int16Array::from(vec![Some(i16::MIN), None])),
        Arc::new(Int32Array::from(vec![Some(i32::MIN), None])),
        Arc::new(Int64Array::from(vec![Some(i64::MIN), None])),
        Arc::new(UInt8Array::from(vec![Some(u8::MAX), None])),
        Arc::new(UInt16Array::from(vec![Some(u16::MAX), None])),
        Arc::new(UInt32Array::from(vec![Some(u32::MAX), None])),
        Arc::new(UInt64Array::from(vec![Some(u64::MAX), None])),
        Arc::new(Float32Array::from(vec![Some(-0.0), None])),
        Arc::new(Float64Array::from(vec![Some(1e308), None])),
        Arc::new(Decimal128Array::from(vec![Some(-12345), None]).with_precision_and_scale(9, 2).unwrap()),
        Arc::new(Decimal128Array::from(vec![Some(10i128.pow(37)), None]).with_precision_and_scale(38, 30).unwrap()),
        Arc::new(Decimal256Array::from(vec![Some(i256::from_i128(10).wrapping_pow(64)), None]).with_precision_and_scale(65, 30).unwrap()),
        Arc::new(Date32Array::from(vec![Some(-719_162), None])),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(MIDNIGHT + 1), None])),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), None]).with_timezone("UTC")),
        Arc::new(DurationMicrosecondArray::from(vec![Some(-3_020_399_000_000), None])),
        Arc::new(StringArray::from(vec![Some("größe\u{0}🦀"), None])),
        Arc::new(LargeStringArray::from(vec![Some("large"), None])),
        Arc::new(StringViewArray::from(vec![Some("a view of more than twelve bytes"), None])),
        Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), None])),
        Arc::new(LargeBinaryArray::from(vec![Some(&b"\x00\xff"[..]), None])),
        Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size([Some([7u8; 16]), None].into_iter(), 16).unwrap()),
        Arc::new([Some("small"), None].into_iter().collect::<DictionaryArray<Int8Type>>()),
        Arc::new([Some("large"), None].into_iter().collect::<DictionaryArray<Int32Type>>()),
        Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>([Some(vec![Some(1.5), Some(-2.5)]), None])),
    ];
    let column = |(i, array): (usize, &ArrayRef)| {
        let mut column = column(&format!("c{i}"), array.data_type().clone(), "any");
        let field = column.field.as_ref().clone().with_metadata([("srid".to_owned(), "4326".to_owned())].into());
        column.field = Arc::new(field);
        column
    };
    arrays.iter().enumerate().map(column).zip(arrays.iter().map(Arc::clone)).collect()
}

#[tokio::test]
async fn every_type_comes_back_as_it_was() {
    let folder = Folder::new();
    let (columns, arrays): (Vec<Column>, Vec<ArrayRef>) = every_type().into_iter().unzip();
    let relation = Arc::new(Relation::new(RelationName::new("shop", "types"), 1, LogPosition::MIN, columns, vec![]));
    let changes = [(ChangeType::Insert, 1, MIDNIGHT), (ChangeType::Insert, 2, MIDNIGHT)];
    land(&folder.sink(), vec![batch(&relation, arrays.clone(), changes)]).await;
    let files = folder.files().await;
    for (i, array) in arrays.iter().enumerate() {
        let found = files[0].column(&format!("c{i}"));
        assert_eq!(found, array, "{}", array.data_type());
        let schema = files[0].records.schema();
        assert_eq!(schema.field(i).metadata()["srid"], "4326");
    }
}

#[tokio::test]
async fn a_column_may_not_take_a_name_of_the_metadata() {
    let folder = Folder::new();
    let columns = vec![column("id", DataType::Int64, "bigint"), column("_METADATA_deleted", DataType::Int64, "bigint")];
    let relation = Arc::new(Relation::new(RelationName::new("shop", "orders"), 1, LogPosition::MIN, columns, vec![0]));
    let mut writer = folder.sink().open(context(1, 1 << 20)).await.unwrap();
    let error = writer.evolve(relation).await.unwrap_err();
    assert_eq!((error.kind(), error.get_context("column")), (ErrorKind::Schema, Some("_METADATA_deleted")));
}

#[tokio::test]
async fn a_type_that_parquet_lacks_is_refused_before_the_first_row() {
    let folder = Folder::new();
    let union = DataType::Interval(arrow_schema::IntervalUnit::MonthDayNano);
    let union = DataType::Union([(0, Arc::new(Field::new("a", union, true)))].into_iter().collect(), arrow_schema::UnionMode::Sparse);
    let columns = vec![column("id", DataType::Int64, "bigint"), column("odd", union, "odd")];
    let relation = Arc::new(Relation::new(RelationName::new("shop", "orders"), 1, LogPosition::MIN, columns, vec![0]));
    let mut writer = folder.sink().open(context(1, 1 << 20)).await.unwrap();
    assert_eq!(writer.evolve(relation).await.unwrap_err().kind(), ErrorKind::Schema);
}
