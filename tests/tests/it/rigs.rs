//! The rigs themselves: servers start, workloads run, and the oracle notices what it must notice.

use logweir_tests::servers::{DatabaseServer, Flavour, MotoServer, POSTGRES_VERSIONS, PostgresServer, rigs_directory};
use logweir_tests::workload::{SCHEMA, TABLES, Workload, WorkloadOptions};
use logweir_tests::{every_type, postgres};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_postgres_starts_and_survives_being_killed() {
    for version in POSTGRES_VERSIONS {
        let mut server = PostgresServer::start(version, &["max_connections = 70"]).await;
        assert!(server.value("SHOW server_version").await.starts_with(&version.to_string()));
        assert_eq!(server.value("SHOW max_connections").await, "70");
        assert_eq!(server.value("SHOW wal_level").await, "logical");
        server.execute("CREATE TABLE numbers (n int PRIMARY KEY); INSERT INTO numbers VALUES (1)").await;
        let port = server.port();
        server.kill();
        server.start_again().await;
        server.execute("INSERT INTO numbers VALUES (2)").await;
        server.restart().await;
        assert_eq!((server.value("SELECT count(*) FROM numbers").await.as_str(), server.port()), ("2", port));

        // The follower reads and follows, and does nothing else.
        let mut follower = tokio_postgres::Config::new();
        follower.host("127.0.0.1").port(port).user(server.user()).password(server.password()).dbname(server.database());
        let (client, connection) = follower.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute("TABLE numbers").await.unwrap();
        client.batch_execute("SELECT pg_create_logical_replication_slot('mine', 'pgoutput')").await.unwrap();
        client.batch_execute("DELETE FROM numbers").await.unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_standby_follows_and_takes_over() {
    for version in [12, 15, 17] {
        let primary = PostgresServer::start(version, &[]).await;
        primary.execute("CREATE TABLE numbers (n int PRIMARY KEY); INSERT INTO numbers VALUES (1)").await;
        let standby = PostgresServer::standby_of(&primary, &[]).await;
        let standbys = "SELECT application_name FROM pg_stat_replication";
        primary.wait_until(&format!("EXISTS ({standbys})")).await;
        let name = primary.value(standbys).await;
        primary.set("synchronous_standby_names", &format!("'{name}'")).await;
        primary.wait_until("EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')").await;
        primary.execute("SET synchronous_commit = remote_apply; INSERT INTO numbers VALUES (2)").await;
        assert_eq!(standby.value("SELECT count(*) FROM numbers").await, "2");
        standby.promote().await;
        standby.execute("INSERT INTO numbers VALUES (3)").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_workload_and_every_type_run_on_postgres() {
    for version in [12, 15, 18] {
        let server = PostgresServer::start(version, &[]).await;
        server.count_changes().await;
        let client = server.connect().await;
        let mut workload = postgres::Workload::new(1, SCHEMA, postgres::WorkloadOptions::ALL);
        workload.create(&client).await;
        workload.run(&client, 400).await;
        workload.settle(&client).await;
        let counts = server.change_counts(false).await;
        for (schema, table) in workload.tables(false) {
            let counts =
                counts.get(&format!("{schema}.{table}")).unwrap_or_else(|| panic!("{version}: nothing happens to {table}: {counts:?}"));
            // No row comes or goes but through the log, and rolled back ones are not in it.
            let rows =
                server.value(&format!("SELECT count(*) FROM {schema}.{}", postgres::identifier(&table))).await.parse::<u64>().unwrap();
            let truncated = ["tokens", "counters", "invoices", "invoice_lines", "events", "audit", "settings"].contains(&table.as_str())
                || table.starts_with("measures");
            assert!(rows == counts.inserts - counts.deletes || truncated, "{version}, {table}: {rows} rows, {counts:?}");
        }
        postgres::every_type::prepare(&server).await;
        assert!(postgres::every_type::create_and_fill(&server).await.len() > 110);
    }
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
