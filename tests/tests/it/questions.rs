//! Questions about rows to real servers: samples of tables and answers to queries hold the very values that the log does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{Array, RecordBatch};
use logweir_core::{ChangeBatch, ChangeType, ErrorKind, Pattern, QueryLimit, RelationName, Source, TableFilter};
use logweir_mysql::files::BinlogFilesSource;
use logweir_mysql::options::{BinlogFilesOptions, MysqlOptions, Start};
use logweir_mysql::source::MysqlSource;
use logweir_postgres::options::PostgresOptions;
use logweir_postgres::source::PostgresSource;
use logweir_tests::servers::{DatabaseServer, Flavour, PostgresServer};
use logweir_tests::suite::{self, ReadLog};
use logweir_tests::{every_type, postgres};
use object_store::local::LocalFileSystem;

const LIMIT: QueryLimit = QueryLimit { bytes_max: 64 << 20, rows_max: 10_000, timeout: Duration::from_secs(20) };

fn followed(schema: &str) -> TableFilter {
    TableFilter { include: vec![Pattern::new(format!("{schema}.*"))], ..TableFilter::default() }
}

/// The rows of a batch by the text of their first column, the key.
fn by_key(records: &RecordBatch, columns: usize) -> BTreeMap<String, RecordBatch> {
    let columns = records.project(&(0..columns).collect::<Vec<_>>()).unwrap();
    let key = |row| arrow_cast::display::array_value_to_string(columns.column(0), row).unwrap();
    (0..columns.num_rows()).map(|row| (key(row), columns.slice(row, 1))).collect()
}

/// The table that a log comes to.
fn merged(log: &ReadLog, name: &RelationName) -> BTreeMap<String, RecordBatch> {
    let mut table = BTreeMap::new();
    for row in &log.rows[name] {
        let key = arrow_cast::display::array_value_to_string(row.values.column(0), 0).unwrap();
        match ChangeType::from_code(row.change_type).unwrap() {
            ChangeType::Delete | ChangeType::UpdateDelete => drop(table.remove(&key)),
            _ => drop(table.insert(key, row.values.clone())),
        }
    }
    table
}

fn assert_same(found: &BTreeMap<String, RecordBatch>, expected: &BTreeMap<String, RecordBatch>, what: &str) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (key, expected) in expected {
        for (column, (found, values)) in found[key].columns().iter().zip(expected.columns()).enumerate() {
            let name = expected.schema().field(column).name().clone();
            assert_eq!(found.data_type(), values.data_type(), "{what}, {name}");
            let short = |values: &dyn Array| format!("{values:?}").chars().take(300).collect::<String>();
            assert!(found.to_data() == values.to_data(), "{what}, {key}, {name}: {} is not {}", short(found), short(values));
        }
    }
}

/// Every table of the schema, by a sample and by a query, against what the log says of it.
async fn every_table(source: &dyn Source, log: &ReadLog, tables: &TableFilter, quote: char) {
    let mut values = 0;
    for name in log.rows.keys() {
        let expected = merged(log, name);
        let sample = source.sample(tables, name, 1000).await.unwrap_or_else(|error| panic!("{name}: {}", error.report())).unwrap();
        let relation = log.relations.range((name.clone(), 0)..=(name.clone(), u32::MAX)).next_back().unwrap().1;
        for (sampled, logged) in sample.relation.columns().iter().zip(relation.columns()) {
            assert_eq!(sampled, logged, "{name}");
        }
        assert!(sample.relation.same_shape(relation), "{name}: {:?} is not {relation:?}", sample.relation);
        assert_eq!(sample.records.schema(), *relation.schema());
        assert!(sample.change_type_codes().iter().all(|code| *code == ChangeType::Read.code()));
        let columns = relation.columns().len();
        assert_same(&by_key(&sample.records, columns), &expected, &format!("a sample of {name}"));
        let quoted = |name: &str| format!("{quote}{}{quote}", name.replace(quote, &format!("{quote}{quote}")));
        let quoted = format!("{}.{}", quoted(&name.schema), quoted(&name.table));
        let answer = source.query(&format!("SELECT * FROM {quoted} -- all"), LIMIT).await;
        let answer = answer.unwrap_or_else(|error| panic!("{name}: {}", error.report()));
        assert_same(&by_key(&answer, columns), &expected, &format!("an answer from {name}"));
        values += answer.num_rows();
        // No more rows than are asked for.
        let sample = source.sample(tables, name, 1).await.unwrap().unwrap();
        assert_eq!(sample.rows(), 1);
    }
    assert!(values > 300, "{values}");
}

/// What is refused, and in which words.
async fn refusals(source: &dyn Source, cases: &[(&str, ErrorKind, &str)]) {
    for (sql, kind, words) in cases {
        let error = source.query(sql, LIMIT).await.expect_err(sql);
        assert!(error.kind() == *kind && error.report().contains(words), "{sql}: {:?} {}", error.kind(), error.report());
    }
}

/// Answers that are too large or too slow.
async fn limits(source: &dyn Source, table: &str, sleep: &str) {
    let answer = source.query(&format!("SELECT id FROM {table}"), LIMIT).await.unwrap();
    let rows = answer.num_rows();
    let at_limit = source.query(&format!("SELECT id FROM {table}"), QueryLimit { rows_max: rows, ..LIMIT }).await.unwrap();
    assert_eq!(at_limit.num_rows(), rows);
    for (limit, words) in [
        (QueryLimit { rows_max: rows - 1, ..LIMIT }, "more rows than it may"),
        (QueryLimit { bytes_max: 10, ..LIMIT }, "more bytes than it may"),
    ] {
        let error = source.query(&format!("SELECT id FROM {table}"), limit).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.report().contains(words), "{}", error.report());
    }
    let begun = std::time::Instant::now();
    let error = source.query(sleep, QueryLimit { timeout: Duration::from_secs(1), ..LIMIT }).await.unwrap_err();
    assert!(error.is_transient() && error.report().contains("too long"), "{}", error.report());
    assert!(begun.elapsed() < Duration::from_secs(10));
    let empty = source.query(&format!("SELECT id FROM {table} WHERE id < -5"), LIMIT).await.unwrap();
    assert_eq!((empty.num_rows(), empty.num_columns()), (0, 1));
}

async fn mysql(flavour: Flavour) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let server = DatabaseServer::start(flavour, &[]).await;
    every_type::create_and_fill(&server).await;
    let mut options = MysqlOptions::new("127.0.0.1", server.user());
    options.port = server.port();
    options.password = Some(server.password().into());
    options.start = Start::Earliest;
    let source = MysqlSource::new(options.clone());
    let tables = followed(every_type::SCHEMA);
    let log = suite::read_log(&source, &tables, None, Vec::new()).await;
    every_table(&source, &log, &tables, '`').await;

    // As root, whom only the transaction keeps from writing.
    options.user = "root".to_owned();
    options.password = None;
    let root = MysqlSource::new(options);
    server.execute("CREATE TABLE types.w (id INT PRIMARY KEY, v VARCHAR(20))").await;
    server.execute("INSERT INTO types.w VALUES (1, 'secret-value'), (2, 'x')").await;
    server.execute("SET GLOBAL log_bin_trust_function_creators = 1").await;
    server.execute("CREATE FUNCTION types.writes() RETURNS INT MODIFIES SQL DATA BEGIN DELETE FROM types.w; RETURN 1; END").await;
    let outfile = server.data_directory().join("written");
    let into = format!("SELECT * FROM types.w INTO OUTFILE '{}'", outfile.display());
    let config = ErrorKind::Config;
    refusals(
        &root,
        &[
            ("DELETE FROM types.w", config, "READ ONLY"),
            ("INSERT INTO types.w VALUES (3, 'y')", config, "READ ONLY"),
            ("DROP TABLE types.w", config, "no rows to read"),
            ("SET GLOBAL max_connections = 7", config, "no rows to read"),
            (&into, config, "no rows to read"),
            ("SELECT types.writes()", config, "READ ONLY"),
            ("SELECT 1; DELETE FROM types.w", config, "syntax"),
            ("SELECT * FROM types.absent", config, "types.absent"),
            ("SELECT nothing FROM types.w", config, "nothing"),
            ("SELEKT 1", config, "SELEKT"),
            ("SELECT id FROM types.w WHERE v = ?", config, "placeholders"),
            ("SELECT id, v AS id FROM types.w", config, "same name"),
            ("SELECT (SELECT id FROM types.w)", config, "more than 1 row"),
        ],
    )
    .await;
    if flavour == Flavour::MariaDb {
        refusals(&root, &[("DELETE FROM types.w RETURNING id", config, "READ ONLY")]).await;
    }
    assert_eq!(server.query::<i32>("SELECT id FROM types.w ORDER BY id").await, [1, 2]);
    assert!(!outfile.exists());
    // An error of a running query does not quote a value of a row.
    server
        .execute(
            "CREATE FUNCTION types.fails(v VARCHAR(20)) RETURNS INT NO SQL BEGIN DECLARE words VARCHAR(99) DEFAULT CONCAT('bad ', v); \
             SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = words; RETURN 1; END",
        )
        .await;
    let mut failing = vec!["SELECT types.fails(v) FROM types.w"];
    if flavour == Flavour::MySql {
        failing.push("SELECT UUID_TO_BIN(v) FROM types.w");
    }
    for sql in failing {
        let error = root.query(sql, LIMIT).await.expect_err(sql);
        let report = error.report();
        assert!(report.contains("the query failed on the server") && !report.contains("secret"), "{report}");
    }
    limits(&source, "types.w", "SELECT id, SLEEP(30) AS s FROM types.w").await;

    // What is not there, or not followed.
    let name = RelationName::new("types", "w");
    let unfollowed = TableFilter { exclude: vec![Pattern::new("*.w")], ..TableFilter::all() };
    assert!(source.sample(&unfollowed, &name, 5).await.unwrap().is_none());
    assert!(source.sample(&tables, &RelationName::new("types", "absent"), 5).await.unwrap().is_none());
    let without = TableFilter { exclude_columns: vec![Pattern::new("*.v")], ..followed("types") };
    assert_eq!(source.sample(&without, &name, 5).await.unwrap().unwrap().relation.columns().len(), 1);

    // Expressions come as what they are, a zero date as no day.
    let answer = source
        .query(
            "SELECT 1 AS one, 1.50 AS d, 'ü' AS t, NULL AS n, CAST('2026-01-02 03:04:05.5' AS DATETIME(1)) AS at, COUNT(*) AS c, \
             SUM(id) AS s, x'00ff' AS b FROM types.w",
            LIMIT,
        )
        .await
        .unwrap();
    let types: Vec<String> = answer.schema().fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(types[1..5], ["Decimal128(3, 2)", "Utf8", "Utf8", "Timestamp(µs)"]);
    assert_eq!(arrow_cast::display::array_value_to_string(answer.column(2), 0).unwrap(), "ü");
    assert_eq!(types[7], "Binary");
    let mut connection = server.connect().await;
    use mysql_async::prelude::Queryable;
    connection.query_drop("SET SESSION sql_mode = ''").await.unwrap();
    connection.query_drop("CREATE TABLE types.z (id INT PRIMARY KEY, day DATE NOT NULL)").await.unwrap();
    connection.query_drop("INSERT INTO types.z VALUES (1, '0000-00-00')").await.unwrap();
    for error in [
        source.query("SELECT day FROM types.z", LIMIT).await.unwrap_err(),
        source.sample(&tables, &RelationName::new("types", "z"), 5).await.unwrap_err(),
    ] {
        assert!(error.kind() == ErrorKind::Data && error.report().contains("zero date"), "{}", error.report());
        assert_eq!(error.get_context("column"), Some("day"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_answers_what_its_log_says() {
    mysql(Flavour::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mysql_answers_what_its_log_says() {
    mysql(Flavour::MySql).await;
}

async fn postgres(version: u32) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let server = PostgresServer::start(version, &[]).await;
    postgres::every_type::prepare(&server).await;
    server.execute("CREATE PUBLICATION logweir FOR ALL TABLES").await;
    server.execute("SELECT pg_create_logical_replication_slot('logweir', 'pgoutput')").await;
    let written = postgres::every_type::create_and_fill(&server).await;
    // Of these the log leaves out what is large and did not change.
    let left_out = |log: &ReadLog, name: &RelationName| {
        log.rows[name].iter().any(|row| !row.unchanged.is_empty() && !ChangeType::from_code(row.change_type).unwrap().deletes())
    };
    let mut options = PostgresOptions::new("127.0.0.1", "postgres", server.database());
    options.port = server.port();
    options.start = logweir_postgres::options::Start::Earliest;
    let source = PostgresSource::new(options.clone());
    let tables = followed(postgres::every_type::SCHEMA);
    let mut log = suite::read_log(&source, &tables, None, Vec::new()).await;
    log.rows = log.rows.clone().into_iter().filter(|(name, _)| !left_out(&log, name)).collect();
    assert!(log.rows.len() > written.len() - 5, "{} of {}", log.rows.len(), written.len());
    every_table(&source, &log, &tables, '"').await;

    server.execute("CREATE TABLE public.w (id int PRIMARY KEY, v text)").await;
    server.execute("INSERT INTO w VALUES (1, 'secret-value'), (2, 'x')").await;
    server.execute("CREATE FUNCTION public.writes() RETURNS int LANGUAGE plpgsql AS 'BEGIN DELETE FROM public.w; RETURN 1; END'").await;
    let config = ErrorKind::Config;
    refusals(
        &source,
        &[
            ("DELETE FROM w", config, "no rows to read"),
            ("DROP TABLE w", config, "no rows to read"),
            ("", config, "no rows to read"),
            ("DELETE FROM w RETURNING id", config, "syntax error"),
            ("WITH d AS (DELETE FROM w RETURNING id) SELECT * FROM d", config, ""),
            ("SELECT public.writes()", config, "read-only"),
            ("SELECT nextval('absent')", config, "absent"),
            ("SELECT 1; DELETE FROM w", config, "multiple commands"),
            ("SELECT 1) TO STDOUT; DELETE FROM w; --", config, "syntax error"),
            ("SELECT 1) AS q (c0)) TO PROGRAM 'touch /tmp/logweir-never' --", config, "syntax error"),
            ("SELECT * FROM absent", config, "absent"),
            ("SELECT nothing FROM w", config, "nothing"),
            ("SELEKT 1", config, "SELEKT"),
            ("SELECT id FROM w WHERE v = $1", config, "placeholders"),
            ("SELECT id, v AS id FROM w", config, "same name"),
            ("SELECT (SELECT id FROM w)", config, "more than one row"),
            ("SELECT v::int AS n FROM w", config, "invalid input syntax"),
        ],
    )
    .await;
    server
        .execute("CREATE FUNCTION public.fails(v text) RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''bad %'', v; RETURN 1; END'")
        .await;
    for sql in ["SELECT v::int AS n FROM w", "SELECT fails(v) AS n FROM w", "SELECT v::date AS n FROM w", "SELECT v::jsonb AS n FROM w"] {
        let report = source.query(sql, LIMIT).await.unwrap_err().report();
        assert!(!report.contains("secret"), "{report}");
    }
    assert_eq!(server.value("SELECT string_agg(id::text, ',' ORDER BY id) FROM w").await, "1,2");
    limits(&source, "w", "SELECT id, pg_sleep(30)::text AS s FROM w").await;
    // A semicolon and a comment at the end are no harm; types of users are known.
    let answer = source.query("SELECT 'sad'::types.mood AS mood, ARRAY[1, 2] AS list, 1.5 AS n, '{\"a\": 1}'::jsonb AS j ;\n", LIMIT);
    let answer = answer.await.unwrap();
    let types: Vec<String> = answer.schema().fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!((types[0].as_str(), types[3].as_str()), ("Utf8", "Utf8"));
    assert!(types[1].starts_with("List("), "{types:?}");

    // As it is carried: the columns and rows that are published, and before anything is.
    let name = RelationName::new("public", "w");
    let ids = |sample: Option<ChangeBatch>| by_key(&sample.unwrap().records, 1).into_keys().collect::<Vec<_>>();
    assert_eq!(ids(source.sample(&TableFilter::all(), &name, 5).await.unwrap()), ["1", "2"]);
    if version >= 15 {
        server.execute("CREATE PUBLICATION few FOR TABLE w (id) WHERE (id > 1)").await;
        options.publication = "few".to_owned();
        let sample = PostgresSource::new(options.clone()).sample(&TableFilter::all(), &name, 5).await.unwrap();
        assert_eq!(sample.as_ref().unwrap().relation.columns().len(), 1);
        assert_eq!(ids(sample), ["2"]);
    }
    options.publication = "not_there".to_owned();
    let sample = PostgresSource::new(options).sample(&TableFilter::all(), &name, 5).await.unwrap().unwrap();
    assert_eq!((sample.relation.columns().len(), sample.relation.key()), (2, &[0][..]));
    let unfollowed = TableFilter { exclude: vec![Pattern::new("*.w")], ..TableFilter::all() };
    assert!(source.sample(&unfollowed, &name, 5).await.unwrap().is_none());
    assert!(source.sample(&TableFilter::all(), &RelationName::new("public", "absent"), 5).await.unwrap().is_none());
    server.execute("CREATE TABLE parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)").await;
    server.execute("CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10); INSERT INTO parts VALUES (7, 'p')").await;
    assert_eq!(ids(source.sample(&TableFilter::all(), &RelationName::new("public", "parts_1"), 5).await.unwrap()), ["7"]);
    if version >= 13 {
        server.execute("ALTER PUBLICATION logweir SET (publish_via_partition_root = true)").await;
        assert_eq!(ids(source.sample(&TableFilter::all(), &RelationName::new("public", "parts"), 5).await.unwrap()), ["7"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_12_answers_what_its_log_says() {
    postgres(12).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_15_answers_what_its_log_says() {
    postgres(15).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_18_answers_what_its_log_says() {
    postgres(18).await;
}

#[tokio::test]
async fn a_recording_has_samples_and_no_answers() {
    let captures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/captures/shop");
    let store = Arc::new(LocalFileSystem::new_with_prefix(captures).unwrap());
    let source = BinlogFilesSource::new(BinlogFilesOptions { store, pattern: "mysql-bin.*".into(), start: Start::Earliest });
    let log = suite::read_log(&source, &TableFilter::all(), None, Vec::new()).await;
    let (name, rows) = log.rows.iter().max_by_key(|(_, rows)| rows.len()).unwrap();
    let sample = source.sample(&TableFilter::all(), name, 20).await.unwrap().unwrap();
    assert_eq!(sample.rows(), 20);
    for (row, expected) in rows[..20].iter().enumerate() {
        let columns: Vec<usize> = (0..expected.values.num_columns()).collect();
        assert_eq!(sample.records.project(&columns).unwrap().slice(row, 1), expected.values);
        assert_eq!(sample.change_type_codes()[row], expected.change_type);
    }
    assert!(source.sample(&TableFilter::all(), &RelationName::new("shop", "absent"), 20).await.unwrap().is_none());
    assert_eq!(source.query("SELECT 1", LIMIT).await.unwrap_err().kind(), ErrorKind::Config);
}
