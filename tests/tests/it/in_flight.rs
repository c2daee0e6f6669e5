//! Queries over what is in flight: changes that a running process has read and no file holds yet.

use std::time::{Duration, Instant};

use logweir_tests::engine::Engine;
use logweir_tests::servers::DatabaseServer;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::kill::seed;

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

/// The time now as `--as-of` takes it.
fn chrono_now() -> String {
    let finished = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output().unwrap();
    String::from_utf8(finished.stdout).unwrap().trim().to_owned()
}
