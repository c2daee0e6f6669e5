//! What `check` says of PostgreSQL servers in order and out of order, and that the statements it gives mend what it found.

use std::time::Duration;

use logweir_core::{Error, Finding, LogEvent, LogMark, LogStart, MemoryBudget, Pattern, Severity, Source, TableFilter};
use logweir_postgres::Lsn;
use logweir_postgres::options::{Arrays, BackfillOptions, Origin, PostgresOptions, Start, Streaming};
use logweir_postgres::source::{Fate, PostgresSource};
use logweir_postgres::wire::{Connection, Mode};
use logweir_tests::engine::Engine;
use logweir_tests::servers::{POSTGRES_VERSIONS, PostgresServer};
use serde_json::json;

const ERROR: Severity = Severity::Error;
const WARNING: Severity = Severity::Warning;

fn options(server: &PostgresServer) -> PostgresOptions {
    let mut options = PostgresOptions::new("127.0.0.1", server.user(), server.database());
    options.port = server.port();
    options.password = Some(server.password().into());
    options
}

fn tables(patterns: &[&str]) -> TableFilter {
    TableFilter { include: patterns.iter().map(|&pattern| Pattern::new(pattern)).collect(), ..TableFilter::default() }
}

async fn check_with(options: PostgresOptions, patterns: &[&str]) -> Vec<Finding> {
    let findings = PostgresSource::new(options).check(&tables(patterns), None).await.unwrap();
    assert!(findings.iter().all(|finding| !finding.remedy.is_empty() && !finding.message.is_empty()), "{findings:#?}");
    findings
}

async fn check(server: &PostgresServer, patterns: &[&str]) -> Vec<Finding> {
    check_with(options(server), patterns).await
}

fn codes(findings: &[Finding]) -> Vec<(Severity, &'static str)> {
    findings.iter().map(|finding| (finding.severity, finding.code)).collect()
}

/// The only finding, of this kind.
#[track_caller]
fn only(findings: Vec<Finding>, severity: Severity, code: &str) -> Finding {
    let [finding] = findings.as_slice() else { panic!("{code} alone: {findings:#?}") };
    assert_eq!((finding.severity, finding.code), (severity, code), "{finding:#?}");
    finding.clone()
}

/// The statements of a remedy.
fn statements(finding: &Finding) -> Vec<&str> {
    let (_, statements) = finding.remedy.split_once("run ").unwrap_or_else(|| panic!("no statement: {finding:#?}"));
    let ends = [" and restart", ", then", " as an owner", " on the primary", ", so that", " with the slots", " while "];
    let end = ends.iter().filter_map(|end| statements.find(end)).min().unwrap_or(statements.len());
    statements[..end].split("; ").collect()
}

/// Runs the statements of a remedy, as the administrator.
async fn mend(server: &PostgresServer, finding: &Finding) {
    for statement in statements(finding) {
        server.execute(statement).await;
    }
}

/// A publication as logweir makes it, without a finding.
async fn in_order(server: &PostgresServer) {
    server.execute("CREATE TABLE public.orders (id int8 PRIMARY KEY, note text)").await;
    server.execute("CREATE PUBLICATION logweir FOR TABLE public.orders").await;
    assert_eq!(codes(&check(server, &["public.*"]).await), []);
}

async fn a_server_in_order(version: u32) {
    let server = PostgresServer::start(version, &[]).await;
    in_order(&server).await;
    let finding = only(check(&server, &["nowhere.*"]).await, ERROR, "no_tables");
    assert!(finding.message.contains("nowhere.*"), "{finding:?}");

    let relations = PostgresSource::new(options(&server)).relations(&TableFilter::all()).await.unwrap();
    assert_eq!(format!("{relations:?}"), "[public.orders v1 (id Int64 key, note Utf8)]");
    server.execute("SELECT pg_create_logical_replication_slot('logweir', 'pgoutput')").await;
    assert_eq!(codes(&check(&server, &["public.*"]).await), []);
}

#[tokio::test]
async fn servers_in_order() {
    for version in POSTGRES_VERSIONS {
        a_server_in_order(version).await;
    }
}

#[tokio::test]
async fn a_log_without_rows() {
    let mut server = PostgresServer::start(15, &["wal_level = replica"]).await;
    server.execute("CREATE TABLE public.orders (id int8 PRIMARY KEY)").await;
    server.execute("CREATE PUBLICATION logweir FOR ALL TABLES").await;
    // How others' servers are told from one's own.
    for (setting, remedy) in [
        ("rds.logical_replication", "set rds.logical_replication = 1 in the DB parameter group and reboot the instance"),
        ("cloudsql.logical_decoding", "set the database flag cloudsql.logical_decoding = on, which restarts the instance"),
        ("alloydb.logical_decoding", "set the database flag alloydb.logical_decoding = on, which restarts the instance"),
        ("azure.extensions", "set the server parameter wal_level = logical and restart the server"),
    ] {
        server.execute(&format!("ALTER ROLE weir SET {setting} = 'off'")).await;
        assert_eq!(only(check(&server, &[]).await, ERROR, "wal_level").remedy, remedy);
        server.execute("ALTER ROLE weir RESET ALL").await;
    }
    let finding = only(check(&server, &[]).await, ERROR, "wal_level");
    assert_eq!(finding.remedy, "run ALTER SYSTEM SET wal_level = 'logical' and restart the server");
    mend(&server, &finding).await;
    server.restart().await;
    assert_eq!(codes(&check(&server, &[]).await), []);
}

#[tokio::test]
async fn no_room_for_another_reader() {
    let mut server = PostgresServer::start(15, &["max_replication_slots = 1", "max_wal_senders = 0"]).await;
    in_order_but(&server, &[(ERROR, "max_wal_senders")]).await;
    server.execute("SELECT pg_create_logical_replication_slot('other', 'pgoutput')").await;
    let findings = check(&server, &["public.*"]).await;
    assert_eq!(codes(&findings), [(ERROR, "max_replication_slots"), (ERROR, "max_wal_senders")]);
    assert!(findings[0].remedy.ends_with("drop one that nobody needs: SELECT pg_drop_replication_slot('other') (not in use: other)"));
    mend(&server, &findings[0]).await;
    mend(&server, &findings[1]).await;
    server.restart().await;
    assert_eq!(codes(&check(&server, &["public.*"]).await), []);
}

async fn in_order_but(server: &PostgresServer, expected: &[(Severity, &'static str)]) {
    server.execute("CREATE TABLE public.orders (id int8 PRIMARY KEY, note text)").await;
    server.execute("CREATE PUBLICATION logweir FOR TABLE public.orders").await;
    assert_eq!(codes(&check(server, &["public.*"]).await), expected);
}

#[tokio::test]
async fn what_the_account_may_not_do() {
    for version in [12, 15, 18] {
        let server = PostgresServer::start(version, &[]).await;
        server.execute("CREATE TABLE public.\"Orders\" (id int8 PRIMARY KEY)").await;
        server.execute("ALTER ROLE weir NOREPLICATION").await;
        let findings = check(&server, &["public.*"]).await;
        assert_eq!(codes(&findings), [(ERROR, "privilege_replication"), (ERROR, "privilege_create"), (ERROR, "table_owner")]);
        assert_eq!(statements(&findings[0]), ["ALTER ROLE weir REPLICATION"]);
        assert_eq!(statements(&findings[1]), ["GRANT CREATE ON DATABASE depot TO weir"]);
        mend(&server, &findings[0]).await;
        mend(&server, &findings[1]).await;
        let finding = only(check(&server, &["public.*"]).await, ERROR, "table_owner");
        assert!(finding.message.contains("public.Orders"), "{finding:?}");
        mend(&server, &finding).await;
        assert_eq!(codes(&check(&server, &["public.*"]).await), []);

        // Whoever owns the tables may make it.
        server.execute("DROP PUBLICATION logweir; ALTER TABLE public.\"Orders\" OWNER TO weir").await;
        assert_eq!(codes(&check(&server, &["public.*"]).await), []);
    }
}

#[tokio::test]
async fn rds_has_its_own_way_to_allow_replication() {
    let server = PostgresServer::start(15, &[]).await;
    in_order(&server).await;
    server.execute("ALTER ROLE weir NOREPLICATION; CREATE ROLE rds_replication; ALTER ROLE weir SET rds.extensions = 'x'").await;
    let finding = only(check(&server, &["public.*"]).await, ERROR, "privilege_replication");
    assert_eq!(finding.remedy, "run GRANT rds_replication TO weir");
    mend(&server, &finding).await;
    // This server is not really theirs, and says so when it is asked for a connection for replication.
    let finding = only(check(&server, &["public.*"]).await, ERROR, "replication_connection");
    assert!(finding.message.contains("42501") && finding.remedy.contains("REPLICATION"), "{finding:?}");
    server.execute("ALTER ROLE weir REPLICATION").await;
    assert_eq!(codes(&check(&server, &["public.*"]).await), []);
}

#[tokio::test]
async fn what_is_made_by_others_must_be_there() {
    for version in [14, 17] {
        let server = PostgresServer::start(version, &[]).await;
        server.execute("CREATE TABLE public.orders (id int8 PRIMARY KEY)").await;
        let options = || PostgresOptions { create: false, two_phase: version >= 15, ..options(&server) };
        let findings = check_with(options(), &["public.*"]).await;
        // In this order, because a slot knows the publications that were there before it.
        assert_eq!(codes(&findings), [(ERROR, "publication"), (ERROR, "slot")]);
        mend(&server, &findings[0]).await;
        mend(&server, &findings[1]).await;
        assert_eq!(codes(&check_with(options(), &["public.*"]).await), []);
    }
}

#[tokio::test]
async fn what_a_publication_leaves_out() {
    let server = PostgresServer::start(15, &[]).await;
    server.execute("CREATE TABLE public.a (id int8 PRIMARY KEY, n int4); CREATE TABLE public.b (id int8 PRIMARY KEY)").await;
    server.execute("CREATE TABLE public.c (id int8 PRIMARY KEY); CREATE SCHEMA other; CREATE TABLE other.d (id int8 PRIMARY KEY)").await;
    server.execute("CREATE PUBLICATION logweir FOR TABLE public.a WITH (publish = 'insert, truncate')").await;
    let findings = check(&server, &["public.*", "other.*"]).await;
    assert_eq!(codes(&findings), [(ERROR, "publication_operations"), (ERROR, "publication_tables")]);
    assert!(findings[0].message.ends_with("update, delete"), "{findings:?}");
    assert!(findings[1].message.ends_with("other.d, public.b, public.c"), "{findings:?}");
    mend(&server, &findings[0]).await;
    mend(&server, &findings[1]).await;
    assert_eq!(codes(&check(&server, &["public.*", "other.*"]).await), []);

    server.execute("ALTER PUBLICATION logweir SET (publish = 'insert, update, delete')").await;
    mend(&server, &only(check(&server, &["public.*"]).await, WARNING, "publication_operations")).await;

    server.execute("ALTER PUBLICATION logweir SET TABLE public.a WHERE (id > 7), public.b (id)").await;
    let findings = check(&server, &["public.a", "public.b"]).await;
    assert_eq!(codes(&findings), [(WARNING, "row_filter"), (WARNING, "column_list")]);
    mend(&server, &findings[0]).await;
    mend(&server, &findings[1]).await;
    server.execute("ALTER PUBLICATION logweir ADD TABLES IN SCHEMA other").await;
    assert_eq!(codes(&check(&server, &["public.a", "public.b", "other.*"]).await), []);

    server.execute("DROP PUBLICATION logweir; CREATE PUBLICATION logweir FOR ALL TABLES").await;
    assert_eq!(codes(&check(&server, &[]).await), []);
}

#[tokio::test]
async fn partitions_arrive_as_their_table() {
    for version in [13, 18] {
        let server = PostgresServer::start(version, &[]).await;
        server.execute("CREATE TABLE public.orders (id int8, day int4, PRIMARY KEY (id, day)) PARTITION BY LIST (day)").await;
        server.execute("CREATE TABLE public.orders_1 PARTITION OF public.orders FOR VALUES IN (1)").await;
        server.execute("CREATE PUBLICATION logweir FOR TABLE public.orders").await;
        let finding = only(check(&server, &["public.orders"]).await, ERROR, "partitions");
        only(check(&server, &["public.*"]).await, WARNING, "partitions");
        let names = async |patterns: &[&str]| {
            let relations = PostgresSource::new(options(&server)).relations(&tables(patterns)).await.unwrap();
            relations.iter().map(|relation| relation.name().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&["public.*"]).await, ["public.orders_1"]);
        mend(&server, &finding).await;
        assert_eq!(codes(&check(&server, &["public.orders"]).await), []);
        assert_eq!(names(&["public.*"]).await, ["public.orders"]);

        // Partitions one by one are as good as the table.
        server.execute("ALTER PUBLICATION logweir SET TABLE public.orders_1").await;
        assert_eq!(codes(&check(&server, &["public.*"]).await), []);
    }
}

#[tokio::test]
async fn generated_columns() {
    for version in [15, 18] {
        let server = PostgresServer::start(version, &[]).await;
        server.execute("CREATE TABLE public.t (id int8 PRIMARY KEY, twice int8 GENERATED ALWAYS AS (id * 2) STORED)").await;
        server.execute("CREATE PUBLICATION logweir FOR TABLE public.t").await;
        let columns = async || {
            let relations = PostgresSource::new(options(&server)).relations(&tables(&["public.*"])).await.unwrap();
            relations[0].columns().len()
        };
        let finding = only(check(&server, &["public.*"]).await, WARNING, "generated_columns");
        assert!(finding.message.ends_with("public.t.twice"), "{finding:?}");
        assert_eq!(columns().await, 1);
        if version == 18 {
            mend(&server, &finding).await;
            assert_eq!(codes(&check(&server, &["public.*"]).await), []);
            assert_eq!(columns().await, 2);
            server.execute("ALTER TABLE public.t ADD thrice int8 GENERATED ALWAYS AS (id * 3) VIRTUAL").await;
            only(check(&server, &["public.*"]).await, WARNING, "generated_columns");
            assert_eq!(columns().await, 2);
        }
    }
}

#[tokio::test]
async fn tables_that_nobody_can_update() {
    for version in [12, 15, 18] {
        let server = PostgresServer::start(version, &[]).await;
        server
            .execute(
                "CREATE TABLE public.keyless (a int4); CREATE TABLE public.late (id int4 PRIMARY KEY DEFERRABLE); \
                 CREATE TABLE public.nothing (id int4 PRIMARY KEY); ALTER TABLE public.nothing REPLICA IDENTITY NOTHING; \
                 CREATE TABLE public.unique_ (a int4 NOT NULL, b int4 NOT NULL, c int4); CREATE UNIQUE INDEX \"By a\" ON public.unique_ (a, b); \
                 CREATE TABLE public.gone (a int4 NOT NULL); CREATE UNIQUE INDEX gone_a ON public.gone (a); \
                 ALTER TABLE public.gone REPLICA IDENTITY USING INDEX gone_a; DROP INDEX public.gone_a; \
                 CREATE TABLE public.parted (id int4 NOT NULL, v int4) PARTITION BY LIST (id); \
                 CREATE TABLE public.parted_1 PARTITION OF public.parted FOR VALUES IN (1); \
                 CREATE TABLE public.full_ (id int4 PRIMARY KEY, v int4); ALTER TABLE public.full_ REPLICA IDENTITY FULL",
            )
            .await;
        server.execute("CREATE PUBLICATION logweir FOR ALL TABLES").await;
        if version >= 13 {
            server.execute("ALTER PUBLICATION logweir SET (publish_via_partition_root = true)").await;
        }
        let tables = ["keyless", "late", "nothing", "unique_", "gone", "parted_1"];
        for table in tables {
            let session = server.connect().await;
            let column = if matches!(table, "late" | "nothing" | "parted_1") { "id" } else { "a" };
            session
                .batch_execute(&format!("INSERT INTO public.{table} VALUES (1{})", if table == "unique_" { ", 1" } else { "" }))
                .await
                .unwrap();
            let update = session.batch_execute(&format!("UPDATE public.{table} SET {column} = {column}")).await;
            assert!(update.is_err(), "an update of {table} fails");
        }
        let finding = only(check(&server, &["public.*"]).await, ERROR, "replica_identity");
        for (table, identity) in [
            ("keyless", "FULL"),
            ("late", "FULL"),
            ("nothing", "DEFAULT"),
            ("unique_", "USING INDEX \"By a\""),
            ("gone", "FULL"),
            ("parted_1", "FULL"),
        ] {
            let statement = format!("ALTER TABLE public.{table} REPLICA IDENTITY {identity}");
            assert!(finding.remedy.contains(&statement), "{statement} is not in {finding:#?}");
        }
        mend(&server, &finding).await;
        for table in tables {
            let column = if matches!(table, "late" | "nothing" | "parted_1") { "id" } else { "a" };
            server.execute(&format!("UPDATE public.{table} SET {column} = {column}")).await;
        }
        let finding = only(check(&server, &["public.*"]).await, WARNING, "no_primary_key");
        assert!(finding.message.contains("public.gone, public.keyless, public.parted_1"), "{finding:?}");

        let relations = PostgresSource::new(options(&server)).relations(&self::tables(&["public.*"])).await.unwrap();
        let keys: Vec<String> = relations.iter().map(|relation| format!("{relation:?}")).collect();
        assert!(keys.contains(&"public.full_ v1 (id Int32 key, v Int32)".to_owned()), "{keys:#?}");
        assert!(keys.contains(&"public.unique_ v1 (a Int32 key, b Int32 key, c Int32)".to_owned()), "{keys:#?}");
        assert!(keys.contains(&"public.late v1 (id Int32 key)".to_owned()), "{keys:#?}");
        assert!(keys.contains(&"public.keyless v1 (a Int32)".to_owned()), "{keys:#?}");
    }
}

#[tokio::test]
async fn what_no_log_tells_of() {
    let server = PostgresServer::start(15, &[]).await;
    server.execute("CREATE UNLOGGED TABLE public.scratch (id int4 PRIMARY KEY); CREATE VIEW public.seen AS SELECT 1 AS one").await;
    server.execute("CREATE MATERIALIZED VIEW public.kept AS SELECT 1 AS one; CREATE PUBLICATION logweir FOR ALL TABLES").await;
    server.execute("CREATE FOREIGN DATA WRAPPER nobody; CREATE SERVER nowhere FOREIGN DATA WRAPPER nobody").await;
    server.execute("CREATE FOREIGN TABLE public.far (id int4) SERVER nowhere").await;
    let findings = check(&server, &["public.seen", "public.kept", "public.far"]).await;
    assert_eq!(codes(&findings), [(ERROR, "not_a_table"); 3]);
    let finding = only(check(&server, &["public.*"]).await, WARNING, "unlogged");
    mend(&server, &finding).await;
    assert_eq!(codes(&check(&server, &["public.*"]).await), []);
}

#[tokio::test]
async fn rows_that_backfill_may_not_read() {
    let server = PostgresServer::start(15, &[]).await;
    in_order(&server).await;
    server.execute("CREATE SCHEMA locked; REVOKE USAGE ON SCHEMA locked FROM weir; CREATE TABLE locked.t (id int4 PRIMARY KEY)").await;
    server.execute("CREATE TABLE public.part (id int4 PRIMARY KEY, secret text, open text); REVOKE SELECT ON public.part FROM weir").await;
    server.execute("CREATE TABLE public.mine (id int4 PRIMARY KEY); ALTER TABLE public.mine ENABLE ROW LEVEL SECURITY").await;
    server.execute("ALTER PUBLICATION logweir ADD TABLE locked.t, public.part, public.mine").await;
    assert_eq!(codes(&check(&server, &[]).await), [], "the log alone needs none of it");
    let backfill = |exclude: &[&str]| {
        let exclude = exclude.iter().map(|&pattern| Pattern::new(pattern)).collect();
        PostgresOptions { backfill: Some(BackfillOptions { exclude, ..BackfillOptions::default() }), ..options(&server) }
    };
    let findings = check_with(backfill(&[]), &[]).await;
    assert_eq!(codes(&findings), [(ERROR, "privilege_usage"), (ERROR, "privilege_select"), (ERROR, "row_security")]);
    assert_eq!(codes(&check_with(backfill(&["locked.*", "public.part"]), &[]).await), [(ERROR, "row_security")]);
    for finding in &findings {
        mend(&server, finding).await;
    }
    assert_eq!(codes(&check_with(backfill(&[]), &[]).await), []);

    // Some columns are enough, if they are those that are wanted.
    server.execute("REVOKE SELECT ON public.part FROM weir; GRANT SELECT (id, open) ON public.part TO weir").await;
    only(check_with(backfill(&[]), &[]).await, ERROR, "privilege_select");
    let filter = TableFilter { exclude_columns: vec![Pattern::new("*.secret")], ..TableFilter::default() };
    assert_eq!(PostgresSource::new(backfill(&[])).check(&filter, None).await.unwrap(), []);
}

#[tokio::test]
async fn a_slot_of_others() {
    let server = PostgresServer::start(15, &[]).await;
    in_order(&server).await;
    server.execute("SELECT pg_create_logical_replication_slot('logweir', 'test_decoding')").await;
    mend(&server, &only(check(&server, &["public.*"]).await, ERROR, "slot_plugin")).await;
    server.execute("SELECT pg_create_physical_replication_slot('logweir')").await;
    mend(&server, &only(check(&server, &["public.*"]).await, ERROR, "slot_plugin")).await;
    server.execute_in("postgres", "SELECT pg_create_logical_replication_slot('logweir', 'pgoutput')").await;
    only(check(&server, &["public.*"]).await, ERROR, "slot_database");
}

#[tokio::test]
async fn a_slot_that_is_read() {
    let server = PostgresServer::start(15, &[]).await;
    in_order(&server).await;
    server.execute("SELECT pg_create_logical_replication_slot('logweir', 'pgoutput')").await;
    let reader = Connection::connect(&options(&server), Mode::Replication).await.unwrap();
    let start = "START_REPLICATION SLOT logweir LOGICAL 0/0 (proto_version '1', publication_names 'logweir')";
    let stream = reader.copy_both(start).await.unwrap();
    only(check(&server, &["public.*"]).await, WARNING, "slot_active");
    let error = PostgresSource::new(options(&server)).drop_slot().await.unwrap_err();
    assert!(error.to_string().contains("in use") && error.get_remedy().unwrap().contains("pg_terminate_backend"), "{error}");
    drop(stream);
    server.wait_until("NOT (SELECT active FROM pg_replication_slots)").await;

    let mut other = Connection::connect(&options(&server), Mode::Replication).await.unwrap();
    other.query("SET application_name = 'walreader'").await.unwrap();
    let stream = other.copy_both(start).await.unwrap();
    let finding = only(check(&server, &["public.*"]).await, ERROR, "slot_active");
    assert!(finding.message.contains("walreader"), "{finding:?}");
    mend(&server, &finding).await;
    server.wait_until("NOT (SELECT active FROM pg_replication_slots)").await;
    assert_eq!(codes(&check(&server, &["public.*"]).await), []);
    drop(stream);
}

/// Writes so many megabytes of log.
async fn write(server: &PostgresServer, megabytes: u32) {
    server.execute(&format!("SELECT pg_logical_emit_message(false, 'x', repeat('x', 1048000)) FROM generate_series(1, {megabytes})")).await;
}

#[tokio::test]
async fn a_slot_that_holds_back_too_much() {
    let server = PostgresServer::start(15, &["max_slot_wal_keep_size = 64MB"]).await;
    server.execute("CREATE TABLE public.orders (id int8 PRIMARY KEY); CREATE PUBLICATION logweir FOR TABLE public.orders").await;
    only(check(&server, &["public.*"]).await, WARNING, "max_slot_wal_keep_size");
    mend(&server, &only(check(&server, &["public.*"]).await, WARNING, "max_slot_wal_keep_size")).await;
    assert_eq!(codes(&check(&server, &["public.*"]).await), []);
    server.set("max_slot_wal_keep_size", "'2GB'").await;
    server.execute("SELECT pg_create_logical_replication_slot('logweir', 'pgoutput')").await;
    write(&server, 10).await;
    let bound = |megabytes: u64| PostgresOptions { max_retained_wal: Some(megabytes << 20), ..options(&server) };
    only(check_with(bound(12), &["public.*"]).await, WARNING, "max_retained_wal");
    only(check_with(bound(5), &["public.*"]).await, ERROR, "max_retained_wal");
    assert_eq!(codes(&check_with(bound(500), &["public.*"]).await), []);

    // Of what the server keeps at most, half is used up.
    server.set("max_slot_wal_keep_size", "'1GB'").await;
    write(&server, 520).await;
    let finding = only(check(&server, &["public.*"]).await, WARNING, "max_slot_wal_keep_size");
    assert!(finding.message.contains("1.0 GiB"), "{finding:?}");
    mend(&server, &finding).await;
    assert_eq!(codes(&check(&server, &["public.*"]).await), []);

    // Another stream is warned of it, too.
    let other = PostgresOptions { slot: "other".into(), ..options(&server) };
    let finding = only(check_with(other.clone(), &["public.*"]).await, WARNING, "slots_idle");
    assert!(finding.message.contains("logweir ("), "{finding:?}");

    // What it needs is removed.
    server.set("max_slot_wal_keep_size", "'64MB'").await;
    server.wait_until("(SELECT wal_status FROM pg_replication_slots) = 'unreserved'").await;
    let found = codes(&check(&server, &["public.*"]).await);
    assert!(found.contains(&(WARNING, "slot_unreserved")), "{found:?}");
    server.execute("CHECKPOINT").await;
    server.wait_until("(SELECT wal_status FROM pg_replication_slots) = 'lost'").await;
    server.set("max_slot_wal_keep_size", "-1").await;
    let finding = only(check(&server, &["public.*"]).await, ERROR, "slot_lost");
    mend(&server, &finding).await;
    assert_eq!(codes(&check_with(other, &["public.*"]).await), []);
}

#[tokio::test]
async fn slots_nobody_reads_any_more() {
    let server = PostgresServer::start(15, &[]).await;
    in_order(&server).await;
    server.execute("SELECT pg_create_physical_replication_slot('standby', true)").await;
    write(&server, 270).await;
    let finding = only(check(&server, &["public.*"]).await, WARNING, "slots_idle");
    mend(&server, &finding).await;
    assert_eq!(codes(&check(&server, &["public.*"]).await), []);
}

#[tokio::test]
async fn a_slot_made_otherwise_than_configured() {
    let server = PostgresServer::start(17, &["synchronized_standby_slots = ''"]).await;
    in_order(&server).await;
    server.execute("SELECT pg_create_logical_replication_slot('logweir', 'pgoutput', false, true)").await;
    only(check(&server, &["public.*"]).await, WARNING, "slot_two_phase");
    server.execute("SELECT pg_drop_replication_slot('logweir')").await;
    server.execute("SELECT pg_create_logical_replication_slot('logweir', 'pgoutput')").await;
    let two_phase = PostgresOptions { two_phase: true, ..options(&server) };
    mend(&server, &only(check_with(two_phase, &["public.*"]).await, WARNING, "slot_two_phase")).await;
    server.execute("SELECT pg_create_logical_replication_slot('logweir', 'pgoutput')").await;

    let failover = || PostgresOptions { failover: true, ..options(&server) };
    let findings = check_with(failover(), &["public.*"]).await;
    assert_eq!(codes(&findings), [(WARNING, "slot_failover"), (WARNING, "failover_standbys")]);
    let (_, command) = findings[0].remedy.split_once("): ").unwrap();
    let mut walsender = Connection::connect(&options(&server), Mode::Replication).await.unwrap();
    walsender.query(command).await.unwrap();
    server.execute("SELECT pg_create_physical_replication_slot('slot_of_the_standby')").await;
    mend(&server, &findings[1]).await;
    assert_eq!(codes(&check_with(failover(), &["public.*"]).await), []);
}

#[tokio::test]
async fn starts_that_a_slot_has_not() {
    let server = PostgresServer::start(15, &[]).await;
    in_order(&server).await;
    let at = |start| PostgresOptions { start, ..options(&server) };
    only(check_with(at(Start::Lsn(Lsn(1))), &["public.*"]).await, ERROR, "start");
    server.execute("SELECT pg_create_logical_replication_slot('logweir', 'pgoutput')").await;
    let finding = only(check_with(at(Start::Lsn(Lsn(1))), &["public.*"]).await, ERROR, "start");
    let place = server.value("SELECT confirmed_flush_lsn FROM pg_replication_slots").await;
    assert!(finding.remedy.contains(&place), "{finding:?}");
    for start in [Start::Lsn(place.parse().unwrap()), Start::Earliest, Start::Now] {
        assert_eq!(codes(&check_with(at(start), &["public.*"]).await), []);
    }
}

#[tokio::test]
async fn what_only_later_versions_do() {
    let server = PostgresServer::start(13, &[]).await;
    in_order(&server).await;
    let wanted = PostgresOptions { streaming: Streaming::On, two_phase: true, origin: Origin::None, failover: true, ..options(&server) };
    assert_eq!(codes(&check_with(wanted, &["public.*"]).await), [(ERROR, "version"); 4]);
    let server = PostgresServer::start(15, &[]).await;
    in_order(&server).await;
    let wanted = PostgresOptions { streaming: Streaming::Parallel, two_phase: true, ..options(&server) };
    let finding = only(check_with(wanted, &["public.*"]).await, ERROR, "version");
    assert!(finding.message.contains("needs PostgreSQL 16") && finding.message.contains("15."), "{finding:?}");
}

#[tokio::test]
async fn settings_that_cut_off_or_hang_on() {
    let server = PostgresServer::start(18, &[]).await;
    in_order(&server).await;
    for (setting, value, code) in [
        ("wal_sender_timeout", "0", "wal_sender_timeout"),
        ("wal_sender_timeout", "'2s'", "wal_sender_timeout"),
        ("idle_replication_slot_timeout", "'1h'", "idle_replication_slot_timeout"),
    ] {
        server.set(setting, value).await;
        mend(&server, &only(check(&server, &["public.*"]).await, WARNING, code)).await;
        assert_eq!(codes(&check(&server, &["public.*"]).await), []);
    }
}

#[tokio::test]
async fn text_of_any_encoding() {
    let server = PostgresServer::start(15, &[]).await;
    server.execute("CREATE DATABASE loose TEMPLATE template0 ENCODING 'SQL_ASCII'").await;
    server.execute_in("loose", "CREATE TABLE public.t (id int4 PRIMARY KEY); CREATE PUBLICATION logweir FOR ALL TABLES").await;
    let options = PostgresOptions { database: "loose".into(), ..options(&server) };
    only(check_with(options, &[]).await, WARNING, "server_encoding");
}

#[tokio::test]
async fn a_standby() {
    let primary = PostgresServer::start(15, &[]).await;
    in_order(&primary).await;
    let standby = PostgresServer::standby_of(&primary, &[]).await;
    only(check(&standby, &["public.*"]).await, ERROR, "standby");
    drop(standby);

    let primary = PostgresServer::start(18, &[]).await;
    primary.execute("CREATE TABLE public.orders (id int8 PRIMARY KEY)").await;
    let standby = PostgresServer::standby_of(&primary, &["hot_standby_feedback = off"]).await;
    standby.wait_until("to_regclass('public.orders') IS NOT NULL").await;
    let findings = check(&standby, &["public.*"]).await;
    assert_eq!(codes(&findings), [(ERROR, "publication"), (WARNING, "hot_standby_feedback"), (WARNING, "standby")]);
    mend(&primary, &findings[0]).await;
    mend(&standby, &findings[1]).await;
    mend(&primary, &findings[2]).await;
    standby.wait_until("EXISTS (SELECT FROM pg_publication)").await;
    only(check(&standby, &["public.*"]).await, WARNING, "standby");
}

#[tokio::test]
async fn columns_that_arrive_otherwise() {
    let server = PostgresServer::start(15, &[]).await;
    server.execute("CREATE TYPE public.pair AS (a int4, b int4); CREATE TYPE public.mood AS ENUM ('good', 'bad')").await;
    server.execute("CREATE TABLE public.t (id int4 PRIMARY KEY, p public.pair, m public.mood, grid int4[][], list int4[])").await;
    server.execute("CREATE PUBLICATION logweir FOR ALL TABLES").await;
    let findings = check(&server, &["public.*"]).await;
    assert_eq!(codes(&findings), [(WARNING, "column_type"), (WARNING, "array_dimensions")]);
    assert!(findings[0].message.ends_with("public.t.p (public.pair)"), "{findings:?}");
    assert!(findings[1].message.ends_with("public.t.grid (integer[])"), "{findings:?}");
    let text = PostgresOptions { arrays: Arrays::Text, ..options(&server) };
    assert_eq!(codes(&check_with(text, &["public.*"]).await), [(WARNING, "column_type")]);
    let relations = PostgresSource::new(options(&server)).relations(&tables(&["public.*"])).await.unwrap();
    assert_eq!(format!("{:?}", relations[0]), "public.t v1 (id Int32 key, p Utf8, m Utf8, grid List(Int32), list List(Int32))");
}

#[tokio::test]
async fn transactions_that_a_new_slot_waits_for() {
    let server = PostgresServer::start(15, &[]).await;
    in_order(&server).await;
    server.execute("CREATE TABLE public.many (id int4 PRIMARY KEY); ALTER PUBLICATION logweir ADD TABLE public.many").await;
    let session = server.connect().await;
    session.batch_execute("BEGIN; INSERT INTO public.orders VALUES (1)").await.unwrap();
    // Each gets a number of its own, by which the age of the first can be told without a clock.
    let begin = "DO $$ BEGIN FOR i IN 1..10100 LOOP BEGIN INSERT INTO public.many VALUES (i); EXCEPTION WHEN others THEN NULL; END; END LOOP; END $$";
    server.execute(begin).await;
    mend(&server, &only(check(&server, &["public.*"]).await, WARNING, "long_transaction")).await;
    server.execute("GRANT pg_read_all_stats TO weir").await;
    assert_eq!(codes(&check(&server, &["public.*"]).await), []);

    let open = server.connect().await;
    open.batch_execute("BEGIN; INSERT INTO public.orders VALUES (2)").await.unwrap();
    server.execute("BEGIN; INSERT INTO public.orders VALUES (3); PREPARE TRANSACTION 'it''s'").await;
    server.wait_until("(SELECT prepared FROM pg_prepared_xacts) < now() - interval '10 seconds'").await;
    let findings = check(&server, &["public.*"]).await;
    assert_eq!(codes(&findings), [(WARNING, "long_transaction"); 2]);
    assert!(findings[0].message.contains("seconds)") && findings[1].message.contains("'it''s' (for"), "{findings:#?}");
    mend(&server, &findings[0]).await;
    server.execute(statements(&findings[1])[0].split(" or ").next().unwrap()).await;
    assert_eq!(codes(&check(&server, &["public.*"]).await), []);
}

#[tokio::test]
async fn slot_and_publication_are_dropped_if_they_are_ours() {
    for version in [12, 15, 18] {
        let server = PostgresServer::start(version, &[]).await;
        let source = || PostgresSource::new(options(&server));
        let nothing = source().drop_slot().await.unwrap();
        assert_eq!((nothing.slot, nothing.publication), (Fate::NotThere, Fate::NotThere));
        server.execute("CREATE PUBLICATION logweir").await;
        server.execute("SELECT pg_create_logical_replication_slot('logweir', 'pgoutput')").await;
        let others = PostgresSource::new(PostgresOptions { create: false, ..options(&server) }).drop_slot().await.unwrap();
        assert!(matches!((others.slot, others.publication), (Fate::Kept(_), Fate::Kept(_))));
        let dropped = source().drop_slot().await.unwrap();
        assert_eq!(dropped.slot, Fate::Dropped);
        assert!(matches!(dropped.publication, Fate::Kept(_)), "nobody said that it is ours");
        server.execute("COMMENT ON PUBLICATION logweir IS 'created by logweir for the slot logweir'").await;
        let error = source().drop_slot().await.unwrap_err();
        assert!(error.get_remedy().unwrap().contains("run DROP PUBLICATION logweir as its owner"), "{error:?}");
        server.execute("GRANT CREATE ON DATABASE depot TO weir; ALTER PUBLICATION logweir OWNER TO weir").await;
        let dropped = source().drop_slot().await.unwrap();
        assert_eq!((dropped.slot, dropped.publication), (Fate::NotThere, Fate::Dropped));
        server.execute("SELECT pg_create_physical_replication_slot('logweir')").await;
        assert!(matches!(source().drop_slot().await.unwrap().slot, Fate::Kept(_)));
    }
}

fn log_start(resume: Option<LogMark>) -> LogStart {
    LogStart {
        resume,
        relations: Vec::new(),
        tables: tables(&["public.*"]),
        before_images: Vec::new(),
        memory: MemoryBudget::new(64 << 20),
    }
}

/// The mark that a log is opened at, and what `run` says where it cannot be opened.
async fn opened(server: &PostgresServer, resume: Option<LogMark>) -> Result<LogMark, Error> {
    let mut reader = PostgresSource::new(options(server)).open_log(log_start(resume)).await?;
    match reader.next().await? {
        Some(LogEvent::Mark(mark)) => Ok(mark),
        other => panic!("a log begins with a mark, not with {other:?}"),
    }
}

/// A stream with a checkpoint goes on there or not at all, and `check` says so in the words of `run`.
#[tokio::test]
async fn a_checkpoint_that_the_slot_has_left() {
    let server = PostgresServer::start(15, &[]).await;
    in_order(&server).await;
    let mark = opened(&server, None).await.unwrap();
    server.wait_until("SELECT NOT active FROM pg_replication_slots").await;
    let check = async || {
        let findings = PostgresSource::new(options(&server)).check(&tables(&["public.*"]), Some(&mark)).await.unwrap();
        assert!(findings.iter().all(|finding| !finding.remedy.is_empty()), "{findings:?}");
        findings
    };
    assert_eq!(codes(&check().await), []);

    let refused = async |message: &str| {
        let finding = only(check().await, ERROR, "checkpoint");
        let error = opened(&server, Some(mark.clone())).await.unwrap_err();
        assert!(finding.message.starts_with(error.message()) && finding.message.contains(message), "{finding:?}");
        assert_eq!(Some(finding.remedy.as_str()), error.get_remedy());
        assert!(finding.remedy.contains("backfill: all") && !finding.message.contains(&finding.remedy), "{finding:?}");
    };
    server.execute("SELECT pg_drop_replication_slot('logweir')").await;
    refused("the replication slot is gone").await;
    // What would stand in the way of making one is of no interest then.
    let open = server.connect().await;
    open.batch_execute("BEGIN; INSERT INTO public.orders VALUES (1)").await.unwrap();
    refused("the replication slot is gone").await;
    open.batch_execute("COMMIT").await.unwrap();
    server.execute("SELECT pg_create_logical_replication_slot('logweir', 'pgoutput')").await;
    refused("or it was made anew").await;
    // A slot that is unfit for whoever reads it is not said to be so twice.
    server
        .execute("SELECT pg_drop_replication_slot('logweir'); SELECT pg_create_logical_replication_slot('logweir', 'test_decoding')")
        .await;
    only(check().await, ERROR, "slot_plugin");

    let other = PostgresServer::start(15, &[]).await;
    in_order(&other).await;
    let findings = PostgresSource::new(options(&other)).check(&tables(&["public.*"]), Some(&mark)).await.unwrap();
    assert!(only(findings, ERROR, "checkpoint").message.contains("another cluster"));
}

/// The command finds the stream's checkpoint, while the stream runs, too, and leaves it as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_looks_at_the_checkpoint() {
    const A_MINUTE: Duration = Duration::from_secs(60);
    let server = PostgresServer::start(15, &[]).await;
    server.execute("CREATE TABLE public.orders (id int8 PRIMARY KEY, note text); CREATE PUBLICATION weir FOR ALL TABLES").await;
    let engine = Engine::postgres(&server, "public").set("/streams/shop/destinations/0/rotate", json!({ "interval": "100ms" }));
    let check = |code: i32| {
        let finished = engine.run(&["check"], A_MINUTE);
        assert_eq!(finished.code, Some(code), "{}{}", finished.stdout, finished.stderr);
        finished.stdout
    };
    engine.catch_up();
    let mut running = engine.start(&["run"]);
    running.wait_for_message("reading the log", A_MINUTE);
    for id in 0..5 {
        server.execute(&format!("INSERT INTO public.orders VALUES ({id}, 'x')")).await;
        let found = check(0);
        assert!(found.contains("[slot_active]") && !found.contains("[checkpoint]"), "{found}");
    }
    let finished = running.terminate(A_MINUTE);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    check(0);

    server.wait_until("SELECT NOT active FROM pg_replication_slots").await;
    server.execute("SELECT pg_drop_replication_slot('weir'); INSERT INTO public.orders VALUES (100, 'x')").await;
    server.execute("SELECT pg_create_logical_replication_slot('weir', 'pgoutput')").await;
    let before = checkpoint_files(engine.directory());
    let found = check(1);
    assert!(found.contains("error[checkpoint] stream shop, source source: the replication slot has moved on"), "{found}");
    assert_eq!(checkpoint_files(engine.directory()), before);
    let finished = engine.run(&["run", "--until-caught-up"], A_MINUTE);
    assert!(finished.code == Some(1) && finished.stderr.contains("the replication slot has moved on"), "{}", finished.stderr);
}

/// A column named as one of ours is found before its table is met, and the remedy mends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_named_as_metadata_columns() {
    const A_MINUTE: Duration = Duration::from_secs(60);
    let server = PostgresServer::start(15, &[]).await;
    server
        .execute("CREATE TABLE public.orders (id int8 PRIMARY KEY, \"_Metadata_Sequence\" text, _metadata_x text); CREATE PUBLICATION weir FOR ALL TABLES")
        .await;
    let engine = Engine::postgres(&server, "public");
    let finished = engine.run(&["check"], A_MINUTE);
    assert_eq!(finished.code, Some(1), "{}{}", finished.stdout, finished.stderr);
    let expected = "error[table] stream shop, destination lake: a column has the name of a metadata column (relation: public.orders, column: \
                    _Metadata_Sequence)\n  → leave the column out: tables: { exclude_columns: [\"public.orders._Metadata_Sequence\"] }";
    assert!(finished.stdout.contains(expected), "{}", finished.stdout);
    let engine = engine.set("/streams/shop/tables/exclude_columns", json!(["public.orders._Metadata_Sequence"]));
    let finished = engine.run(&["check"], A_MINUTE);
    assert_eq!(finished.code, Some(0), "{}{}", finished.stdout, finished.stderr);
    engine.catch_up();
    server.execute("INSERT INTO public.orders VALUES (1, 'a', 'b')").await;
    engine.catch_up();
}

/// Every file of the state, by name.
fn checkpoint_files(directory: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![directory.join("state")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                files.push((path, bytes));
            }
        }
    }
    files.sort();
    files
}
