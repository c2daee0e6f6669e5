//! The log reader of PostgreSQL against real servers, without the engine around it: its contract, and what is hard to
//! bring about through the engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use logweir_core::{
    ChangeBatch, ChangeType, LogEvent, LogMark, LogReader, LogStart, MemoryBudget, MemoryPermit, Pattern, Relation, Source, TableFilter,
};
use logweir_postgres::options::{BackfillOptions, PostgresOptions, Start, Streaming};
use logweir_postgres::source::PostgresSource;
use logweir_tests::postgres::{Workload, WorkloadOptions};
use logweir_tests::servers::PostgresServer;
use logweir_tests::suite;

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn install_crypto() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// As administrator, so that the reader can make its publication.
fn options(server: &PostgresServer) -> PostgresOptions {
    let mut options = PostgresOptions::new("127.0.0.1", "postgres", server.database());
    options.port = server.port();
    options.start = Start::Earliest;
    options
}

fn followed(schema: &str) -> TableFilter {
    TableFilter { include: vec![Pattern::new(format!("{schema}.*"))], ..TableFilter::default() }
}

/// A reader under test, and what it has handed out.
struct Reading {
    reader: Box<dyn LogReader>,
    marks: Vec<LogMark>,
    relations: Vec<Arc<Relation>>,
}

impl Reading {
    async fn open(options: PostgresOptions, tables: TableFilter, resume: Option<LogMark>) -> Self {
        let start = LogStart { resume, relations: Vec::new(), tables, memory: MemoryBudget::new(64 << 20) };
        let reader = PostgresSource::new(options).open_log(start).await.expect("the log can be opened");
        Reading { reader, marks: Vec::new(), relations: Vec::new() }
    }

    /// The next batch; what else comes is kept.
    async fn batch(&mut self) -> ChangeBatch {
        loop {
            if let Some(batch) = self.event().await {
                return batch;
            }
        }
    }

    async fn event(&mut self) -> Option<ChangeBatch> {
        let event = tokio::time::timeout(PATIENCE, self.reader.next()).await.expect("something comes");
        match event.expect("the log can be read").expect("a live log does not end") {
            // Here nothing is given back, so nothing is counted.
            LogEvent::Changes(batch) => return Some(ChangeBatch { memory: Arc::new(MemoryPermit::uncounted()), ..batch }),
            LogEvent::Mark(mark) => self.marks.push(mark),
            LogEvent::Relation(relation) => self.relations.push(relation),
        }
        None
    }

    /// Reads what the server holds now, backfill included.
    async fn read_to_end(&mut self) -> Vec<ChangeBatch> {
        let end = self.reader.end().await.expect("the end can be asked").expect("a live log has an end");
        let mut batches = Vec::new();
        loop {
            batches.extend(self.event().await);
            if !self.reader.reads_backfill() && self.marks.last().is_some_and(|mark| mark.position >= end) {
                return batches;
            }
        }
    }
}

/// Every row of a batch: its type, its first column (a number) and the second as text.
fn rows(batch: &ChangeBatch) -> Vec<(ChangeType, Option<i32>, Option<String>)> {
    let keys = batch.records.column(0).as_primitive::<Int32Type>();
    let texts = arrow_cast::cast(batch.records.column(1), &arrow_schema::DataType::Utf8).unwrap();
    let texts = texts.as_string::<i32>();
    let codes = batch.change_type_codes();
    let types = codes.iter().map(|code| ChangeType::from_code(*code).unwrap());
    types.zip(keys).zip(texts).map(|((change_type, key), text)| (change_type, key, text.map(str::to_owned))).collect()
}

/// The table that changes come to: key by value.
fn merged(batches: &[ChangeBatch]) -> BTreeMap<i32, String> {
    let mut table = BTreeMap::new();
    for (change_type, key, text) in batches.iter().flat_map(rows) {
        match change_type {
            ChangeType::Truncate => table.clear(),
            ChangeType::Delete | ChangeType::UpdateDelete => drop(table.remove(&key.unwrap())),
            _ => drop(table.insert(key.unwrap(), text.unwrap_or_default())),
        }
    }
    table
}

async fn contract(version: u32, change: impl Fn(&mut PostgresOptions)) {
    install_crypto();
    let little_memory: &[&str] = if version < 13 { &[] } else { &["logical_decoding_work_mem = 64kB"] };
    let server = PostgresServer::start(version, little_memory).await;
    let client = server.connect().await;
    server.execute("CREATE PUBLICATION logweir FOR ALL TABLES").await;
    server.execute("SELECT pg_create_logical_replication_slot('logweir', 'pgoutput')").await;
    let mut workload = Workload::new(17, "suite", WorkloadOptions::ALL);
    workload.create(&client).await;
    workload.run(&client, 150).await;
    workload.settle(&client).await;
    let mut options = options(&server);
    change(&mut options);
    let log = suite::log_reader(&PostgresSource::new(options), &followed("suite")).await;
    assert!(log.rows.len() > 5, "the workload writes to several tables");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_reader_over_a_live_12() {
    contract(12, |_| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_reader_over_a_live_15_in_text() {
    contract(15, |options| options.binary = false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_reader_over_a_live_18_with_streaming() {
    contract(18, |options| options.streaming = Streaming::Parallel).await;
}

/// Synchronous replication holds a committer between its record in the log and its visibility for as long as one likes. A
/// backfill that trusted the log's end would read the row as it was, and place it behind the change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_waits_until_what_the_log_has_shown_is_visible() {
    install_crypto();
    let server = PostgresServer::start(15, &[]).await;
    server
        .execute(
            "CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY, v text); INSERT INTO s.t SELECT i, 'old' FROM generate_series(1, 10) i",
        )
        .await;
    server.execute("CREATE PUBLICATION logweir FOR ALL TABLES").await;
    server.execute("SELECT pg_create_logical_replication_slot('logweir', 'pgoutput')").await;
    // Keeps the backfill waiting: it might have changed the table before it was published.
    let older = server.connect().await;
    older.batch_execute("BEGIN; SELECT txid_current()").await.unwrap();
    let mut options = options(&server);
    options.backfill = Some(BackfillOptions::default());
    let mut reading = Reading::open(options, followed("s"), None).await;
    while !reading.marks.last().is_some_and(|mark| mark.offset.0["backfill"]["pending"].is_array()) {
        let batch = reading.event().await;
        assert!(batch.is_none(), "read before the table is known to be complete: {:?}", batch.map(|batch| rows(&batch)));
        server.execute("SELECT pg_logical_emit_message(false, 'test', 'the log moves')").await;
    }
    // From here on a commit waits for a standby that is not there.
    server.set("synchronous_standby_names", "nobody").await;
    let committer = server.connect().await;
    let committing = tokio::spawn(async move { committer.batch_execute("UPDATE s.t SET v = 'new' WHERE id = 1").await });
    let update = reading.batch().await;
    assert_eq!(rows(&update), [(ChangeType::UpdateInsert, Some(1), Some("new".to_owned()))]);
    assert_eq!(server.value("SELECT v FROM s.t WHERE id = 1").await, "old", "the change is in the log and not visible");
    older.batch_execute("ROLLBACK").await.unwrap();
    let patience = tokio::time::sleep(Duration::from_secs(4));
    tokio::pin!(patience);
    loop {
        tokio::select! {
            () = &mut patience => break,
            batch = reading.event() => assert!(batch.is_none(), "rows were read that the log has overtaken: {:?}", batch.map(|batch| rows(&batch))),
        }
    }
    assert!(!committing.is_finished());
    server.set("synchronous_standby_names", "''").await;
    committing.await.unwrap().unwrap();
    let mut batches = vec![update];
    batches.extend(reading.read_to_end().await);
    let table = merged(&batches);
    assert_eq!(table.len(), 10);
    assert_eq!((table[&1].as_str(), table[&2].as_str()), ("new", "old"));
}

/// The rows of a new slot's snapshot and the log from there on are the table, with changes under way all the time.
async fn first_load(version: u32, tables: &str) {
    install_crypto();
    let server = PostgresServer::start(version, &[]).await;
    server.execute(&format!("CREATE SCHEMA s; CREATE TABLE s.t (id int{tables}, v text)")).await;
    server.execute("ALTER TABLE s.t REPLICA IDENTITY FULL; INSERT INTO s.t SELECT i, 'row ' || i FROM generate_series(1, 20000) i").await;
    let client = server.connect().await;
    let changing = tokio::spawn(async move {
        for i in 1..400 {
            let sql = format!(
                "UPDATE s.t SET v = 'changed' WHERE id = {i}; DELETE FROM s.t WHERE id = {}; INSERT INTO s.t VALUES ({}, 'new')",
                i + 10_000,
                i + 20_000
            );
            client.batch_execute(&sql).await.unwrap();
        }
    });
    let mut options = options(&server);
    options.backfill = Some(BackfillOptions { chunk_rows: 2_000, ..BackfillOptions::default() });
    let mut reading = Reading::open(options, followed("s"), None).await;
    let mut batches = reading.read_to_end().await;
    changing.await.unwrap();
    batches.extend(reading.read_to_end().await);
    let expected: BTreeMap<i32, String> = server
        .query("SELECT id, v FROM s.t")
        .await
        .into_iter()
        .map(|row| (row[0].as_deref().unwrap().parse().unwrap(), row[1].clone().unwrap()))
        .collect();
    assert_eq!(merged(&batches), expected);
    let read = batches.iter().flat_map(rows).filter(|(change_type, ..)| *change_type == ChangeType::Read).count();
    assert!(read >= 19_000, "the rows that were there were read, {read}");
    // No row twice: what the snapshot holds is not in the log.
    let mut present: BTreeMap<(i32, String), i64> = BTreeMap::new();
    for (change_type, key, text) in batches.iter().flat_map(rows) {
        let count = present.entry((key.unwrap(), text.unwrap())).or_default();
        match change_type {
            ChangeType::Insert | ChangeType::Read => *count += 1,
            ChangeType::UpdateDelete | ChangeType::Delete => *count -= 1,
            _ => {}
        }
        assert!((0..=1).contains(count), "a row came twice, or went twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_load_of_a_table_without_a_key_is_exact() {
    first_load(17, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_load_of_a_table_with_a_key_is_exact() {
    first_load(15, " PRIMARY KEY").await;
    first_load(12, " PRIMARY KEY").await;
}

/// Tables that come later are added to our publication and read by themselves, with and without a key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_come_later_are_read_by_themselves() {
    install_crypto();
    let server = PostgresServer::start(16, &[]).await;
    server.execute("CREATE SCHEMA s; CREATE TABLE s.first (id int PRIMARY KEY, v text)").await;
    let mut options = options(&server);
    options.backfill = Some(BackfillOptions::default());
    let mut reading = Reading::open(options, followed("s"), None).await;
    assert!(reading.read_to_end().await.is_empty());
    server
        .execute(
            "CREATE TABLE s.later (id int PRIMARY KEY, v text); INSERT INTO s.later SELECT i, 'x' FROM generate_series(1, 500) i;
             CREATE TABLE s.heap (id int, v text); ALTER TABLE s.heap REPLICA IDENTITY FULL; INSERT INTO s.heap SELECT i, 'y' FROM generate_series(1, 500) i",
        )
        .await;
    let mut tables: BTreeMap<String, Vec<ChangeBatch>> = BTreeMap::new();
    let complete = |tables: &BTreeMap<String, Vec<ChangeBatch>>| {
        ["later", "heap"].iter().all(|name| tables.get(*name).is_some_and(|batches| merged(batches).len() == 500))
    };
    while !complete(&tables) {
        let batch = reading.batch().await;
        tables.entry(batch.relation.name().table.clone()).or_default().push(batch);
    }
    // Each row once.
    let mut heap = tables["heap"].iter().flat_map(rows).filter(|(change_type, ..)| *change_type != ChangeType::Truncate);
    assert_eq!(heap.by_ref().count(), 500);
}

/// A reader that loses its connection in the middle of a transaction that was handed out in part goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_repeats_nothing() {
    install_crypto();
    let server = PostgresServer::start(15, &[]).await;
    server.execute("CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY, v text)").await;
    let mut reading = Reading::open(options(&server), followed("s"), None).await;
    assert!(reading.read_to_end().await.is_empty());
    server.execute("INSERT INTO s.t SELECT i, repeat('x', 100) FROM generate_series(1, 200000) i").await;
    let mut batches = vec![reading.batch().await];
    for _ in 0..3 {
        server.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active").await;
        batches.push(reading.batch().await);
    }
    batches.extend(reading.read_to_end().await);
    let mut keys: Vec<i32> = batches.iter().flat_map(rows).map(|(_, key, _)| key.unwrap()).collect();
    assert_eq!(keys.len(), 200_000);
    keys.dedup();
    assert!(keys.is_sorted() && keys.len() == 200_000);
}

/// Streamed and prepared transactions land when they are decided, without what was taken back.
async fn undecided(version: u32, streaming: Streaming, two_phase: bool) {
    install_crypto();
    let server = PostgresServer::start(version, &["logical_decoding_work_mem = 64kB"]).await;
    server.execute("CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY, v text); CREATE TABLE s.u (id int PRIMARY KEY, v text)").await;
    let mut options = options(&server);
    options.streaming = streaming;
    options.two_phase = two_phase;
    let mut reading = Reading::open(options.clone(), followed("s"), None).await;
    assert!(reading.read_to_end().await.is_empty());
    let insert = |first: i32, last: i32| format!("INSERT INTO s.t SELECT i, repeat('x', 200) FROM generate_series({first}, {last}) i");
    let (a, b) = (server.connect().await, server.connect().await);
    a.batch_execute("BEGIN").await.unwrap();
    b.batch_execute("BEGIN").await.unwrap();
    a.batch_execute(&insert(1, 5_000)).await.unwrap();
    b.batch_execute(&insert(10_001, 15_000)).await.unwrap();
    a.batch_execute(&format!("SAVEPOINT p; {}; ROLLBACK TO p", insert(5_001, 9_000))).await.unwrap();
    a.batch_execute(&insert(9_001, 9_500)).await.unwrap();
    b.batch_execute("ROLLBACK").await.unwrap();
    // Described anew in the middle, by a subtransaction that is taken back, and by one that stays.
    a.batch_execute("SAVEPOINT q; ALTER TABLE s.t ADD COLUMN gone int; UPDATE s.t SET gone = 1 WHERE id < 3000; ROLLBACK TO q")
        .await
        .unwrap();
    a.batch_execute("ALTER TABLE s.t ADD COLUMN w int; UPDATE s.t SET w = 1 WHERE id < 3000").await.unwrap();
    a.batch_execute(&format!("{}; PREPARE TRANSACTION 'weir'", "DELETE FROM s.t WHERE id <= 100")).await.unwrap();
    server.execute("INSERT INTO s.u VALUES (20000, 'between')").await;
    let mut batches = reading.read_to_end().await;
    assert_eq!(merged(&batches).len(), 1, "what is not decided does not land");
    // Prepared over a restart of the reader, too.
    let mark = reading.marks.last().cloned().expect("there are marks");
    reading.reader.acknowledge(&mark).await.unwrap();
    let relations = reading.relations.clone();
    drop(reading);
    let start = LogStart { resume: Some(mark), relations, tables: followed("s"), memory: MemoryBudget::new(64 << 20) };
    let opened = async {
        loop {
            match PostgresSource::new(options.clone()).open_log(start.clone()).await {
                Ok(reader) => return reader,
                Err(error) if error.is_transient() => {
                    println!("{}", error.report());
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    let reader = match tokio::time::timeout(PATIENCE, opened).await {
        Ok(reader) => reader,
        Err(_) => panic!("the slot does not become free: {}", server.log()),
    };
    let mut reading = Reading { reader, marks: Vec::new(), relations: Vec::new() };
    server.execute("COMMIT PREPARED 'weir'").await;
    batches.extend(reading.read_to_end().await);
    let table = merged(&batches);
    assert_eq!(table.len(), 4_900 + 500 + 1);
    assert_eq!(server.value("SELECT count(*) + 1 FROM s.t").await, table.len().to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undecided_transactions_of_14() {
    undecided(14, Streaming::On, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undecided_transactions_of_15() {
    undecided(15, Streaming::On, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn undecided_transactions_of_18() {
    undecided(18, Streaming::Parallel, true).await;
    undecided(18, Streaming::Off, true).await;
}

/// A table without a key is read by an exact snapshot, at whose place the log must stand still in the middle of others' changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_without_a_key_comes_while_others_write() {
    install_crypto();
    let server = PostgresServer::start(15, &[]).await;
    server.execute("CREATE SCHEMA s; CREATE TABLE s.first (id int PRIMARY KEY, v text)").await;
    let mut options = options(&server);
    options.backfill = Some(BackfillOptions::default());
    let mut reading = Reading::open(options, followed("s"), None).await;
    assert!(reading.read_to_end().await.is_empty());
    let client = server.connect().await;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let writing = tokio::spawn(async move {
        let mut id = 0;
        while !stopped.load(Ordering::SeqCst) {
            client.batch_execute(&format!("INSERT INTO s.first SELECT i, 'x' FROM generate_series({id}, {id} + 9) i")).await.unwrap();
            id += 10;
        }
        id
    });
    server
        .execute("CREATE TABLE s.heap (id int, v text); ALTER TABLE s.heap REPLICA IDENTITY FULL; INSERT INTO s.heap SELECT i, 'y' FROM generate_series(1, 500) i")
        .await;
    let mut tables: BTreeMap<String, Vec<ChangeBatch>> = BTreeMap::new();
    while tables.get("heap").is_none_or(|batches| merged(batches).len() < 500) {
        let batch = reading.batch().await;
        tables.entry(batch.relation.name().table.clone()).or_default().push(batch);
    }
    stop.store(true, Ordering::SeqCst);
    let written = writing.await.unwrap();
    for batch in reading.read_to_end().await {
        tables.entry(batch.relation.name().table.clone()).or_default().push(batch);
    }
    assert_eq!(merged(&tables["first"]).len(), written);
    assert_eq!(tables["heap"].iter().flat_map(rows).filter(|(change_type, ..)| *change_type != ChangeType::Truncate).count(), 500);
}

/// What a publication of ours names can be updated, or it is not named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_is_not_kept_from_its_updates() {
    install_crypto();
    let server = PostgresServer::start(16, &[]).await;
    let plain = "CREATE TABLE s.plain (v int); INSERT INTO s.plain VALUES (1)";
    server.execute(&format!("CREATE SCHEMA s; CREATE TABLE s.first (id int PRIMARY KEY, v text); {plain}")).await;
    let mut reading = Reading::open(options(&server), followed("s"), None).await;
    server.execute("UPDATE s.plain SET v = 2").await;
    server.execute(&format!("{}; CREATE TABLE s.keyed (id int PRIMARY KEY, v text)", plain.replace("s.plain", "s.later"))).await;
    let published = "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_publication_tables";
    while server.value(published).await != "first keyed" {
        reading.event().await;
        server.execute("SELECT pg_logical_emit_message(false, 'test', 'the log moves')").await;
    }
    server.execute("UPDATE s.later SET v = 2; DELETE FROM s.plain").await;
}

/// A walsender hangs up when it hears nothing for a while, also of a reader whose destination is slow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_waits_is_not_cut_off() {
    install_crypto();
    let server = PostgresServer::start(15, &["wal_sender_timeout = '2s'"]).await;
    server.execute("CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY, v text)").await;
    let mut reading = Reading::open(options(&server), followed("s"), None).await;
    assert!(reading.read_to_end().await.is_empty());
    server.execute("INSERT INTO s.t SELECT i, repeat('x', 100) FROM generate_series(1, 300000) i").await;
    let mut batches = vec![reading.batch().await];
    tokio::time::sleep(Duration::from_secs(7)).await;
    batches.extend(reading.read_to_end().await);
    assert_eq!(batches.iter().map(ChangeBatch::rows).sum::<usize>(), 300_000);
    assert!(!server.log().contains("due to replication timeout"), "{}", server.log());
}
