//! The scenarios that every server flavour goes through.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use logweir_tests::engine::Engine;
use logweir_tests::oracle::{Lake, assert_equal};
use logweir_tests::servers::{DatabaseServer, Flavour, MotoServer};
use logweir_tests::workload::{SCHEMA, TABLES, Workload, WorkloadOptions};

const EVERYTHING: WorkloadOptions = WorkloadOptions { truncates: true, columns: true };

/// Columns are not added where the log does not carry the schema (what the server says of a table is then newer than
/// what logweir reads, as long as it lags behind) nor whole rows (an insert has no value for an added column).
fn options_for(server_options: &[&str]) -> WorkloadOptions {
    let less = |option: &&str| option.starts_with("binlog_row_metadata") || option.starts_with("binlog_row_image");
    WorkloadOptions { columns: !server_options.iter().any(less), ..EVERYTHING }
}

/// A workload runs, half of it before logweir starts and half of it meanwhile.
pub(crate) async fn workload(flavour: Flavour, server_options: &[&str], seed: u64) {
    println!("seed {seed}");
    let server = DatabaseServer::start(flavour, server_options).await;
    let mut connection = server.connect().await;
    let mut workload = Workload::new(seed, options_for(server_options));
    workload.create(&mut connection).await;
    workload.run(&mut connection, 300).await;

    let engine = Engine::new(&server, SCHEMA);
    let mut running = engine.start(&["run"]);
    workload.run(&mut connection, 300).await;
    assert!(running.is_running(), "{}", running.messages());
    let finished = running.terminate(Duration::from_secs(60));
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);

    engine.catch_up();
    println!("{}", assert_equal(&server, engine.destination(), SCHEMA, &TABLES, true).await);

    // There is nothing more to do, and a further run leaves everything as it is.
    engine.catch_up();
    assert_equal(&server, engine.destination(), SCHEMA, &TABLES, true).await;
}

/// A table of every type, with values at the edges.
pub(crate) async fn every_type(flavour: Flavour, server_options: &[&str]) {
    let server = DatabaseServer::start(flavour, server_options).await;
    let tables = logweir_tests::every_type::create_and_fill(&server).await;
    let engine = Engine::new(&server, logweir_tests::every_type::SCHEMA);
    engine.catch_up();
    println!("{}", assert_equal(&server, engine.destination(), logweir_tests::every_type::SCHEMA, &tables, true).await);
}

/// The server's files, copied away and read as a recording.
pub(crate) async fn recorded(flavour: Flavour) {
    let mut server = DatabaseServer::start(flavour, &["max_binlog_size=262144"]).await;
    let mut connection = server.connect().await;
    let mut workload = Workload::new(21, EVERYTHING);
    workload.create(&mut connection).await;
    workload.run(&mut connection, 400).await;
    let files = server.binlog_files().await;
    assert!(files.len() > 3, "{files:?}");
    drop(connection);

    let archive = tempfile::tempdir().unwrap();
    server.stop();
    for file in &files {
        std::fs::copy(server.data_directory().join(file), archive.path().join(file)).unwrap();
    }
    let engine = Engine::recorded(&archive.path().join("mysql-bin.*"), SCHEMA);
    // A recording ends by itself.
    let finished = engine.run(&["run"], Duration::from_secs(120));
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    server.restart().await;
    println!("{}", assert_equal(&server, engine.destination(), SCHEMA, &TABLES, true).await);
}

/// The recording that the quickstart runs on, compressed as it is, against a server that replays it with its own tools.
pub(crate) async fn shop_recording() {
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/captures/shop").canonicalize().unwrap();
    let plain = tempfile::NamedTempFile::new().unwrap();
    let status = Command::new("zstd").args(["-dqf", "-o"]).arg(plain.path()).arg(captures.join("mysql-bin.000001.zst")).status();
    assert!(status.is_ok_and(|status| status.success()), "zstd failed; run scripts/install-test-tools");
    let server = DatabaseServer::mariadb(&["gtid_strict_mode=OFF"]).await;
    server.replay(&[plain.path().to_owned()]);

    let engine = Engine::recorded(&captures.join("mysql-bin.*"), "shop");
    engine.catch_up();
    let tables = ["customers", "orders", "order_lines", "payments"];
    println!("{}", assert_equal(&server, engine.destination(), "shop", &tables, true).await);
}

/// Binlog files end and the server goes away for a while, as servers do.
pub(crate) async fn rotations_and_restarts(flavour: Flavour) {
    let mut server = DatabaseServer::start(flavour, &[]).await;
    let mut workload = Workload::new(31, EVERYTHING);
    let mut connection = server.connect().await;
    workload.create(&mut connection).await;
    let engine = Engine::new(&server, SCHEMA);
    let mut running = engine.start(&["run"]);
    for round in 0..3 {
        workload.run(&mut connection, 60).await;
        server.execute("FLUSH BINARY LOGS").await;
        workload.run(&mut connection, 60).await;
        if round < 2 {
            drop(connection);
            server.restart().await;
            connection = server.connect().await;
        }
        assert!(running.is_running(), "{}", running.messages());
    }
    let finished = running.terminate(Duration::from_secs(60));
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    engine.catch_up();
    println!("{}", assert_equal(&server, engine.destination(), SCHEMA, &TABLES, true).await);
}

/// Files and state in a bucket.
pub(crate) async fn bucket(flavour: Flavour) {
    let server = DatabaseServer::start(flavour, &[]).await;
    let moto = MotoServer::start();
    let mut connection = server.connect().await;
    let mut workload = Workload::new(41, EVERYTHING);
    workload.create(&mut connection).await;
    workload.run(&mut connection, 200).await;
    let engine = Engine::new(&server, SCHEMA).lake(Lake::bucket(&moto, "lake")).state_in(&moto.endpoint(), "s3://lake/state");
    engine.catch_up();
    workload.run(&mut connection, 100).await;
    engine.catch_up();
    println!("{}", assert_equal(&server, engine.destination(), SCHEMA, &TABLES, true).await);
    assert_eq!(moto.unfinished_uploads(), []);
}
