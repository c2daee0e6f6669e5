//! The change log in a bucket, of whole processes: machines that lose their disks, others that read or go on, a bucket that is away.

use std::time::{Duration, Instant};

use logweir_tests::engine::{Engine, Running};
use logweir_tests::oracle::{Lake, assert_equal};
use logweir_tests::servers::{DatabaseServer, FaultyProxy, MotoServer, free_port};
use logweir_tests::workload::{SCHEMA, TABLES, Workload, WorkloadOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::change_log::{Work, rows_landed, status};
use crate::kill::seed;
use crate::pgwire::{connect, started, texts, wait_for, with_endpoint};

const A_MINUTE: Duration = Duration::from_secs(60);

/// A machine whose lake, state and change log are in the bucket; the log is reached at `endpoint`.
fn machine(server: &DatabaseServer, moto: &MotoServer, endpoint: &str, acknowledge: &str, more: &Value) -> Engine {
    Engine::new(server, SCHEMA)
        .lake(Lake::bucket(moto, "lake"))
        .state_in(&moto.endpoint(), "s3://lake/state")
        .change_log_in(endpoint, "s3://lake/log/shop", more)
        .set("/streams/shop/acknowledge", json!(acknowledge))
}

fn lose_the_disk(engine: &Engine) {
    match std::fs::remove_dir_all(engine.directory().join("log")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
        _ => {}
    }
}

fn wait_for_rows(engine: &Engine, running: &mut Running, destination: &str, rows: u64) {
    let deadline = Instant::now() + 2 * A_MINUTE;
    while rows_landed(engine, destination) < rows {
        assert!(Instant::now() < deadline && running.is_running(), "{}", running.messages());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One destination cannot be reached while the process is killed and its machine loses the disk, again and again. Everything arrives at both, once.
async fn disks_are_lost(acknowledge: &str, number: u64) {
    let (server, moto) = (DatabaseServer::mariadb(&[]).await, MotoServer::start());
    let proxy = FaultyProxy::start(moto.port());
    let archive = Lake::Bucket { endpoint: proxy.endpoint(), bucket: moto.bucket().to_owned(), prefix: "archive".to_owned() };
    // Segments and a cache that are small, so that their ends are met.
    let small = json!({ "retain": { "size": "16MiB" }, "cache": "2MiB", "compression": "none" });
    let engine = machine(&server, &moto, &moto.endpoint(), acknowledge, &small).also("archive", &archive);
    let work = Work::begin(&server, seed(number)).await;
    let checked = engine.run(&["check"], A_MINUTE);
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
    let mut rng = StdRng::seed_from_u64(number);
    for round in 0..6 {
        let mut running = engine.start(&["run"]);
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..1500))).await;
        proxy.set_unavailable(true);
        let before = rows_landed(&engine, "lake");
        wait_for_rows(&engine, &mut running, "lake", before + 100);
        running.kill();
        if round % 3 < 2 {
            lose_the_disk(&engine);
        }
        if rng.random_bool(0.5) {
            proxy.set_unavailable(false);
        }
    }
    proxy.set_unavailable(false);
    work.end().await;
    engine.catch_up();
    println!("{acknowledge}: {}", assert_equal(&server, engine.destination(), SCHEMA, &TABLES, true).await);
    println!("{acknowledge}: {}", assert_equal(&server, &Lake::bucket(&moto, "archive"), SCHEMA, &TABLES, true).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_loses_its_disk_loses_nothing() {
    disks_are_lost("destination", 511).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_loses_its_disk_loses_nothing_where_the_log_acknowledges() {
    disks_are_lost("log", 512).await;
}

/// The source has purged what only the bucket has, and another machine goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_machine_lands_what_the_source_has_purged() {
    let (server, moto) = (DatabaseServer::mariadb(&[]).await, MotoServer::start());
    let proxy = FaultyProxy::start(moto.port());
    let archive = Lake::Bucket { endpoint: proxy.endpoint(), bucket: moto.bucket().to_owned(), prefix: "archive".to_owned() };
    let make = || machine(&server, &moto, &moto.endpoint(), "log", &json!({})).also("archive", &archive);
    let mut connection = server.connect().await;
    let mut workload = Workload::new(seed(513), WorkloadOptions { truncates: true, columns: true });
    workload.create(&mut connection).await;
    let first = make();
    first.catch_up();
    let landed = rows_landed(&first, "archive");

    proxy.set_unavailable(true);
    let mut running = first.start(&["run"]);
    workload.run(&mut connection, 100).await;
    server.execute("FLUSH BINARY LOGS").await;
    let before = rows_landed(&first, "lake");
    workload.run(&mut connection, 30).await;
    wait_for_rows(&first, &mut running, "lake", before + 30);
    // The checkpoint is in the last file of the binlog for sure a little later.
    let newest = server.binlog_files().await.pop().unwrap();
    let deadline = Instant::now() + A_MINUTE;
    while !lake_offset(&first).contains(&newest) {
        assert!(Instant::now() < deadline, "{}", running.messages());
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    running.kill();
    drop(first);
    // A server keeps files that it believes it still sends; it finds out that we are gone when it has news.
    let deadline = Instant::now() + A_MINUTE;
    while server.binlog_files().await.len() > 1 {
        assert!(Instant::now() < deadline, "the server keeps its files");
        server.execute(&format!("PURGE BINARY LOGS TO '{newest}'")).await;
        workload.run(&mut connection, 1).await;
    }

    proxy.set_unavailable(false);
    let second = make();
    assert_eq!(rows_landed(&second, "archive"), landed, "only the log has what it lacks");
    workload.run(&mut connection, 30).await;
    second.catch_up();
    for lake in [second.destination(), &Lake::bucket(&moto, "archive")] {
        println!("{}", assert_equal(&server, lake, SCHEMA, &TABLES, false).await);
    }
}

/// Where the lake's place lies in the source's log.
fn lake_offset(engine: &Engine) -> String {
    let status = status(engine);
    let destinations = status.pointer("/streams/0/destinations").and_then(Value::as_array).cloned().unwrap_or_default();
    destinations.iter().find(|part| part["destination"] == "lake").map(|part| part["offset"].to_string()).unwrap_or_default()
}

/// A stream runs, and a machine that has nothing asks, looks, and gives a new destination all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_machine_reads_the_log_while_it_is_written() {
    let (server, moto) = (DatabaseServer::mariadb(&[]).await, MotoServer::start());
    // Nothing is landed while it runs.
    let make = || {
        machine(&server, &moto, &moto.endpoint(), "destination", &json!({ "retain": { "size": "16MiB" }, "compression": "none" }))
            .set("/streams/shop/destinations/0/rotate", json!({ "interval": "1h" }))
    };
    let (writer, reader) = (make(), make());
    let mut connection = server.connect().await;
    let mut workload = Workload::new(seed(514), WorkloadOptions::default());
    workload.create(&mut connection).await;
    let mut running = writer.start(&["run"]);
    for _ in 0..3 {
        workload.run(&mut connection, 60).await;
        for engine in [&reader, &writer] {
            for table in TABLES {
                let expected: Vec<i64> = server.query(&format!("SELECT count(*) FROM {SCHEMA}.{table}")).await;
                let expected = format!("count(*)\n{}\n", expected[0]);
                let deadline = Instant::now() + A_MINUTE;
                loop {
                    let answer = engine.run(&["sql", &format!("SELECT count(*) FROM {SCHEMA}.{table}"), "--format", "csv"], A_MINUTE);
                    if answer.stdout == expected {
                        break;
                    }
                    assert!(Instant::now() < deadline && running.is_running(), "{expected} {answer:?} {}", running.messages());
                }
            }
        }
    }
    assert_eq!(rows_landed(&reader, "lake"), 0);
    let log = status(&reader).pointer("/streams/0/change_log").cloned().unwrap();
    assert!(
        log["url"] == "s3://lake/log/shop"
            && log["bytes"].as_u64() > Some(0)
            && log["first_position"].as_str() < log["last_position"].as_str(),
        "{log}"
    );
    let checked = reader.run(&["check"], A_MINUTE);
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
    assert_eq!(running.terminate(A_MINUTE).code, Some(0));

    // The machine that ran it is gone; this one gives a new destination what the log holds.
    drop(writer);
    let other = Lake::bucket(&moto, "other");
    let reader = reader.also("other", &other);
    let replayed = reader.run(&["replay", "--destination", "other", "--from", "earliest"], A_MINUTE);
    assert_eq!(replayed.code, Some(0), "{}", replayed.stderr);
    reader.catch_up();
    for lake in [reader.destination(), &other] {
        println!("{}", assert_equal(&server, lake, SCHEMA, &TABLES, true).await);
    }
}

/// The newer of two processes takes over, and the older one spoils nothing, whichever of them has the log's directory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_process_takes_over_the_log() {
    let (server, moto) = (DatabaseServer::mariadb(&[]).await, MotoServer::start());
    let small = json!({ "retain": { "size": "16MiB" }, "compression": "none" });
    let machines = [0, 1].map(|_| machine(&server, &moto, &moto.endpoint(), "log", &small));
    let work = Work::begin(&server, seed(515)).await;
    let mut older = machines[0].start(&["run"]);
    for round in 1..6 {
        let (engine, before) = (&machines[round % 2], rows_landed(&machines[0], "lake"));
        wait_for_rows(engine, &mut older, "lake", before + 30);
        let newer = engine.start(&["run"]);
        let ended = older.wait(2 * A_MINUTE);
        assert!(ended.code == Some(1) && ended.stderr.contains("taken over"), "{}", ended.stderr);
        older = newer;
    }
    let before = rows_landed(&machines[0], "lake");
    wait_for_rows(&machines[0], &mut older, "lake", before + 30);
    older.kill();
    work.end().await;
    machines[0].catch_up();
    println!("{}", assert_equal(&server, machines[0].destination(), SCHEMA, &TABLES, true).await);
}

/// The bucket of the log is away for a while: the stream waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_away_is_waited_for() {
    let (server, moto) = (DatabaseServer::mariadb(&[]).await, MotoServer::start());
    let proxy = FaultyProxy::start(moto.port());
    let engine = machine(&server, &moto, &proxy.endpoint(), "log", &json!({}));
    let work = Work::begin(&server, seed(516)).await;
    let mut running = engine.start(&["run"]);
    for _ in 0..2 {
        let before = rows_landed(&engine, "lake");
        wait_for_rows(&engine, &mut running, "lake", before + 30);
        proxy.set_unavailable(true);
        proxy.cut();
        let refused = proxy.refused();
        let deadline = Instant::now() + A_MINUTE;
        while proxy.refused() < refused + 8 {
            assert!(Instant::now() < deadline && running.is_running(), "{}", running.messages());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        proxy.set_unavailable(false);
    }
    let before = rows_landed(&engine, "lake");
    wait_for_rows(&engine, &mut running, "lake", before + 30);
    work.end().await;
    assert_eq!(running.terminate(2 * A_MINUTE).code, Some(0));
    engine.catch_up();
    println!("{}", assert_equal(&server, engine.destination(), SCHEMA, &TABLES, true).await);
}

/// Whoever follows changes sees each of them once, though the stream, and with it the writer of the log, begins anew meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_changes_is_not_concerned_when_the_writer_changes() {
    let (server, moto) = (DatabaseServer::mariadb(&[]).await, MotoServer::start());
    let proxy = FaultyProxy::start(moto.port());
    server.execute(&format!("CREATE DATABASE {SCHEMA}")).await;
    server.execute(&format!("CREATE TABLE {SCHEMA}.numbers (id INT PRIMARY KEY)")).await;
    server.execute(&format!("INSERT INTO {SCHEMA}.numbers VALUES (0)")).await;
    let port = free_port();
    let engine = machine(&server, &moto, &proxy.endpoint(), "log", &json!({}));
    let engine = with_endpoint(engine.set("/streams/shop/destinations/0/rotate", json!({ "interval": "700ms" })), port, &[]);
    let mut running = started(&engine);
    let client = connect(port, "ann").await;
    wait_for(&client, &format!("SELECT count(*) FROM {SCHEMA}.numbers"), "1").await;
    for statement in [
        "SET logweir.follow = on",
        "SET statement_timeout = '1s'",
        "BEGIN",
        &format!("DECLARE c CURSOR FOR SELECT id FROM {SCHEMA}_changes.numbers"),
    ] {
        client.simple_query(statement).await.unwrap();
    }
    let (mut expected, mut seen) = (vec!["0".to_owned()], Vec::new());
    for round in 0..3 {
        for place in 0..60 {
            match place {
                20 => {
                    proxy.set_unavailable(true);
                    proxy.cut();
                }
                40 => {
                    let deadline = Instant::now() + 2 * A_MINUTE;
                    while running.messages().matches("trying again").count() <= round {
                        assert!(Instant::now() < deadline && running.is_running(), "{}", running.messages());
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    proxy.set_unavailable(false);
                }
                _ => {}
            }
            let id = expected.len();
            server.execute(&format!("INSERT INTO {SCHEMA}.numbers VALUES ({id})")).await;
            expected.push(id.to_string());
            if place % 10 == 0 {
                seen.extend(texts(&client, "FETCH ALL FROM c").await);
            }
        }
        let deadline = Instant::now() + A_MINUTE;
        while seen.len() < expected.len() {
            assert!(Instant::now() < deadline && running.is_running(), "{seen:?} {}", running.messages());
            seen.extend(texts(&client, "FETCH ALL FROM c").await);
        }
        assert_eq!(seen, expected);
    }
    running.kill();
}

/// A share that is mounted instead of a bucket, and state on the machine that goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_does_instead_of_a_bucket() {
    let server = DatabaseServer::mariadb(&[]).await;
    let share = tempfile::tempdir().unwrap();
    let engine = Engine::new(&server, SCHEMA)
        .set("/streams/shop/change_log", json!({ "url": format!("file://{}/log", share.path().display()), "retain": { "size": "16MiB" } }))
        .set("/streams/shop/acknowledge", json!("log"));
    let work = Work::begin(&server, seed(517)).await;
    for _ in 0..3 {
        let mut running = engine.start(&["run"]);
        let before = rows_landed(&engine, "lake");
        wait_for_rows(&engine, &mut running, "lake", before + 50);
        running.kill();
        std::fs::remove_dir_all(engine.directory().join("state/shop/log")).unwrap();
    }
    work.end().await;
    let checked = engine.run(&["check"], A_MINUTE);
    assert!(checked.code == Some(0) && checked.stdout.contains("warning[state_on_this_machine]"), "{}{}", checked.stdout, checked.stderr);
    engine.catch_up();
    println!("{}", assert_equal(&server, engine.destination(), SCHEMA, &TABLES, true).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_cannot_be_is_told_beforehand() {
    let (server, moto) = (DatabaseServer::mariadb(&[]).await, MotoServer::start());
    server.execute(&format!("CREATE DATABASE {SCHEMA}")).await;
    let engine = machine(&server, &moto, &moto.endpoint(), "log", &json!({ "url": "s3://no-such-bucket/log" }));
    let checked = engine.run(&["check"], A_MINUTE);
    assert!(checked.code == Some(1) && checked.stdout.contains("error[change_log_store]"), "{}{}", checked.stdout, checked.stderr);
    assert!(checked.stdout.contains("create the bucket"), "{}", checked.stdout);
    let ran = engine.run(&["run", "--until-caught-up"], A_MINUTE);
    assert!(ran.code == Some(1) && ran.stderr.contains("create the bucket"), "{}", ran.stderr);
    let engine = machine(&server, &moto, &moto.endpoint(), "log", &json!({ "url": "s3://lake/lake/log" }));
    let checked = engine.run(&["check"], A_MINUTE);
    assert!(checked.code == Some(2) && checked.stderr.contains("is not apart from the profile `lake`"), "{}", checked.stderr);
}
