//! What pyarrow and DuckDB, who share no code with us, read from a file.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use arrow_array::{ArrayRef, Decimal128Array, Decimal256Array, DurationMicrosecondArray, Int64Array, UInt64Array};
use arrow_buffer::i256;
use logweir_core::{ChangeType, LogPosition, Relation, RelationName};

use crate::rows::{Folder, MIDNIGHT, batch, column, land};

/// Where `scripts/install-test-tools` puts what it installs.
pub(crate) fn rigs() -> PathBuf {
    match std::env::var_os("LOGWEIR_RIGS") {
        Some(folder) => folder.into(),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/logweir/rigs"),
    }
}

const SCRIPT: &str = r#"
import sys, glob, datetime, decimal
import pyarrow as pa, pyarrow.parquet as pq, duckdb
folder = sys.argv[1]
[path] = glob.glob(folder + "/shop/orders/dt=2026-11-20/*.parquet")

table = pq.ParquetFile(path).read()
types = {field.name: field.type for field in table.schema}
assert types["total"] == pa.uint64(), types["total"]
assert types["price"] == pa.decimal128(12, 2), types["price"]
assert types["exact"] == pa.decimal256(65, 30), types["exact"]
assert types["took"] == pa.duration("us"), types["took"]
assert types["_metadata_timestamp"] == pa.timestamp("us", tz="UTC"), types["_metadata_timestamp"]
for name in ["_metadata_sequence", "_metadata_change_type", "_metadata_read_method"]:
    assert types[name] == pa.string(), (name, types[name])
source = {field.name: field.type for field in types["_metadata_source"]}
assert source == {"database": pa.string(), "schema": pa.string(), "table": pa.string(), "log_file": pa.string(),
                  "log_position": pa.uint64(), "transaction": pa.string()}, source
assert types["_metadata_unchanged"].value_type == pa.string(), types["_metadata_unchanged"]
rows = table.to_pylist()
assert [row["id"] for row in rows] == [1, 2, 2]
assert rows[0]["total"] == 2**64 - 1 and rows[1]["total"] is None
assert rows[0]["price"] == decimal.Decimal("-123.45")
assert rows[0]["exact"] == decimal.Decimal(10)**34, rows[0]["exact"]
assert rows[0]["took"] == datetime.timedelta(hours=-838, minutes=-59, seconds=-59)
assert rows[0]["_metadata_source"]["table"] == "orders" and rows[0]["_metadata_source"]["database"] is None
assert rows[0]["_metadata_sequence"] == "0000000000000007/0000000000000068/0000000000000003"
assert rows[2]["_metadata_change_type"] == "DELETE" and rows[2]["_metadata_deleted"]
assert pq.ParquetFile(path).metadata.metadata[b"logweir.key"] == b'["id"]'
# A dataset over the folder finds the partition column and skips what is ours.
import pyarrow.dataset as ds
found = ds.dataset(folder, format="parquet", partitioning="hive").to_table(columns=["id", "dt"])
assert found.num_rows == 3 and found["dt"][0].as_py() == "2026-11-20", found

db = duckdb.connect()
described = {row[0]: row[1] for row in db.sql(f"DESCRIBE SELECT * FROM read_parquet('{path}', hive_partitioning = false)").fetchall()}
for name in ["_metadata_sequence", "_metadata_change_type", "_metadata_read_method"]:
    assert described[name] == "VARCHAR", (name, described[name])
assert described["total"] == "UBIGINT" and described["price"] == "DECIMAL(12,2)", described
assert described["_metadata_timestamp"] == "TIMESTAMP WITH TIME ZONE", described
assert described["_metadata_unchanged"] == "VARCHAR[]", described
state = db.sql(f"""
    SELECT id, total, price, _metadata_source.log_file FROM (
        SELECT *, row_number() OVER (PARTITION BY id ORDER BY _metadata_timestamp DESC, _metadata_sequence DESC) AS n
        FROM read_parquet('{folder}/shop/orders/*/*.parquet')) WHERE n = 1 AND NOT _metadata_deleted""").fetchall()
assert state == [(1, 2**64 - 1, decimal.Decimal("-123.45"), "mysql-bin.000007")], state
print("read")
"#;

#[tokio::test]
async fn pyarrow_and_duckdb_read_what_we_wrote() {
    let folder = Folder::new();
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1, 2, 2])),
        Arc::new(UInt64Array::from(vec![Some(u64::MAX), None, None])),
        Arc::new(Decimal128Array::from(vec![Some(-12345), None, None]).with_precision_and_scale(12, 2).unwrap()),
        Arc::new(
            Decimal256Array::from(vec![Some(i256::from_i128(10).wrapping_pow(64)), None, None]).with_precision_and_scale(65, 30).unwrap(),
        ),
        Arc::new(DurationMicrosecondArray::from(vec![Some(-3_020_399_000_000), None, None])),
    ];
    let names = ["id", "total", "price", "exact", "took"];
    let columns = names.iter().zip(&arrays).map(|(name, array)| column(name, array.data_type().clone(), "any")).collect();
    let relation = Arc::new(Relation::new(RelationName::new("shop", "orders"), 1, LogPosition::MIN, columns, vec![0]));
    let changes = [(ChangeType::Insert, 1, MIDNIGHT), (ChangeType::Insert, 2, MIDNIGHT + 1), (ChangeType::Delete, 3, MIDNIGHT + 2)];
    land(&folder.sink(), vec![batch(&relation, arrays, changes)]).await;

    let python = std::env::var_os("LOGWEIR_PYTHON").map_or_else(|| rigs().join("venv/bin/python"), PathBuf::from);
    let output = Command::new(&python).arg("-c").arg(SCRIPT).arg(folder.folder.path()).output().unwrap_or_else(|error| {
        panic!(
            "{} does not start ({error}): run scripts/install-test-tools, or set LOGWEIR_PYTHON to a Python with pyarrow and duckdb",
            python.display()
        )
    });
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && output.stdout == b"read\n", "{report}");
}
