//! The change log on disk, of whole processes: destinations that break beside others, segments that a crash tore, replays.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use logweir_tests::engine::Engine;
use logweir_tests::oracle::{Lake, assert_equal};
use logweir_tests::servers::{DatabaseServer, FaultyProxy, MotoServer, free_port};
use logweir_tests::workload::{SCHEMA, TABLES, Workload, WorkloadOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::kill::{seed, walk};

const A_MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn status(engine: &Engine) -> Value {
    let finished = engine.run(&["status", "--format", "json"], A_MINUTE);
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {} {}", finished.stdout, finished.stderr))
}

pub(crate) fn rows_landed(engine: &Engine, destination: &str) -> u64 {
    let status = status(engine);
    let destinations = status.pointer("/streams/0/destinations").and_then(Value::as_array).cloned().unwrap_or_default();
    let part = destinations.iter().find(|part| part["destination"] == destination);
    part.and_then(|part| part["rows_landed"].as_u64()).unwrap_or(0)
}

/// Changes tables, at a pace that a test build keeps up with, until told to stop.
pub(crate) struct Work {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Work {
    pub(crate) async fn begin(server: &DatabaseServer, seed: u64) -> Self {
        let mut connection = server.connect().await;
        let mut workload = Workload::new(seed, WorkloadOptions { truncates: true, columns: true });
        workload.create(&mut connection).await;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::SeqCst) {
                workload.run(&mut connection, 1).await;
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
        });
        Work { stop, task }
    }

    pub(crate) async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap();
    }
}

/// One destination is on disk; the other is a bucket that cannot be reached, is cut off in the middle of an upload, and all that while the
/// process is killed. The first does not wait, and both hold everything in the end.
async fn two_destinations(acknowledge: &str, number: u64) {
    let (server, moto) = (DatabaseServer::mariadb(&[]).await, MotoServer::start());
    let proxy = FaultyProxy::start(moto.port());
    let archive = Lake::Bucket { endpoint: proxy.endpoint(), bucket: moto.bucket().to_owned(), prefix: "archive".to_owned() };
    let engine = Engine::new(&server, SCHEMA).also("archive", &archive).set("/streams/shop/acknowledge", json!(acknowledge));
    let work = Work::begin(&server, seed(number)).await;
    let mut rng = StdRng::seed_from_u64(number);

    for round in 0..5 {
        let running = engine.start(&["run"]);
        tokio::time::sleep(Duration::from_millis(rng.random_range(500..1500))).await;
        proxy.set_unavailable(true);
        let refused = proxy.refused();
        let before = rows_landed(&engine, "lake");
        let deadline = Instant::now() + A_MINUTE;
        while rows_landed(&engine, "lake") < before + 100 || proxy.refused() == refused {
            assert!(Instant::now() < deadline, "round {round}: the lake waits for the archive: {}", running.messages());
        }
        if rng.random_bool(0.5) {
            // Killed while one of them is away: the next start finds it so, too.
            running.kill();
            let running = engine.start(&["run"]);
            let before = rows_landed(&engine, "lake");
            let deadline = Instant::now() + A_MINUTE;
            while rows_landed(&engine, "lake") < before + 50 {
                assert!(Instant::now() < deadline, "round {round}: the lake waits for the archive at the start: {}", running.messages());
            }
            proxy.set_unavailable(false);
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..1500))).await;
            running.kill();
        } else {
            proxy.set_unavailable(false);
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(rng.random_range(100..500))).await;
                proxy.cut();
            }
            running.kill();
        }
    }
    work.end().await;
    engine.catch_up();
    println!("{acknowledge}: {}", assert_equal(&server, engine.destination(), SCHEMA, &TABLES, true).await);
    println!("{acknowledge}: {}", assert_equal(&server, &Lake::bucket(&moto, "archive"), SCHEMA, &TABLES, true).await);
    assert_eq!(moto.uploads_with_parts(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_breaks_does_so_alone() {
    two_destinations("destination", 501).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_breaks_does_so_alone_where_the_log_acknowledges() {
    two_destinations("log", 502).await;
}

/// The segments of the change log, the oldest first.
fn segments(engine: &Engine) -> Vec<PathBuf> {
    let Ok(files) = std::fs::read_dir(engine.directory().join("state/shop/log")) else { return Vec::new() };
    let mut files: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "changes"));
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_that_a_crash_tore_are_mended() {
    let server = DatabaseServer::mariadb(&[]).await;
    let other = tempfile::tempdir().unwrap();
    let second = Lake::Directory(other.path().join("second"));
    // Segments are small, so that the end of one is met, too.
    let engine = Engine::new(&server, SCHEMA)
        .also("second", &second)
        .set("/streams/shop/change_log", json!({ "retain": { "size": "8MiB" }, "compression": "none" }));
    let work = Work::begin(&server, seed(503)).await;
    let mut rng = StdRng::seed_from_u64(503);
    for _ in 0..15 {
        let running = engine.start(&["run"]);
        tokio::time::sleep(Duration::from_millis(rng.random_range(200..1800))).await;
        running.kill();
        let Some(path) = segments(&engine).pop() else { continue };
        let mut bytes = std::fs::read(&path).unwrap();
        match rng.random_range(0..4) {
            0 => {}
            1 => bytes.truncate(bytes.len().saturating_sub(rng.random_range(1..20_000))),
            2 => bytes.extend((0..rng.random_range(1..500)).map(|_| rng.random::<u8>())),
            _ => {
                let at = rng.random_range(0..bytes.len().max(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 0x10;
                }
            }
        }
        std::fs::File::create(&path).unwrap().write_all(&bytes).unwrap();
    }
    work.end().await;
    engine.catch_up();
    for lake in [engine.destination(), &second] {
        println!("{}", assert_equal(&server, lake, SCHEMA, &TABLES, true).await);
    }
}

/// A destination is away, a segment that it needs is damaged meanwhile: it says so and lands nothing behind the damage, queries over what is on
/// its way to it say so, too, and what they tell to do loses nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_segment_is_told_and_the_remedy_loses_nothing() {
    let (server, moto) = (DatabaseServer::mariadb(&[]).await, MotoServer::start());
    let proxy = FaultyProxy::start(moto.port());
    let archive = Lake::Bucket { endpoint: proxy.endpoint(), bucket: moto.bucket().to_owned(), prefix: "archive".to_owned() };
    let port = free_port();
    let engine = Engine::new(&server, SCHEMA)
        .also("archive", &archive)
        .set("/http", json!({ "listen": format!("127.0.0.1:{port}") }))
        // Segments of 1 MiB.
        .set("/streams/shop/change_log", json!({ "retain": { "size": "16MiB" }, "compression": "none" }));
    let mut connection = server.connect().await;
    let mut workload = Workload::new(seed(505), WorkloadOptions { truncates: true, columns: true });
    workload.create(&mut connection).await;
    engine.catch_up();

    proxy.set_unavailable(true);
    let mut running = engine.start(&["run"]);
    let deadline = Instant::now() + 5 * A_MINUTE;
    while segments(&engine).len() < 4 {
        assert!(Instant::now() < deadline && running.is_running(), "{}", running.messages());
        workload.run(&mut connection, 20).await;
    }
    running.terminate(2 * A_MINUTE);
    let damaged = segments(&engine).swap_remove(1);
    let mut bytes = std::fs::read(&damaged).unwrap();
    // More of them than there may be between two frames, where nothing stands.
    let middle = bytes.len() / 2;
    bytes[middle..middle + 256].iter_mut().for_each(|byte| *byte ^= 0x10);
    std::fs::write(&damaged, bytes).unwrap();

    proxy.set_unavailable(false);
    let mut running = engine.start(&["run"]);
    running.wait_for_message("a destination has failed", 2 * A_MINUTE);
    let messages = running.messages();
    assert!(messages.contains("a segment of the change log is damaged") && messages.contains(damaged.to_str().unwrap()), "{messages}");
    assert!(messages.contains("stop the stream, remove the change log's directory and start again"), "{messages}");
    let status = status(&engine);
    let failed = status.pointer("/streams/0/destinations").and_then(Value::as_array).unwrap();
    let failed = failed.iter().find(|part| part["destination"] == "archive").unwrap();
    assert!(failed["failed"] == true && failed["error"].as_str().unwrap().contains("is damaged"), "{status}");
    // The other one goes on.
    let before = rows_landed(&engine, "lake");
    let deadline = Instant::now() + A_MINUTE;
    while rows_landed(&engine, "lake") < before + 50 {
        assert!(Instant::now() < deadline && running.is_running(), "{}", running.messages());
        workload.run(&mut connection, 5).await;
    }
    let count = |destination: &str, table: &str| {
        engine.run(&["sql", &format!("SELECT count(*) FROM \"shop/{destination}\".shop.{table}"), "--format", "csv"], A_MINUTE)
    };
    // Of the table whose changes are damaged nothing is shown, of others what the log holds.
    let answers = TABLES.map(|table| count("archive", table));
    assert!(answers.iter().any(|answer| answer.code == Some(1)), "{answers:?}");
    for (table, answer) in TABLES.iter().zip(&answers) {
        assert_eq!(count("lake", table).code, Some(0));
        assert!(answer.code == Some(0) || answer.stderr.contains("is damaged"), "{answer:?}");
    }
    let ended = running.terminate(2 * A_MINUTE);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    // Started again it says the same.
    let again = engine.run(&["run", "--until-caught-up"], 2 * A_MINUTE);
    assert!(again.code == Some(1) && again.stderr.contains("is damaged"), "{}", again.stderr);

    std::fs::remove_dir_all(engine.directory().join("state/shop/log")).unwrap();
    engine.catch_up();
    println!("{}", assert_equal(&server, engine.destination(), SCHEMA, &TABLES, true).await);
    println!("{}", assert_equal(&server, &Lake::bucket(&moto, "archive"), SCHEMA, &TABLES, true).await);
    for table in TABLES {
        assert_eq!(count("archive", table).stdout, count("lake", table).stdout);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_destination_gets_what_the_log_holds() {
    let server = DatabaseServer::mariadb(&[]).await;
    let mut connection = server.connect().await;
    let mut workload = Workload::new(seed(504), WorkloadOptions::default());
    workload.create(&mut connection).await;
    workload.run(&mut connection, 200).await;
    let engine = Engine::new(&server, SCHEMA);
    engine.catch_up();

    let other = tempfile::tempdir().unwrap();
    let second = Lake::Directory(other.path().join("second"));
    let engine = engine.also("second", &second);
    let refused = engine.run(&["replay", "--destination", "lake", "--from", "earliest"], A_MINUTE);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("twice") && refused.stderr.contains("--again"), "{}", refused.stderr);
    let unknown = engine.run(&["replay", "--destination", "secnd", "--from", "earliest"], A_MINUTE);
    assert!(unknown.code == Some(2) && unknown.stderr.contains("did you mean `second`?"), "{}", unknown.stderr);
    let nowhere = engine.run(&["replay", "--destination", "second", "--from", &["0000000000000000"; 3].join("/")], A_MINUTE);
    assert!(nowhere.code == Some(1) && nowhere.stderr.contains("does not reach back"), "{}", nowhere.stderr);
    let replayed = engine.run(&["replay", "--destination", "second", "--from", "earliest"], A_MINUTE);
    assert_eq!(replayed.code, Some(0), "{}", replayed.stderr);
    assert!(replayed.stdout.starts_with("second goes on from "), "{}", replayed.stdout);
    workload.run(&mut connection, 50).await;
    engine.catch_up();
    for lake in [engine.destination(), &second] {
        println!("{}", assert_equal(&server, lake, SCHEMA, &TABLES, true).await);
    }
    let log = status(&engine).pointer("/streams/0/change_log").cloned().unwrap();
    assert!(log["bytes"].as_u64() > Some(0) && log["first_position"].as_str() < log["last_position"].as_str(), "{log}");

    // The process has the state for sure once it landed something new; before that, the replay could have it first.
    let landed = rows_landed(&engine, "second");
    let mut running = engine.start(&["run"]);
    workload.run(&mut connection, 20).await;
    let deadline = Instant::now() + A_MINUTE;
    while rows_landed(&engine, "second") == landed {
        assert!(Instant::now() < deadline && running.is_running(), "{}", running.messages());
    }
    let refused = engine.run(&["replay", "--destination", "second", "--from", "earliest", "--again"], A_MINUTE);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("run by another process"), "{}", refused.stderr);
    running.kill();
    engine.catch_up();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_has_transforms_of_its_own() {
    let server = DatabaseServer::mariadb(&[]).await;
    server.execute("CREATE DATABASE t").await;
    server.execute("CREATE TABLE t.people (id INT PRIMARY KEY, name VARCHAR(20), country CHAR(2))").await;
    server.execute("INSERT INTO t.people VALUES (1, 'Ada', 'GB'), (2, 'Grace', 'US'), (3, 'Emmy', 'DE')").await;
    let other = tempfile::tempdir().unwrap();
    let second = Lake::Directory(other.path().join("second"));
    let rule = json!([{ "table": "t.people", "sql": "SELECT id, upper(name) AS name FROM people WHERE country <> 'US'" }]);
    let engine = Engine::new(&server, "t").also("second", &second).set("/streams/shop/destinations/1/transforms", rule);
    let checked = engine.run(&["check"], A_MINUTE);
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
    engine.catch_up();
    server.execute("UPDATE t.people SET country = 'US' WHERE id = 3").await;
    server.execute("INSERT INTO t.people VALUES (4, 'Mary', 'FR')").await;
    engine.catch_up();
    let answer = |sql: &str| engine.run(&["sql", sql, "--format", "csv"], A_MINUTE).stdout;
    assert_eq!(answer("SELECT * FROM \"shop/lake\".t.people ORDER BY id"), "id,name,country\n1,Ada,GB\n2,Grace,US\n3,Emmy,US\n4,Mary,FR\n");
    assert_eq!(answer("SELECT * FROM \"shop/second\".t.people ORDER BY id"), "id,name\n1,ADA\n4,MARY\n");

    let wrong = json!([{ "table": "t.people", "sql": "SELECT id, uper(name) AS name FROM people" }]);
    let engine = engine.set("/streams/shop/destinations/1/transforms", wrong);
    let checked = engine.run(&["check"], A_MINUTE);
    assert_eq!(checked.code, Some(1), "{}", checked.stdout);
    assert!(checked.stdout.contains("uper") && checked.stdout.contains("^"), "{}", checked.stdout);
}

fn checkpoint_of(engine: &Engine) -> PathBuf {
    engine.directory().join("state/shop/checkpoint.json")
}

/// True once the checkpoint says that changes are in the log: from then on the source may forget them.
fn is_logged(engine: &Engine) -> bool {
    let checkpoint = std::fs::read(checkpoint_of(engine)).unwrap_or_default();
    let checkpoint: Value = serde_json::from_slice(&checkpoint).unwrap_or_default();
    checkpoint.pointer("/log/mark/commit_time").is_some_and(Value::is_number)
}

/// Leaves out of the checkpoint by which rules the log was made.
fn forget_rules(engine: &Engine) {
    let path = checkpoint_of(engine);
    let mut checkpoint: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    checkpoint["log"].as_object_mut().unwrap().remove("rules").expect("there are rules");
    std::fs::write(path, serde_json::to_vec(&checkpoint).unwrap()).unwrap();
}

/// A destination is behind while a mask and a filter are added: what the change log holds was made without them, and does not land there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_holds_does_not_land_by_other_rules() {
    // A checkpoint of a version before does not say which rules they were.
    for (acknowledge, of_before) in [("destination", false), ("destination", true), ("log", false)] {
        let server = DatabaseServer::mariadb(&[]).await;
        server.execute("CREATE DATABASE t").await;
        server.execute("CREATE TABLE t.people (id INT PRIMARY KEY, email VARCHAR(40), state VARCHAR(10))").await;
        let other = tempfile::tempdir().unwrap();
        let slow = Lake::Directory(other.path().join("slow"));
        let engine = Engine::new(&server, "t").also("slow", &slow).set("/streams/shop/acknowledge", json!(acknowledge));
        let engine = engine.set("/streams/shop/destinations/1/rotate", json!({ "interval": "1h" }));
        let engine = engine.set("/streams/shop/destinations/0/rotate", json!({ "interval": "200ms" }));
        let running = engine.start(&["run"]);
        server.execute("INSERT INTO t.people VALUES (1, 'clear@example.com', 'here'), (2, 'gone@example.com', 'gone')").await;
        let rows = |engine: &Engine, destination: &str| {
            let sql = format!("SELECT id, email FROM \"shop/{destination}\".t.people ORDER BY id");
            engine.run(&["sql", &sql, "--format", "csv"], A_MINUTE).stdout
        };
        let both = "id,email\n1,clear@example.com\n2,gone@example.com\n";
        let deadline = Instant::now() + 3 * A_MINUTE;
        while rows_landed(&engine, "lake") < 2 || rows(&engine, "slow") != both || !is_logged(&engine) {
            assert!(Instant::now() < deadline, "{}", rows(&engine, "slow"));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        running.kill();
        assert_eq!(rows_landed(&engine, "slow"), 0);

        let engine = engine.set("/streams/shop/mask", json!([{ "columns": ["*.email"], "with": "email" }]));
        let engine =
            engine.set("/streams/shop/transforms", json!([{ "table": "t.people", "sql": "SELECT * FROM people WHERE state <> 'gone'" }]));
        // Nor is it shown by them.
        assert!(!rows(&engine, "slow").contains("clear@"), "{}", rows(&engine, "slow"));
        if of_before {
            forget_rules(&engine);
        }
        let finished = engine.run(&["run", "--until-caught-up"], 2 * A_MINUTE);
        if acknowledge == "log" {
            // The source may have forgotten what only the log has.
            assert_ne!(finished.code, Some(0), "{}", finished.stderr);
            assert!(finished.stderr.contains("until every destination has caught up"), "{}", finished.stderr);
            assert_eq!(rows_landed(&engine, "slow"), 0);
            continue;
        }
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        assert!(finished.stderr.contains("begins anew"), "{}", finished.stderr);
        let landed = rows(&engine, "slow");
        assert!(landed.starts_with("id,email\n1,") && landed.lines().count() == 2 && !landed.contains("clear@"), "{landed}");
        // The other has what it had.
        assert_eq!(rows(&engine, "lake"), both);
        let files = walk(&other.path().join("slow")).chain(walk(&engine.directory().join("state")));
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            assert!(!bytes.windows(6).any(|window| window == b"clear@" || window == b"gone@e"), "{}", file.display());
        }
    }
}
