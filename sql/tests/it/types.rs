//! Every type comes back as it was landed, and prints as people read it.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Decimal256Array, DurationMicrosecondArray, FixedSizeBinaryArray, Float32Array, Int32Array, ListArray,
    TimestampMicrosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Float32Type, TimeUnit, i256};
use expect_test::expect;
use logweir_core::ChangeType::{Insert, UpdateInsert};

use crate::lake::{Lake, Version, answer, change};

#[tokio::test]
async fn every_type_round_trips() {
    let decimal = i256::from_string("12345678901234567890123456789012345678901234567890123456789012345").unwrap();
    let arrays: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int32Array::from(vec![Some(1), Some(2)]))),
        ("huge", Arc::new(Decimal256Array::from(vec![Some(decimal), None]).with_precision_and_scale(65, 30).unwrap())),
        ("unsigned", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None]))),
        ("span", Arc::new(DurationMicrosecondArray::from(vec![Some(-3_020_399_000_000), Some(1_500_000)]))),
        ("bytes", Arc::new(BinaryArray::from_opt_vec(vec![Some(b"\x00\xff"), None]))),
        ("uuid", Arc::new(FixedSizeBinaryArray::try_from_iter([[7_u8; 16], [8; 16]].into_iter()).unwrap())),
        ("vector", Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(vec![Some(vec![Some(1.5), Some(-2.0)]), None]))),
        ("ratio", Arc::new(Float32Array::from(vec![Some(0.1), None]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![Some(1_700_000_000_250_000), None]))),
        ("at_utc", Arc::new(TimestampMicrosecondArray::from(vec![Some(1_700_000_000_000_000), None]).with_timezone("UTC"))),
    ];
    let columns: Vec<(&str, DataType)> = arrays.iter().map(|(name, array)| (*name, array.data_type().clone())).collect();
    let version = Version::new(1, &columns, &["id"]);
    let lake = Lake::new();
    let changes = [change(1, Insert, []), change(2, Insert, [])];
    lake.write_columns("shop/t/f.parquet", "t", &version, &changes, arrays.iter().map(|(_, array)| Arc::clone(array)).collect()).await;
    let engine = lake.engine(&["t"]);

    let landed = engine.sql("select * from t order by id").await.unwrap().collect().await.unwrap();
    let landed = arrow::compute::concat_batches(&landed[0].schema(), &landed).unwrap();
    for ((name, expected), column) in arrays.iter().zip(landed.columns()) {
        assert_eq!(column, expected, "{name}");
    }
    expect![[r#"
        id | huge | unsigned | span | bytes | uuid | vector | ratio | at | at_utc
        1 | 12345678901234567890123456789012345.678901234567890123456789012345 | 18446744073709551615 | -838:59:59 | 00ff | 07070707070707070707070707070707 | [1.5, -2.0] | 0.1 | 2023-11-14T22:13:20.250 | 2023-11-14T22:13:20Z
        2 | NULL | NULL | 00:00:01.5 | NULL | 08080808080808080808080808080808 | NULL | NULL | NULL | NULL
    "#]]
    .assert_eq(&answer(&engine, "select * from t order by id").await);
}

#[tokio::test]
async fn a_retyped_column_never_fails_a_query() {
    use DataType::{Binary, Boolean, Date32, Decimal128, Duration, FixedSizeBinary, Float64, Int64, Timestamp, UInt64, Utf8};
    let types = [
        Boolean,
        DataType::Int32,
        Int64,
        UInt64,
        Float64,
        Decimal128(12, 2),
        Date32,
        Timestamp(TimeUnit::Microsecond, None),
        Duration(TimeUnit::Microsecond),
        Utf8,
        Binary,
        FixedSizeBinary(4),
    ];
    for old in &types {
        for new in &types {
            let lake = Lake::new();
            for (number, data_type) in [(1, old), (2, new)] {
                let version = Version::new(number, &[("id", DataType::Int32), ("c", data_type.clone())], &["id"]);
                let id: ArrayRef = Arc::new(Int32Array::from(vec![number as i32]));
                let value = example(data_type);
                let path = format!("shop/t/{number}.parquet");
                lake.write_columns(&path, "t", &version, &[change(u64::from(number), Insert, [])], vec![id, value]).await;
            }
            let engine = lake.engine(&["t"]);
            for table in ["shop.t", "shop_changes.t"] {
                let answer = answer(&engine, &format!("select id from {table} where c is not null order by id")).await;
                assert_eq!(answer, "id\n1\n2\n", "{old} to {new}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_said_of_a_column_does_not_stand_in_the_way() {
    use DataType::{Binary, Int32, Utf8};
    let lake = Lake::new();
    let columns = [("id", Int32), ("json", Utf8), ("geometry", Binary)];
    let retyped = [("id", DataType::Int64), ("json", Utf8), ("geometry", Utf8)];
    let row = |n, id| change(n, Insert, [Some(id), Some(r#"{"a": 1}"#), Some("wkb")]);
    let not_logged = change(4, UpdateInsert, [Some("1"), None, Some("wkb")]).unchanged(&["json"]);
    lake.write("shop/t/1.parquet", "t", &Version::new(1, &columns, &["id"]), &[row(1, "1"), row(2, "2")]).await;
    let engine = lake.engine(&["t"]);
    for changes in [vec![row(3, "3")], vec![not_logged]] {
        let sql = "select id, json, geometry from shop.t where json like '%1%' order by id limit 1";
        assert_eq!(answer(&engine, sql).await, "id | json | geometry\n1 | {\"a\": 1} | 776b62\n");
        lake.write(&format!("shop/t/{}.parquet", changes[0].timestamp), "t", &Version::new(2, &retyped, &["id"]), &changes).await;
    }
    let sql = "select id, json, geometry from shop.t where json like '%1%' order by id limit 1";
    assert_eq!(answer(&engine, sql).await, "id | json | geometry\n1 | {\"a\": 1} | 776b62\n");
    let sql = "select count(*) as n, count(distinct json) as d, max(geometry) as g from shop_changes.t";
    assert_eq!(answer(&engine, sql).await, "n | d | g\n4 | 1 | 776b62\n");
}

/// One value that is not NULL.
fn example(data_type: &DataType) -> ArrayRef {
    match data_type {
        DataType::Boolean => Arc::new(arrow::array::BooleanArray::from(vec![true])),
        DataType::Binary => Arc::new(BinaryArray::from_vec(vec![b"\xff\x00"])),
        DataType::FixedSizeBinary(4) => Arc::new(FixedSizeBinaryArray::try_from_iter([[0xff_u8; 4]].into_iter()).unwrap()),
        DataType::Duration(_) => Arc::new(DurationMicrosecondArray::from(vec![1_500_000])),
        DataType::Utf8 => Arc::new(arrow::array::StringArray::from(vec!["no number"])),
        other => arrow::compute::cast(&Int32Array::from(vec![7]), other).unwrap(),
    }
}
