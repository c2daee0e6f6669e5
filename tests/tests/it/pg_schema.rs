//! Tables of PostgreSQL that change their shape, come, go, and change what says which row a change is about, while they are
//! followed.

use std::time::Duration;

use logweir_tests::engine::Engine;
use logweir_tests::oracle::{Counted, assert_postgres_equal};
use logweir_tests::servers::PostgresServer;
use serde_json::json;

use crate::pg_live::{Manner, SCHEMA};

const A_MINUTE: Duration = Duration::from_secs(60);

/// Runs steps, each once while logweir follows and once before it has seen the step before, and compares the table `things`
/// and the number of its changes in the end.
async fn steps(manner: Manner, steps: &[&str]) {
    counted_steps(manner, manner.counted(), steps).await;
}

async fn counted_steps(manner: Manner, counted: Counted, steps: &[&str]) {
    for together in [false, true] {
        let server = manner.server().await;
        manner.follow(&server).await;
        let engine = manner.engine(&server, SCHEMA);
        server.execute("CREATE SCHEMA shop").await;
        for step in steps {
            server.execute(&format!("SET search_path = shop; {step}")).await;
            if !together {
                engine.catch_up();
            }
        }
        engine.catch_up();
        let tables = [(SCHEMA.to_owned(), "things".to_owned())];
        println!("{}", assert_postgres_equal(&server, engine.destination(), &tables, counted).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_is_renamed() {
    let rename = [
        "CREATE TABLE things (id integer PRIMARY KEY, size integer, note text)",
        "INSERT INTO things VALUES (1, 10, 'a'), (2, 20, repeat('large ', 2000))",
        "ALTER TABLE things RENAME size TO extent",
        "UPDATE things SET extent = extent + 1",
        "INSERT INTO things VALUES (3, 30, 'c')",
    ];
    steps(Manner::plain(15), &rename).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_trade_their_names() {
    let trade = [
        "CREATE TABLE things (id integer PRIMARY KEY, a integer, b integer)",
        "INSERT INTO things VALUES (1, 10, 100), (2, 20, 200)",
        "ALTER TABLE things RENAME a TO c; ALTER TABLE things RENAME b TO a; ALTER TABLE things RENAME c TO b",
        "UPDATE things SET a = a + 1",
        "INSERT INTO things (id, a, b) VALUES (3, 300, 30)",
    ];
    steps(Manner::plain(15), &trade).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_comes_with_a_default() {
    let add = [
        "CREATE TABLE things (id integer PRIMARY KEY)",
        "INSERT INTO things VALUES (1), (2)",
        "ALTER TABLE things ADD colour text DEFAULT 'red', ADD size integer",
        "UPDATE things SET size = id",
        "INSERT INTO things VALUES (3)",
        "BEGIN; ALTER TABLE things ADD gone integer; INSERT INTO things VALUES (4, 'x', 4, 4); ROLLBACK",
        "BEGIN; INSERT INTO things VALUES (5); ALTER TABLE things ADD late integer; UPDATE things SET late = 5; COMMIT",
    ];
    steps(Manner::plain(12), &add).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_goes_and_comes_back_as_another_type() {
    let replace = [
        "CREATE TABLE things (id integer PRIMARY KEY, value integer, other text)",
        "INSERT INTO things VALUES (1, 10, 'a'), (2, 20, 'b')",
        "ALTER TABLE things DROP value",
        "INSERT INTO things VALUES (3, 'c')",
        "ALTER TABLE things ADD value text",
        "UPDATE things SET value = 'number ' || id",
        "ALTER TABLE things ALTER value TYPE integer USING length(value)",
        "UPDATE things SET value = value + id",
    ];
    steps(Manner::plain(18), &replace).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_is_widened() {
    let widen = [
        "CREATE TABLE things (id smallint PRIMARY KEY, size integer, price numeric(6,2), at timestamp, label varchar(10))",
        "INSERT INTO things VALUES (1, 10, 1.25, '2026-01-01', 'a'), (2, 20, 2.5, '2026-01-02', 'b')",
        "ALTER TABLE things ALTER id TYPE bigint, ALTER size TYPE bigint, ALTER price TYPE numeric(20,4), ALTER label TYPE text",
        "UPDATE things SET size = size * 10000000000, price = price + 0.0001, label = label || ' is longer than ten'",
        "INSERT INTO things VALUES (3000000000, 1, 1234567890.1234, NULL, NULL)",
        "ALTER TABLE things ALTER at TYPE timestamptz USING at AT TIME ZONE 'Asia/Kathmandu'",
        "UPDATE things SET at = at + '1 second'",
    ];
    steps(Manner::plain(17), &widen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_made_anew() {
    let again = [
        "CREATE TABLE things (id integer PRIMARY KEY, value integer)",
        "INSERT INTO things VALUES (1, 10), (2, 20)",
        "DELETE FROM things; DROP TABLE things; CREATE TABLE things (value text, id integer PRIMARY KEY)",
        "INSERT INTO things VALUES ('three', 3)",
        "UPDATE things SET value = 'drei'",
    ];
    let server = PostgresServer::start(15, &[]).await;
    let manner = Manner::plain(15);
    manner.follow(&server).await;
    server.execute("CREATE SCHEMA shop").await;
    let engine = manner.engine(&server, SCHEMA);
    for step in again {
        server.execute(&format!("SET search_path = shop; {step}")).await;
        engine.catch_up();
    }
    // The server's own decoding names what it no longer has by nothing, so changes are not counted.
    let tables = [(SCHEMA.to_owned(), "things".to_owned())];
    assert_postgres_equal(&server, engine.destination(), &tables, Counted::No).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_identifies_a_row_changes() {
    let identity = [
        "CREATE TABLE things (id integer PRIMARY KEY, code text NOT NULL, note text); CREATE UNIQUE INDEX by_code ON things (code)",
        "INSERT INTO things VALUES (1, 'a', 'first'), (2, 'b', repeat('large ', 2000)), (3, 'c', 'third')",
        "ALTER TABLE things REPLICA IDENTITY FULL",
        "UPDATE things SET note = note || '!' WHERE id = 1; UPDATE things SET id = 4 WHERE id = 2; DELETE FROM things WHERE id = 3",
        "ALTER TABLE things REPLICA IDENTITY DEFAULT",
        "UPDATE things SET id = 5 WHERE id = 4; UPDATE things SET code = 'z' WHERE id = 5; INSERT INTO things VALUES (6, 'd', NULL)",
    ];
    steps(Manner::plain(15), &identity).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_come_and_go() {
    let manner = Manner { under_roots: true, ..Manner::plain(15) };
    let partitions = [
        "CREATE TABLE things (id integer, area text, note text, PRIMARY KEY (id, area)) PARTITION BY LIST (area);
         CREATE TABLE things_a PARTITION OF things FOR VALUES IN ('a')",
        "INSERT INTO things VALUES (1, 'a', 'one'), (2, 'a', 'two')",
        "CREATE TABLE things_b PARTITION OF things FOR VALUES IN ('b'); INSERT INTO things VALUES (3, 'b', 'three')",
        "UPDATE things SET area = 'b' WHERE id = 1",
        "DELETE FROM things WHERE area = 'a'; ALTER TABLE things DETACH PARTITION things_a; DROP TABLE things_a",
        "UPDATE things SET note = note || '!'",
    ];
    // The server's own decoding names partitions that are gone by nothing.
    counted_steps(manner, Counted::No, &partitions).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_with_rows_joins_the_publication() {
    for version in [13, 16] {
        let server = PostgresServer::start(version, &[]).await;
        server.execute("CREATE SCHEMA shop; CREATE TABLE shop.things (id integer PRIMARY KEY, n integer)").await;
        server.execute("CREATE TABLE shop.others (id integer PRIMARY KEY, n integer); CREATE PUBLICATION weir FOR TABLE shop.things").await;
        server.execute("INSERT INTO shop.things SELECT n, n FROM generate_series(1, 500) n").await;
        server.execute("INSERT INTO shop.others SELECT n, n FROM generate_series(1, 5000) n").await;
        let engine = Engine::postgres(&server, SCHEMA).set("/streams/shop/backfill", json!({ "chunk_rows": 1000 }));
        engine.catch_up();
        let mut running = engine.start(&["run"]);
        server.execute("UPDATE shop.others SET n = -n WHERE id % 3 = 0").await;
        server.execute("ALTER PUBLICATION weir ADD TABLE shop.others").await;
        for round in 0..40 {
            server
                .execute(&format!(
                    "UPDATE shop.others SET n = n + 1 WHERE id % 40 = {round}; UPDATE shop.things SET n = {round} WHERE id = 7"
                ))
                .await;
        }
        assert!(running.is_running(), "{}", running.messages());
        let finished = running.terminate(A_MINUTE);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        engine.catch_up();
        let tables = ["things", "others"].map(|table| (SCHEMA.to_owned(), table.to_owned()));
        println!("{}", assert_postgres_equal(&server, engine.destination(), &tables, Counted::No).await);
    }
}
