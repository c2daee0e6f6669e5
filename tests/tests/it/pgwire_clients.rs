//! PostgreSQL's clients at the SQL endpoint of a running process: what they read is what the source shows, and what they do beside it
//! stops nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use logweir_tests::engine::{Engine, Running};
use logweir_tests::servers::{DatabaseServer, free_port, rigs_directory};
use serde_json::json;
use tokio::io::AsyncBufReadExt as _;
use tokio_postgres::{Client, Config, NoTls};

use crate::pgwire::{A_MINUTE, refused, resident, started, texts, wait_for};

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
        let running = started(&engine);
        let rig = Rig { server, engine, running, port };
        let expected = rig.source().await.len().to_string();
        rig.wait_for("SELECT count(*) FROM shop.orders", &expected).await;
        rig.wait_for("SELECT count(*) FROM shop.customers", &ROWS.to_string()).await;
        rig
    }

    async fn source(&self) -> Vec<String> {
        self.server.query(SOURCE).await
    }

    async fn connect(&self) -> Client {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user(USER).password(PASSWORD).dbname("shop");
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Asks until this is the answer.
    async fn wait_for(&self, sql: &str, expected: &str) {
        wait_for(&self.connect().await, sql, expected).await;
    }

    /// psql, connected.
    fn psql(&self) -> Command {
        let mut command = Command::new("psql");
        command.args(["-X", "-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", USER, "-d", "shop"]).env("PGPASSWORD", PASSWORD);
        command
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
    let output = rig.psql().args(["-f", concat!(env!("CARGO_MANIFEST_DIR"), "/clients/psql.sql")]).output().unwrap();
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
    let output = rig.psql().args(["-a", "-f"]).arg(&script).output().unwrap();
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
    let rig = Rig::start().await;
    let client = rig.connect().await;
    assert_eq!(refused(&client, "SELECT * FROM hidden.things").await, "42501");
    assert_eq!(refused(&client, "SELECT * FROM hidden_changes.things").await, "42501");
    assert_eq!(texts(&client, "SELECT count(*) FROM information_schema.tables WHERE table_schema LIKE 'hidden%'").await, ["0"]);
    assert_eq!(texts(&client, "SELECT count(*) FROM logweir.tables WHERE schema LIKE 'hidden%'").await, ["0"]);
    assert_eq!(texts(&client, "SELECT count(*) FROM logweir.schema_versions WHERE schema LIKE 'hidden%'").await, ["0"]);
    assert_eq!(texts(&client, "SELECT count(*) FROM logweir.snapshot()").await, ["1"]);

    // MariaDB's log has seconds.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let before: Vec<String> = rig.server.query("SELECT DATE_FORMAT(UTC_TIMESTAMP(), '%Y-%m-%dT%H:%i:%sZ')").await;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    rig.server.execute("DELETE FROM shop.orders WHERE id > 20").await;
    rig.wait_for("SELECT max(id) FROM shop.orders", "20").await;
    client.simple_query(&format!("SET logweir.as_of = '{}'", before[0])).await.unwrap();
    assert_eq!(texts(&client, "SELECT max(id) FROM shop.orders").await, ["1000"]);
    assert_eq!(texts(&rig.connect().await, "SELECT max(id) FROM shop.orders").await, ["20"], "of this session alone");
    client.simple_query("RESET logweir.as_of").await.unwrap();
    assert_eq!(texts(&client, "SELECT max(id) FROM shop.orders").await, ["20"]);
    rig.stop();
}

/// The same command by another program.
fn with_program(program: &str, arguments: &[&str], command: &Command) -> Command {
    let mut other = Command::new(program);
    other.args(arguments).args(command.get_args()).envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    other
}

/// Changes come to a cursor, and to `COPY` in psql, as the source commits them: all of them, once, in their order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_followed() {
    let rig = Rig::start().await;
    let change = "concat(id, ' ', _metadata_change_type, ' ', status)";
    let client = rig.connect().await;
    client.simple_query("SET logweir.follow = on").await.unwrap();
    assert_eq!(texts(&client, "SHOW logweir.follow").await, ["on"]);
    // What needs all rows has no end to wait for.
    client.simple_query("SELECT count(*) FROM shop_changes.orders").await.unwrap_err();
    // Nor is there one for what gathers rows, or computes beside.
    for sql in [
        "SELECT o.id FROM shop_changes.orders o JOIN shop.customers c ON c.id = o.customer_id",
        "SELECT id FROM shop_changes.orders UNION ALL SELECT value FROM generate_series(1, 9000000000000000000)",
    ] {
        assert_eq!(refused(&client, sql).await, "42000", "{sql}");
    }
    // States end.
    assert_eq!(texts(&client, "SELECT count(*) FROM shop.orders WHERE id = 7").await, ["1"]);
    client.simple_query("BEGIN").await.unwrap();
    client.simple_query(&format!("DECLARE c CURSOR FOR SELECT {change} FROM shop_changes.orders WHERE id > 1000")).await.unwrap();
    client.simple_query("DECLARE d CURSOR FOR SELECT id FROM shop_changes.orders").await.unwrap();
    client.simple_query("SET statement_timeout = '1s'").await.unwrap();
    assert_eq!(texts(&client, "FETCH ALL FROM c").await, [] as [&str; 0], "there is nothing yet, and that is no error");
    let there = texts(&client, "FETCH ALL FROM d").await;
    let landed = rig.connect().await;
    assert_eq!(there, texts(&landed, "SELECT id FROM shop_changes.orders ORDER BY _metadata_timestamp, _metadata_sequence").await);
    client.simple_query("SET statement_timeout = '30s'").await.unwrap();

    let copy = format!("COPY (SELECT {change} FROM shop_changes.orders WHERE id > 1000) TO STDOUT");
    let mut psql = rig.psql();
    // To a terminal psql writes each line at once, to a pipe only so.
    psql = with_program("stdbuf", &["-oL", "psql"], &psql);
    psql.args(["-q", "-c", "SET logweir.follow = on", "-c", &copy]).stdout(std::process::Stdio::piped());
    let mut psql = tokio::process::Command::from(psql).kill_on_drop(true).spawn().unwrap();
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
            fetched.extend(texts(&client, "FETCH 100 FROM c").await);
        }
    }
    assert_eq!(fetched, expected);
    // In as many parts as they come.
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        seen.extend(texts(&client, "FETCH ALL FROM d").await);
    }
    assert_eq!(seen, expected.iter().map(|change| change.split(' ').next().unwrap()).collect::<Vec<_>>());
    // A change of the table's form ends it: nothing is left out unsaid.
    rig.server.execute("ALTER TABLE shop.orders ADD COLUMN note VARCHAR(10)").await;
    rig.server.execute("INSERT INTO shop.orders (id, customer_id, note) VALUES (3000, 1, 'n')").await;
    let error = client.simple_query("FETCH 1 FROM c").await.unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("other columns from here on"), "{error:?}");
    assert!(!tokio::time::timeout(A_MINUTE, psql.wait()).await.expect("psql ends").unwrap().success());
    client.simple_query("ROLLBACK").await.unwrap();
    // Those that wait are cancelled, and take no place of those that work: there are four.
    let mut asked = Vec::new();
    for _ in 0..4 {
        let waiting = rig.connect().await;
        let cancel = waiting.cancel_token();
        let asked_for = tokio::spawn(async move {
            waiting.simple_query("SET logweir.follow = on").await.unwrap();
            waiting.simple_query("SELECT note FROM shop_changes.orders WHERE id < 0").await
        });
        asked.push((asked_for, cancel));
    }
    rig.wait_for("SELECT max(id) FROM shop.orders", "3000").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let other = rig.connect().await;
    other.simple_query("SET statement_timeout = '20s'").await.unwrap();
    assert_eq!(texts(&other, "SELECT max(id) FROM shop.orders").await, ["3000"]);
    for (asked, cancel) in asked {
        assert!(!asked.is_finished());
        cancel.cancel_query(NoTls).await.unwrap();
        assert_eq!(asked.await.unwrap().unwrap_err().code(), Some(&tokio_postgres::error::SqlState::QUERY_CANCELED));
    }
    rig.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_ends_ends_its_sessions() {
    let rig = Rig::start().await;
    let idle = rig.connect().await;
    let busy = rig.connect().await;
    let asked = tokio::spawn(async move { busy.simple_query("SELECT count(*) FROM generate_series(1, 4000000000) a").await });
    assert_eq!(texts(&idle, "SELECT 1").await, ["1"]);
    rig.stop();
    assert!(asked.await.unwrap().is_err());
    assert!(idle.simple_query("SELECT 1").await.is_err());
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
                most = most.max(resident(id) >> 10);
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
