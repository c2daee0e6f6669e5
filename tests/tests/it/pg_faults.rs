//! Bad days with PostgreSQL: a clear message that says what to do, the exit code, nothing lost, and a slot that holds the server's
//! log back no longer than it must.

use std::time::{Duration, Instant};

use logweir_tests::engine::{Engine, Running};
use logweir_tests::oracle::{Counted, assert_postgres_equal};
use logweir_tests::servers::{PostgresServer, free_port};
use serde_json::json;

use crate::faults::check;
use crate::pg_live::{Manner, SCHEMA};

const A_MINUTE: Duration = Duration::from_secs(60);
const ANY: Manner = Manner::plain(15);

fn numbers_table() -> [(String, String); 1] {
    [(SCHEMA.to_owned(), "numbers".to_owned())]
}

/// A server with a table of numbers, its publication, and its slot from before its rows.
async fn numbers(manner: Manner) -> PostgresServer {
    let server = manner.server().await;
    manner.follow(&server).await;
    server.execute("CREATE SCHEMA shop").await;
    server.execute("CREATE TABLE shop.numbers (id integer PRIMARY KEY, value text)").await;
    server.execute("INSERT INTO shop.numbers VALUES (1, 'one'), (2, 'two')").await;
    server
}

async fn equal(server: &PostgresServer, engine: &Engine, counted: Counted) {
    assert_postgres_equal(server, engine.destination(), &numbers_table(), counted).await;
}

/// What a command prints, on both outputs, if it finds something wrong.
#[track_caller]
fn finds(engine: &Engine, texts: &[&str]) {
    let finished = engine.run(&["check"], A_MINUTE);
    let all = finished.stdout + &finished.stderr;
    assert_eq!(finished.code, Some(1), "{all}");
    for text in texts {
        assert!(all.contains(text), "{text:?} is not in what check says: {all}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password() {
    let server = numbers(ANY).await;
    let engine = Engine::postgres(&server, SCHEMA).environment("WEIR_TEST_PASSWORD", "not-the-password-81");
    check(&engine.run(&["run"], A_MINUTE), 1, &["password", "weir"]);
    finds(&engine, &["password", "weir"]);
    for verb in ["run", "check"] {
        let finished = engine.run(&[verb], A_MINUTE);
        assert!(!(finished.stdout + &finished.stderr).contains("not-the-password-81"), "a secret in the messages");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_host() {
    let server = numbers(ANY).await;
    let port = free_port();
    let engine = Engine::postgres(&server, SCHEMA).set("/profiles/source/postgres/port", json!(port)).set("/connect_timeout", json!("2s"));
    let begun = Instant::now();
    let finished = engine.run(&["run"], A_MINUTE);
    check(&finished, 1, &["127.0.0.1", &port.to_string()]);
    assert!(begun.elapsed() >= Duration::from_secs(1), "it did not try again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_decoded() {
    let server = PostgresServer::start(15, &["wal_level = replica"]).await;
    server.execute("CREATE SCHEMA shop; CREATE TABLE shop.numbers (id integer PRIMARY KEY); CREATE PUBLICATION weir FOR ALL TABLES").await;
    let engine = Engine::postgres(&server, SCHEMA);
    finds(&engine, &["wal_level", "ALTER SYSTEM SET wal_level"]);
    check(&engine.run(&["run"], A_MINUTE), 1, &["wal_level"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_privileges() {
    let server = numbers(ANY).await;
    let engine = Engine::postgres(&server, SCHEMA);
    server.execute("ALTER ROLE weir NOREPLICATION").await;
    finds(&engine, &["REPLICATION"]);
    check(&engine.run(&["run"], A_MINUTE), 1, &["REPLICATION"]);
    server.execute("ALTER ROLE weir REPLICATION; REVOKE SELECT ON shop.numbers FROM weir").await;
    let engine = engine.set("/streams/shop/backfill", json!("all")).set("/profiles/source/postgres/slot", json!("another"));
    finds(&engine, &["GRANT SELECT", "shop.numbers"]);
    check(&engine.run(&["run"], A_MINUTE), 1, &["SELECT", "shop.numbers"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_publication() {
    let server = numbers(ANY).await;
    server.execute("DROP PUBLICATION weir").await;
    let engine = Engine::postgres(&server, SCHEMA);
    finds(&engine, &["CREATE PUBLICATION"]);
    check(&engine.run(&["run"], A_MINUTE), 1, &["publication", "weir"]);
}

/// Takes the slot away, whoever uses it.
async fn drop_slot(server: &PostgresServer) {
    let deadline = Instant::now() + A_MINUTE;
    while server.value("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'weir'").await != "0" {
        assert!(Instant::now() < deadline, "the slot cannot be dropped");
        let sql = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'weir' AND active";
        server.execute(sql).await;
        let client = server.connect().await;
        let _ = client.batch_execute("SELECT pg_drop_replication_slot('weir')").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_is_gone() {
    let server = numbers(ANY).await;
    let engine = Engine::postgres(&server, SCHEMA);
    engine.catch_up();
    drop_slot(&server).await;
    server.execute("INSERT INTO shop.numbers VALUES (3, 'three')").await;
    check(&engine.run(&["run"], A_MINUTE), 1, &["slot", "weir"]);
    // Nor is another one of the same name taken for it: it has not seen what came meanwhile.
    server.execute("SELECT pg_create_logical_replication_slot('weir', 'pgoutput')").await;
    check(&engine.run(&["run"], A_MINUTE), 1, &["slot", "weir"]);
}

/// Waits until a stream of numbers has landed something new.
async fn lands(server: &PostgresServer, running: &mut Running) {
    let last = server.value("SELECT pg_current_wal_lsn()").await;
    let confirmed = format!("SELECT confirmed_flush_lsn >= '{last}' FROM pg_replication_slots WHERE slot_name = 'weir'");
    let deadline = Instant::now() + A_MINUTE;
    while server.value(&format!("SELECT coalesce(({confirmed}), false)")).await != "t" {
        assert!(running.is_running(), "{}", running.messages());
        assert!(Instant::now() < deadline, "{last} is not confirmed: {}", running.messages());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_goes_while_it_is_read() {
    let server = numbers(ANY).await;
    let engine = Engine::postgres(&server, SCHEMA);
    let mut running = engine.start(&["run"]);
    lands(&server, &mut running).await;
    drop_slot(&server).await;
    check(&running.wait(A_MINUTE), 1, &["slot", "weir"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_somebody_else_moved_on() {
    let server = numbers(ANY).await;
    let engine = Engine::postgres(&server, SCHEMA);
    engine.catch_up();
    server.execute("INSERT INTO shop.numbers VALUES (3, 'three')").await;
    server.execute("SELECT pg_replication_slot_advance('weir', pg_current_wal_lsn())").await;
    check(&engine.run(&["run"], A_MINUTE), 1, &["slot", "weir"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_the_server_gave_up() {
    let server = numbers(Manner { server: &["max_slot_wal_keep_size = 2MB", "max_wal_size = 4MB"], ..Manner::plain(17) }).await;
    let engine = Engine::postgres(&server, SCHEMA);
    engine.catch_up();
    let deadline = Instant::now() + A_MINUTE;
    while server.value("SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'weir'").await != "lost" {
        assert!(Instant::now() < deadline, "the server keeps its log");
        server
            .execute(
                "CREATE TABLE IF NOT EXISTS filler (t text); INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 3000)",
            )
            .await;
        server.execute("SELECT pg_switch_wal(); CHECKPOINT").await;
    }
    check(&engine.run(&["run"], A_MINUTE), 1, &["slot", "weir", "max_slot_wal_keep_size"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_is_not_taken_for_the_right_one() {
    let (server, other) = (numbers(ANY).await, numbers(ANY).await);
    let engine = Engine::postgres(&server, SCHEMA);
    engine.catch_up();
    let engine = engine.set("/profiles/source/postgres/port", json!(other.port()));
    check(&engine.run(&["run"], A_MINUTE), 1, &["another"]);
    equal(&server, &engine, Counted::Yes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_is_refused() {
    let server = numbers(ANY).await;
    let engine = Engine::postgres(&server, SCHEMA);
    let mut first = engine.start(&["run"]);
    lands(&server, &mut first).await;
    let second = engine.run(&["run"], A_MINUTE);
    assert_eq!(second.code, Some(1), "{}", second.stderr);
    assert!(first.is_running());
    // With a state of its own it meets the first at the slot.
    let stranger = Engine::postgres(&server, SCHEMA).set("/connect_timeout", json!("2s"));
    check(&stranger.run(&["run"], A_MINUTE), 1, &["slot", "weir"]);
    let finished = first.terminate(A_MINUTE);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    equal(&server, &engine, Counted::Yes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_cannot_be_carried() {
    let server = ANY.server().await;
    ANY.follow(&server).await;
    server.execute("CREATE SCHEMA shop; CREATE TABLE shop.numbers (id integer PRIMARY KEY, grid integer[], at timestamp)").await;
    server.execute("INSERT INTO shop.numbers VALUES (1, '{1,2}', '2026-01-01')").await;
    server.execute("INSERT INTO shop.numbers VALUES (2, '{{7771,2},{3,4}}')").await;
    let engine = Engine::postgres(&server, SCHEMA);
    let finished = engine.run(&["run", "--until-caught-up"], A_MINUTE);
    check(&finished, 1, &["shop.numbers", "grid", "arrays"]);
    assert!(!finished.stderr.contains("7771"), "a value in the messages: {}", finished.stderr);
    server.execute("DELETE FROM shop.numbers WHERE id = 2").await;
    // What came before has landed.
    equal(&server, &engine, Counted::No).await;

    server.execute("INSERT INTO shop.numbers VALUES (3, NULL, '294276-12-31')").await;
    let engine = Engine::postgres(&server, SCHEMA)
        .set("/streams/shop/backfill", json!("all"))
        .set("/profiles/source/postgres/slot", json!("another"));
    check(&engine.run(&["run", "--until-caught-up"], A_MINUTE), 1, &["shop.numbers", "at"]);
}

/// How many bytes of log the slot holds back.
const HELD_BACK: &str = "(SELECT pg_current_wal_lsn() - confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'weir')";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_in_which_nothing_happens_holds_no_log_back() {
    for version in [12, 15, 18] {
        let server = PostgresServer::start(version, &[]).await;
        server
            .execute(
                "CREATE SCHEMA shop; CREATE TABLE shop.numbers (id integer PRIMARY KEY, value text); CREATE TABLE shop.others (t text)",
            )
            .await;
        server.execute("CREATE TABLE unpublished (t text); CREATE PUBLICATION weir FOR TABLE shop.numbers, shop.others").await;
        server.execute_in("postgres", "CREATE TABLE unpublished (t text)").await;
        server.execute("SELECT pg_create_logical_replication_slot('weir', 'pgoutput')").await;
        let engine = Engine::postgres(&server, SCHEMA).set("/streams/shop/tables/exclude", json!(["shop.others"]));
        let mut running = engine.start(&["run"]);
        server.execute("INSERT INTO shop.numbers VALUES (1, 'one')").await;
        // In tables that are not published, that are published and not followed, and in another database.
        for (database, table) in [(server.database(), "unpublished"), (server.database(), "shop.others"), ("postgres", "unpublished")] {
            let fill = format!("INSERT INTO {table} SELECT repeat('x', 1000) FROM generate_series(1, 3000)");
            server.execute_in(database, &fill).await;
            server.execute_in(database, &fill).await;
            server.wait_until(&format!("{HELD_BACK} < 1000000")).await;
            assert!(running.is_running(), "{}", running.messages());
        }
        let finished = running.terminate(A_MINUTE);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        equal(&server, &engine, Counted::No).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_moves_a_log_that_nobody_writes_to() {
    let server = numbers(ANY).await;
    let engine = Engine::postgres(&server, SCHEMA).set("/profiles/source/postgres/heartbeat", json!("200ms"));
    let mut running = engine.start(&["run"]);
    lands(&server, &mut running).await;
    let before = server.value("SELECT pg_current_wal_lsn()").await;
    let confirmed = format!("SELECT confirmed_flush_lsn - '{before}' > 500 FROM pg_replication_slots WHERE slot_name = 'weir'");
    server.wait_until(&confirmed).await;
    let finished = running.terminate(A_MINUTE);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    equal(&server, &engine, Counted::No).await;
}

/// A server to which nobody writes says nothing by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_server_is_not_given_up() {
    let server = numbers(ANY).await;
    let engine = Engine::postgres(&server, SCHEMA);
    let mut running = engine.start(&["run"]);
    lands(&server, &mut running).await;
    tokio::time::sleep(Duration::from_secs(75)).await;
    assert!(running.is_running() && !running.messages().contains("lost the log"), "{}", running.messages());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_not_landed_is_not_confirmed() {
    let server = numbers(ANY).await;
    let engine = Engine::postgres(&server, SCHEMA).set("/streams/shop/destinations/0/rotate", json!({ "interval": "1h" }));
    let running = engine.start(&["run"]);
    let before = server.value("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'weir'").await;
    for id in 10..40 {
        server.execute(&format!("INSERT INTO shop.numbers VALUES ({id}, 'later')")).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let confirmed = server.value("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'weir'").await;
    running.kill();
    assert_eq!(confirmed, before, "nothing has landed, and the server may forget it");
    engine.catch_up();
    equal(&server, &engine, Counted::Yes).await;
}
