//! `logweir compact` beside a stream that runs and is killed: the state stays what the source has.

use std::time::{Duration, Instant};

use logweir_tests::engine::Engine;
use logweir_tests::oracle::{Lake, assert_equal};
use logweir_tests::servers::{DatabaseServer, MotoServer};
use logweir_tests::workload::{SCHEMA, TABLES};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::change_log::Work;
use crate::kill::{quick_checkpoints, seed, staged_files};

const A_MINUTE: Duration = Duration::from_secs(60);

async fn compacted_again_and_again(server: &DatabaseServer, engine: &Engine, seed: u64, rounds: usize) {
    let work = Work::begin(server, seed).await;
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut whole, mut replaced) = (0, 0);
    for _ in 0..rounds {
        let running = engine.start(&["run"]);
        tokio::time::sleep(Duration::from_millis(rng.random_range(300..1500))).await;
        if rng.random_bool(0.5) {
            // Killed at any moment, it leaves nothing worse than changes that are there twice.
            let compacting = engine.start(&["compact"]);
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..600))).await;
            compacting.kill();
        } else {
            let finished = engine.run(&["compact"], A_MINUTE);
            assert_eq!(finished.code, Some(0), "{}", finished.stderr);
            whole += 1;
            replaced += finished.stdout.matches(" became ").count();
        }
        if rng.random_bool(0.5) {
            running.kill();
        } else {
            assert_eq!(running.terminate(A_MINUTE).code, Some(0));
        }
    }
    work.end().await;
    assert!(replaced > 0, "nothing was ever compacted in {whole} rounds");
    engine.catch_up();
    let finished = engine.run(&["compact"], A_MINUTE);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    assert!(finished.stdout.contains("shop.events: left as it is: it has no key"), "{}", finished.stdout);
    println!("{rounds} rounds: {}", assert_equal(server, engine.destination(), SCHEMA, &TABLES, false).await);
    // Rows there are, a change each, beside what ended rows; only those of a table without a key have all of theirs.
    for table in TABLES.iter().filter(|table| **table != "events") {
        let counts = format!(
            "SELECT (SELECT count(*) FROM shop.{table}) = (SELECT count(*) FROM shop_changes.{table} WHERE NOT _metadata_deleted) AS same"
        );
        assert_eq!(engine.run(&["sql", &counts, "--format", "csv"], A_MINUTE).stdout, "same\ntrue\n", "{table}");
    }
    let again = engine.run(&["compact"], A_MINUTE).stdout;
    assert!(!again.contains(" became "), "{again}");
    if let Lake::Directory(path) = engine.destination() {
        assert_eq!(staged_files(path), Vec::<std::path::PathBuf>::new(), "left over from killed processes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_disk_beside_a_stream_that_runs() {
    let server = DatabaseServer::mariadb(&[]).await;
    let engine = quick_checkpoints(Engine::new(&server, SCHEMA));
    compacted_again_and_again(&server, &engine, seed(701), 14).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_bucket_beside_a_stream_that_runs() {
    let (server, moto) = (DatabaseServer::mysql(&[]).await, MotoServer::start());
    let engine = quick_checkpoints(Engine::new(&server, SCHEMA).lake(Lake::bucket(&moto, "lake")));
    compacted_again_and_again(&server, &engine, seed(702), 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_before_is_not_known_any_more_and_what_is_kept_is() {
    let server = DatabaseServer::mariadb(&[]).await;
    server.execute("CREATE DATABASE t").await;
    server.execute("CREATE TABLE t.people (id INT PRIMARY KEY, name VARCHAR(40))").await;
    let engine = Engine::new(&server, "t").set("/streams/shop/destinations/0/compact", json!({ "every": "1s", "keep": "5s" }));
    let sql = |text: &str, more: &[&str]| {
        let mut arguments = vec!["sql", text, "--format", "csv"];
        arguments.extend(more);
        let finished = engine.run(&arguments, A_MINUTE);
        if finished.code == Some(0) { finished.stdout } else { finished.stderr }
    };
    for round in 0..3 {
        server.execute(&format!("REPLACE INTO t.people VALUES (1, 'round {round}'), (2, 'other')")).await;
        engine.catch_up();
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    let before = sql("SELECT max(_metadata_timestamp) - INTERVAL '1 second' AS t FROM t_changes.people", &[]);
    let before = format!("{}Z", before.lines().nth(1).unwrap().trim_end_matches('Z'));
    assert_eq!(sql("SELECT name FROM t.people WHERE id = 1", &["--as-of", &before]), "name\nround 1\n");
    // All of it is too young to be compacted.
    let kept = engine.run(&["compact", "--keep", "1h"], A_MINUTE);
    assert!(kept.stdout.contains("t.people: nothing to gain"), "{}", kept.stdout);

    // The stream itself does it in time.
    let mut running = engine.start(&["run"]);
    running.wait_for_message("files were compacted", A_MINUTE);
    // The first time some of it may still be too young.
    let deadline = Instant::now() + A_MINUTE;
    loop {
        let rows = sql("SELECT count(*) AS n FROM t_changes.people", &[]);
        if rows == "n\n2\n" {
            break;
        }
        assert!(running.is_running() && Instant::now() < deadline, "{rows}: {}", running.messages());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(running.terminate(A_MINUTE).code, Some(0));
    assert_eq!(sql("SELECT id, name FROM t.people ORDER BY id", &[]), "id,name\n1,round 2\n2,other\n");
    let refused = sql("SELECT name FROM t.people WHERE id = 1", &["--as-of", &before]);
    assert!(refused.contains("compacted") && refused.contains("known since"), "{refused}");
    for (arguments, says) in [
        (&["compact", "--keep", "soon"][..], "no time span"),
        (&["compact", "--destination", "nowhere"], "no such destination"),
        (&["compact", "--stream", "nobody"], "no stream `nobody`"),
    ] {
        let finished = engine.run(arguments, A_MINUTE);
        assert_eq!(finished.code, Some(2), "{}", finished.stderr);
        assert!(finished.stderr.contains(says), "{}", finished.stderr);
    }
}
