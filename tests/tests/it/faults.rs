//! Bad input and bad days: a clear message that says what to do, the exit code, nothing lost, and a restart that goes on.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use logweir_tests::engine::{Engine, Finished};
use logweir_tests::oracle::{Lake, assert_equal};
use logweir_tests::servers::{DatabaseServer, FaultyProxy, MotoServer, free_port};
use logweir_tests::workload::{SCHEMA, TABLES, Workload, WorkloadOptions};
use serde_json::json;

const A_MINUTE: Duration = Duration::from_secs(60);

/// The exit code, and every text in the messages.
#[track_caller]
pub(crate) fn check(finished: &Finished, code: i32, texts: &[&str]) {
    assert_eq!(finished.code, Some(code), "{}", finished.stderr);
    let messages = finished.stderr.to_lowercase();
    for text in texts {
        assert!(messages.contains(&text.to_lowercase()), "{text:?} is not in the messages:\n{}", finished.stderr);
    }
}

/// A table of numbers in a server's schema.
async fn numbers(server: &DatabaseServer) {
    server.execute("CREATE DATABASE shop").await;
    server.execute("CREATE TABLE shop.numbers (id INT NOT NULL PRIMARY KEY, value VARCHAR(200) NULL)").await;
    server.execute("INSERT INTO shop.numbers VALUES (1, 'one'), (2, 'two')").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password() {
    let server = DatabaseServer::mariadb(&[]).await;
    let engine = Engine::new(&server, SCHEMA).environment("WEIR_TEST_PASSWORD", "not-the-password-81");
    let finished = engine.run(&["run"], A_MINUTE);
    check(&finished, 1, &["denied", "weir"]);
    assert!(!finished.stderr.contains("not-the-password-81"), "a secret in the messages: {}", finished.stderr);
    check(&engine.run(&["check"], A_MINUTE), 1, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_host() {
    let server = DatabaseServer::mariadb(&[]).await;
    let port = free_port();
    let engine = Engine::new(&server, SCHEMA).set("/profiles/source/mysql/port", json!(port)).set("/connect_timeout", json!("2s"));
    let begun = Instant::now();
    let finished = engine.run(&["run"], A_MINUTE);
    check(&finished, 1, &["127.0.0.1", &port.to_string()]);
    assert!(begun.elapsed() >= Duration::from_secs(1), "it did not try again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_privilege() {
    for server in [DatabaseServer::mariadb(&[]).await, DatabaseServer::mysql(&[]).await] {
        server.execute("REVOKE REPLICATION SLAVE ON *.* FROM weir@'%'").await;
        let engine = Engine::new(&server, SCHEMA);
        check(&engine.run(&["run"], A_MINUTE), 1, &["GRANT REPLICATION SLAVE"]);
        let finished = engine.run(&["check"], A_MINUTE);
        assert_eq!(finished.code, Some(1));
        assert!((finished.stdout + &finished.stderr).contains("GRANT REPLICATION SLAVE"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_instead_of_rows() {
    let server = DatabaseServer::mariadb(&["binlog_format=STATEMENT"]).await;
    server.execute("CREATE DATABASE shop").await;
    server.execute("CREATE TABLE shop.numbers (id INT NOT NULL PRIMARY KEY, value VARCHAR(20) NULL)").await;
    let engine = Engine::new(&server, SCHEMA);
    let finished = engine.run(&["check"], A_MINUTE);
    assert_eq!(finished.code, Some(1));
    assert!((finished.stdout + &finished.stderr).contains("binlog_format"));
    server.execute("INSERT INTO shop.numbers VALUES (1, 'one')").await;
    let finished = engine.run(&["run", "--until-caught-up"], A_MINUTE);
    check(&finished, 1, &["binlog_format", "ROW"]);
    assert!(!finished.stderr.contains("'one'"), "a value in the messages: {}", finished.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_of_one_session_among_rows() {
    let server = DatabaseServer::mariadb(&[]).await;
    numbers(&server).await;
    let engine = Engine::new(&server, SCHEMA);
    let mut connection = server.connect().await;
    use mysql_async::prelude::Queryable;
    connection.query_drop("SET SESSION binlog_format = STATEMENT").await.unwrap();
    connection.query_drop("UPDATE shop.numbers SET value = 'changed' WHERE id = 1").await.unwrap();
    check(&engine.run(&["run", "--until-caught-up"], A_MINUTE), 1, &["binlog_format", "ROW", "mysql-bin.000001"]);
    // What came before has landed.
    server.execute("UPDATE shop.numbers SET value = 'one' WHERE id = 1").await;
    assert_equal(&server, engine.destination(), SCHEMA, &["numbers"], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purged_log() {
    for server in [DatabaseServer::mariadb(&[]).await, DatabaseServer::mysql(&[]).await] {
        numbers(&server).await;
        let engine = Engine::new(&server, SCHEMA);
        engine.catch_up();
        server.execute("FLUSH BINARY LOGS").await;
        server.execute("INSERT INTO shop.numbers VALUES (3, 'three')").await;
        server.execute("FLUSH BINARY LOGS").await;
        let newest = server.binlog_files().await.pop().unwrap();
        // A server keeps files that it believes it still sends; it finds out that we are gone when it has news.
        let deadline = Instant::now() + A_MINUTE;
        while server.binlog_files().await.len() > 1 {
            assert!(Instant::now() < deadline, "the server keeps its files");
            server.execute(&format!("PURGE BINARY LOGS TO '{newest}'")).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        check(&engine.run(&["run"], A_MINUTE), 1, &["mysql-bin.0000", "start"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_cannot_be_carried() {
    let server = DatabaseServer::mariadb(&["sql_mode="]).await;
    server.execute("CREATE DATABASE shop").await;
    server.execute("CREATE TABLE shop.numbers (id INT NOT NULL PRIMARY KEY, on_day DATE NULL)").await;
    server.execute("INSERT INTO shop.numbers VALUES (1, '2026-01-02')").await;
    server.execute("INSERT INTO shop.numbers VALUES (2, '0000-00-00')").await;
    let engine = Engine::new(&server, SCHEMA);
    check(&engine.run(&["run", "--until-caught-up"], A_MINUTE), 1, &["shop.numbers", "on_day", "zero date"]);
    server.execute("DELETE FROM shop.numbers WHERE id = 2").await;
    assert_equal(&server, engine.destination(), SCHEMA, &["numbers"], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_insert_without_its_defaults() {
    let server = DatabaseServer::mariadb(&["binlog_row_image=MINIMAL"]).await;
    server.execute("CREATE DATABASE shop").await;
    server.execute("CREATE TABLE shop.numbers (id INT NOT NULL PRIMARY KEY, value INT NOT NULL DEFAULT 7)").await;
    server.execute("INSERT INTO shop.numbers (id, value) VALUES (1, 1)").await;
    server.execute("INSERT INTO shop.numbers (id) VALUES (2)").await;
    let engine = Engine::new(&server, SCHEMA);
    check(&engine.run(&["run", "--until-caught-up"], A_MINUTE), 1, &["shop.numbers", "value", "binlog_row_image = FULL"]);
    server.execute("DELETE FROM shop.numbers WHERE id = 2").await;
    assert_equal(&server, engine.destination(), SCHEMA, &["numbers"], false).await;
}

/// A recording of a server, whole, and what the server shows for it.
async fn recording(directory: &Path) -> DatabaseServer {
    let mut server = DatabaseServer::mariadb(&[]).await;
    let mut connection = server.connect().await;
    let mut workload = Workload::new(5, WorkloadOptions::default());
    workload.create(&mut connection).await;
    workload.run(&mut connection, 150).await;
    drop(connection);
    server.stop();
    std::fs::copy(server.data_directory().join("mysql-bin.000001"), directory.join("mysql-bin.000001")).unwrap();
    server.restart().await;
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_recording_and_its_repair() {
    let archive = tempfile::tempdir().unwrap();
    let server = recording(archive.path()).await;
    let file = archive.path().join("mysql-bin.000001");
    let whole = std::fs::read(&file).unwrap();
    let engine = Engine::recorded(&archive.path().join("mysql-bin.*"), SCHEMA);
    for length in [whole.len() / 3, whole.len() * 2 / 3 + 1] {
        std::fs::write(&file, &whole[..length]).unwrap();
        check(&engine.run(&["run"], A_MINUTE), 1, &["mysql-bin.000001"]);
    }
    // With the whole file it goes on where it stopped.
    std::fs::write(&file, &whole).unwrap();
    engine.catch_up();
    assert_equal(&server, engine.destination(), SCHEMA, &TABLES, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_recording_and_its_repair() {
    let archive = tempfile::tempdir().unwrap();
    let server = recording(archive.path()).await;
    let file = archive.path().join("mysql-bin.000001");
    let whole = std::fs::read(&file).unwrap();
    let mut broken = whole.clone();
    let place = whole.len() / 2;
    broken[place] ^= 0x10;
    std::fs::write(&file, &broken).unwrap();
    let engine = Engine::recorded(&archive.path().join("mysql-bin.*"), SCHEMA);
    check(&engine.run(&["run"], A_MINUTE), 1, &["mysql-bin.000001", "checksum"]);
    let Lake::Directory(lake) = engine.destination() else { unreachable!("the lake is a directory") };
    assert!(lake.join("shop/accounts").is_dir(), "what came before has landed");
    std::fs::write(&file, &whole).unwrap();
    engine.catch_up();
    assert_equal(&server, engine.destination(), SCHEMA, &TABLES, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_mistakes_in_the_configuration_are_five_messages() {
    let archive = tempfile::tempdir().unwrap();
    let engine = Engine::recorded(&archive.path().join("mysql-bin.*"), SCHEMA)
        .set("/memory", json!("1GB of it"))
        .set("/streams/shop/source", json!("sauce"))
        .set("/streams/shop/tabels", json!([]))
        .set("/streams/shop/start", json!("yesterday"))
        .set("/streams/shop/destinations/0/rotate", json!({ "interval": "30 parsecs" }));
    for verb in ["run", "check", "status"] {
        let finished = engine.run(&[verb], A_MINUTE);
        check(&finished, 2, &["memory", "sauce", "tabels", "yesterday", "30 parsecs"]);
        assert!(finished.stderr.matches("logweir.yaml:").count() >= 5, "places are missing: {}", finished.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_is_refused() {
    let server = DatabaseServer::mariadb(&[]).await;
    numbers(&server).await;
    let engine = Engine::new(&server, SCHEMA);
    engine.catch_up();
    let mut first = engine.start(&["run"]);
    // The first has the state for sure once it landed something new.
    server.execute("INSERT INTO shop.numbers VALUES (3, 'three')").await;
    let files = || match engine.destination() {
        Lake::Directory(path) => std::fs::read_dir(path.join("shop/numbers")).map_or(0, Iterator::count),
        Lake::Bucket { .. } => 0,
    };
    let deadline = Instant::now() + A_MINUTE;
    while files() < 2 {
        assert!(Instant::now() < deadline && first.is_running(), "{}", first.messages());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let second = engine.run(&["run"], A_MINUTE);
    assert_eq!(second.code, Some(1), "{}", second.stderr);
    assert!(first.is_running());
    let finished = first.terminate(A_MINUTE);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert_equal(&server, engine.destination(), SCHEMA, &["numbers"], true).await;
}

/// A small file system of its own, unmounted when dropped.
struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(size: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("mount");
        let output = command.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(directory.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "a full disk can be shown only where a tmpfs can be mounted: run the tests as root ({said})");
        SmallDisk { directory }
    }

    fn resize(&self, size: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(self.directory.path()).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.directory.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_said_and_waited_for() {
    let server = DatabaseServer::mariadb(&[]).await;
    let mut connection = server.connect().await;
    let mut workload = Workload::new(6, WorkloadOptions::default());
    workload.create(&mut connection).await;
    workload.run(&mut connection, 400).await;
    let disk = SmallDisk::mount("256k");
    let engine = Engine::new(&server, SCHEMA).lake(Lake::Directory(disk.directory.path().join("lake")));
    let mut running = engine.start(&["run"]);
    running.wait_for_message("full", A_MINUTE);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(running.is_running(), "a full disk is waited for: {}", running.messages());
    disk.resize("64m");
    // The same process goes on.
    let deadline = Instant::now() + A_MINUTE * 2;
    let landed = || {
        let size = Command::new("du").args(["-sk", "--apparent-size"]).arg(disk.directory.path()).output().unwrap();
        String::from_utf8_lossy(&size.stdout).split_whitespace().next().and_then(|size| size.parse::<u64>().ok()).unwrap_or(0)
    };
    while landed() < 300 {
        assert!(running.is_running(), "{}", running.messages());
        assert!(Instant::now() < deadline, "it did not go on: {}", running.messages());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let finished = running.terminate(A_MINUTE);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    engine.catch_up();
    assert_equal(&server, engine.destination(), SCHEMA, &TABLES, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_cannot_grow_lose_nothing() {
    let server = DatabaseServer::mariadb(&[]).await;
    let mut connection = server.connect().await;
    let mut workload = Workload::new(8, WorkloadOptions::default());
    workload.create(&mut connection).await;
    workload.run(&mut connection, 400).await;
    let engine = Engine::new(&server, SCHEMA).file_size_max(Some(20_000));
    let mut running = engine.start(&["run"]);
    running.wait_for_message("could not", A_MINUTE);
    assert_ne!(running.kill().code, Some(0));
    let engine = engine.file_size_max(None);
    engine.catch_up();
    assert_equal(&server, engine.destination(), SCHEMA, &TABLES, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_answers_503_is_waited_for() {
    let (server, moto) = (DatabaseServer::mariadb(&[]).await, MotoServer::start());
    let proxy = FaultyProxy::start(moto.port());
    let mut connection = server.connect().await;
    let mut workload = Workload::new(7, WorkloadOptions::default());
    workload.create(&mut connection).await;
    let through_proxy = Lake::Bucket { endpoint: proxy.endpoint(), bucket: moto.bucket().to_owned(), prefix: "lake".to_owned() };
    let engine = Engine::new(&server, SCHEMA).lake(through_proxy).state_in(&proxy.endpoint(), "s3://lake/state");
    engine.catch_up();

    let mut running = engine.start(&["run"]);
    for _ in 0..3 {
        workload.run(&mut connection, 60).await;
        let refused = proxy.refused();
        proxy.set_unavailable(true);
        workload.run(&mut connection, 60).await;
        let deadline = Instant::now() + A_MINUTE;
        while proxy.refused() == refused {
            assert!(running.is_running() && Instant::now() < deadline, "{}", running.messages());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        proxy.set_unavailable(false);
        workload.run(&mut connection, 30).await;
        proxy.cut();
    }
    // A stream that is told to stop between two tries ends with the error, since what it had read is not landed: it has to
    // be past the last one.
    let landed = || {
        let status: serde_json::Value = serde_json::from_str(&engine.run(&["status", "--format", "json"], A_MINUTE).stdout).unwrap();
        let position = status.pointer("/streams/0/destinations/0/position").expect("a destination that has landed has a position");
        position.as_str().unwrap().to_owned()
    };
    let before = landed();
    workload.run(&mut connection, 30).await;
    let deadline = Instant::now() + A_MINUTE;
    while landed() == before {
        assert!(running.is_running() && Instant::now() < deadline, "{}", running.messages());
    }
    let finished = running.terminate(A_MINUTE);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    engine.catch_up();
    assert_equal(&server, engine.destination(), SCHEMA, &TABLES, true).await;
    assert_eq!(moto.uploads_with_parts(), []);
}
