//! Queries over what is in flight: changes that a running process has read and no file holds yet.

use std::time::{Duration, Instant};

use logweir_tests::engine::Engine;
use logweir_tests::servers::{DatabaseServer, free_port};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::kill::seed;
use crate::pgwire::{connect, started, texts, with_endpoint};

const A_MINUTE: Duration = Duration::from_secs(60);

fn csv(engine: &Engine, sql: &str, more: &[&str]) -> String {
    let mut arguments = vec!["sql", sql, "--format", "csv"];
    arguments.extend(more);
    let finished = engine.run(&arguments, A_MINUTE);
    if finished.code == Some(0) { finished.stdout } else { finished.stderr }
}

/// Waits for an answer, which comes within a second or two of the commit on any machine.
async fn wait_for(engine: &Engine, sql: &str, expected: &str) {
    let deadline = Instant::now() + A_MINUTE;
    loop {
        let found = csv(engine, sql, &[]);
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "expected\n{expected}\nfound\n{found}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn table(server: &DatabaseServer, columns: &str) -> String {
    let text = format!("SELECT CONCAT_WS(',', {columns}) FROM t.people ORDER BY id");
    let rows: Vec<String> = server.query(&text).await;
    let mut csv =
        columns.split(", ").map(|column| column.trim_start_matches("IFNULL(").trim_end_matches(",'')")).collect::<Vec<_>>().join(",");
    csv.push('\n');
    rows.iter().for_each(|row| csv.push_str(&format!("{row}\n")));
    csv
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_file_holds_yet_is_seen_as_the_source_has_it() {
    let server = DatabaseServer::mariadb(&[]).await;
    server.execute("CREATE DATABASE t").await;
    server.execute("CREATE TABLE t.people (id INT PRIMARY KEY, name VARCHAR(40))").await;
    server.execute("CREATE TABLE t.notes (text VARCHAR(40))").await;
    // One destination that lands now and then, one that never does while the test runs.
    let other = tempfile::tempdir().unwrap();
    let engine = Engine::new(&server, "t")
        .also("slow", &logweir_tests::oracle::Lake::Directory(other.path().join("slow")))
        .set("/streams/shop/destinations/0/rotate", json!({ "interval": "1500ms" }))
        .set("/streams/shop/destinations/1/rotate", json!({ "interval": "1h" }))
        .set("/streams/shop/before_images", json!(["t.people"]));
    let mut running = engine.start(&["run"]);
    let mut rng = StdRng::seed_from_u64(seed(601));
    let mut moments = Vec::new();
    let (mut next_id, mut notes) = (1, 0);
    let mut columns = "id, name";
    for round in 0..8 {
        for _ in 0..rng.random_range(1..20) {
            let id = rng.random_range(1..next_id + 1);
            match rng.random_range(0..6) {
                0 | 1 => {
                    server.execute(&format!("INSERT INTO t.people (id, name) VALUES ({next_id}, 'name {next_id}')")).await;
                    next_id += 1;
                }
                2 => server.execute(&format!("UPDATE t.people SET name = 'round {round}' WHERE id <= {id}")).await,
                3 => server.execute(&format!("DELETE FROM t.people WHERE id = {id}")).await,
                4 => {
                    // The row moves to another key.
                    server.execute(&format!("UPDATE IGNORE t.people SET id = {next_id} WHERE id = {id}")).await;
                    next_id += 1;
                }
                _ => {
                    notes += 1;
                    server.execute(&format!("INSERT INTO t.notes VALUES ('note {notes}')")).await;
                }
            }
        }
        match round {
            2 => {
                server.execute("ALTER TABLE t.people ADD COLUMN age INT").await;
                server.execute("UPDATE t.people SET age = id + 20").await;
                server.execute(&format!("INSERT INTO t.people VALUES ({next_id}, 'with age', 33)")).await;
                next_id += 1;
                columns = "id, name, IFNULL(age,'')";
            }
            4 => server.execute("TRUNCATE TABLE t.people").await,
            5 => {
                running.kill();
                running = engine.start(&["run"]);
            }
            _ => {}
        }
        server.execute(&format!("INSERT INTO t.people (id, name) VALUES ({next_id}, 'last')")).await;
        next_id += 1;
        let expected = table(&server, columns).await;
        let select = if columns.ends_with("name") { "id, name" } else { "id, name, age" };
        for destination in ["lake", "slow"] {
            wait_for(&engine, &format!("SELECT {select} FROM \"shop/{destination}\".t.people ORDER BY id"), &expected).await;
            let count = format!("count(*)\n{notes}\n");
            wait_for(&engine, &format!("SELECT count(*) FROM \"shop/{destination}\".t_changes.notes"), &count).await;
        }
        // MariaDB's log has seconds.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        moments.push((chrono_now(), select, expected));
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    let in_flight =
        csv(&engine, "SELECT sum(rows_in_flight) > 0 AS some, sum(files) AS files FROM logweir.tables WHERE destination = 'slow'", &[]);
    assert_eq!(in_flight, "some,files\ntrue,0\n", "nothing was landed there");
    let snapshot = csv(
        &engine,
        "SELECT destination, position > files_position AS ahead, commit_time IS NOT NULL AS timed FROM logweir.snapshot()",
        &[],
    );
    assert!(snapshot.contains("slow,true,true"), "{snapshot}");
    assert!(csv(&engine, "SELECT count(*) FROM logweir.schema_versions", &[]).starts_with("count(*)\n"));
    assert!(csv(&engine, "SELECT destination FROM logweir.consumers ORDER BY 1", &[]).ends_with("lake\nslow\n"));

    // Of an update under the same key what was is the version before it.
    let was = |destination: &str| {
        let sql = format!(
            "SELECT count(*) FILTER (WHERE was IS DISTINCT FROM before OR none) AS others, count(*) > 0 AS some
             FROM (SELECT _metadata_change_type AS what, _metadata_before IS NULL AS none, _metadata_before['id'] = id AS same,
                          _metadata_before['name'] AS was, lag(name) OVER (PARTITION BY id ORDER BY _metadata_sequence) AS before
                   FROM \"shop/{destination}\".t_changes.people) WHERE what = 'UPDATE-INSERT' AND same IS NOT FALSE"
        );
        assert_eq!(csv(&engine, &sql, &[]), "others,some\n0,true\n", "{destination}");
    };
    was("lake");
    was("slow");
    let as_it_was = |destination: &str| {
        for (moment, select, expected) in &moments {
            let sql = format!("SELECT {select} FROM \"shop/{destination}\".t.people ORDER BY id");
            assert_eq!(csv(&engine, &sql, &["--as-of", moment]), *expected, "{destination} as of {moment}");
        }
    };
    as_it_was("lake");
    as_it_was("slow");
    assert_eq!(running.terminate(A_MINUTE).code, Some(0));
    // Landed, it is the same.
    let (_, select, expected) = moments.last().unwrap();
    for destination in ["lake", "slow"] {
        assert_eq!(csv(&engine, &format!("SELECT {select} FROM \"shop/{destination}\".t.people ORDER BY id"), &[]), *expected);
        as_it_was(destination);
        was(destination);
    }
    let landed = csv(&engine, "SELECT sum(rows_in_flight) AS in_flight FROM logweir.tables", &[]);
    assert_eq!(landed, "in_flight\n0\n");
}

/// What is too much to be held is read from the log whenever a query asks for it: the same rows, before and after a file holds them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_memory_does_not_hold_is_read_from_the_log() {
    let server = DatabaseServer::mariadb(&[]).await;
    server.execute("CREATE DATABASE t").await;
    server.execute("CREATE TABLE t.people (id INT PRIMARY KEY, name VARCHAR(400))").await;
    server.execute("CREATE TABLE t.others (id INT PRIMARY KEY)").await;
    let engine = Engine::new(&server, "t")
        .set("/memory", json!("64MiB"))
        .set("/streams/shop/before_images", json!(["t.people"]))
        .set("/streams/shop/destinations/0/rotate", json!({ "interval": "1h" }));
    let running = engine.start(&["run"]);
    let fill =
        |from: u32, more: &str| format!("INSERT INTO t.people SELECT seq, REPEAT(seq, 60){more} FROM t.seq_{from}_to_{}", from + 9_999);
    let sum = async || {
        let rows: Vec<String> =
            server.query("SELECT CONCAT_WS(',', COUNT(*), SUM(id), SUM(LENGTH(name)), SUM(name = 'changed')) FROM t.people").await;
        format!("n,ids,letters,changed\n{}\n", rows[0])
    };
    let sql = "SELECT count(*) AS n, sum(id) AS ids, sum(length(name)) AS letters, count(*) FILTER (WHERE name = 'changed') AS changed FROM t.people";
    server.execute(&fill(1, "")).await;
    server.execute("TRUNCATE TABLE t.people").await;
    server.execute(&fill(1, "")).await;
    server.execute(&fill(20_001, "")).await;
    server.execute("INSERT INTO t.others VALUES (1)").await;
    server.execute("UPDATE t.people SET name = 'changed' WHERE id % 3 = 0").await;
    server.execute("DELETE FROM t.people WHERE id % 7 = 0").await;
    wait_for(&engine, sql, &sum().await).await;
    server.execute("ALTER TABLE t.people ADD COLUMN age INT").await;
    server.execute("UPDATE t.people SET age = 20 WHERE id % 5 = 0").await;
    server.execute(&fill(40_001, ", 30")).await;
    wait_for(&engine, sql, &sum().await).await;
    let ages: Vec<String> = server.query("SELECT CONCAT_WS(',', SUM(age), COUNT(age)) FROM t.people").await;
    let asked = || csv(&engine, "SELECT sum(age) AS s, count(age) AS n FROM t.people", &[]);
    assert_eq!(asked(), format!("s,n\n{}\n", ages[0]));
    let plan = csv(&engine, "EXPLAIN SELECT name FROM t.people", &[]);
    assert!(plan.contains("StreamingTableExec") && plan.contains("MergeExec"), "{plan}");
    let counts = || {
        let sql = "SELECT _metadata_change_type AS what, count(*) AS n, count(_metadata_before) AS was, count(_metadata_before['name']) AS was_name FROM t_changes.people GROUP BY 1 ORDER BY 1";
        csv(&engine, sql, &[])
    };
    let in_flight = counts();
    let updated: Vec<String> = server.query("SELECT CONCAT(COUNT(*)) FROM t.people WHERE id % 5 = 0 AND id < 40001").await;
    // Of 20,000 rows every third and every seventh.
    let (thirds, sevenths) = (6_667, 2_856);
    let updates = thirds + updated[0].parse::<u32>().unwrap();
    let expected = format!(
        "what,n,was,was_name\nDELETE,{sevenths},0,0\nINSERT,40000,0,0\nTRUNCATE,1,0,0\nUPDATE-INSERT,{updates},{updates},{updates}\n"
    );
    assert_eq!(in_flight, expected);
    // Nothing was landed so far.
    assert_eq!(csv(&engine, "SELECT sum(files) AS f, sum(rows_in_flight) > 50000 AS many FROM logweir.tables", &[]), "f,many\n0,true\n");
    let answer = csv(&engine, sql, &[]);
    assert_eq!(running.terminate(A_MINUTE).code, Some(0));
    assert_eq!((csv(&engine, sql, &[]), counts(), asked()), (answer, in_flight, format!("s,n\n{}\n", ages[0])));
    assert_eq!(csv(&engine, "SELECT sum(files) > 0 AS f, sum(rows_in_flight) AS n FROM logweir.tables", &[]), "f,n\ntrue,0\n");
}

/// A destination whose rule looks values up shows what is in flight with them: by itself, and as the process that runs it has them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_flight_is_shown_with_what_its_rule_looks_up() {
    let server = DatabaseServer::mariadb(&[]).await;
    server.execute("CREATE DATABASE t").await;
    server.execute("CREATE TABLE t.people (id INT PRIMARY KEY, land INT)").await;
    server.execute("CREATE TABLE t.plain (id INT PRIMARY KEY)").await;
    let (port, other) = (free_port(), tempfile::tempdir().unwrap());
    let sql = "SELECT o.id, c.name AS land FROM people o LEFT JOIN countries c ON o.land = c.id";
    let engine = Engine::new(&server, "t")
        .also("slow", &logweir_tests::oracle::Lake::Directory(other.path().join("slow")))
        .set("/streams/shop/references", json!({ "countries": { "path": "countries.csv" } }))
        .set("/streams/shop/destinations/1/rotate", json!({ "interval": "1h" }))
        .set("/streams/shop/destinations/1/transforms", json!([{ "table": "t.people", "sql": sql }]));
    let engine = with_endpoint(engine, port, &[]);
    let countries = engine.directory().join("countries.csv");
    std::fs::write(&countries, "id,name\n1,Norway\n2,Chile\n").unwrap();
    let running = started(&engine);
    server.execute("INSERT INTO t.people VALUES (1, 1), (2, 2), (3, 3)").await;
    server.execute("UPDATE t.people SET land = 2 WHERE id = 1").await;
    server.execute("INSERT INTO t.plain VALUES (7)").await;
    let people = "SELECT id, land FROM \"shop/slow\".t.people ORDER BY id";
    wait_for(&engine, people, "id,land\n1,Chile\n2,Chile\n3,\n").await;
    let changes = "SELECT land FROM \"shop/slow\".t_changes.people WHERE id = 1 ORDER BY _metadata_sequence";
    assert_eq!(csv(&engine, changes, &[]), "land\nNorway\nChile\n");
    // Another process cannot read it any more; the one that runs the stream needs not.
    std::fs::remove_file(&countries).unwrap();
    let client = connect(port, "ann").await;
    let names = "SELECT string_agg(coalesce(land, '-'), ',' ORDER BY id) FROM \"shop/slow\".t.people";
    assert_eq!(texts(&client, names).await, ["Chile,Chile,-"]);
    assert_eq!(texts(&client, "SELECT count(*) FROM \"shop/slow\".t_changes.people").await, ["4"]);
    let refused = csv(&engine, people, &[]);
    assert!(refused.contains("a reference table that changes in flight are shown with cannot be read"), "{refused}");
    assert!(refused.contains("countries") && !refused.contains("no such reference table"), "{refused}");
    // It stands in the way of its own tables only.
    assert_eq!(csv(&engine, "SELECT id FROM \"shop/slow\".t.plain", &[]), "id\n7\n");
    assert_eq!(csv(&engine, "SELECT count(*) AS n FROM \"shop/lake\".t.people", &[]), "n\n3\n");
    assert_eq!(running.terminate(A_MINUTE).code, Some(0));
    assert_eq!(csv(&engine, people, &[]), "id,land\n1,Chile\n2,Chile\n3,\n", "what is landed needs none of it");
}

/// What was landed last is read from its files, also where nothing happens after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_landed_is_in_flight_no_more() {
    let server = DatabaseServer::mariadb(&[]).await;
    server.execute("CREATE DATABASE t").await;
    server.execute("CREATE TABLE t.people (id INT PRIMARY KEY, name VARCHAR(40))").await;
    let engine = Engine::new(&server, "t").set("/streams/shop/destinations/0/rotate", json!({ "interval": "1s" }));
    let port = free_port();
    let engine = with_endpoint(engine, port, &[]);
    let running = started(&engine);
    let client = connect(port, "ann").await;
    server.execute("INSERT INTO t.people VALUES (1, 'Ada')").await;
    let sql = "SELECT rows || ' ' || rows_in_flight FROM logweir.tables WHERE \"table\" = 'people'";
    crate::pgwire::wait_for(&client, sql, "1 0").await;
    server.execute("INSERT INTO t.people VALUES (2, 'Bob'), (3, 'Cyd')").await;
    crate::pgwire::wait_for(&client, sql, "3 0").await;
    assert_eq!(texts(&client, "SELECT id FROM t.people ORDER BY id").await, ["1", "2", "3"]);
    assert_eq!(running.terminate(A_MINUTE).code, Some(0));
}

/// The time now as `--as-of` takes it.
fn chrono_now() -> String {
    let finished = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output().unwrap();
    String::from_utf8(finished.stdout).unwrap().trim().to_owned()
}
