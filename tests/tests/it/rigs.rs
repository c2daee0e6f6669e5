//! The rigs themselves: servers start, workloads run, and the oracle notices what it must notice.

use logweir_tests::every_type;
use logweir_tests::servers::{DatabaseServer, Flavour, MotoServer, rigs_directory};
use logweir_tests::workload::{SCHEMA, TABLES, Workload, WorkloadOptions};

async fn workload_runs(flavour: Flavour) {
    let server = DatabaseServer::start(flavour, &[]).await;
    let mut connection = server.connect().await;
    let mut workload = Workload::new(1, WorkloadOptions { truncates: true, columns: true });
    workload.create(&mut connection).await;
    workload.run(&mut connection, 300).await;
    let counts = server.binlog_counts().await;
    for table in TABLES {
        let counts = counts[&format!("{SCHEMA}.{table}")];
        assert!(counts.inserts > 0, "{table}: {counts:?}");
    }
    let accounts = counts["shop.accounts"];
    let rows: Vec<i64> = server.query("SELECT COUNT(*) FROM shop.accounts").await;
    // No row comes or goes but through the log, and rolled back ones are not in it.
    assert_eq!(rows, [accounts.inserts as i64 - accounts.deletes as i64]);
    let tables = every_type::create_and_fill(&server).await;
    assert!(tables.len() > 70);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_workload_runs_on_mariadb() {
    workload_runs(Flavour::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_workload_runs_on_mysql() {
    workload_runs(Flavour::MySql).await;
}

#[test]
fn the_s3_emulator_has_a_bucket() {
    assert_eq!(MotoServer::start().unfinished_uploads(), []);
}

#[test]
fn the_comparison_notices_what_is_wrong() {
    let python = rigs_directory().join("venv/bin/python");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/py/test_compare.py");
    let output = std::process::Command::new(python).arg(script).output().expect("run scripts/install-test-tools first");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
