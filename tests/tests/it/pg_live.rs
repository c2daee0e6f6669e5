//! The scenarios that PostgreSQL of every version goes through.

use std::time::Duration;

use logweir_tests::engine::Engine;
use logweir_tests::oracle::{Counted, Lake, assert_postgres_equal};
use logweir_tests::postgres::{Workload, WorkloadOptions, every_type};
use logweir_tests::servers::{MotoServer, PostgresServer};
use serde_json::{Value, json};

pub(crate) const SCHEMA: &str = "shop";
const A_MINUTE: Duration = Duration::from_secs(60);

/// How a server is set and followed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) version: u32,
    /// Lines of the server's configuration.
    pub(crate) server: &'static [&'static str],
    /// Settings of the profile.
    pub(crate) profile: &'static [(&'static str, &'static str)],
    /// Whether the publication names the rows of partitions by the table that they are parts of.
    pub(crate) under_roots: bool,
}

impl Manner {
    pub(crate) const fn plain(version: u32) -> Self {
        Manner { version, server: &[], profile: &[], under_roots: false }
    }

    pub(crate) fn counted(self) -> Counted {
        if self.under_roots { Counted::UnderRoots } else { Counted::Yes }
    }

    /// The same where logweir or the server did not come to an orderly end: a backend of 18.4 often dies (SIGSEGV) when it counts the
    /// changes of such a log.
    pub(crate) fn counted_after_faults(self) -> Counted {
        if self.version == 18 { Counted::No } else { self.counted() }
    }

    pub(crate) async fn server(self) -> PostgresServer {
        PostgresServer::start(self.version, self.server).await
    }

    /// The engine as the profile says.
    pub(crate) fn engine(self, server: &PostgresServer, schema: &str) -> Engine {
        self.profile.iter().fold(Engine::postgres(server, schema), |engine, (key, value)| {
            let value: Value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
            engine.set(&format!("/profiles/source/postgres/{key}"), value)
        })
    }

    /// Makes the publication of all tables.
    pub(crate) async fn publish(self, server: &PostgresServer) {
        let with = if self.under_roots { "WITH (publish_via_partition_root = true)" } else { "" };
        server.execute(&format!("CREATE PUBLICATION weir FOR ALL TABLES {with}")).await;
    }

    /// Makes the publication of all tables and the slot, and counts every change from then on.
    pub(crate) async fn follow(self, server: &PostgresServer) {
        self.publish(server).await;
        server.execute("SELECT pg_create_logical_replication_slot('weir', 'pgoutput')").await;
        server.count_changes().await;
    }
}

/// A workload runs, half of it before logweir starts and half of it meanwhile.
pub(crate) async fn workload(manner: Manner, seed: u64) {
    println!("seed {seed}");
    let server = manner.server().await;
    manner.follow(&server).await;
    let client = server.connect().await;
    let mut workload = Workload::new(seed, SCHEMA, WorkloadOptions::ALL);
    workload.create(&client).await;
    workload.run(&client, 300).await;

    let engine = manner.engine(&server, SCHEMA);
    let mut running = engine.start(&["run"]);
    workload.run(&client, 300).await;
    assert!(running.is_running(), "{}", running.messages());
    let finished = running.terminate(A_MINUTE);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);

    workload.settle(&client).await;
    engine.catch_up();
    let tables = workload.tables(manner.under_roots);
    println!("{}", assert_postgres_equal(&server, engine.destination(), &tables, manner.counted()).await);

    // There is nothing more to do, and a further run leaves everything as it is.
    engine.catch_up();
    assert_postgres_equal(&server, engine.destination(), &tables, manner.counted()).await;
}

/// Transactions of two sessions interleave in the log.
pub(crate) async fn side_by_side(manner: Manner, seed: u64) {
    println!("seed {seed}");
    let server = manner.server().await;
    manner.follow(&server).await;
    let engine = manner.engine(&server, "s*");
    let mut running = engine.start(&["run"]);
    let session = async |seed: u64, schema: &'static str| {
        let client = server.connect().await;
        let mut workload = Workload::new(seed, schema, WorkloadOptions::ALL);
        workload.create(&client).await;
        workload.run(&client, 250).await;
        workload.settle(&client).await;
        workload.tables(manner.under_roots)
    };
    let (mut tables, more) = tokio::join!(session(seed, SCHEMA), session(seed + 1, "s & \"co\""));
    tables.extend(more);
    assert!(running.is_running(), "{}", running.messages());
    let finished = running.terminate(A_MINUTE);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    engine.catch_up();
    println!("{}", assert_postgres_equal(&server, engine.destination(), &tables, manner.counted()).await);
}

/// Tables that are there before, and change while they are read.
pub(crate) async fn backfill(manner: Manner, seed: u64) {
    println!("seed {seed}");
    let server = manner.server().await;
    manner.publish(&server).await;
    let client = server.connect().await;
    let mut workload = Workload::new(seed, SCHEMA, WorkloadOptions::ALL);
    workload.create(&client).await;
    workload.run(&client, 400).await;
    server.execute(&format!("INSERT INTO {SCHEMA}.transfers SELECT n, n, 'before' FROM generate_series(1000000, 1030000) n")).await;

    let engine = manner.engine(&server, SCHEMA).set("/streams/shop/backfill", json!({ "chunk_rows": 1000, "tasks": 3 }));
    let mut running = engine.start(&["run"]);
    for _ in 0..20 {
        workload.run(&client, 15).await;
        server.execute(&format!("UPDATE {SCHEMA}.transfers SET note = 'during' WHERE id % 97 = 3 AND id >= 1000000")).await;
    }
    assert!(running.is_running(), "{}", running.messages());
    workload.settle(&client).await;
    let finished = running.terminate(A_MINUTE);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    engine.catch_up();
    let tables = workload.tables(manner.under_roots);
    println!("{}", assert_postgres_equal(&server, engine.destination(), &tables, Counted::No).await);

    // What has been read once is not read again.
    workload.run(&client, 50).await;
    workload.settle(&client).await;
    engine.catch_up();
    assert_postgres_equal(&server, engine.destination(), &tables, Counted::No).await;
}

/// A table of every type, with values at the edges: as changes, and as rows that were there before.
pub(crate) async fn every_type_lands(manner: Manner) {
    let server = manner.server().await;
    every_type::prepare(&server).await;
    manner.follow(&server).await;
    let tables = every_type::create_and_fill(&server).await;
    let engine = manner.engine(&server, every_type::SCHEMA);
    engine.catch_up();
    println!("{}", assert_postgres_equal(&server, engine.destination(), &tables, manner.counted()).await);

    let engine = manner.engine(&server, every_type::SCHEMA).set("/streams/shop/backfill", json!("all"));
    let engine = engine.set("/profiles/source/postgres/slot", json!("another"));
    engine.catch_up();
    println!("{}", assert_postgres_equal(&server, engine.destination(), &tables, Counted::No).await);
}

/// The server stops, is killed, and comes back, as servers do.
pub(crate) async fn restarts(manner: Manner, seed: u64) {
    let mut server = manner.server().await;
    manner.follow(&server).await;
    let mut client = server.connect().await;
    let mut workload = Workload::new(seed, SCHEMA, WorkloadOptions::ALL);
    workload.create(&client).await;
    let engine = manner.engine(&server, SCHEMA);
    let mut running = engine.start(&["run"]);
    for round in 0..4 {
        workload.run(&client, 80).await;
        if round % 2 == 0 {
            server.restart().await;
        } else {
            server.kill();
            server.start_again().await;
        }
        client = server.connect().await;
        workload.enter(&client).await;
        workload.run(&client, 20).await;
        assert!(running.is_running(), "{}", running.messages());
    }
    workload.settle(&client).await;
    let finished = running.terminate(A_MINUTE);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    engine.catch_up();
    let tables = workload.tables(manner.under_roots);
    println!("{}", assert_postgres_equal(&server, engine.destination(), &tables, manner.counted_after_faults()).await);
}

/// Files and state in a bucket.
pub(crate) async fn bucket(manner: Manner) {
    let (server, moto) = (manner.server().await, MotoServer::start());
    manner.follow(&server).await;
    let client = server.connect().await;
    let mut workload = Workload::new(41, SCHEMA, WorkloadOptions::ALL);
    workload.create(&client).await;
    workload.run(&client, 200).await;
    let engine = manner.engine(&server, SCHEMA).lake(Lake::bucket(&moto, "lake")).state_in(&moto.endpoint(), "s3://lake/state");
    engine.catch_up();
    workload.run(&client, 100).await;
    workload.settle(&client).await;
    engine.catch_up();
    println!("{}", assert_postgres_equal(&server, engine.destination(), &workload.tables(manner.under_roots), manner.counted()).await);
    assert_eq!(moto.unfinished_uploads(), []);
}
