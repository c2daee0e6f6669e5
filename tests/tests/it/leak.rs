//! What is masked leaves nothing behind: every byte that a run wrote anywhere is searched for the values that were planted.
//!
//! The values go through everything that could let them out: rows before and after updates, key changes, deletes, transactions that are
//! sent before they are whole and spilt, changes that are set aside, errors that stop the stream, debug logs, status, queries and what clients of
//! PostgreSQL's protocol are told.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use arrow_cast::display::array_value_to_string;
use logweir_tests::engine::{Engine, Finished, http_get};
use logweir_tests::servers::{DatabaseServer, PostgresServer, free_port};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;

use crate::pgwire::{PASSWORD, with_endpoint};

const SCHEMA: &str = "shop";
const A_MINUTE: Duration = Duration::from_secs(60);
/// What is planted holds one of these: in text, also as part of a date, and as a number in text.
const PLANTED: [&str; 3] = ["planted-", "7391746", "1917-03-09"];
/// The same numbers as they lie in memory, in little endian: 7,391,746,000 to 7,391,746,039 are the same but for their first byte.
const PLANTED_BYTES: [u8; 7] = [0x17, 0x95, 0xb8, 0x01, 0, 0, 0];

/// The file and what it says must not hold what was planted.
fn clean(what: &str, bytes: &[u8]) {
    for planted in PLANTED {
        let found = bytes.windows(planted.len()).position(|window| window.eq_ignore_ascii_case(planted.as_bytes()));
        assert!(found.is_none(), "{what} holds {planted:?} at byte {found:?}");
    }
    let found = bytes.windows(PLANTED_BYTES.len()).position(|window| window == PLANTED_BYTES);
    assert!(found.is_none(), "{what} holds a planted number at byte {found:?}");
}

fn said_clean(what: &str, finished: &Finished) {
    clean(what, finished.stdout.as_bytes());
    clean(what, finished.stderr.as_bytes());
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(folder).expect("a directory can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { pending.push(path) } else { files.push(path) }
        }
    }
    files
}

/// Every file below the installation: as it is, and what it holds where it is compressed. The rows that there are.
fn files_clean(directory: &Path) -> usize {
    let mut rows = 0;
    for path in files(directory) {
        let shown = path.display().to_string();
        let mut bytes = std::fs::read(&path).expect("a file can be read");
        if path.ends_with("checkpoint.json") {
            // How the source defines its tables stands there, and what may be in an ENUM is part of that.
            bytes = String::from_utf8(bytes).expect("it is text").replace("enum('planted-a','planted-b')", "enum").into_bytes();
        }
        clean(&shown, &bytes);
        if path.extension().is_none_or(|extension| extension != "parquet") {
            continue;
        }
        let file = std::fs::File::open(&path).expect("a file can be opened");
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("it is Parquet").build().expect("it can be read");
        for batch in reader {
            let batch = batch.expect("a batch");
            rows += batch.num_rows();
            for column in batch.columns() {
                for row in 0..batch.num_rows() {
                    clean(&shown, array_value_to_string(column, row).expect("a value has a text").as_bytes());
                }
            }
        }
    }
    rows
}

/// Masks on every way that a value could take.
fn masked(engine: Engine) -> Engine {
    std::fs::write(engine.directory().join("others.js"), SCRIPT).expect("a file can be written");
    engine
        .set("/keys", json!({ "pii": { "env": "WEIR_TEST_MASK_KEY" } }))
        .set(
            "/streams/shop/mask",
            json!([
                { "columns": ["*.people.login"], "with": "hash", "key": "pii" },
                { "columns": ["*.people.email"], "with": "email" },
                { "columns": ["*.people.card"], "with": "partial" },
                { "columns": ["*.people.notes", "*.broken.secret", "*.codes.label"], "with": "null" },
                { "columns": ["*.others.token"], "with": "tokenize", "key": "pii" },
                { "columns": ["*.others.born"], "with": "date", "to": "year" },
                { "columns": ["*.others.score"], "with": "number", "round": 10_000_000_000_u64 },
                { "columns": ["*.others.kind"], "with": "hash", "key": "pii" },
            ]),
        )
        .set(
            "/streams/shop/transforms",
            json!([
                { "table": "shop.people",
                  "sql": "SELECT login, email, card, notes, mask_hash(phone) AS phone, mask_null(salary) AS salary, length(nick) AS nick_length FROM people WHERE active = 1" },
                { "table": "shop.broken", "sql": "SELECT id, secret, CASE WHEN id < 10 THEN CAST(mask_partial(amount) AS BIGINT) END AS amount, 100 / zero AS share FROM broken" },
                { "table": "shop.others",
                  "sql": "SELECT o.id, o.token, o.born, o.score, o.kind, o.script, mask_partial(c.label) AS label FROM others o LEFT JOIN codes c ON c.code = o.code" },
            ]),
        )
        .set("/streams/shop/references", json!({ "codes": { "profile": "source", "query": "SELECT code, label FROM shop.codes" } }))
        .set("/streams/shop/udf", json!([{ "table": "shop.others", "file": "others.js" }]))
        // What is compressed cannot be searched.
        .set("/streams/shop/change_log", json!({ "compression": "none" }))
        .set("/streams/shop/on_bad_value", json!("quarantine"))
        .environment("WEIR_TEST_MASK_KEY", "0123456789abcdef0123456789abcdef")
        .environment("LOGWEIR_LOG", "debug")
}

/// It hides a value as a mask does, and fails over some, with the value in what it says.
const SCRIPT: &str = "function process(text) { const row = JSON.parse(text); if (row.id % 7 == 3) throw new Error('cannot take ' + row.script); row.script = 'hidden'; return JSON.stringify(row); }";

fn statements() -> Vec<String> {
    let mut statements = Vec::new();
    for i in 0..40 {
        statements.push(format!(
            "INSERT INTO shop.others VALUES ({i}, 'planted-token-{i}', '1917-03-09', 7391746{i:03}, 'planted-{}', 'planted-script-{i}', {})",
            ["a", "b"][i % 2],
            i % 3
        ));
        statements.push(format!(
            "INSERT INTO shop.people VALUES ('planted-login-{i}', 'planted-{i}@example.com', '7391746{i:05}99', 'planted note {i}', 'planted-phone-{i}', 7391746{i:03}, 'planted-nick-{i}', {})",
            i % 2
        ));
        statements.push(format!("INSERT INTO shop.broken VALUES ({i}, 'planted-secret-{i}', 'planted-amount-{i}', {})", i % 3));
    }
    statements.push("UPDATE shop.people SET notes = 'planted again', active = 1 - active".to_owned());
    statements.push("UPDATE shop.people SET login = CONCAT(login, '-planted-new') WHERE active = 1".to_owned());
    statements.push("DELETE FROM shop.people WHERE active = 0".to_owned());
    statements.push("UPDATE shop.others SET script = CONCAT(script, '-planted-new'), kind = 'planted-a' WHERE id < 20".to_owned());
    statements.push("DELETE FROM shop.others WHERE id > 35".to_owned());
    statements.push("UPDATE shop.broken SET secret = 'planted-other', zero = 0".to_owned());
    statements
}

const TABLES: [&str; 4] = [
    "CREATE TABLE shop.people (login varchar(80) PRIMARY KEY, email varchar(80), card varchar(40), notes varchar(200), phone varchar(40), salary bigint, nick varchar(40), active int)",
    "CREATE TABLE shop.broken (id int PRIMARY KEY, secret varchar(80), amount varchar(40), zero int)",
    "CREATE TABLE shop.codes (code int PRIMARY KEY, label varchar(80))",
    "INSERT INTO shop.codes VALUES (0, 'planted-label-0'), (1, 'planted-label-1')",
];
/// By the type of `kind`.
const OTHERS: &str =
    "CREATE TABLE shop.others (id int PRIMARY KEY, token varchar(80), born date, score bigint, kind KIND, script varchar(80), code int)";

/// Lands it all, asks for it, and breaks the stream on it.
fn searched(engine: Engine) {
    let checked = engine.run(&["check"], A_MINUTE);
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
    said_clean("check", &checked);
    said_clean("run", &engine.catch_up());
    let rows = files_clean(engine.directory());
    assert!(rows > 100, "{rows} rows have landed");
    for query in [
        "SELECT * FROM shop.people",
        "SELECT * FROM shop_changes.people",
        "SELECT * FROM shop_changes.broken",
        "SELECT * FROM shop_changes.others",
        "SELECT * FROM logweir.quarantine",
    ] {
        let answer = engine.run(&["sql", query, "--format", "json"], A_MINUTE);
        assert_eq!(answer.code, Some(0), "{}", answer.stderr);
        assert!(!answer.stdout.is_empty(), "{query} has an answer");
        said_clean(query, &answer);
    }
    for (table, after) in
        [("shop.people", "shop.people, after"), ("shop.broken", "shop.broken, after"), ("shop.others", "shop.others, after")]
    {
        let preview = engine.run(&["preview", "--table", table], A_MINUTE);
        assert_eq!(preview.code, Some(0), "{}", preview.stderr);
        assert!(preview.stdout.contains(after), "{}", preview.stdout);
        // The rows before are those of the source: what no mask takes is shown, landed or not.
        let shown =
            ["planted-nick", "planted-script", "-planted-new"].iter().fold(preview.stdout.clone(), |shown, clear| shown.replace(clear, ""));
        said_clean("preview", &Finished { stdout: shown, ..preview });
    }
    said_clean("status", &engine.run(&["status"], A_MINUTE));
}

/// A stream that stops at what it cannot carry says why, and not what.
fn stopped(engine: Engine) {
    let engine = engine.set("/streams/shop/on_bad_value", json!("fail"));
    let finished = engine.run(&["run", "--until-caught-up"], A_MINUTE);
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    assert!(finished.stderr.contains("a change cannot be carried by a transform"), "{}", finished.stderr);
    said_clean("run", &finished);
    files_clean(engine.directory());
}

/// What a process tells while it runs, and what it leaves when it is killed. `holds` waits for a file that has no name any more: where
/// transactions wait that are not whole.
fn killed(engine: Engine, holds: bool) {
    let (port, sql_port) = (free_port(), free_port());
    let engine = with_endpoint(engine.set("/http", json!({ "listen": format!("127.0.0.1:{port}") })), sql_port, &[]);
    let mut running = engine.start(&["run"]);
    let deadline = Instant::now() + A_MINUTE;
    let is_parquet = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "parquet");
    loop {
        let held = unnamed(running.id());
        let landed = files(engine.directory()).iter().any(is_parquet);
        if landed && held.iter().any(|bytes| !bytes.is_empty()) == holds {
            held.iter().for_each(|bytes| clean("a file without a name", bytes));
            break;
        }
        assert!(running.is_running() && Instant::now() < deadline, "{}", running.messages());
        std::thread::sleep(Duration::from_millis(100));
    }
    for path in ["/metrics", "/status", "/readyz", "/healthz"] {
        let answer = http_get(port, path);
        assert!(answer.contains("200 OK"), "{path}: {answer}");
        clean(path, answer.as_bytes());
    }
    asked(sql_port);
    said_clean("run", &running.kill());
    files_clean(engine.directory());
}

/// Every byte that psql is told: rows as text and in binary, what is followed, what the catalogs say, and errors.
fn asked(port: u16) {
    let psql = |statements: &[&str]| {
        let mut command = Command::new("psql");
        command.args(["-X", "-h", "127.0.0.1", "-p", &port.to_string(), "-U", "ann", "-d", "shop"]);
        for sql in statements {
            command.args(["-c", sql]);
        }
        let output = command.envs([("PGPASSWORD", PASSWORD), ("PAGER", "")]).output().expect("psql is installed");
        clean(&format!("{statements:?}"), &output.stdout);
        clean(&format!("{statements:?}"), &output.stderr);
        output
    };
    let mut answered = 0;
    for relation in [
        "shop.people",
        "shop.broken",
        "shop.others",
        "shop_changes.people",
        "shop_changes.broken",
        "shop_changes.others",
        "logweir.quarantine",
        "logweir.schema_versions",
        "logweir.consumers",
        "logweir.open_transactions",
        "information_schema.columns",
        "pg_catalog.pg_attribute",
    ] {
        let select = format!("SELECT * FROM {relation}");
        for sql in
            [&select, &format!("COPY ({select}) TO STDOUT WITH (FORMAT binary)"), &format!("COPY ({select}) TO STDOUT WITH (FORMAT csv)")]
        {
            answered += usize::from(psql(&[sql]).status.success());
        }
    }
    assert!(answered >= 22, "{answered} of 36 have an answer");
    let changes = "DECLARE c CURSOR FOR SELECT * FROM shop_changes.broken";
    let followed = psql(&["SET logweir.follow = on", "BEGIN", changes, "FETCH 100 FROM c"]);
    assert!(String::from_utf8_lossy(&followed.stdout).contains("_metadata_timestamp"), "{followed:?}");
    for sql in [
        "SELECT CAST(secret AS INT) FROM shop.broken",
        "SELECT CAST(_metadata_sequence AS INT), secret FROM shop_changes.broken",
        "SELECT secret, 1 / (id - id) FROM shop.broken",
        "SELECT unmask(secret) FROM shop.broken",
        "SELECT salary, nick FROM shop.people",
    ] {
        psql(&[sql]);
    }
}

/// What the open files of a process hold that have no name.
fn unnamed(process: u32) -> Vec<Vec<u8>> {
    let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).expect("the process is there");
    let paths = descriptors.filter_map(|descriptor| Some(descriptor.ok()?.path()));
    let gone = paths.filter(|path| std::fs::read_link(path).is_ok_and(|target| target.to_string_lossy().ends_with(" (deleted)")));
    gone.filter_map(|path| std::fs::read(path).ok()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_masked_is_left_anywhere_from_mariadb() {
    let server = DatabaseServer::mariadb(&[]).await;
    server.execute("CREATE DATABASE shop").await;
    server.execute(&OTHERS.replace("KIND", "ENUM('planted-a', 'planted-b')")).await;
    for sql in TABLES.iter().map(|sql| (*sql).to_owned()).chain(statements()) {
        server.execute(&sql).await;
    }
    searched(masked(Engine::new(&server, SCHEMA)));
    killed(masked(Engine::new(&server, SCHEMA)), false);
    stopped(masked(Engine::new(&server, SCHEMA)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_masked_is_left_anywhere_from_postgres() {
    let server = PostgresServer::start(17, &["logical_decoding_work_mem = 64kB"]).await;
    server.execute("CREATE SCHEMA shop").await;
    server.execute("CREATE TYPE shop.kind AS ENUM ('planted-a', 'planted-b')").await;
    server.execute(&OTHERS.replace("KIND", "shop.kind")).await;
    for sql in TABLES {
        server.execute(sql).await;
    }
    server.execute("ALTER TABLE shop.people REPLICA IDENTITY FULL").await;
    server.execute("CREATE PUBLICATION weir FOR ALL TABLES").await;
    server.execute("SELECT pg_create_logical_replication_slot('weir', 'pgoutput')").await;
    for sql in statements() {
        server.execute(&sql).await;
    }
    // Large enough to be sent, and spilt, before it is whole.
    server.execute("INSERT INTO shop.people SELECT 'planted-many-' || i, 'planted@example.com', '739174600000', repeat('planted ', 20), 'planted-phone', 7391746, 'planted-nick', 1 FROM generate_series(1, 20000) AS i").await;
    let streaming = |engine: Engine| engine.set("/profiles/source/postgres/streaming", json!("on"));
    searched(streaming(masked(Engine::postgres(&server, SCHEMA))));

    // And beside a transaction that is not whole.
    let client = server.connect().await;
    client
        .batch_execute(
            "BEGIN; INSERT INTO shop.people SELECT 'planted-held-' || i, 'planted@example.com', '739174600000', repeat('planted-', 20), 'planted-phone', 7391746, 'planted-nick', 1 FROM generate_series(1, 20000) AS i",
        )
        .await
        .unwrap();
    server.execute("INSERT INTO shop.broken VALUES (1000, 'planted-secret', 'planted-amount', 1)").await;
    killed(streaming(masked(Engine::postgres(&server, SCHEMA))), true);
}

/// A change that was logged without names is not taken for one of the column that has the place now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_the_log_does_not_have_hides_nothing_by_chance() {
    let server = DatabaseServer::mariadb(&["binlog_row_metadata=MINIMAL"]).await;
    server.execute("CREATE DATABASE shop").await;
    server.execute("CREATE TABLE shop.people (id INT PRIMARY KEY, email VARCHAR(80))").await;
    server.execute("INSERT INTO shop.people VALUES (1, 'planted-1@example.com')").await;
    server.execute("ALTER TABLE shop.people CHANGE email contact VARCHAR(80)").await;
    let rules = json!([{ "columns": ["*.email"], "with": "email" }]);
    let engine = Engine::new(&server, SCHEMA).set("/streams/shop/mask", rules.clone());
    let checked = engine.run(&["check"], A_MINUTE);
    assert_eq!(checked.code, Some(1), "{}", checked.stdout);
    assert!(checked.stdout.contains("binlog_row_metadata") && checked.stdout.contains("masks that go by names"), "{}", checked.stdout);
    let refused = engine.run(&["run", "--until-caught-up"], A_MINUTE);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("masks go by names") && refused.stderr.contains("binlog_row_metadata = FULL"), "{}", refused.stderr);
    said_clean("run", &refused);
    assert_eq!(files_clean(engine.directory()), 0);

    // Whoever says that the server's names hold has them: here it is not so.
    let trusting = engine.set("/streams/shop/mask", json!({ "names": "server", "rules": rules }));
    let checked = trusting.run(&["check"], A_MINUTE);
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    trusting.catch_up();
    let landed = trusting.run(&["sql", "SELECT contact FROM shop.people", "--format", "csv"], A_MINUTE);
    assert_eq!(landed.stdout, "contact\nplanted-1@example.com\n");
}
