//! What servers and their operators do: pgbench, standbys and failovers, publications of a part, log that must not fill the disk.

use std::time::{Duration, Instant};

use logweir_tests::engine::{Engine, Running, http_get};
use logweir_tests::oracle::{Counted, assert_postgres_equal};
use logweir_tests::postgres::{Workload, WorkloadOptions};
use logweir_tests::servers::{PostgresServer, free_port};
use serde_json::{Value, json};

use crate::faults::check;
use crate::kill::quick_checkpoints;
use crate::pg_live::{Manner, SCHEMA};

const A_MINUTE: Duration = Duration::from_secs(60);

fn named(schema: &str, tables: &[&str]) -> Vec<(String, String)> {
    tables.iter().map(|table| (schema.to_owned(), (*table).to_owned())).collect()
}

/// Ends it as an operator would, and sees that it was in order until then.
fn stop(mut running: Running) {
    assert!(running.is_running(), "{}", running.messages());
    let finished = running.terminate(A_MINUTE);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
}

/// TPC-B of pgbench, loaded and run beside a stream that reads what is there: accounts, tellers, branches and history must
/// tell the same balance. For `LOGWEIR_PGBENCH_SECONDS`, else for seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn balances_of_pgbench_are_equal() {
    let seconds = std::env::var("LOGWEIR_PGBENCH_SECONDS").unwrap_or_else(|_| "12".to_owned());
    let server = PostgresServer::start(15, &["max_wal_size = 1GB"]).await;
    server.pgbench(&["--initialize", "--scale=2", "--quiet"]);
    server.execute("CREATE PUBLICATION weir FOR TABLE pgbench_accounts, pgbench_tellers, pgbench_branches, pgbench_history").await;
    server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO weir").await;
    let engine = Engine::postgres(&server, "public").set("/streams/shop/backfill", json!({ "chunk_rows": 20000, "tasks": 3 }));
    let mut running = engine.start(&["run"]);
    running.wait_for_message("reading the log", A_MINUTE);
    server.pgbench(&["--client=6", "--jobs=2", "--no-vacuum", &format!("--time={seconds}")]);
    stop(running);
    engine.catch_up();
    let tables = named("public", &["pgbench_accounts", "pgbench_tellers", "pgbench_branches", "pgbench_history"]);
    println!("{}", assert_postgres_equal(&server, engine.destination(), &tables, Counted::No).await);
    let balances = "SELECT count(DISTINCT total) FROM (SELECT sum(abalance) AS total FROM public.pgbench_accounts UNION ALL \
                    SELECT sum(tbalance) FROM public.pgbench_tellers UNION ALL SELECT sum(bbalance) FROM public.pgbench_branches \
                    UNION ALL SELECT sum(delta) FROM public.pgbench_history) totals";
    assert_eq!(server.value(balances).await, "1");
    assert_eq!(query(&engine, balances), json!([{ "count(DISTINCT totals.total)": 1 }]));
}

/// What `logweir sql` prints of a query, as JSON.
#[track_caller]
pub(crate) fn query(engine: &Engine, sql: &str) -> Value {
    let finished = engine.run(&["sql", sql, "--format", "json"], A_MINUTE);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    finished.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect()
}

/// From 17 on a slot is kept in step on a standby, and a stream goes on there when it takes over.
async fn failover(version: u32, seed: u64) {
    let primary = PostgresServer::start(version, &[]).await;
    let standby = PostgresServer::standby_of(&primary, &["sync_replication_slots = on"]).await;
    let physical = primary.value("SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'physical'").await;
    primary.set("synchronized_standby_slots", &format!("'{physical}'")).await;
    Manner::plain(version).publish(&primary).await;
    let engine = quick_checkpoints(Engine::postgres(&primary, SCHEMA)).set("/profiles/source/postgres/failover", json!(true));
    let client = primary.connect().await;
    let mut workload = Workload::new(seed, SCHEMA, WorkloadOptions::ALL);
    workload.create(&client).await;
    workload.run(&client, 20).await;
    // The making of a slot waits for prepared transactions; what was there before it is read too.
    workload.settle(&client).await;
    let engine = engine.set("/streams/shop/backfill", json!("all"));
    let mut running = engine.start(&["run"]);
    running.wait_for_message("reading the log", A_MINUTE);
    workload.run(&client, 100).await;
    // The copy of the slot can be used once the slot has passed the place at which the copy was begun.
    let in_step = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'weir' AND synced AND NOT temporary";
    let deadline = Instant::now() + A_MINUTE;
    while standby.value(in_step).await == "0" {
        assert!(running.is_running() && Instant::now() < deadline, "the slot is not in step: {}", running.messages());
        primary.execute("SELECT pg_log_standby_snapshot()").await;
        workload.run(&client, 2).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    workload.run(&client, 50).await;
    workload.settle(&client).await;
    let last = primary.value("SELECT pg_current_wal_insert_lsn()").await;
    standby.wait_until(&format!("pg_last_wal_replay_lsn() >= '{last}'")).await;
    drop(client);
    let mut primary = primary;
    primary.kill();
    standby.promote().await;
    // It has tried meanwhile to come back to the one that is gone.
    stop(running);
    let engine = engine.set("/profiles/source/postgres/port", json!(standby.port()));
    let mut running = engine.start(&["run"]);
    let client = standby.connect().await;
    workload.enter(&client).await;
    workload.run(&client, 60).await;
    running.wait_for_message("goes on on another timeline", A_MINUTE);
    workload.settle(&client).await;
    stop(running);
    engine.catch_up();
    println!("{}", assert_postgres_equal(&standby, engine.destination(), &workload.tables(false), Counted::No).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_on_at_the_standby_that_takes_over() {
    failover(17, 301).await;
    failover(18, 302).await;
}

/// A standby without the slot has nothing to go on from, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_without_the_slot_is_not_taken_for_the_primary() {
    let mut primary = PostgresServer::start(15, &[]).await;
    let standby = PostgresServer::standby_of(&primary, &[]).await;
    Manner::plain(15).follow(&primary).await;
    primary.execute("CREATE SCHEMA shop; CREATE TABLE shop.things (id int PRIMARY KEY); INSERT INTO shop.things VALUES (1)").await;
    let engine = Engine::postgres(&primary, SCHEMA);
    engine.catch_up();
    standby.wait_until("EXISTS (SELECT FROM shop.things)").await;
    primary.kill();
    standby.promote().await;
    standby.execute("INSERT INTO shop.things VALUES (2)").await;
    let engine = engine.set("/profiles/source/postgres/port", json!(standby.port()));
    check(&engine.run(&["run"], A_MINUTE), 1, &["the replication slot is gone", "backfill: all"]);
}

/// From 16 on a standby can be the source, before and after it becomes a primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_is_followed() {
    for (version, seed) in [(16, 311), (18, 312)] {
        let mut primary = PostgresServer::start(version, &[]).await;
        let standby = PostgresServer::standby_of(&primary, &["wal_receiver_status_interval = 1"]).await;
        Manner::plain(version).publish(&primary).await;
        standby.wait_until("EXISTS (SELECT FROM pg_publication)").await;
        let engine = Engine::postgres(&standby, SCHEMA);
        let mut running = engine.start(&["run"]);
        // The slot is made when the primary has said which transactions are running.
        while standby.value("SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn IS NOT NULL").await == "0" {
            assert!(running.is_running(), "{}", running.messages());
            primary.execute("SELECT pg_log_standby_snapshot()").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        running.wait_for_message("reading the log", A_MINUTE);
        // From then on the primary keeps what the slot needs of its catalog.
        primary.wait_until("SELECT catalog_xmin IS NOT NULL FROM pg_replication_slots").await;
        let client = primary.connect().await;
        let mut workload = Workload::new(seed, SCHEMA, WorkloadOptions::ALL);
        workload.create(&client).await;
        workload.run(&client, 100).await;
        workload.settle(&client).await;
        let last = primary.value("SELECT pg_current_wal_insert_lsn()").await;
        standby.wait_until(&format!("pg_last_wal_replay_lsn() >= '{last}'")).await;
        stop(running);
        engine.catch_up();
        let tables = workload.tables(false);
        println!("{}", assert_postgres_equal(&standby, engine.destination(), &tables, Counted::No).await);
        drop(client);
        primary.kill();
        standby.promote().await;
        let client = standby.connect().await;
        workload.enter(&client).await;
        workload.run(&client, 50).await;
        workload.settle(&client).await;
        engine.catch_up();
        println!("{}", assert_postgres_equal(&standby, engine.destination(), &tables, Counted::No).await);
    }
}

/// What no calendar library knows is printed as PostgreSQL means it, in every format.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dates_beyond_every_calendar_are_printed() {
    let server = PostgresServer::start(15, &[]).await;
    Manner::plain(15).publish(&server).await;
    server
        .execute(
            "CREATE SCHEMA shop; CREATE TABLE shop.times (id int PRIMARY KEY, d date, t timestamp, z timestamptz, c time, l date[]);
             INSERT INTO shop.times VALUES (1, 'infinity', '-infinity', 'infinity', '24:00', '{infinity,2026-01-02}'),
             (2, '5874897-12-31', '294247-01-10 04:00:54.775806', '0044-03-15 12:00:00+00 BC', '12:30', '{}'),
             (3, '2026-01-02', '2026-01-02 03:04:05', '2026-01-02 03:04:05+00', '01:00:00.5', NULL)",
        )
        .await;
    let engine = Engine::postgres(&server, SCHEMA).set("/streams/shop/backfill", json!("all"));
    engine.catch_up();
    const QUERY: &str = "SELECT * FROM shop.times ORDER BY id";
    assert_eq!(
        query(&engine, QUERY),
        json!([
            { "id": 1, "d": "infinity", "t": "-infinity", "z": "infinity", "c": "24:00:00", "l": ["infinity", "2026-01-02"] },
            { "id": 2, "d": "+5874897-12-31", "t": "+294247-01-10T04:00:54.775806", "z": "-0043-03-15T12:00:00Z", "c": "12:30:00", "l": [] },
            { "id": 3, "d": "2026-01-02", "t": "2026-01-02T03:04:05", "z": "2026-01-02T03:04:05Z", "c": "01:00:00.500" },
        ])
    );
    let print = |format: &str| {
        let finished = engine.run(&["sql", "SELECT id, d, t, z, c FROM shop.times ORDER BY id", "--format", format], A_MINUTE);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished.stdout
    };
    let csv = print("csv");
    assert!(csv.contains("\n1,infinity,-infinity,infinity,24:00:00\n2,+5874897-12-31,"), "{csv}");
    let table = print("table");
    assert!(table.contains("| infinity ") && table.contains("| +294247-01-10T04:00:54.775806 ") && !table.contains("ERROR"), "{table}");
}

fn status(engine: &Engine, format: &str) -> String {
    let finished = engine.run(&["status", "--format", format], A_MINUTE);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    finished.stdout
}

/// How far the backfill is, as `logweir status` says.
fn backfill_status(engine: &Engine) -> (Value, Value) {
    let status: Value = serde_json::from_str(&status(engine, "json")).unwrap();
    let stream = status["streams"][0].clone();
    (stream["backfill"].clone(), stream)
}

/// How far the reading of tables is can be seen while they are read, and of a stream that does not run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_far_a_backfill_is_can_be_seen() {
    let server = PostgresServer::start(15, &[]).await;
    Manner::plain(15).publish(&server).await;
    // A table whose rows take their time: each that is behind the first chunks has to pass a policy that waits.
    server
        .execute(
            "CREATE SCHEMA shop; SET search_path = shop;
             CREATE TABLE few (id int PRIMARY KEY); INSERT INTO few SELECT generate_series(1, 10);
             CREATE TABLE slow (id int PRIMARY KEY, note text); INSERT INTO slow SELECT n, repeat('x', 500) FROM generate_series(1, 6000) n;
             CREATE POLICY slowly ON slow USING (id < 1000 OR pg_sleep(0.004) IS NOT NULL); ALTER TABLE slow ENABLE ROW LEVEL SECURITY;
             GRANT USAGE ON SCHEMA shop TO weir; GRANT SELECT ON ALL TABLES IN SCHEMA shop TO weir; ANALYZE",
        )
        .await;
    let port = free_port();
    let engine = quick_checkpoints(Engine::postgres(&server, SCHEMA))
        .set("/streams/shop/backfill", json!({ "chunk_rows": 100, "tasks": 1 }))
        .set("/http", json!({ "listen": format!("127.0.0.1:{port}") }));
    assert_eq!(backfill_status(&engine).0, Value::Null);
    let mut running = engine.start(&["run"]);
    let deadline = Instant::now() + A_MINUTE;
    let under_way = loop {
        let (backfill, stream) = backfill_status(&engine);
        // A table counts as read at the end of its wave.
        if stream["state"] == "running" && backfill["tables_read"] == 1 && backfill["under_way"][0]["chunks_read"].as_u64() > Some(0) {
            break backfill;
        }
        assert!(running.is_running() && Instant::now() < deadline, "{backfill}: {}", running.messages());
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let begun = |backfill: &Value| {
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number: {backfill}"));
        assert_eq!(
            [&backfill["complete"], &backfill["tables"], &backfill["tables_read"]],
            [&json!(false), &json!(2), &json!(1)],
            "{backfill}"
        );
        let [table] = backfill["under_way"].as_array().unwrap().as_slice() else { panic!("one table is under way: {backfill}") };
        assert_eq!(table["table"], "shop.slow");
        let (read, all) = (number(&table["chunks_read"]), number(&table["chunks"]));
        assert!(0 < read && read < all && (20..30).contains(&all), "{backfill}");
        let rows = number(&table["rows_read"]);
        assert!((1..6000).contains(&rows) && number(&backfill["rows_read"]) == rows + 10, "{backfill}");
    };
    begun(&under_way);
    let metrics = http_get(port, "/metrics");
    for line in ["logweir_backfill_tables{stream=\"shop\"} 2", "logweir_backfill_tables_read{stream=\"shop\"} "] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    stop(running);
    let (backfill, stream) = backfill_status(&engine);
    assert_eq!(stream["state"], "offline");
    begun(&backfill);
    let text = status(&engine, "text");
    assert!(text.contains("  backfill: 1 of 2 tables read, ") && text.contains("under way: shop.slow "), "{text}");

    server.execute("ALTER TABLE shop.slow DISABLE ROW LEVEL SECURITY").await;
    engine.catch_up();
    let (backfill, _) = backfill_status(&engine);
    assert_eq!(backfill, json!({ "complete": true, "tables": 2, "tables_read": 2, "rows_read": 6010, "under_way": [] }));
    assert!(status(&engine, "text").contains("  backfill: complete, 2 tables, 6,010 rows\n"));
}

/// Where a destination is behind, and what waits to be decided, in SQL, in the status and in the metrics.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_behind_and_what_is_not_decided_can_be_seen() {
    let server = PostgresServer::start(15, &["max_prepared_transactions = 4"]).await;
    Manner::plain(15).publish(&server).await;
    server.execute("CREATE SCHEMA shop; CREATE TABLE shop.t (id int PRIMARY KEY); INSERT INTO shop.t VALUES (1)").await;
    let port = free_port();
    let engine = Engine::postgres(&server, SCHEMA)
        .set("/profiles/source/postgres/two_phase", json!(true))
        .set("/streams/shop/backfill", json!("all"))
        .set("/streams/shop/destinations/0/rotate", json!({ "interval": "2s" }))
        .set("/http", json!({ "listen": format!("127.0.0.1:{port}") }));
    let sql = |text: &str| {
        let finished = engine.run(&["sql", text, "--format", "json"], A_MINUTE);
        let lines = finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
        if finished.code == Some(0) { Ok(lines) } else { Err(finished.stderr) }
    };
    let deadline = Instant::now() + A_MINUTE;
    let running = engine.start(&["run"]);
    let lag = "SELECT freshness_seconds AS whole, read_lag_seconds AS read, transform_lag_seconds AS transform, write_lag_seconds AS write, \
               commit_lag_seconds AS commit FROM logweir.consumers";
    let mut id = 100;
    // The slot is made when nothing is under way.
    let (mut prepared, mut waits_for_its_file) = (false, false);
    let open = loop {
        // Written all the while: a file is due every other second, and until then the writer is what it waits for.
        server.execute(&format!("INSERT INTO shop.t VALUES ({id})")).await;
        id += 1;
        let seen = sql(lag).and_then(|lag| Ok((lag, sql("SELECT * FROM logweir.open_transactions")?)));
        if let Ok((lags, open)) = &seen
            && let [lag] = lags.as_slice()
            && let Some(all) = lag["whole"].as_f64()
            && lag["read"].is_number()
        {
            let step = |name: &str| lag[name].as_f64().unwrap();
            if !prepared {
                server.execute("BEGIN; INSERT INTO shop.t SELECT generate_series(2, 11); PREPARE TRANSACTION 'weir'").await;
                prepared = true;
            }
            waits_for_its_file |= step("write") > 0.5;
            // Asked a moment later than the whole.
            assert!(step("read") + step("transform") + step("write") + step("commit") < all + 5.0, "{lag}");
            if let ([open], true) = (open.as_slice(), waits_for_its_file) {
                break open.clone();
            }
        }
        assert!(Instant::now() < deadline, "{seen:?}: {}", running.messages());
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!((&open["stream"], &open["prepared"]), (&json!("shop"), &json!(true)), "{open}");
    // Ten rows, and what the table is, if it had not been said before.
    assert!(open["messages"].as_u64().is_some_and(|messages| (10..=12).contains(&messages)), "{open}");
    assert!(open["prepared_at"].is_string() && open["bytes"].as_u64() > Some(0), "{open}");
    let text = status(&engine, "text");
    assert!(text.contains("  transactions that are not decided: 1 (1 prepared), ") && text.contains("lake is behind by: read "), "{text}");
    for line in
        ["logweir_open_transactions{stream=\"shop\"} 1", "logweir_lag_seconds{stream=\"shop\",destination=\"lake\",step=\"write\"} "]
    {
        // They are refreshed from time to time.
        while !http_get(port, "/metrics").contains(line) {
            assert!(Instant::now() < deadline, "{line}: {}", http_get(port, "/metrics"));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    server.execute("COMMIT PREPARED 'weir'").await;
    while sql("SELECT * FROM logweir.open_transactions") != Ok(Vec::new()) {
        assert!(Instant::now() < deadline, "{}", running.messages());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    stop(running);
    let [lag] = &*sql(lag).unwrap() else { panic!("there is one destination") };
    assert!(lag["whole"].is_number() && lag.get("read").is_none_or(Value::is_null), "{lag}");
    assert_postgres_equal(&server, engine.destination(), &named("shop", &["t"]), Counted::No).await;
}

/// The server's disk comes before the stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_holds_back_too_much_is_given_up() {
    let server = PostgresServer::start(15, &["max_wal_size = 8MB"]).await;
    Manner::plain(15).publish(&server).await;
    server.execute("CREATE SCHEMA shop; CREATE TABLE shop.things (id int PRIMARY KEY, note text)").await;
    let engine = Engine::postgres(&server, SCHEMA).set("/profiles/source/postgres/max_retained_wal", json!("20MiB"));
    // A destination that decides once an hour lets nothing go.
    let engine = engine.set("/streams/shop/destinations/0/rotate", json!({ "interval": "1h" }));
    let mut running = engine.start(&["run"]);
    running.wait_for_message("reading the log", A_MINUTE);
    server.execute("INSERT INTO shop.things SELECT n, repeat('x', 500) FROM generate_series(1, 60000) n").await;
    check(&running.wait(A_MINUTE), 1, &["giving up the replication slot", "max_retained_wal", "backfill: all"]);
    assert_eq!(server.value("SELECT count(*) FROM pg_replication_slots").await, "0");
    // Nor does the next start go on as if nothing were missing.
    check(&engine.run(&["run"], A_MINUTE), 1, &["the replication slot is gone"]);

    // A destination that fails makes the stream begin anew again and again; its slot is watched nevertheless.
    let engine =
        Engine::postgres(&server, SCHEMA).set("/profiles/source/postgres/max_retained_wal", json!("20MiB")).file_size_max(Some(50_000));
    let mut running = engine.start(&["run"]);
    running.wait_for_message("reading the log", A_MINUTE);
    server.execute("UPDATE shop.things SET note = md5(random()::text) || repeat(md5(id::text), 16)").await;
    check(&running.wait(2 * A_MINUTE), 1, &["giving up the replication slot", "max_retained_wal"]);
    assert_eq!(server.value("SELECT count(*) FROM pg_replication_slots").await, "0");
}

/// A publication may send a part of the rows, the columns and the operations; that part arrives as it is sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publications_of_a_part() {
    let server = PostgresServer::start(18, &[]).await;
    server
        .execute(
            "CREATE SCHEMA shop; SET search_path = shop;
             CREATE TABLE few (id int PRIMARY KEY, area text, secret text);
             CREATE TABLE made (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED, thrice int GENERATED ALWAYS AS (n * 3) VIRTUAL);
             CREATE TABLE plain (id int PRIMARY KEY);
             ALTER TABLE few REPLICA IDENTITY FULL;
             INSERT INTO few SELECT n, CASE WHEN n % 2 = 0 THEN 'north' ELSE 'south' END, 'secret' FROM generate_series(1, 6) n;
             INSERT INTO made (id, n) SELECT n, n FROM generate_series(1, 3) n",
        )
        .await;
    // FULL and a list of columns do not go together in a publication of updates.
    server.execute("ALTER TABLE shop.few REPLICA IDENTITY DEFAULT; ALTER TABLE shop.few ALTER area SET NOT NULL").await;
    server
        .execute("CREATE UNIQUE INDEX few_identity ON shop.few (id, area); ALTER TABLE shop.few REPLICA IDENTITY USING INDEX few_identity")
        .await;
    server
        .execute(
            "CREATE PUBLICATION weir FOR TABLE shop.few (id, area) WHERE (area = 'north'), shop.made, shop.plain WITH (publish_generated_columns = stored)",
        )
        .await;
    let engine = Engine::postgres(&server, SCHEMA).set("/streams/shop/backfill", json!("all"));
    engine.catch_up();
    let few = "SELECT id, area FROM shop.few ORDER BY id";
    let made = "SELECT * FROM shop.made ORDER BY id";
    let rows = |ids: &[i32]| ids.iter().map(|id| json!({ "id": id, "area": "north" })).collect::<Vec<_>>();
    assert_eq!(query(&engine, few), json!(rows(&[2, 4, 6])));
    let row = |id: i32, n: i32| json!({ "id": id, "n": n, "twice": 2 * n });
    assert_eq!(query(&engine, made), json!([row(1, 1), row(2, 2), row(3, 3)]));
    server
        .execute(
            "SET search_path = shop;
             UPDATE few SET area = 'south' WHERE id = 2; UPDATE few SET area = 'north' WHERE id = 1; UPDATE few SET secret = 'other' WHERE id = 4;
             DELETE FROM few WHERE id = 6; INSERT INTO few VALUES (8, 'north', 'x'), (9, 'south', 'x');
             UPDATE made SET n = n * 10 WHERE id > 1; DELETE FROM made WHERE id = 1; INSERT INTO made (id, n) VALUES (4, NULL)",
        )
        .await;
    engine.catch_up();
    assert_eq!(query(&engine, few), json!(rows(&[1, 4, 8])));
    let found = query(&engine, made);
    assert_eq!(found.as_array().unwrap()[..2], [row(2, 20), row(3, 30)]);
    assert_eq!(found[2]["id"], json!(4));
    assert!(found[2].get("twice").is_none_or(Value::is_null), "{found}");
    let finished = engine.run(&["sql", "SELECT secret FROM shop.few"], A_MINUTE);
    assert_eq!(finished.code, Some(1), "a column that is not published has landed: {}", finished.stdout);
}
