//! Tables of PostgreSQL that change their shape, come, go, and change what says which row a change is about, while they are
//! followed.

use std::time::Duration;

use logweir_tests::engine::Engine;
use logweir_tests::oracle::{Counted, assert_postgres_equal};
use logweir_tests::servers::PostgresServer;
use serde_json::json;

use crate::pg_live::{Manner, SCHEMA};
use crate::pg_operations::query;

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

/// A table that is out of the log's sight for a while.
struct Absence<'a> {
    version: u32,
    /// Makes the tables and the publication.
    setup: &'a str,
    /// Statements that take it out of sight, change it there, and bring it back.
    away: &'a str,
    meanwhile: &'a str,
    back: &'a str,
    /// What is compared.
    tables: &'a [&'a str],
    /// The tables that are read again, of those.
    again: &'a [&'a str],
}

const READ_AGAIN: &str = "it is read again";
const NOT_FOLLOWED: &str = "is not published and followed any more";

impl Absence<'_> {
    async fn prepared(&self, backfill: &str) -> (PostgresServer, Engine) {
        let server = PostgresServer::start(self.version, &[]).await;
        server.execute(&format!("CREATE SCHEMA shop; CREATE SCHEMA aside; SET search_path = shop; {}", self.setup)).await;
        let engine = Engine::postgres(&server, SCHEMA).set("/streams/shop/backfill", json!(backfill));
        engine.catch_up();
        (server, engine)
    }

    async fn execute(&self, server: &PostgresServer, statements: &str) {
        server.execute(&format!("SET search_path = shop; {statements}")).await;
    }

    async fn compare(&self, server: &PostgresServer, engine: &Engine, messages: &str) {
        for table in self.tables {
            let lines = messages.lines().filter(|line| line.contains(READ_AGAIN) && line.contains(&format!("relation=shop.{table}")));
            let expected = usize::from(self.again.contains(table));
            assert_eq!(lines.count(), expected, "{table} of {}: {messages}", self.version);
        }
        let tables: Vec<_> = self.tables.iter().map(|table| (SCHEMA.to_owned(), (*table).to_owned())).collect();
        println!("{}", assert_postgres_equal(server, engine.destination(), &tables, Counted::No).await);
        // And nothing is read once more.
        let finished = engine.catch_up();
        assert!(!finished.stderr.contains(READ_AGAIN), "{}", finished.stderr);
        assert_postgres_equal(server, engine.destination(), &tables, Counted::No).await;
    }

    /// All of it happens while nobody follows.
    async fn while_stopped(&self) {
        let (server, engine) = self.prepared("all").await;
        for statements in [self.away, self.meanwhile, self.back] {
            self.execute(&server, statements).await;
        }
        let finished = engine.catch_up();
        self.compare(&server, &engine, &finished.stderr).await;
    }

    /// It happens while logweir runs: `seen` if so slowly that the absence itself is noticed.
    async fn while_running(&self, seen: bool) {
        let (server, engine) = self.prepared("all").await;
        let mut running = engine.start(&["run"]);
        running.wait_for_message("reading the log", A_MINUTE);
        if !seen {
            // What is there is looked at as it is before.
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        self.execute(&server, self.away).await;
        self.execute(&server, self.meanwhile).await;
        if seen {
            running.wait_for_message(NOT_FOLLOWED, A_MINUTE);
            self.execute(&server, self.meanwhile).await;
        }
        self.execute(&server, self.back).await;
        running.wait_for_message(READ_AGAIN, A_MINUTE);
        running.wait_for_message("all rows that were there are read", A_MINUTE);
        let messages = running.messages();
        let finished = running.terminate(A_MINUTE);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        engine.catch_up();
        self.compare(&server, &engine, &messages).await;
    }
}

const TWO_TABLES: &str = "CREATE TABLE things (id integer PRIMARY KEY, n integer, note text);
     CREATE TABLE others (id integer PRIMARY KEY, n integer);
     INSERT INTO things SELECT n, n, 'before' FROM generate_series(1, 2000) n; INSERT INTO others SELECT n, n FROM generate_series(1, 2000) n;";

const CHANGES: &str = "DELETE FROM things WHERE id % 7 = 0; UPDATE things SET n = -n WHERE id % 5 = 0;
     UPDATE others SET n = n + 1 WHERE id % 3 = 0; INSERT INTO things SELECT max(id) + 1, 0 FROM things";

/// What happens to a table while it is not published is in no log, so it is read again when it comes back; and no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_leaves_the_publication_and_comes_back() {
    for version in [12, 18] {
        let absence = Absence {
            version,
            setup: &format!("{TWO_TABLES} CREATE PUBLICATION weir FOR TABLE things, others"),
            away: "ALTER PUBLICATION weir DROP TABLE things",
            meanwhile: CHANGES,
            back: "ALTER PUBLICATION weir ADD TABLE things",
            tables: &["things", "others"],
            again: &["things"],
        };
        absence.while_stopped().await;
        absence.while_running(version == 18).await;
    }
}

/// What a publication left out for a while is in no log either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_leaves_out_operations_for_a_while() {
    for version in [12, 18] {
        let absence = Absence {
            version,
            setup: &format!("{TWO_TABLES} CREATE PUBLICATION weir FOR TABLE things, others"),
            away: "ALTER PUBLICATION weir SET (publish = 'insert, truncate')",
            meanwhile: CHANGES,
            back: "ALTER PUBLICATION weir SET (publish = 'insert, update, delete, truncate')",
            tables: &["things", "others"],
            again: &["things", "others"],
        };
        let (server, engine) = absence.prepared("all").await;
        absence.execute(&server, absence.away).await;
        let finished = engine.catch_up();
        assert!(finished.stderr.contains("leaves out operations") && finished.stderr.contains("update, delete"), "{}", finished.stderr);
        absence.execute(&server, absence.meanwhile).await;
        let finished = engine.catch_up();
        assert!(!finished.stderr.contains("leaves out operations") && !finished.stderr.contains(READ_AGAIN), "{}", finished.stderr);
        absence.execute(&server, absence.back).await;
        let finished = engine.catch_up();
        absence.compare(&server, &engine, &finished.stderr).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_moves_to_another_schema_and_back() {
    for (version, publication) in [(12, "FOR ALL TABLES"), (17, "FOR TABLES IN SCHEMA shop")] {
        let absence = Absence {
            version,
            setup: &format!("{TWO_TABLES} CREATE PUBLICATION weir {publication}"),
            away: "ALTER TABLE things SET SCHEMA aside",
            meanwhile: "UPDATE aside.things SET n = n + 1000; DELETE FROM aside.things WHERE id = (SELECT min(id) FROM aside.things)",
            back: "ALTER TABLE aside.things SET SCHEMA shop; UPDATE things SET n = 0 WHERE id = 5",
            tables: &["things", "others"],
            again: &["things"],
        };
        absence.while_stopped().await;
        absence.while_running(version == 17).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_is_detached_and_attached_again() {
    for (via_root, tables, again) in [(true, &["things"][..], &["things"][..]), (false, &["things_a", "things_b"], &["things_a"])] {
        let absence = Absence {
            version: 15,
            setup: &format!(
                "CREATE TABLE things (id integer, area text, n integer, PRIMARY KEY (id, area)) PARTITION BY LIST (area);
                 CREATE TABLE things_a PARTITION OF things FOR VALUES IN ('a'); CREATE TABLE things_b PARTITION OF things FOR VALUES IN ('b');
                 INSERT INTO things SELECT n, CASE WHEN n % 2 = 0 THEN 'a' ELSE 'b' END, n FROM generate_series(1, 2000) n;
                 CREATE PUBLICATION weir FOR TABLE things WITH (publish_via_partition_root = {via_root})"
            ),
            away: "ALTER TABLE things DETACH PARTITION things_a",
            meanwhile: "DELETE FROM things_a WHERE id % 10 = 0; UPDATE things_a SET n = n + 1; UPDATE things SET n = n + 1 WHERE id % 3 = 0",
            back: "ALTER TABLE things ATTACH PARTITION things_a FOR VALUES IN ('a'); UPDATE things SET n = 0 WHERE id % 9 = 0",
            tables,
            again,
        };
        absence.while_stopped().await;
        absence.while_running(via_root).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_unlogged_for_a_while() {
    // With and without a table for values that are stored apart.
    for (version, note) in [(13, ", note text DEFAULT 'here'"), (18, "")] {
        let absence = Absence {
            version,
            setup: &format!(
                "CREATE TABLE things (id integer PRIMARY KEY, n integer{note}); CREATE TABLE others (id integer PRIMARY KEY, n integer);
                 CREATE TABLE emptied (id integer PRIMARY KEY, note text);
                 INSERT INTO things (id, n) SELECT n, n FROM generate_series(1, 2000) n; INSERT INTO others SELECT n, n FROM generate_series(1, 2000) n;
                 INSERT INTO emptied SELECT n, 'before' FROM generate_series(1, 2000) n; CREATE PUBLICATION weir FOR ALL TABLES"
            ),
            away: "ALTER TABLE things SET UNLOGGED",
            meanwhile: CHANGES,
            back: "ALTER TABLE things SET LOGGED; UPDATE things SET n = 0 WHERE id = 5; TRUNCATE emptied; INSERT INTO emptied VALUES (1, 'after');
                   UPDATE others SET n = 0 WHERE id = 5",
            // Others that are written anew lose nothing, and are not read again.
            tables: &["things", "others", "emptied"],
            again: &["things"],
        };
        let (server, engine) = absence.prepared("all").await;
        for statements in [absence.away, absence.meanwhile, absence.back] {
            absence.execute(&server, statements).await;
        }
        server.execute("VACUUM FULL shop.others").await;
        let finished = engine.catch_up();
        absence.compare(&server, &engine, &finished.stderr).await;
        absence.while_running(version == 13).await;
    }
}

/// Without a backfill nothing is read again, and somebody must know: once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_backfill_a_gap_is_said() {
    let absence = Absence {
        version: 17,
        setup: &format!("{TWO_TABLES} CREATE PUBLICATION weir FOR TABLE things, others"),
        away: "ALTER PUBLICATION weir DROP TABLE things",
        meanwhile: CHANGES,
        back: "ALTER PUBLICATION weir ADD TABLE things",
        tables: &[],
        again: &[],
    };
    let (server, engine) = absence.prepared("none").await;
    let follow = async || {
        let mut running = engine.start(&["run"]);
        running.wait_for_message("reading the log", A_MINUTE);
        // Until it has looked, and a mark with what it saw is decided.
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(running.is_running(), "{}", running.messages());
        running.terminate(A_MINUTE).stderr
    };
    let missing = "what happened to its rows meanwhile is missing";
    assert!(!follow().await.contains(missing));
    for statements in [absence.away, absence.meanwhile, absence.back] {
        absence.execute(&server, statements).await;
    }
    let said = follow().await;
    let lines: Vec<&str> = said.lines().filter(|line| line.contains(missing)).collect();
    assert!(lines.len() == 1 && lines[0].contains("relation=shop.things") && lines[0].contains("backfill: all"), "{said}");
    let again = follow().await;
    assert!(!again.contains(missing), "{again}");
}

/// A key of which a column is not published is none: what is left of it may be the same in different rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_not_wholly_published_is_none() {
    for (version, mend) in
        [(17, "ALTER TABLE shop.things REPLICA IDENTITY FULL"), (18, "ALTER PUBLICATION weir SET (publish_generated_columns = stored)")]
    {
        let server = PostgresServer::start(version, &[]).await;
        server
            .execute(
                "CREATE SCHEMA shop; SET search_path = shop;
                 CREATE TABLE things (id integer, note text, size integer GENERATED ALWAYS AS (length(note)) STORED, PRIMARY KEY (id, size));
                 INSERT INTO things VALUES (1, 'a'), (1, 'bb');
                 CREATE PUBLICATION weir FOR TABLE things",
            )
            .await;
        let engine = Engine::postgres(&server, SCHEMA).set("/streams/shop/backfill", json!("all"));
        let things = "SELECT id, note FROM shop.things ORDER BY id, note";
        let rows = |rows: &[(i32, &str)]| json!(rows.iter().map(|(id, note)| json!({ "id": id, "note": note })).collect::<Vec<_>>());
        engine.catch_up();
        server.execute("INSERT INTO shop.things VALUES (1, 'ccc'), (2, 'd')").await;
        engine.catch_up();
        assert_eq!(query(&engine, things), rows(&[(1, "a"), (1, "bb"), (1, "ccc"), (2, "d")]), "{version}");
        let found = engine.run(&["check"], A_MINUTE);
        assert!(
            found.stdout.contains("key_not_published") && found.stdout.contains("shop.things.size"),
            "{}{}",
            found.stdout,
            found.stderr
        );
        assert!(found.stdout.contains(mend), "{}", found.stdout);
        if version < 18 {
            // Later servers refuse these themselves.
            let lost = Engine::postgres(&server, SCHEMA).set("/profiles/source/postgres/slot", json!("other"));
            lost.catch_up();
            server.execute("UPDATE shop.things SET note = 'x' WHERE id = 2; UPDATE shop.things SET note = 'd' WHERE id = 2").await;
            let finished = lost.run(&["run"], A_MINUTE);
            assert_eq!(finished.code, Some(1), "{}", finished.stderr);
            assert!(finished.stderr.contains("does not say which row") && finished.stderr.contains("shop.things"), "{}", finished.stderr);
            server.execute("SELECT pg_drop_replication_slot('other')").await;
            // So does this stream, which has not passed it either.
            assert_eq!(engine.run(&["run"], A_MINUTE).code, Some(1));
            server.execute("SELECT pg_drop_replication_slot('weir')").await;
        }
        server.execute(mend).await;
        let found = engine.run(&["check"], A_MINUTE);
        assert_eq!(found.stdout.contains("key_not_published"), version < 18, "{}", found.stdout);
        if version == 18 {
            // Now it has a key, under which nothing was landed yet.
            let finished = engine.catch_up();
            assert!(finished.stderr.contains(READ_AGAIN), "{}", finished.stderr);
            server.execute("SELECT pg_drop_replication_slot('weir')").await;
        }
        // A table that gets another key cannot be followed to its rows, so the stream is begun anew.
        let engine = Engine::postgres(&server, SCHEMA).set("/streams/shop/backfill", json!("all"));
        engine.catch_up();
        server
            .execute("UPDATE shop.things SET note = 'xyzz' WHERE note = 'bb'; DELETE FROM shop.things WHERE note = 'a'; INSERT INTO shop.things VALUES (3, 'e')")
            .await;
        engine.catch_up();
        assert_eq!(query(&engine, things), rows(&[(1, "ccc"), (1, "xyzz"), (2, "d"), (3, "e")]), "{version}");
    }
}

/// A list of columns may leave out a part of the key where only inserts are published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inserts_without_a_part_of_their_key() {
    for version in [15, 18] {
        let server = PostgresServer::start(version, &[]).await;
        server
            .execute(
                "CREATE SCHEMA shop; SET search_path = shop;
                 CREATE TABLE things (id integer, code text, note text, PRIMARY KEY (id, code)); INSERT INTO things VALUES (1, 'x', 'a'), (1, 'y', 'b');
                 CREATE PUBLICATION weir FOR TABLE things (id, note) WITH (publish = 'insert')",
            )
            .await;
        let engine = Engine::postgres(&server, SCHEMA).set("/streams/shop/backfill", json!("all"));
        engine.catch_up();
        server
            .execute("INSERT INTO shop.things VALUES (1, 'z', 'c'), (2, 'x', 'a'); UPDATE shop.things SET note = 'unseen' WHERE code = 'x'")
            .await;
        engine.catch_up();
        let rows: Vec<_> = [(1, "a"), (1, "b"), (1, "c"), (2, "a")].iter().map(|(id, note)| json!({ "id": id, "note": note })).collect();
        assert_eq!(query(&engine, "SELECT id, note FROM shop.things ORDER BY id, note"), json!(rows), "{version}");
        let found = engine.run(&["check"], A_MINUTE);
        assert!(
            found.stdout.contains("key_not_published") && found.stdout.contains("shop.things.code"),
            "{}{}",
            found.stdout,
            found.stderr
        );
    }
}

/// Whoever has locked a table keeps the log of others waiting neither where it is opened nor where a table has another shape, though
/// later servers open all of a publication's tables to say what it sends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_table_keeps_no_other_waiting() {
    let server = PostgresServer::start(18, &[]).await;
    server
        .execute(
            "CREATE SCHEMA shop; CREATE TABLE shop.things (id integer PRIMARY KEY); CREATE TABLE shop.others (id integer PRIMARY KEY);
             CREATE PUBLICATION weir FOR TABLE shop.things, shop.others",
        )
        .await;
    let engine = Engine::postgres(&server, SCHEMA).set("/streams/shop/backfill", json!("none"));
    engine.catch_up();
    server.execute("INSERT INTO shop.things VALUES (1); INSERT INTO shop.others VALUES (1)").await;
    engine.catch_up();
    let other = server.connect().await;
    other.batch_execute("BEGIN; LOCK TABLE shop.others IN ACCESS EXCLUSIVE MODE").await.unwrap();
    server
        .execute("INSERT INTO shop.things VALUES (2); ALTER TABLE shop.things ADD size integer; INSERT INTO shop.things VALUES (3, 3)")
        .await;
    let finished = engine.catch_up();
    assert!(!finished.stderr.contains("lost the log"), "{}", finished.stderr);
    other.batch_execute("ROLLBACK").await.unwrap();
    let tables = ["things", "others"].map(|table| (SCHEMA.to_owned(), table.to_owned()));
    println!("{}", assert_postgres_equal(&server, engine.destination(), &tables, Counted::No).await);
}
