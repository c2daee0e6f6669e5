//! Values of every type, against what servers say they are.
//!
//! Each value is read in text and in binary form, which must give the same column, and that column must hold what the server, asked
//! in SQL, says the value is.

mod cases;
mod oracle;

use arrow_array::ArrayRef;
use logweir_postgres::types::{ColumnBuilder, ColumnType, Oid, TypeCatalog, TypeOptions};
use logweir_postgres::wire::{Connection, Mode};

use crate::server::Server;
use cases::{Case, SETUP, cases};

/// A value as the server sends it; `None` is NULL.
type Cell = Option<Vec<u8>>;

/// A server with everything that the cases need, and the cases that it can have.
struct Bench {
    connection: Connection,
    catalog: TypeCatalog,
    cases: Vec<Case>,
    major: u32,
    // Stops when dropped.
    _server: Server,
}

impl Bench {
    async fn start(major: u32) -> Bench {
        let server = Server::start(major, &[]).await;
        let mut connection = Connection::connect(&server.options(), Mode::Query).await.unwrap();
        for (_, statement) in SETUP.iter().filter(|(since, _)| *since <= major) {
            connection.query(statement).await.unwrap();
        }
        let mut cases = cases();
        cases.retain(|case| case.since <= major);
        let mut extensions: Vec<_> = cases.iter().filter_map(|case| case.extension).collect();
        extensions.dedup();
        for extension in extensions {
            let available = format!("SELECT 1 FROM pg_available_extensions WHERE name = '{extension}'");
            // PostGIS and pgvector are no part of PostgreSQL: tried where they are installed.
            if connection.query(&available).await.unwrap().is_empty() {
                assert!(matches!(extension, "postgis" | "vector"), "{extension}");
                cases.retain(|case| case.extension != Some(extension));
            } else {
                connection.query(&format!("CREATE EXTENSION {extension} SCHEMA public")).await.unwrap();
            }
        }
        Bench { connection, catalog: TypeCatalog::new(), cases, major, _server: server }
    }

    /// What a column is carried as, asked of the server as far as it is not known.
    async fn column_type(&mut self, table: &str, options: TypeOptions) -> (ColumnType, String) {
        let rows = self
            .connection
            .query(&format!(
                "SELECT atttypid, atttypmod, format_type(atttypid, atttypmod) FROM pg_attribute \
                 WHERE attrelid = 'public.{table}'::regclass AND attname = 'v'"
            ))
            .await
            .unwrap();
        let oid: Oid = rows.get(0, 0).unwrap().parse().unwrap();
        while let Some(unknown) = self.catalog.unknown(oid) {
            let described = self.connection.query(&TypeCatalog::query(&[unknown])).await.unwrap();
            let row: Vec<_> = described.rows[0].iter().map(|value| value.as_deref()).collect();
            self.catalog.learn(TypeCatalog::parse_row(&row).unwrap());
        }
        let column = self.catalog.column_type(oid, rows.get(0, 1).unwrap().parse().unwrap(), options);
        (column, rows.get(0, 2).unwrap().to_owned())
    }

    /// A table with NULL and the values of a case, in this order.
    async fn fill(&mut self, table: &str, case: &Case) -> usize {
        let mut values = vec!["NULL"];
        values.extend(case.values.iter().filter(|(since, _)| *since <= self.major).map(|(_, value)| *value));
        let mut statements = format!("CREATE TABLE public.{table} (n serial, v {});", case.sql);
        // One by one: a literal is of the column's type only if it stands alone.
        for value in &values {
            let value = if case.sql == "public.fine_price" && *value == "NULL" { "1" } else { *value };
            statements.push_str(&format!("SET search_path = public; INSERT INTO public.{table} (v) VALUES ({value});"));
        }
        statements.push_str("SET search_path = ''");
        self.connection.query(&statements).await.unwrap_or_else(|error| panic!("{}: {}", case.sql, error.report()));
        values.len()
    }

    async fn text_cells(&mut self, table: &str) -> Vec<Cell> {
        let rows = self.connection.query(&format!("SELECT v FROM public.{table} ORDER BY n")).await.unwrap();
        rows.rows.into_iter().map(|mut row| row.remove(0).map(String::into_bytes)).collect()
    }

    async fn binary_cells(&mut self, table: &str) -> Vec<Cell> {
        let sql = format!("COPY (SELECT v FROM public.{table} ORDER BY n) TO STDOUT (FORMAT BINARY)");
        let mut copy = self.connection.copy_out(&sql).await.unwrap();
        let (mut run, mut bytes) = (Vec::new(), Vec::new());
        while copy.read(&mut run).await.unwrap() {
            bytes.extend_from_slice(&run);
        }
        // Signature, flags, and a header extension of no bytes.
        let mut rest = &bytes[19..];
        let mut cells = Vec::new();
        let mut take = |length: usize| {
            let (taken, after) = rest.split_at(length);
            rest = after;
            taken
        };
        while i16::from_be_bytes(take(2).try_into().unwrap()) == 1 {
            let length = i32::from_be_bytes(take(4).try_into().unwrap());
            cells.push(usize::try_from(length).ok().map(|length| take(length).to_vec()));
        }
        cells
    }
}

fn build(column: &ColumnType, cells: &[Cell], binary: bool) -> ArrayRef {
    let mut builder = ColumnBuilder::new(column, 0);
    for cell in cells {
        match cell {
            None => builder.append_null(),
            Some(value) if binary => builder.append_binary(value).unwrap(),
            Some(value) => builder.append_text(value).unwrap(),
        }
    }
    assert_eq!(builder.len(), cells.len());
    let array = builder.finish();
    assert_eq!(array.data_type(), &column.data_type());
    array
}

/// What differs, without the megabyte that may be the same.
fn assert_same(left: &Option<String>, right: &Option<String>, what: &str) {
    if left != right {
        let short = |text: &Option<String>| text.as_deref().map(|text| text.chars().take(300).collect::<String>());
        panic!("{what}: {:?} but the server says {:?}", short(left), short(right));
    }
}

async fn every_value_is_what_the_server_says(major: u32) {
    let mut bench = Bench::start(major).await;
    let cases = std::mem::take(&mut bench.cases);
    for (i, case) in cases.iter().enumerate() {
        let what = case.sql;
        let table = format!("t{i}");
        let rows = bench.fill(&table, case).await;
        let (column, format_type) = bench.column_type(&table, TypeOptions::default()).await;
        assert_eq!(column.source_type(), format_type, "{what}");

        // A checkpoint gives the same column back.
        let kept = serde_json::to_string(&column).unwrap();
        assert_eq!(serde_json::from_str::<ColumnType>(&kept).unwrap(), column, "{kept}");

        let text = bench.text_cells(&table).await;
        assert_eq!(text.len(), rows);
        let array = build(&column, &text, false);
        if column.is_binary() {
            let binary = build(&column, &bench.binary_cells(&table).await, true);
            for row in 0..rows {
                let sides = (oracle::of(&array, row), oracle::of(&binary, row));
                assert_same(&sides.1, &sides.0, &format!("{what}, row {row}, binary and text"));
            }
            assert_eq!(&array, &binary, "{what}");
        }

        let value = case.elements.map_or("v".to_owned(), |elements| elements.replace('$', "v"));
        let sql = oracle::sql(&column.data_type(), &value, what.starts_with("money"));
        let said = bench.connection.query(&format!("SELECT {sql} FROM public.{table} ORDER BY n")).await;
        let said = said.unwrap_or_else(|error| panic!("{what}: {sql}: {}", error.report()));
        for row in 0..rows {
            assert_same(&oracle::of(&array, row), &said.rows[row][0], &format!("{what}, row {row}"));
        }
    }
}

#[tokio::test]
async fn values_of_12() {
    every_value_is_what_the_server_says(12).await;
}

#[tokio::test]
async fn values_of_13() {
    every_value_is_what_the_server_says(13).await;
}

#[tokio::test]
async fn values_of_14() {
    every_value_is_what_the_server_says(14).await;
}

#[tokio::test]
async fn values_of_15() {
    every_value_is_what_the_server_says(15).await;
}

#[tokio::test]
async fn values_of_16() {
    every_value_is_what_the_server_says(16).await;
}

#[tokio::test]
async fn values_of_17() {
    every_value_is_what_the_server_says(17).await;
}

#[tokio::test]
async fn values_of_18() {
    every_value_is_what_the_server_says(18).await;
}
