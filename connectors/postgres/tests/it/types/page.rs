//! The tables of docs/types-postgres.md: written from what columns are, and what others read from their Parquet.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, new_null_array};
use arrow_schema::{DataType, Field, Schema};
use arrow_select::concat::concat;
use logweir_postgres::types::{ColumnBuilder, ColumnType, TypeCatalog, TypeInfo, TypeKind, TypeOptions};
use parquet::arrow::ArrowWriter;

use super::Bench;

/// A line of the table: what stands in its first cell, the types it speaks of, and its last cell.
type Line = (&'static str, &'static [&'static str], &'static str);

const LINES: &[Line] = &[
    ("`boolean`", &["boolean"], ""),
    ("`smallint`, `smallserial`", &["smallint"], ""),
    ("`integer`, `serial`", &["integer"], ""),
    ("`bigint`, `bigserial`", &["bigint"], ""),
    ("`real`", &["real"], "exact: NaN, ±Infinity, −0, subnormal numbers"),
    ("`double precision`", &["double precision"], "likewise"),
    ("`numeric(p,s)`, p ≤ 38", &["numeric(9,2)", "numeric(18,2)", "numeric(38,2)"], "see [below](#numeric)"),
    (
        "`numeric(p,s)`, p = 39…76",
        &["numeric(39,2)", "numeric(76,38)"],
        "DuckDB reads other numbers without a word: see [files.md](files.md)",
    ),
    (
        "`numeric(p,s)`, p > 76, and `numeric`",
        &["numeric(77,2)", "numeric"],
        "the server's text: `1.50`, `NaN`, `-Infinity`, up to 131,072 digits before the point and 16,383 after it",
    ),
    ("`money`", &["money"], "digits after the point as in the server's `lc_monetary`; the currency is not carried"),
    ("`date`", &["date"], "proleptic Gregorian, 4713 BC to 5874897; see [below](#dates-and-times)"),
    ("`time(n)`", &["time without time zone"], "to 24:00:00, which is 86,400,000,000"),
    ("`time(n) with time zone`", &["time with time zone"], "the server's text: `12:34:56.7+05:30`"),
    ("`timestamp(n)`", &["timestamp without time zone"], "in no time zone; see [below](#dates-and-times)"),
    ("`timestamp(n) with time zone`", &["timestamp with time zone"], "a point in time, whatever zone a session had"),
    (
        "`interval`",
        &["interval", "interval year to month"],
        "ISO 8601: `P1Y2M3DT-4H5M6.789S`; months, days and time stay apart. `infinity` from 17 on",
    ),
    ("`text`, `varchar(n)`, `name`, `citext`, `refcursor`", &["text", "character varying(20)", "name", "public.citext", "refcursor"], ""),
    ("`char(n)`", &["character(5)", "bpchar"], "filled up with spaces, as the server sends it"),
    ("`\"char\"`", &["\"char\""], "one byte; what is not ASCII as `\\351`, which is what 16 and later write"),
    ("`json`", &["json"], "the text as stored: spaces, order and repeated keys"),
    ("`jsonb`", &["jsonb"], "the server's text"),
    ("`jsonpath`", &["jsonpath"], ""),
    ("`xml`, `tsvector`, `tsquery`", &["xml", "tsvector", "tsquery"], "the server's text"),
    ("`uuid`", &["uuid"], "`a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11`"),
    ("`bytea`", &["bytea"], ""),
    ("`bit(n)`, `bit varying(n)`", &["bit(9)", "bit varying(12)"], "zeros and ones: `101`"),
    (
        "`inet`, `cidr`, `macaddr`, `macaddr8`",
        &["inet", "cidr", "macaddr", "macaddr8"],
        "the server's text: `192.168.0.1/24`, `::1`, `08:00:2b:01:02:03`",
    ),
    ("`oid`, `xid`, `cid`", &["oid", "xid", "cid"], ""),
    ("`xid8`", &["xid8"], ""),
    (
        "`pg_lsn`, `tid`, `pg_snapshot`, `txid_snapshot`",
        &["pg_lsn", "tid", "pg_snapshot", "txid_snapshot"],
        "the server's text: `16/B374D848`, `(42,7)`, `10:20:10,14`",
    ),
    (
        "`regclass`, `regtype`, …",
        &["regclass", "regtype", "regproc", "regrole", "regcollation"],
        "names, with their schema: `public.orders`, as they were when the row was written",
    ),
    (
        "`point`, `line`, `lseg`, `box`, `path`, `polygon`, `circle`",
        &["point", "line", "lseg", "box", "path", "polygon", "circle"],
        "the server's text: `(1,2)`",
    ),
    (
        "ranges and multiranges, also of users",
        &["int4range", "numrange", "tstzrange", "int4multirange", "datemultirange", "public.floats"],
        "the server's text: `[1,10)`, `empty`",
    ),
    ("`int2vector`, `oidvector`", &["int2vector", "oidvector"], "the server's text: `1 2 3`"),
    ("enumerations", &["public.mood"], "the label as it was when the row was written"),
    ("domains", &["public.price", "public.fine_price"], "as the type below, with its modifiers: here `numeric(12,2)`"),
    (
        "arrays",
        &["integer[]", "public.scores"],
        "by this table again; `arrays: text` in the profile carries them as text: see [below](#arrays)",
    ),
    ("arrays of types that are text only", &["point[]", "public.pair[]"], "likewise"),
    ("composite types", &["public.pair"], "the server's text: `(1,\"a b\")`; `logweir.passthrough` in the field's metadata"),
    ("`hstore`", &["public.hstore"], "the server's text: `\"a\"=>\"1\"`"),
    ("`ltree`, `lquery`", &["public.ltree", "public.lquery"], "text only before 13"),
    (
        "PostGIS `geometry`, `geography`",
        &["public.geometry", "public.geography"],
        "EWKB, with the SRID in it, as PostGIS stores it; `logweir.geometry` in the field's metadata is `ewkb`",
    ),
    ("pgvector `vector(n)`, `halfvec(n)`", &["public.vector", "public.halfvec"], ""),
    ("pgvector `sparsevec(n)`", &["public.sparsevec"], "the server's text: `{1:1,3:2.5}/5`"),
    ("other types of extensions", &["public.cube", "public.isbn13"], "the server's text; `logweir.passthrough` in the field's metadata"),
];

/// Values whose reading is worth a line: the type, its text, and what is to be said.
const EDGES: &[(&str, &str)] = &[
    ("real", "NaN"),
    ("double precision", "-Infinity"),
    ("date", "infinity"),
    ("date", "-infinity"),
    ("date", "5874897-12-31"),
    ("date", "0044-03-15 BC"),
    ("time without time zone", "24:00:00"),
    ("timestamp without time zone", "infinity"),
    ("timestamp without time zone", "-infinity"),
    ("timestamp with time zone", "infinity"),
    ("timestamp with time zone", "-infinity"),
    ("timestamp with time zone", "0044-03-15 12:00:00+00 BC"),
    ("timestamp without time zone", "294247-01-10 04:00:54.775806"),
    ("numeric(38,2)", "999999999999999999999999999999999999.99"),
];

/// What independent readers make of a file: a line per column, then a line per value, cells by tabs.
const READERS: &str = r#"
import sys
import pyarrow as pa, pyarrow.parquet as pq, duckdb
path = sys.argv[1]
file = pq.ParquetFile(path)
table = file.read()

def annotation(column):
    import json
    logical = json.loads(column.logical_type.to_json())
    kind = logical["Type"]
    if kind == "None": return ""
    if kind == "Int": return f", INT({logical['bitWidth']}, {'signed' if logical['isSigned'] else 'unsigned'})"
    if kind == "Decimal": return f", DECIMAL({logical['precision']},{logical['scale']})"
    if kind in ("Timestamp", "Time"):
        assert logical["timeUnit"] == "microseconds", logical
        return f", {kind.upper()}(µs, {'UTC' if logical['isAdjustedToUTC'] else 'local'})"
    return f", {kind.upper()}"

stored = {}
for i in range(len(file.schema)):
    column = file.schema.column(i)
    shown = column.physical_type + annotation(column)
    stored[column.path.split(".")[0]] = f"LIST of {shown}" if "." in column.path else shown

db = duckdb.connect()
db.sql("SET TimeZone = 'UTC'")
described = {row[0]: row[1] for row in db.sql(f"DESCRIBE SELECT * FROM read_parquet('{path}')").fetchall()}
for field in table.schema:
    shown = str(field.type).replace("element: ", "").replace("item: ", "").replace("fixed_size_binary", "binary")
    print("column", field.name, stored[field.name], shown, described[field.name], sep="\t")
for field in table.schema:
    seen = db.sql(f"SELECT {field.name}::VARCHAR FROM read_parquet('{path}')").fetchall()
    for row, value in enumerate(table[field.name]):
        try:
            python = repr(value.as_py())
        except Exception as error:
            python = f"{type(error).__name__}"
        print("value", field.name, row, python, str(seen[row][0]), sep="\t")
"#;

fn rigs() -> PathBuf {
    let rigs = std::env::var_os("LOGWEIR_RIGS").map(PathBuf::from);
    rigs.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/logweir/rigs"))
}

/// Writes columns as our files have them.
fn write(path: &Path, columns: &[(String, ColumnType, ArrayRef)]) {
    let rows = columns.iter().map(|(_, _, array)| array.len()).max().unwrap();
    let fields: Vec<_> =
        columns.iter().map(|(name, column, _)| Field::new(name, column.data_type(), true).with_metadata(column.metadata())).collect();
    let arrays = columns
        .iter()
        .map(|(_, _, array)| concat(&[array.as_ref(), new_null_array(array.data_type(), rows - array.len()).as_ref()]).unwrap())
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Lines of cells that the readers print for a file.
fn read(path: &Path) -> Vec<Vec<String>> {
    let python = rigs().join("venv/bin/python");
    let output = Command::new(&python).arg("-c").arg(READERS).arg(path).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}; run scripts/install-test-tools", python.display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// The columns of the types of extensions that a server may not have.
fn of_extension(name: &str) -> Option<ColumnType> {
    let name = name.strip_prefix("public.")?;
    ["geometry", "geography", "vector", "halfvec", "sparsevec"].contains(&name).then(|| {
        let mut catalog = TypeCatalog::new();
        catalog.learn(TypeInfo { oid: 99_999, schema: "public".into(), name: name.into(), kind: TypeKind::Base, sendable: true });
        catalog.column_type(99_999, -1, TypeOptions::default())
    })
}

fn arrow_name(data_type: &DataType) -> String {
    match data_type {
        DataType::List(item) => format!("List\\<{}>", arrow_name(item.data_type())),
        DataType::Timestamp(_, None) => "Timestamp(µs)".to_owned(),
        DataType::Timestamp(_, Some(_)) => "Timestamp(µs, UTC)".to_owned(),
        DataType::Time64(_) => "Time64(µs)".to_owned(),
        DataType::Decimal128(precision, scale) => format!("Decimal128({precision},{scale})"),
        DataType::Decimal256(precision, scale) => format!("Decimal256({precision},{scale})"),
        other => other.to_string(),
    }
}

/// What the cells of several types say, once each.
fn merged(cells: impl Iterator<Item = String>) -> String {
    let mut distinct: Vec<String> = Vec::new();
    for cell in cells {
        if !distinct.contains(&cell) {
            distinct.push(cell);
        }
    }
    distinct.join("; ")
}

async fn types_table(bench: &mut Bench) -> String {
    let mut columns = Vec::new();
    for (line, (_, types, _)) in LINES.iter().enumerate() {
        for (i, name) in types.iter().enumerate() {
            let table = format!("p{line}_{i}");
            let column = match of_extension(name) {
                Some(column) => column,
                None => {
                    bench.connection.query(&format!("CREATE TABLE public.{table} (v {name})")).await.unwrap();
                    bench.column_type(&table, TypeOptions::default()).await.0
                }
            };
            let array = new_null_array(&column.data_type(), 1);
            columns.push((table, column, array));
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("types.parquet");
    write(&path, &columns);
    let read = read(&path);

    let mut page = String::from("| PostgreSQL | Arrow | Parquet | pyarrow | DuckDB | binary | notes |\n|---|---|---|---|---|---|---|\n");
    for (line, (label, types, notes)) in LINES.iter().enumerate() {
        let of_line = |name: &str| name.starts_with(&format!("p{line}_"));
        let of_line_columns: Vec<_> = columns.iter().filter(|(name, _, _)| of_line(name)).map(|(_, column, _)| column).collect();
        assert_eq!(of_line_columns.len(), types.len());
        let seen: Vec<_> = read.iter().filter(|cells| cells[0] == "column" && of_line(&cells[1])).collect();
        let cell = |place: usize| merged(seen.iter().map(|cells| cells[place].replace('<', "\\<")));
        let arrow = merged(of_line_columns.iter().map(|column| {
            let json = column.metadata().get("ARROW:extension:name").map_or("", |_| ", extension `arrow.json`");
            format!("{}{json}", arrow_name(&column.data_type()))
        }));
        let binary = merged(of_line_columns.iter().map(|column| if column.is_binary() { "yes" } else { "" }.to_owned()));
        let duckdb = if arrow.contains("Decimal256") { "**DOUBLE, wrong**".to_owned() } else { cell(4) };
        assert!(!arrow.contains("Decimal256") || cell(4) == "DOUBLE");
        writeln!(page, "| {label} | {arrow} | {} | {} | {duckdb} | {binary} | {notes} |", cell(2), cell(3)).unwrap();
    }
    page
}

async fn edges_table(bench: &mut Bench) -> String {
    let mut columns = Vec::new();
    for (i, (name, text)) in EDGES.iter().enumerate() {
        let table = format!("e{i}");
        bench.connection.query(&format!("CREATE TABLE public.{table} (v {name})")).await.unwrap();
        let (column, _) = bench.column_type(&table, TypeOptions::default()).await;
        let mut builder = ColumnBuilder::new(&column, 1);
        builder.append_text(text.as_bytes()).unwrap();
        columns.push((table, column, builder.finish()));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("edges.parquet");
    write(&path, &columns);
    let mut page = String::from("| type | value | in Arrow | Python from pyarrow | DuckDB |\n|---|---|---|---|---|\n");
    for (cells, (name, column, array)) in read(&path).iter().filter(|cells| cells[0] == "value").zip(&columns) {
        assert_eq!(&cells[1], name);
        let (source, text) = EDGES[name[1..].parse::<usize>().unwrap()];
        assert_eq!(column.source_type(), source);
        let inside = match array.data_type() {
            DataType::Float32 | DataType::Float64 => String::new(),
            _ => super::raw(array, 0),
        };
        writeln!(page, "| `{source}` | `{text}` | {inside} | `{}` | `{}` |", cells[3], cells[4]).unwrap();
    }
    page
}

/// Puts `table` between the marks of a page that bear its name.
fn replaced(page: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {name}: written by a test -->\n"), format!("<!-- end of {name} -->\n"));
    let start = page.find(&begin).unwrap_or_else(|| panic!("the page has no {begin}")) + begin.len();
    let stop = page.find(&end).unwrap_or_else(|| panic!("the page has no {end}"));
    format!("{}{table}{}", &page[..start], &page[stop..])
}

/// Run with `UPDATE_EXPECT=1` to write the page anew.
#[tokio::test]
async fn the_page_of_types_says_what_is_so() {
    let mut bench = Bench::start(18).await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/types-postgres.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let written = replaced(&page, "types", &types_table(&mut bench).await);
    let written = replaced(&written, "edges", &edges_table(&mut bench).await);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, written).unwrap();
        return;
    }
    for (is, should) in page.lines().zip(written.lines()) {
        assert_eq!(is, should, "docs/types-postgres.md is behind: run this test with UPDATE_EXPECT=1");
    }
    assert_eq!(page, written);
}
