//! PostgreSQL's clients at the SQL endpoint of a running process: what they read is what the source shows, and what they do beside it
//! stops nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use logweir_tests::engine::{Engine, Running};
use logweir_tests::servers::{DatabaseServer, free_port, rigs_directory};
use serde_json::json;
use tokio::io::AsyncBufReadExt as _;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

const A_MINUTE: Duration = Duration::from_secs(60);
const USER: &str = "analyst";
const PASSWORD: &str = "an analyst's pässword";
const ROWS: u32 = 40;

/// The table that the clients print.
const SOURCE: &str = "SELECT CONCAT_WS('|', id, customer_id, IFNULL(total,'NULL'), IFNULL(status,'NULL'), IFNULL(day,'NULL'), IFNULL(HEX(raw),'NULL')) \
     FROM shop.orders ORDER BY id";

/// A source, and a process that follows it and answers SQL.
struct Rig {
    server: DatabaseServer,
    engine: Engine,
    running: Running,
    port: u16,
}

impl Rig {
    async fn start() -> Self {
        let server = DatabaseServer::mariadb(&[]).await;
        for statement in [
            "CREATE DATABASE shop",
            "CREATE DATABASE hidden",
            "CREATE TABLE shop.customers (id INT PRIMARY KEY, name VARCHAR(40))",
            "CREATE TABLE shop.orders (id BIGINT PRIMARY KEY, customer_id INT, total DECIMAL(10,2), status VARCHAR(10), day DATE, raw VARBINARY(10))",
            "CREATE TABLE hidden.things (id INT PRIMARY KEY)",
            "INSERT INTO hidden.things VALUES (1)",
        ] {
            server.execute(statement).await;
        }
        for id in 1..=ROWS {
            server.execute(&format!("INSERT INTO shop.customers VALUES ({id}, 'name {id}')")).await;
            let status = if id % 3 == 0 { "old" } else { "new" };
            let row = format!("{id}, {id}, {id} * 1.25, '{status}', DATE_ADD('2026-01-01', INTERVAL {id} DAY), x'00ff'");
            server.execute(&format!("INSERT INTO shop.orders VALUES ({row})")).await;
        }
        server.execute("INSERT INTO shop.orders (id, customer_id) VALUES (1000, 1)").await;
        server.execute("UPDATE shop.orders SET status = 'paid' WHERE id = 7").await;
        server.execute("DELETE FROM shop.orders WHERE id = 8").await;
        let port = free_port();
        let engine = Engine::new(&server, "shop")
            .set("/streams/shop/tables/include", json!(["shop.*", "hidden.*"]))
            .set(
                "/sql",
                json!({
                    "listen": format!("127.0.0.1:{port}"),
                    "users": [ { "name": USER, "password": { "env": "WEIR_TEST_SQL" }, "schemas": ["shop*"] } ],
                    "memory": "64MiB",
                }),
            )
            .environment("WEIR_TEST_SQL", PASSWORD);
        let running = engine.start(&["run"]);
        let mut rig = Rig { server, engine, running, port };
        let expected = rig.source().await.len().to_string();
        rig.wait_for("SELECT count(*) FROM shop.orders", &expected).await;
        rig.wait_for("SELECT count(*) FROM shop.customers", &ROWS.to_string()).await;
        rig
    }

    async fn source(&self) -> Vec<String> {
        self.server.query(SOURCE).await
    }

    async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user(USER).password(PASSWORD).dbname("shop");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Asks until this is the answer.
    async fn wait_for(&mut self, sql: &str, expected: &str) {
        let deadline = Instant::now() + 2 * A_MINUTE;
        loop {
            let found = match self.connect().await {
                Ok(client) => text(&client, sql).await.unwrap_or_else(|error| error.to_string()),
                Err(error) => error.to_string(),
            };
            if found == expected {
                return;
            }
            assert!(self.running.is_running(), "it ended: {}", self.running.messages());
            assert!(Instant::now() < deadline, "{sql}: expected {expected}, found {found}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Runs one of the programs in `tests/clients` with the endpoint's place.
    fn client(&self, program: &Path, arguments: &[&str], more: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/clients"));
        command.args(arguments).arg(self.port.to_string()).args([USER, PASSWORD, "shop"]).args(more);
        command.env("NODE_PATH", rigs_directory().join("node/node_modules"));
        command.output().unwrap_or_else(|error| panic!("{}: {error}; run scripts/install-test-tools", program.display()))
    }

    /// Asks it to end.
    fn stop(self) {
        assert_eq!(self.running.terminate(2 * A_MINUTE).code, Some(0));
    }
}

fn python() -> PathBuf {
    rigs_directory().join("venv/bin/python")
}

/// The first value of an answer.
async fn text(client: &Client, sql: &str) -> Result<String, tokio_postgres::Error> {
    let messages = client.simple_query(sql).await?;
    let value = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
        _ => None,
    });
    Ok(value.unwrap_or_default())
}

async fn code(client: &Client, sql: &str) -> SqlState {
    client.simple_query(sql).await.expect_err(sql).code().expect("an error of the server has a code").clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_read_what_the_source_shows() {
    let rig = Rig::start().await;
    let expected = rig.source().await;
    let jdbc = ["-cp", "/usr/share/java/postgresql.jar", "Jdbc.java"];
    let clients: [(PathBuf, &[&str]); 5] = [
        (python(), &["python.py", "psycopg"]),
        (python(), &["python.py", "asyncpg"]),
        (python(), &["python.py", "sqlalchemy"]),
        ("node".into(), &["node.js"]),
        ("java".into(), &jdbc),
    ];
    for (program, arguments) in clients {
        let output = rig.client(&program, arguments, &[]);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let shown: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        assert_eq!(shown, expected, "{arguments:?}");
    }
    rig.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_looks_around() {
    let rig = Rig::start().await;
    let port = rig.port.to_string();
    let output = Command::new("psql")
        .args([
            "-X",
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            USER,
            "-d",
            "shop",
            "-f",
            concat!(env!("CARGO_MANIFEST_DIR"), "/clients/psql.sql"),
        ])
        .env("PGPASSWORD", PASSWORD)
        .output()
        .unwrap();
    let (shown, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // What it says of what is not there is no error.
    let errors: Vec<&str> = errors.lines().filter(|line| line.contains("ERROR") || line.contains("FATAL")).collect();
    assert_eq!(errors, [] as [&str; 0], "{shown}");
    for line in ["shop_changes", "| orders", "| customers", "numeric", "bigint", "CLOSE CURSOR"] {
        assert!(shown.contains(line), "{line} is not in:\n{shown}");
    }
    assert!(!shown.contains("hidden"), "{shown}");
    rig.stop();
}

/// The session in the docs, played again. `LOGWEIR_RECORD=1` writes what it shows into the page instead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_shows_what_the_docs_say() {
    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/psql.md");
    const PROMPT: &str = "shop=> ";
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (before, rest) = page.split_once("```text\n").unwrap();
    let (recorded, after) = rest.split_once("```").unwrap();
    let commands: Vec<&str> = recorded.lines().filter_map(|line| line.strip_prefix(PROMPT)).collect();

    let rig = Rig::start().await;
    let script = rig.engine.directory().join("session.sql");
    std::fs::write(&script, commands.join("\n") + "\n").unwrap();
    let port = rig.port.to_string();
    let output = Command::new("psql")
        .args(["-X", "-a", "-h", "127.0.0.1", "-p", &port, "-U", USER, "-d", "shop", "-f"])
        .arg(&script)
        .env("PGPASSWORD", PASSWORD)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let mut waiting = commands.into_iter().peekable();
    let mut shown = String::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let is_command = waiting.next_if(|command| *command == line).is_some();
        shown.push_str(&format!("{}{line}", if is_command { PROMPT } else { "" }));
        shown.truncate(shown.trim_end_matches(' ').len());
        shown.push('\n');
    }
    if std::env::var_os("LOGWEIR_RECORD").is_some() {
        std::fs::write(PAGE, format!("{before}```text\n{shown}```{after}")).unwrap();
    } else {
        assert_eq!(without_times(&shown), without_times(recorded));
    }
    rig.stop();
}

/// With `0` for the digits of times and positions, which are another thing in every run.
fn without_times(text: &str) -> String {
    let is_of_a_time = |word: &str| word.matches(['-', ':', '/']).count() > 1 && word.starts_with(|c: char| c.is_ascii_hexdigit());
    let zeroed = |word: &str| word.replace(|c: char| c.is_ascii_hexdigit(), "0");
    text.split_inclusive([' ', '\n']).map(|word| if is_of_a_time(word.trim_end()) { zeroed(word) } else { word.to_owned() }).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_sees_its_users_schemas_and_earlier_times() {
    let mut rig = Rig::start().await;
    let client = rig.connect().await.unwrap();
    assert_eq!(code(&client, "SELECT * FROM hidden.things").await, SqlState::INSUFFICIENT_PRIVILEGE);
    assert_eq!(code(&client, "SELECT * FROM hidden_changes.things").await, SqlState::INSUFFICIENT_PRIVILEGE);
    assert_eq!(text(&client, "SELECT count(*) FROM information_schema.tables WHERE table_schema LIKE 'hidden%'").await.unwrap(), "0");
    assert_eq!(text(&client, "SELECT count(*) FROM logweir.tables WHERE schema LIKE 'hidden%'").await.unwrap(), "0");
    assert_eq!(text(&client, "SELECT count(*) FROM logweir.schema_versions WHERE schema LIKE 'hidden%'").await.unwrap(), "0");
    assert_eq!(text(&client, "SELECT count(*) FROM logweir.snapshot()").await.unwrap(), "1");

    // MariaDB's log has seconds.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let before: Vec<String> = rig.server.query("SELECT DATE_FORMAT(UTC_TIMESTAMP(), '%Y-%m-%dT%H:%i:%sZ')").await;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    rig.server.execute("DELETE FROM shop.orders WHERE id > 20").await;
    rig.wait_for("SELECT max(id) FROM shop.orders", "20").await;
    client.simple_query(&format!("SET logweir.as_of = '{}'", before[0])).await.unwrap();
    assert_eq!(text(&client, "SELECT max(id) FROM shop.orders").await.unwrap(), "1000");
    assert_eq!(text(&rig.connect().await.unwrap(), "SELECT max(id) FROM shop.orders").await.unwrap(), "20", "of this session alone");
    client.simple_query("RESET logweir.as_of").await.unwrap();
    assert_eq!(text(&client, "SELECT max(id) FROM shop.orders").await.unwrap(), "20");
    rig.stop();
}

/// The first column of each row.
async fn column(client: &Client, sql: &str) -> Vec<String> {
    let messages = client.simple_query(sql).await.unwrap();
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
        _ => None,
    });
    rows.collect()
}

/// Changes come to a cursor, and to `COPY` in psql, as the source commits them: all of them, once, in their order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_followed() {
    let mut rig = Rig::start().await;
    let change = "concat(id, ' ', _metadata_change_type, ' ', status)";
    let client = rig.connect().await.unwrap();
    client.simple_query("SET logweir.follow = on").await.unwrap();
    assert_eq!(text(&client, "SHOW logweir.follow").await.unwrap(), "on");
    // What needs all rows has no end to wait for.
    client.simple_query("SELECT count(*) FROM shop_changes.orders").await.unwrap_err();
    // States end.
    assert_eq!(text(&client, "SELECT count(*) FROM shop.orders WHERE id = 7").await.unwrap(), "1");
    client.simple_query("BEGIN").await.unwrap();
    client.simple_query(&format!("DECLARE c CURSOR FOR SELECT {change} FROM shop_changes.orders WHERE id > 1000")).await.unwrap();
    client.simple_query("DECLARE d CURSOR FOR SELECT id FROM shop_changes.orders").await.unwrap();
    client.simple_query("SET statement_timeout = '1s'").await.unwrap();
    assert_eq!(column(&client, "FETCH ALL FROM c").await, [] as [&str; 0], "there is nothing yet, and that is no error");
    let there = column(&client, "FETCH ALL FROM d").await;
    let landed = rig.connect().await.unwrap();
    assert_eq!(there, column(&landed, "SELECT id FROM shop_changes.orders ORDER BY _metadata_timestamp, _metadata_sequence").await);
    client.simple_query("SET statement_timeout = '30s'").await.unwrap();

    let port = rig.port.to_string();
    let copy = format!("COPY (SELECT {change} FROM shop_changes.orders WHERE id > 1000) TO STDOUT");
    // To a terminal psql writes each line at once, to a pipe only so.
    let mut psql = tokio::process::Command::new("stdbuf")
        .args([
            "-oL",
            "psql",
            "-X",
            "-q",
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            USER,
            "-d",
            "shop",
            "-c",
            "SET logweir.follow = on",
            "-c",
            &copy,
        ])
        .env("PGPASSWORD", PASSWORD)
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(psql.stdout.take().unwrap()).lines();
    let (mut expected, mut fetched) = (Vec::new(), Vec::new());
    for id in 2000..2010 {
        for (statement, seen) in [
            (format!("INSERT INTO shop.orders (id, customer_id, status) VALUES ({id}, 1, 'a')"), "INSERT a"),
            (format!("UPDATE shop.orders SET status = 'b' WHERE id = {id}"), "UPDATE-INSERT b"),
        ] {
            rig.server.execute(&statement).await;
            expected.push(format!("{id} {seen}"));
            // Before the next one is made.
            let line = tokio::time::timeout(A_MINUTE, lines.next_line()).await.expect("a change comes").unwrap().unwrap();
            assert_eq!(Some(&line), expected.last());
            fetched.extend(column(&client, "FETCH 100 FROM c").await);
        }
    }
    assert_eq!(fetched, expected);
    // In as many parts as they come.
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        seen.extend(column(&client, "FETCH ALL FROM d").await);
    }
    assert_eq!(seen, expected.iter().map(|change| change.split(' ').next().unwrap()).collect::<Vec<_>>());
    // A change of the table's form ends it: nothing is left out unsaid.
    rig.server.execute("ALTER TABLE shop.orders ADD COLUMN note VARCHAR(10)").await;
    rig.server.execute("INSERT INTO shop.orders (id, customer_id, note) VALUES (3000, 1, 'n')").await;
    let error = client.simple_query("FETCH 1 FROM c").await.unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("other columns from here on"), "{error:?}");
    assert!(!tokio::time::timeout(A_MINUTE, psql.wait()).await.expect("psql ends").unwrap().success());
    client.simple_query("ROLLBACK").await.unwrap();
    // One that waits is cancelled, and takes no place of those that work.
    let waiting = rig.connect().await.unwrap();
    let cancel = waiting.cancel_token();
    let asked = tokio::spawn(async move {
        waiting.simple_query("SET logweir.follow = on").await.unwrap();
        waiting.simple_query("SELECT note FROM shop_changes.orders").await
    });
    rig.wait_for("SELECT max(id) FROM shop.orders", "3000").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!asked.is_finished());
    cancel.cancel_query(NoTls).await.unwrap();
    assert_eq!(asked.await.unwrap().unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    rig.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ends_ends_its_sessions() {
    let rig = Rig::start().await;
    let idle = rig.connect().await.unwrap();
    let busy = rig.connect().await.unwrap();
    let asked = tokio::spawn(async move { text(&busy, "SELECT count(*) FROM generate_series(1, 4000000000) a").await });
    assert_eq!(text(&idle, "SELECT 1").await.unwrap(), "1");
    rig.stop();
    assert!(asked.await.unwrap().is_err());
    assert!(text(&idle, "SELECT 1").await.is_err());
}

/// Of the process, in MiB.
fn resident(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) >> 10
}

/// `memory` is 256 MiB, four queries may hold 64 MiB each, and a process of a debug build begins with some 100 MiB.
const RESIDENT_MIB_MAX: u64 = 1400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_clients_change_nothing() {
    let mut rig = Rig::start().await;
    let seed = crate::kill::seed(909).to_string();
    let (port, id) = (rig.port.to_string(), rig.running.id());
    let mut command = tokio::process::Command::new(python());
    command.args([concat!(env!("CARGO_MANIFEST_DIR"), "/clients/hostile.py"), &port, USER, PASSWORD, "shop", &seed]);
    let output = command.kill_on_drop(true).output();
    tokio::pin!(output);
    let (mut next, mut most) = (2000, 0);
    let output = loop {
        tokio::select! {
            output = &mut output => break output.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(500)) => {
                rig.server.execute(&format!("INSERT INTO shop.orders (id, customer_id) VALUES ({next}, 1)")).await;
                next += 1;
                most = most.max(resident(id));
                assert!(rig.running.is_running(), "it ended: {}", rig.running.messages());
                assert!(most < RESIDENT_MIB_MAX, "it holds {most} MiB");
            }
        }
    };
    assert!(output.status.success(), "seed {seed}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(
        !rig.running.messages().contains(PASSWORD) && !rig.running.messages().contains("a fault of logweir"),
        "{}",
        rig.running.messages()
    );
    // The pipeline went on: what was written meanwhile is there, without the endpoint's help.
    let last = (next - 1).to_string();
    rig.wait_for("SELECT max(id) FROM shop.orders", &last).await;
    let landed = rig.engine.run(&["sql", "SELECT max(id) AS id FROM shop.orders", "--format", "csv"], A_MINUTE);
    assert_eq!(landed.stdout, format!("id\n{last}\n"), "{}", landed.stderr);
    rig.stop();
}
