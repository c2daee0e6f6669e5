//! What bounds a session of the SQL endpoint: cursors, memory, time, and what there is before anything was landed.

use std::time::{Duration, Instant};

use futures::future::join_all;
use logweir_tests::engine::Engine;
use logweir_tests::servers::free_port;
use serde_json::json;
use tokio_postgres::NoTls;

use crate::pgwire::{A_MINUTE, code, config, connect, psql_says, refused, resident, shop, started, texts, wait_for, with_endpoint};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_waits_takes_no_place_of_a_query() {
    let server = shop().await;
    let port = free_port();
    let limits = [("concurrent_queries", json!(1)), ("open_cursors", json!(2)), ("statement_timeout", json!("30s"))];
    let running = started(&with_endpoint(Engine::new(&server, "t"), port, &limits));
    let client = connect(port, "ann").await;
    wait_for(&client, "SELECT count(*) FROM t.numbers", "2000").await;

    // Two that have begun, of more rows than are ever held.
    let many = "SELECT a.id FROM t.numbers a, t.numbers b ORDER BY a.id";
    client.simple_query(&format!("BEGIN; DECLARE a CURSOR FOR {many}; DECLARE b CURSOR FOR {many}")).await.unwrap();
    assert_eq!(texts(&client, "FETCH 1 FROM a; FETCH 1 FROM b").await, ["1", "1"]);
    let other = connect(port, "ann").await;
    other.simple_query("SET statement_timeout = '20s'").await.unwrap();
    assert_eq!(texts(&other, "SELECT count(*) FROM t.people").await, ["3"]);
    // There may be two of all sessions.
    assert_eq!(refused(&other, &format!("BEGIN; DECLARE c CURSOR FOR {many}")).await, "53400");
    other.simple_query("ROLLBACK").await.unwrap();
    // They go on where they were, and one that was read to its end is none any more.
    assert_eq!(texts(&client, "FETCH 2 FROM a").await, ["1", "1"]);
    client.simple_query("CLOSE a; CLOSE b; DECLARE d CURSOR FOR SELECT id FROM t.people ORDER BY id").await.unwrap();
    assert_eq!(texts(&client, "FETCH ALL FROM d; FETCH ALL FROM d").await, ["1", "2", "3"]);
    client.simple_query(&format!("DECLARE e CURSOR FOR {many}; DECLARE f CURSOR FOR {many}")).await.unwrap();
    client.simple_query("COMMIT").await.unwrap();

    // A portal of a transaction is one between two requests.
    let mut client = client;
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind(many, &[]).await.unwrap();
    assert_eq!(transaction.query_portal(&portal, 10).await.unwrap().len(), 10);
    assert_eq!(texts(&other, "SELECT count(*) FROM t.people").await, ["3"]);
    assert_eq!(transaction.query_portal(&portal, 10).await.unwrap().len(), 10);
    transaction.rollback().await.unwrap();

    // A query that runs takes the only place, and one that waits for it for too long says so.
    let slow = "SELECT count(*) FROM generate_series(1, 400000000000) a";
    let cancel = client.cancel_token();
    let running_query = tokio::spawn(async move { refused(&client, slow).await });
    other.simple_query("SET statement_timeout = '500ms'").await.unwrap();
    let deadline = Instant::now() + A_MINUTE;
    while refused(&other, "SELECT 1").await != "53300" {
        assert!(Instant::now() < deadline, "the place is taken");
    }
    cancel.cancel_query(NoTls).await.unwrap();
    assert_eq!(running_query.await.unwrap(), "57014");
    wait_for(&other, "SELECT 1", "1").await;
    assert_eq!(running.terminate(A_MINUTE).code, Some(0));
}

/// What a debug build takes by itself grows with what it has compiled and mapped; the limit of the queries is 64 MiB.
const GROWTH_KIB_MAX: u64 = 400 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_holds_no_more_than_its_memory() {
    let server = shop().await;
    let port = free_port();
    let limits = [("memory", json!("64MiB")), ("statement_timeout", json!("30s"))];
    let mut running = started(&with_endpoint(Engine::new(&server, "t"), port, &limits));
    let client = connect(port, "ann").await;
    wait_for(&client, "SELECT count(*) FROM t.numbers", "2000").await;
    let before = resident(running.id());
    let pairs = "t.numbers a, t.numbers b, t.numbers c";
    for (sql, expected) in [
        (format!("SELECT array_agg(a.id) FROM {pairs}"), "53200"),
        (format!("SELECT array_agg(repeat('x', 1000)), count(*) FROM {pairs}"), "53200"),
        (format!("SELECT string_agg(repeat('x', 1000), ',') FROM {pairs}"), "53200"),
        (format!("SELECT a.id * 4000000 + b.id * 2000 + c.id AS k, count(*), array_agg(c.id) FROM {pairs} GROUP BY k"), "53200"),
        (format!("SELECT count(*) OVER (), a.id FROM {pairs}"), "53200"),
        ("SELECT array_repeat(1, 1000000000000)".to_owned(), "53200"),
        ("SELECT array_to_string(array_repeat('a', 10000), repeat('b', 1000000))".to_owned(), "53200"),
        (format!("SELECT string_agg('x', repeat(',', 1000000)) FROM {pairs}"), "54001"),
        // Of what it spills there is a bound too: eight times its memory.
        ("SELECT value FROM generate_series(1, 10000000000) ORDER BY value % 1000003".to_owned(), "53200"),
        ("SELECT repeat(repeat('x', 100000), 100000)".to_owned(), "53200"),
        ("SELECT range(1, 9000000000000000000)".to_owned(), "53200"),
    ] {
        let begun = Instant::now();
        let answer = client.simple_query(&sql).await;
        let found = answer.as_ref().err().map_or_else(|| "no error".to_owned(), code);
        // What spills may go on until its time is over.
        assert!(found == expected || found == "57014", "{sql}: {:?}", answer.err());
        assert!(begun.elapsed() < Duration::from_secs(45), "{sql}: {:?}", begun.elapsed());
        let now = resident(running.id());
        assert!(now < before + GROWTH_KIB_MAX, "{sql}: {before} KiB became {now} KiB");
        assert!(running.is_running(), "{sql}");
    }
    assert_eq!(texts(&client, "SELECT count(*) FROM t.numbers").await, ["2000"]);
    assert_eq!(running.terminate(A_MINUTE).code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_anything_is_landed_clients_look_around() {
    let server = shop().await;
    let port = free_port();
    // Nobody listens there, so the stream waits for its source.
    let engine = with_endpoint(Engine::new(&server, "t"), port, &[])
        .set("/profiles/source/mysql/port", json!(free_port()))
        .set("/connect_timeout", json!("10m"));
    let running = started(&engine);
    let client = connect(port, "ann").await;
    assert_eq!(texts(&client, "SELECT 1").await, ["1"]);
    assert_eq!(texts(&client, "SELECT current_database(), current_schema()").await, ["shop"]);
    assert_eq!(texts(&client, "SELECT count(*) FROM information_schema.tables WHERE table_schema = 't'").await, ["0"]);
    assert_eq!(texts(&client, "SELECT count(*) FROM logweir.tables").await, ["0"]);
    assert_eq!(refused(&client, "SELECT * FROM t.people").await, "55000");
    for command in ["\\d", "\\dt", "\\dn", "\\l", "\\d *.*"] {
        psql_says(port, &["-c", command]);
    }
    let (without_name, connection) = config(port, "ann").dbname("ann").connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(texts(&without_name, "SELECT current_database()").await, ["shop"]);
    let _ = running.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_at_a_time_get_their_answers() {
    let server = shop().await;
    let port = free_port();
    let running = started(&with_endpoint(Engine::new(&server, "t"), port, &[("concurrent_queries", json!(2))]));
    wait_for(&connect(port, "ann").await, "SELECT count(*) FROM t.numbers", "2000").await;
    let sessions = (1..=20_i32).map(|n| async move {
        let client = connect(port, "ann").await;
        let rows = client.query("SELECT id FROM t.numbers WHERE id <= $1", &[&(n * 50)]).await.unwrap();
        assert_eq!(rows.len(), usize::try_from(n * 50).unwrap());
    });
    join_all(sessions).await;
    assert_eq!(running.terminate(A_MINUTE).code, Some(0));
}
