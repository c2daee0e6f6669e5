//! `kill -9` at random moments while a workload runs: no change is lost, none lands twice.
//!
//! 120 kills in all: on local disk from both servers, and against the S3 emulator with the state on disk and in the
//! bucket. What is checked at the end is everything that `compare.py` knows, the number of changes by kind (as the
//! server's own tool counts its log) and unique sequences among it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use logweir_tests::engine::{Engine, binary};
use logweir_tests::oracle::{Lake, assert_equal};
use logweir_tests::servers::{DatabaseServer, Flavour, MotoServer};
use logweir_tests::workload::{SCHEMA, TABLES, Workload, WorkloadOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

/// Changes the seeds of all kill tests, to look further than the everyday run does.
pub(crate) fn seed(number: u64) -> u64 {
    let base: u64 = std::env::var("LOGWEIR_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    println!("seed {} (LOGWEIR_TEST_SEED={base})", base + number);
    base + number
}

async fn kill_again_and_again(server: &DatabaseServer, engine: &Engine, seed: u64, kills: usize) {
    let mut connection = server.connect().await;
    let mut workload = Workload::new(seed, WorkloadOptions { truncates: true, columns: true });
    workload.create(&mut connection).await;

    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let work = tokio::spawn(async move {
        while !stopped.load(Ordering::SeqCst) {
            workload.run(&mut connection, 1).await;
            // Slow enough that a test build of logweir keeps up between two kills, so that they meet it at work.
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    });

    let mut rng = StdRng::seed_from_u64(seed);
    binary();
    let mut met_at_work = 0;
    for kill in 0..kills {
        let running = engine.start(&["run"]);
        // Some kills hit the start, which recovers what the kill before left; most of them hit the work.
        let life_ms = if rng.random_ratio(1, 4) { rng.random_range(0..300) } else { rng.random_range(300..1800) };
        tokio::time::sleep(Duration::from_millis(life_ms)).await;
        let finished = running.kill();
        assert_eq!(finished.code, None, "kill {kill} after {life_ms} ms found a process that had ended: {}", finished.stderr);
        met_at_work += usize::from(life_ms >= 300);
    }
    stop.store(true, Ordering::SeqCst);
    work.await.unwrap();

    let visible_before = match engine.destination() {
        Lake::Directory(path) => walk(path).count(),
        Lake::Bucket { .. } => 1,
    };
    assert!(visible_before > 0 || met_at_work == 0, "nothing landed between the kills");
    engine.catch_up();
    println!("{kills} kills: {}", assert_equal(server, engine.destination(), SCHEMA, &TABLES, true).await);
    if let Lake::Directory(path) = engine.destination() {
        assert_eq!(staged_files(path), Vec::<std::path::PathBuf>::new(), "left over from killed processes");
    }
}

/// What is staged in a lake, and not visible.
pub(crate) fn staged_files(lake: &std::path::Path) -> Vec<std::path::PathBuf> {
    let others = walk(lake).filter(|file| file.extension().is_none_or(|extension| extension != "parquet"));
    others.filter(|file| file.to_string_lossy().contains("staging")).collect()
}

/// Every file below a directory.
pub(crate) fn walk(directory: &std::path::Path) -> Box<dyn Iterator<Item = std::path::PathBuf>> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    Box::new(entries.flat_map(|path| if path.is_dir() { walk(&path) } else { Box::new(std::iter::once(path)) as Box<_> }))
}

pub(crate) fn quick_checkpoints(engine: Engine) -> Engine {
    engine.set("/streams/shop/destinations/0/rotate", json!({ "interval": "100ms" }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_disk_from_mariadb() {
    let server = DatabaseServer::start(Flavour::MariaDb, &[]).await;
    let engine = quick_checkpoints(Engine::new(&server, SCHEMA));
    kill_again_and_again(&server, &engine, seed(101), 40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_disk_from_mysql() {
    let server = DatabaseServer::start(Flavour::MySql, &[]).await;
    let engine = quick_checkpoints(Engine::new(&server, SCHEMA));
    kill_again_and_again(&server, &engine, seed(102), 30).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_bucket_with_the_state_on_disk() {
    let (server, moto) = (DatabaseServer::start(Flavour::MariaDb, &[]).await, MotoServer::start());
    let engine = quick_checkpoints(Engine::new(&server, SCHEMA).lake(Lake::bucket(&moto, "lake")));
    kill_again_and_again(&server, &engine, seed(103), 25).await;
    assert_eq!(moto.uploads_with_parts(), [], "left over from killed processes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_bucket_with_the_state_in_it() {
    let (server, moto) = (DatabaseServer::start(Flavour::MySql, &[]).await, MotoServer::start());
    let engine = Engine::new(&server, SCHEMA).lake(Lake::bucket(&moto, "lake")).state_in(&moto.endpoint(), "s3://lake/state");
    kill_again_and_again(&server, &quick_checkpoints(engine), seed(104), 25).await;
    assert_eq!(moto.uploads_with_parts(), [], "left over from killed processes");
}
