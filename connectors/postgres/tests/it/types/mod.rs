//! Values of every type, against what servers say they are.
//!
//! Each value is read in text and in binary form, which must give the same column, and that column must hold what the server, asked
//! in SQL, says the value is.

mod cases;
mod oracle;
mod page;

use arrow_array::ArrayRef;
use logweir_postgres::options::{Arrays, PostgresOptions};
use logweir_postgres::types::{ColumnBuilder, ColumnType, Oid, TypeCatalog, TypeOptions, ValueError};
use logweir_postgres::wire::{Connection, Mode};

use crate::server::Server;
use cases::{Case, SETUP, cases};

use oracle::raw;

/// A value as the server sends it; `None` is NULL.
type Cell = Option<Vec<u8>>;

/// A server with everything that the cases need, and the cases that it can have.
struct Bench {
    connection: Connection,
    catalog: TypeCatalog,
    cases: Vec<Case>,
    major: u32,
    server: Server,
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
        Bench { connection, catalog: TypeCatalog::new(), cases, major, server }
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

    /// The text of the one value of a table, whatever its bytes are, if it has nothing that COPY escapes.
    async fn text_copy(&mut self, table: &str) -> Vec<u8> {
        let mut copy = self.connection.copy_out(&format!("COPY public.{table} (v) TO STDOUT")).await.unwrap();
        let mut bytes: Vec<u8> = Vec::new();
        while let Some(message) = copy.next().await.unwrap() {
            bytes.extend_from_slice(message);
        }
        assert_eq!(bytes.pop(), Some(b'\n'));
        bytes
    }

    async fn binary_cells(&mut self, table: &str) -> Vec<Cell> {
        let sql = format!("COPY (SELECT v FROM public.{table} ORDER BY n) TO STDOUT (FORMAT BINARY)");
        let mut copy = self.connection.copy_out(&sql).await.unwrap();
        let mut bytes: Vec<u8> = Vec::new();
        while let Some(message) = copy.next().await.unwrap() {
            bytes.extend_from_slice(message);
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

/// Expressions over `g`, a number of a row, that make many values of a type.
const CROWDS: &[(&str, &str)] = &[
    ("integer", "((random() - 0.5) * power(2, g % 33))::bigint::numeric::int"),
    ("bigint", "((random() - 0.5) * power(2, g % 64))::numeric::bigint"),
    ("real", "(random() - 0.5) * power(10, g % 70 - 35)"),
    ("double precision", "(random() - 0.5) * power(10::float8, g % 600 - 300)"),
    ("numeric(9,2)", "round(((random() - 0.5) * power(10, g % 8))::numeric, 2)"),
    ("numeric(38,19)", "round(((random() - 0.5) * power(10::numeric, g % 37 - 18))::numeric, 19)"),
    ("numeric(76,30)", "round((random() - 0.5)::numeric * power(10::numeric, g % 75 - 29), 30)"),
    ("numeric", "round((random() - 0.5)::numeric * power(10::numeric, g % 200 - 100), g % 120 - 20)"),
    ("date", "'2000-01-01'::date + ((random() - 0.5) * power(10, g % 7))::int"),
    ("time without time zone", "'00:00'::time + random() * '24 hours'::interval"),
    (
        "time with time zone",
        "(('00:00'::time + random() * '24 hours'::interval)::text || to_char(g % 31 - 15, 'SG00') || to_char(g % 60, 'FM\":\"00'))::timetz",
    ),
    ("timestamp without time zone", "'2000-01-01'::timestamp + (random() - 0.5) * power(10, g % 7) * '1 day'::interval"),
    ("timestamp with time zone", "'2000-01-01'::timestamptz + (random() - 0.5) * power(10, g % 7) * '1 day'::interval"),
    (
        "interval",
        "make_interval(months => ((random() - 0.5) * power(10, g % 5))::int, days => ((random() - 0.5) * power(10, g % 4))::int, \
         secs => (random() - 0.5) * power(10, g % 9))",
    ),
    (
        "inet",
        "(SELECT string_agg(word, ':') FROM (SELECT to_hex((floor(random() * 3) * random() * 32767)::int * sign(g)::int) AS word \
         FROM generate_series(1, 8)) AS words)::inet",
    ),
    ("cidr", "network(set_masklen('0.0.0.0'::inet + (random() * 4294967295)::bigint, g % 33))"),
    ("uuid", "md5(g::text)::uuid"),
    ("bytea", "decode(repeat(md5(g::text), g % 5), 'hex')"),
    ("bit varying", "((random() * 9e18)::bigint::bit(64)::text)::varbit << g % 64"),
    ("text", "repeat(chr(g % 50000 + 40), g % 9) || g"),
    ("text[]", "ARRAY(SELECT repeat(chr((random() * 126 + 1)::int), (random() * 3)::int) FROM generate_series(0, g % 9))"),
    ("integer[]", "ARRAY(SELECT CASE WHEN random() < 0.9 THEN i * g END FROM generate_series(0, g % 9) i)"),
    ("money", "((random() - 0.5) * power(10, g % 12))::numeric::money"),
    ("jsonb", "jsonb_build_object('g', g, 'list', ARRAY[random(), g], 'text', chr(g % 1000 + 40))"),
];

async fn many_values_are_what_the_server_says(major: u32) {
    let mut bench = Bench::start(major).await;
    bench.connection.query("SELECT setseed(0.5)").await.unwrap();
    for (i, (name, expression)) in CROWDS.iter().enumerate() {
        let table = format!("c{i}");
        let sql = format!(
            "CREATE TABLE public.{table} (n serial, v {name}); \
             INSERT INTO public.{table} (v) SELECT {expression} FROM generate_series(1, 3000) g"
        );
        bench.connection.query(&sql).await.unwrap_or_else(|error| panic!("{name}: {}", error.report()));
        let (column, _) = bench.column_type(&table, TypeOptions::default()).await;
        let text = bench.text_cells(&table).await;
        let array = build(&column, &text, false);
        assert_eq!(array.len(), 3000);
        assert!(column.is_binary(), "{name}");
        let binary = build(&column, &bench.binary_cells(&table).await, true);
        let sql = oracle::sql(&column.data_type(), "v", *name == "money");
        let said = bench.connection.query(&format!("SELECT {sql} FROM public.{table} ORDER BY n")).await.unwrap();
        for row in 0..array.len() {
            assert_same(&oracle::of(&array, row), &said.rows[row][0], &format!("{name}, row {row}"));
            assert_same(&oracle::of(&binary, row), &said.rows[row][0], &format!("{name}, row {row}, binary"));
        }
    }
}

/// What a value is refused with, in either form.
async fn refusal(bench: &mut Bench, table: &str, options: TypeOptions) -> Option<ValueError> {
    let (column, _) = bench.column_type(table, options).await;
    let binary = bench.binary_cells(table).await.remove(0).unwrap();
    let binary = column.is_binary().then(|| ColumnBuilder::new(&column, 0).append_binary(&binary));
    let text = bench.text_copy(table).await;
    let text = ColumnBuilder::new(&column, 0).append_text(&text);
    assert_eq!(binary.unwrap_or(text), text, "{}", column.source_type());
    text.err()
}

async fn every_built_in_type_is_known(major: u32) {
    let mut bench = Bench::start(major).await;
    // No column is of a pseudo-type, and row types of the catalog are asked for.
    let types = "SELECT oid, format_type(oid, -1) FROM pg_type t WHERE oid < 10000 AND typtype IN ('b', 'r', 'm') \
                 AND NOT EXISTS (SELECT FROM pg_type e WHERE e.oid = t.typelem AND e.typtype IN ('p', 'c')) ORDER BY oid";
    let types = bench.connection.query(types).await.unwrap().rows;
    let oids: Vec<Oid> = types.iter().map(|row| row[0].as_ref().unwrap().parse().unwrap()).collect();
    let described = bench.connection.query(&TypeCatalog::query(&oids)).await.unwrap();
    let mut learnt = TypeCatalog::new();
    for row in &described.rows {
        let row: Vec<_> = row.iter().map(|value| value.as_deref()).collect();
        learnt.learn(TypeCatalog::parse_row(&row).unwrap());
    }
    assert_eq!(described.rows.len(), oids.len());
    for (oid, row) in oids.into_iter().zip(types) {
        assert_eq!(bench.catalog.unknown(oid), None, "{row:?}");
        let column = bench.catalog.column_type(oid, -1, TypeOptions::default());
        assert_eq!(Some(column.source_type()), row[1].as_deref());
        // What is built in is what the server says.
        let asked = learnt.column_type(oid, -1, TypeOptions::default());
        assert_eq!((column.data_type(), column.is_binary(), column.metadata()), (asked.data_type(), asked.is_binary(), asked.metadata()));
        assert!(!column.metadata().contains_key("logweir.passthrough"), "{row:?}");
    }
}

#[tokio::test]
async fn built_in_types_are_those_of_the_oldest_and_the_newest_server() {
    every_built_in_type_is_known(12).await;
    every_built_in_type_is_known(18).await;
}

#[tokio::test]
async fn what_cannot_be_carried_is_refused_with_a_remedy() {
    let mut bench = Bench::start(18).await;
    for (i, (name, value, problem, remedy)) in [
        ("numeric(10,2)", "'NaN'", "not decimal numbers", Some("numeric without a precision")),
        ("numeric(76,2)", "'NaN'", "not decimal numbers", Some("numeric without a precision")),
        ("numeric(10,2)[]", "'{1,NaN}'", "not decimal numbers", Some("numeric without a precision")),
        ("timestamp", "'294247-01-10 04:00:54.775807'", "microseconds since 1970", None),
        ("timestamptz", "'294276-12-31 23:59:59.999999+00'", "microseconds since 1970", None),
        ("int[]", "'{{1,2},{3,4}}'", "is no list", Some("arrays: text")),
        ("int[]", "'[0:1]={1,2}'", "is no list", Some("arrays: text")),
        ("int[]", "'[2:2]={1}'", "is no list", Some("arrays: text")),
        ("text[]", "'[1:1][0:0]={{x}}'", "is no list", Some("arrays: text")),
        ("public.scores[]", "'{{\"{1}\"}}'", "is no list", Some("arrays: text")),
    ]
    .into_iter()
    .enumerate()
    {
        let table = format!("r{i}");
        let sql = format!("CREATE TABLE public.{table} (n serial, v {name}); INSERT INTO public.{table} (v) VALUES ({value})");
        bench.connection.query(&sql).await.unwrap_or_else(|error| panic!("{name}: {}", error.report()));
        let error = refusal(&mut bench, &table, TypeOptions::default()).await.unwrap();
        assert!(error.problem.contains(problem), "{name}: {error}");
        assert_eq!(error.remedy.is_some(), remedy.is_some(), "{name}");
        assert!(remedy.is_none_or(|remedy| error.remedy.unwrap().contains(remedy)), "{name}");
        let as_text = TypeOptions { arrays: Arrays::Text, ..TypeOptions::default() };
        if remedy == Some("arrays: text") {
            assert_eq!(refusal(&mut bench, &table, as_text).await, None, "{name}");
        }
    }
}

#[tokio::test]
async fn bytes_in_a_database_without_encoding_are_text_only_if_they_are_utf_8() {
    let mut bench = Bench::start(15).await;
    bench.connection.query("CREATE DATABASE raw ENCODING 'SQL_ASCII' TEMPLATE template0").await.unwrap();
    let options = PostgresOptions { database: "raw".into(), ..bench.server.options() };
    bench.connection = Connection::connect(&options, Mode::Query).await.unwrap();
    // In UTF-8 the server itself gives up on such bytes.
    bench.connection.query("SET client_encoding = 'SQL_ASCII'").await.unwrap();
    let setup = "CREATE TABLE public.a (n serial, v text); INSERT INTO public.a (v) VALUES (E'caf\\xe9'); \
                 CREATE TABLE public.b (n serial, v text); INSERT INTO public.b (v) VALUES (E'caf\\xc3\\xa9')";
    bench.connection.query(setup).await.unwrap();
    let error = refusal(&mut bench, "a", TypeOptions::default()).await.unwrap();
    assert!(error.problem.contains("not valid UTF-8") && error.remedy.unwrap().contains("bytea"), "{error}");
    assert_eq!(refusal(&mut bench, "b", TypeOptions::default()).await, None);
}

#[tokio::test]
async fn money_is_its_smallest_units_in_every_locale() {
    let mut bench = Bench::start(15).await;
    bench.connection.query("CREATE TABLE public.m (n serial, v money)").await.unwrap();
    bench.connection.query("INSERT INTO public.m (v) VALUES ('-1234567.89'), ('0.05')").await.unwrap();
    // Those that the machine has; "C" always is.
    let locales = bench.connection.query("SELECT DISTINCT collname FROM pg_collation WHERE collname LIKE '%utf8' LIMIT 20").await.unwrap();
    let locales = locales.rows.into_iter().flatten().flatten().chain(["C".to_owned()]);
    for locale in locales {
        bench.connection.query(&format!("SET lc_monetary = '{locale}'")).await.unwrap();
        let (column, _) = bench.column_type("m", TypeOptions::default()).await;
        let text = build(&column, &bench.text_cells("m").await, false);
        assert_eq!([oracle::of(&text, 0).unwrap(), oracle::of(&text, 1).unwrap()], ["-123456789", "5"], "{locale}");
    }
}

#[tokio::test]
async fn many_values_of_12() {
    many_values_are_what_the_server_says(12).await;
}

#[tokio::test]
async fn many_values_of_18() {
    many_values_are_what_the_server_says(18).await;
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
