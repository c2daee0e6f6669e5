//! SQL in the stream, from real servers: the files of `tests/slt`, each run in several ways.
//!
//! Statements go to the server, queries to what has landed. `CONFIGURE {…}` sets keys of the stream, and is an error if the check of such a
//! stream finds one. Every file is run with all statements of a stretch
//! landed in one go, with a restart of the stream after each statement, and with one that is killed on the way.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use logweir_tests::engine::Engine;
use logweir_tests::servers::{DatabaseServer, PostgresServer};
use serde_json::Value;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};

const SCHEMA: &str = "shop";
const A_MINUTE: Duration = Duration::from_secs(60);

/// When what the server holds is landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Landing {
    /// Before a query.
    AtOnce,
    /// After each statement, by a process of its own.
    Restarts,
    /// The same, each time by one that was killed before.
    Kills,
}

enum Server {
    Mysql(DatabaseServer),
    Postgres(PostgresServer),
}

struct Stream {
    server: Server,
    engine: Option<Engine>,
    landing: Landing,
    landed: bool,
    name: &'static str,
}

#[derive(Debug)]
struct Failed(String);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

impl Stream {
    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("the engine is only away while it is set")
    }

    /// Sets keys of the stream.
    fn configure(&mut self, keys: &Value) {
        for (key, value) in keys.as_object().expect("CONFIGURE takes a JSON object") {
            let engine = self.engine.take().expect("the engine is there");
            let pointer = if key == "keys" { "/keys".to_owned() } else { format!("/streams/shop/{key}") };
            self.engine = Some(if key == "files" { write_files(engine, value) } else { engine.set(&pointer, value.clone()) });
        }
    }

    fn land(&mut self) {
        if self.landing == Landing::Kills {
            let running = self.engine().start(&["run"]);
            std::thread::sleep(Duration::from_millis(700));
            running.kill();
        }
        self.engine().catch_up();
        self.landed = true;
    }

    async fn execute(&mut self, sql: &str) {
        match &self.server {
            Server::Mysql(server) => server.execute(sql).await,
            Server::Postgres(server) => server.execute(sql).await,
        }
        self.landed = false;
        if self.landing != Landing::AtOnce {
            self.land();
        }
    }
}

fn write_files(engine: Engine, files: &Value) -> Engine {
    for (name, content) in files.as_object().expect("files are an object") {
        std::fs::write(engine.directory().join(name), content.as_str().expect("a file has a text")).expect("a file can be written");
    }
    engine
}

#[async_trait]
impl AsyncDB for Stream {
    type Error = Failed;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failed> {
        if let Some(keys) = sql.strip_prefix("CONFIGURE") {
            self.configure(&serde_json::from_str(keys).map_err(|error| Failed(error.to_string()))?);
            let checked = self.engine().run(&["check"], A_MINUTE);
            return if checked.code == Some(0) {
                Ok(DBOutput::StatementComplete(0))
            } else {
                Err(Failed(checked.stdout + &checked.stderr))
            };
        }
        let asks = sql.trim_start().get(..6).is_some_and(|word| word.eq_ignore_ascii_case("select"));
        if !asks {
            self.execute(sql).await;
            return Ok(DBOutput::StatementComplete(0));
        }
        if !self.landed {
            self.land();
        }
        let answer = self.engine().run(&["sql", sql, "--format", "csv"], A_MINUTE);
        if answer.code != Some(0) {
            return Err(Failed(answer.stderr));
        }
        let mut lines = answer.stdout.lines();
        let columns = lines.next().unwrap_or_default().split(',').count();
        let value = |text: &str| if text.is_empty() { "NULL".to_owned() } else { text.to_owned() };
        let rows = lines.map(|line| line.split(',').map(value).collect()).collect();
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; columns], rows })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        self.name
    }
}

fn files() -> Vec<PathBuf> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("slt");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory).expect("the files are there").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

async fn mysql(server: DatabaseServer, landing: Landing, name: &'static str) -> Stream {
    server.execute(&format!("CREATE DATABASE {SCHEMA}")).await;
    let engine = Some(Engine::new(&server, SCHEMA));
    Stream { server: Server::Mysql(server), engine, landing, landed: false, name }
}

async fn postgres(version: u32, landing: Landing, name: &'static str) -> Stream {
    let server = PostgresServer::start(version, &[]).await;
    server.execute(&format!("CREATE SCHEMA {SCHEMA}")).await;
    server.execute("CREATE PUBLICATION weir FOR ALL TABLES").await;
    server.execute("SELECT pg_create_logical_replication_slot('weir', 'pgoutput')").await;
    let engine = Some(Engine::postgres(&server, SCHEMA));
    Stream { server: Server::Postgres(server), engine, landing, landed: false, name }
}

/// Every file, each over a stream of its own.
async fn run(make: impl AsyncFn() -> Stream) {
    for file in files() {
        let stream = make().await;
        let landing = stream.landing;
        let mut stream = Some(stream);
        let mut runner = Runner::new(move || {
            let stream = stream.take();
            async move { stream.ok_or_else(|| Failed("a file has one connection".to_owned())) }
        });
        if let Err(error) = runner.run_file_async(&file).await {
            panic!("{} ({landing:?}): {error}", file.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_over_mariadb() {
    run(async || mysql(DatabaseServer::mariadb(&[]).await, Landing::AtOnce, "mariadb").await).await;
    run(async || mysql(DatabaseServer::mariadb(&[]).await, Landing::Restarts, "mariadb").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_over_mysql_with_kills() {
    run(async || mysql(DatabaseServer::mysql(&[]).await, Landing::Kills, "mysql").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_over_postgres() {
    run(async || postgres(18, Landing::AtOnce, "postgres").await).await;
    run(async || postgres(15, Landing::Restarts, "postgres").await).await;
}

/// A change that a transform refuses ends the stream: what was committed before it is landed, whether or not the log was read in one go, and nothing
/// is landed twice when the stream goes on.
async fn a_refused_change(mut stream: Stream, change_log: Value) {
    let rule = |sql: &str| serde_json::json!({ "change_log": change_log, "transforms": [{ "table": "shop.t", "sql": sql }] });
    stream.execute("CREATE TABLE shop.t (id int PRIMARY KEY, n int)").await;
    stream.execute("CREATE TABLE shop.other (id int PRIMARY KEY)").await;
    for statement in [
        "INSERT INTO shop.t VALUES (1, 1), (2, 2)",
        "INSERT INTO shop.other VALUES (1)",
        "UPDATE shop.t SET n = 5 WHERE id = 2",
        "INSERT INTO shop.t VALUES (3, 3), (4, 0)",
        "INSERT INTO shop.other VALUES (2)",
    ] {
        stream.execute(statement).await;
    }
    stream.configure(&rule("SELECT id, 10 / n AS share FROM t"));
    let answer = |stream: &Stream, sql: &str| stream.engine().run(&["sql", sql, "--format", "csv"], A_MINUTE).stdout;
    for _ in 0..2 {
        let finished = stream.engine().run(&["run", "--until-caught-up"], A_MINUTE);
        assert_eq!(finished.code, Some(1), "{}", finished.stderr);
        assert!(finished.stderr.contains("division by zero"), "{}", finished.stderr);
        assert_eq!(answer(&stream, "SELECT id, share FROM shop.t ORDER BY id"), "id,share\n1,10\n2,2\n", "{}", stream.name);
        assert_eq!(answer(&stream, "SELECT id FROM shop.other"), "id\n1\n", "{}", stream.name);
    }
    stream.configure(&rule("SELECT id, 10 / nullif(n, 0) AS share FROM t"));
    stream.engine().catch_up();
    assert_eq!(answer(&stream, "SELECT id, share FROM shop.t ORDER BY id"), "id,share\n1,10\n2,2\n3,3\n4,\n", "{}", stream.name);
    assert_eq!(answer(&stream, "SELECT count(*) AS n FROM shop_changes.t"), "n\n5\n", "{}", stream.name);
    assert_eq!(answer(&stream, "SELECT count(*) AS n FROM shop_changes.other"), "n\n2\n", "{}", stream.name);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_before_a_refused_change_is_landed() {
    for change_log in [serde_json::json!("memory"), serde_json::json!({})] {
        let at_once = Landing::AtOnce;
        a_refused_change(mysql(DatabaseServer::mariadb(&[]).await, at_once, "mariadb").await, change_log.clone()).await;
        a_refused_change(mysql(DatabaseServer::mysql(&[]).await, at_once, "mysql").await, change_log.clone()).await;
        a_refused_change(postgres(18, at_once, "postgres").await, change_log).await;
    }
}

/// A table of the source that looks like the quarantine would go by every rule of a destination.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_schema_called_logweir_is_refused() {
    let server = DatabaseServer::mariadb(&[]).await;
    for sql in [
        "CREATE DATABASE logweir",
        "CREATE DATABASE shop",
        "CREATE TABLE shop.t (id INT PRIMARY KEY)",
        "INSERT INTO shop.t VALUES (1)",
        "CREATE TABLE logweir.quarantine (`database` TEXT, `schema` TEXT, `table` TEXT, rule TEXT, reason TEXT, row TEXT)",
        "INSERT INTO logweir.quarantine (row) VALUES ('{\"email\":\"clear\"}')",
    ] {
        server.execute(sql).await;
    }
    let engine = Engine::new(&server, "*");
    let checked = engine.run(&["check"], A_MINUTE);
    assert!(checked.code == Some(1) && checked.stdout.contains("a schema called logweir"), "{}", checked.stdout);
    let refused = engine.run(&["run", "--until-caught-up"], A_MINUTE);
    assert!(refused.code != Some(0) && refused.stderr.contains("a schema called logweir"), "{}", refused.stderr);
    let engine = engine.set("/streams/shop/tables/exclude", serde_json::json!(["logweir.*"]));
    engine.catch_up();
    let landed = engine.run(&["sql", "SELECT id FROM shop.t", "--format", "csv"], A_MINUTE);
    assert_eq!(landed.stdout, "id\n1\n", "{}", landed.stderr);
}
