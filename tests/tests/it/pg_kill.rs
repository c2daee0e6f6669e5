//! `kill -9` at random moments while a workload runs on PostgreSQL, of logweir and of the server: no change is lost, none lands
//! twice.
//!
//! What is checked at the end is everything that `compare.py` knows; where there is no backfill, the number of changes by
//! kind (as the server's own decoding counts its log) among it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use logweir_tests::engine::{Engine, binary};
use logweir_tests::oracle::{Counted, Lake, assert_postgres_equal};
use logweir_tests::postgres::{Workload, WorkloadOptions};
use logweir_tests::servers::{MotoServer, PostgresServer};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::kill::{quick_checkpoints, seed, staged_files};
use crate::pg_live::{Manner, SCHEMA};

const UNDER_ROOTS: Manner = Manner { under_roots: true, ..Manner::plain(15) };
const STREAMED: Manner =
    Manner { server: &["logical_decoding_work_mem = 64kB"], profile: &[("streaming", "on")], under_roots: true, ..Manner::plain(17) };

const NEWEST: Manner = Manner { server: &["logical_decoding_work_mem = 64kB"], profile: &[("streaming", "parallel")], ..Manner::plain(18) };

/// How long logweir lives: some kills hit the start, which recovers what the kill before left; most of them hit the work.
fn lifetime(rng: &mut StdRng) -> Duration {
    Duration::from_millis(if rng.random_ratio(1, 4) { rng.random_range(0..300) } else { rng.random_range(300..1800) })
}

async fn kill_again_and_again(server: &PostgresServer, engine: &Engine, workload: Workload, seed: u64, kills: usize) -> Workload {
    let client = server.connect().await;
    workload.enter(&client).await;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let work = tokio::spawn(async move {
        let mut workload = workload;
        while !stopped.load(Ordering::SeqCst) {
            workload.run(&client, 1).await;
            // Slow enough that a test build of logweir keeps up between two kills, so that they meet it at work.
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        workload.settle(&client).await;
        workload
    });

    let mut rng = StdRng::seed_from_u64(seed);
    binary();
    for kill in 0..kills {
        let running = engine.start(&["run"]);
        tokio::time::sleep(lifetime(&mut rng)).await;
        let finished = running.kill();
        assert_eq!(finished.code, None, "kill {kill} found a process that had ended: {}", finished.stderr);
    }
    stop.store(true, Ordering::SeqCst);
    work.await.unwrap()
}

/// What has landed in the end.
async fn judge(server: &PostgresServer, engine: &Engine, tables: &[(String, String)], counted: Counted) {
    engine.catch_up();
    println!("{}", assert_postgres_equal(server, engine.destination(), tables, counted).await);
    if let Lake::Directory(path) = engine.destination() {
        assert_eq!(staged_files(path), Vec::<std::path::PathBuf>::new(), "left over from killed processes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_disk() {
    for (manner, number, kills) in [(UNDER_ROOTS, 201, 15), (STREAMED, 202, 15), (Manner::plain(12), 207, 10), (NEWEST, 208, 10)] {
        let seed = seed(number);
        let server = manner.server().await;
        manner.follow(&server).await;
        let mut workload = Workload::new(seed, SCHEMA, WorkloadOptions::ALL);
        workload.create(&server.connect().await).await;
        let engine = quick_checkpoints(manner.engine(&server, SCHEMA));
        let workload = kill_again_and_again(&server, &engine, workload, seed, kills).await;
        judge(&server, &engine, &workload.tables(manner.under_roots), manner.counted_after_faults()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_bucket_with_the_state_in_it() {
    let seed = seed(203);
    let (server, moto) = (UNDER_ROOTS.server().await, MotoServer::start());
    UNDER_ROOTS.follow(&server).await;
    let mut workload = Workload::new(seed, SCHEMA, WorkloadOptions::ALL);
    workload.create(&server.connect().await).await;
    let engine = UNDER_ROOTS.engine(&server, SCHEMA).lake(Lake::bucket(&moto, "lake")).state_in(&moto.endpoint(), "s3://lake/state");
    let engine = quick_checkpoints(engine);
    let workload = kill_again_and_again(&server, &engine, workload, seed, 15).await;
    judge(&server, &engine, &workload.tables(true), Counted::UnderRoots).await;
    assert_eq!(moto.uploads_with_parts(), [], "left over from killed processes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_middle_of_a_backfill() {
    for (manner, number) in [(UNDER_ROOTS, 204), (Manner::plain(13), 205)] {
        let seed = seed(number);
        let server = manner.server().await;
        manner.publish(&server).await;
        let mut workload = Workload::new(seed, SCHEMA, WorkloadOptions::ALL);
        let client = server.connect().await;
        workload.create(&client).await;
        workload.run(&client, 200).await;
        server.execute(&format!("INSERT INTO {SCHEMA}.transfers SELECT n, n, 'before' FROM generate_series(1000000, 1060000) n")).await;
        let engine = quick_checkpoints(manner.engine(&server, SCHEMA));
        let engine = engine.set("/streams/shop/backfill", json!({ "chunk_rows": 500, "tasks": 2 }));
        let workload = kill_again_and_again(&server, &engine, workload, seed, 15).await;
        judge(&server, &engine, &workload.tables(manner.under_roots), Counted::No).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_logweir_and_the_server() {
    let seed = seed(206);
    let mut server = STREAMED.server().await;
    STREAMED.follow(&server).await;
    let mut workload = Workload::new(seed, SCHEMA, WorkloadOptions::ALL);
    workload.create(&server.connect().await).await;
    let engine = quick_checkpoints(STREAMED.engine(&server, SCHEMA));
    let mut rng = StdRng::seed_from_u64(seed);
    binary();
    for round in 0..8 {
        let mut running = engine.start(&["run"]);
        let client = server.connect().await;
        workload.enter(&client).await;
        workload.run(&client, rng.random_range(5..60)).await;
        if round % 2 == 0 {
            server.kill();
        } else {
            server.stop();
        }
        if rng.random() {
            running.kill();
            server.start_again().await;
        } else {
            server.start_again().await;
            tokio::time::sleep(lifetime(&mut rng)).await;
            assert!(running.is_running(), "{}", running.messages());
            running.kill();
        }
    }
    let client = server.connect().await;
    workload.enter(&client).await;
    workload.settle(&client).await;
    judge(&server, &engine, &workload.tables(true), Counted::UnderRoots).await;
}
