//! The log reader of PostgreSQL against real servers, without the engine around it: its contract, and what is hard to
//! bring about through the engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow_array::Array;
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
        let start = LogStart { resume, relations: Vec::new(), tables, before_images: Vec::new(), memory: MemoryBudget::new(64 << 20) };
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
    assert!(log.rows.values().flatten().any(|row| row.before.is_some()), "the workload updates whole rows");
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

/// A process that stands still until this is dropped.
struct Stopped(String);

impl Stopped {
    fn stop(process: String) -> Self {
        signal("-STOP", &process);
        Stopped(process)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal("-CONT", &self.0);
    }
}

fn signal(signal: &str, process: &str) {
    let status = std::process::Command::new("kill").args([signal, process]).status();
    assert!(status.is_ok_and(|status| status.success()) || std::thread::panicking(), "the process cannot be sent {signal}");
}

/// Whoever waits for the backfill's end hears of it, also if the last word on it comes when the log has nothing more to tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_backfill_is_told_where_the_log_stands_still() {
    install_crypto();
    let server = PostgresServer::start(15, &[]).await;
    server.execute("CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY, v text); INSERT INTO s.t VALUES (1, 'a')").await;
    let mut options = options(&server);
    options.backfill = Some(BackfillOptions::default());
    let mut reading = Reading::open(options.clone(), followed("s"), None).await;
    reading.read_to_end().await;
    // It writes into the log by itself from time to time.
    let writer = server.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'").await;
    let _stopped = Stopped::stop(writer);
    let mut reading = reopened(options, reading).await;
    // The reader cannot look which tables are published.
    let locker = server.connect().await;
    locker.batch_execute("BEGIN; LOCK pg_catalog.pg_publication IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let end = reading.reader.end().await.unwrap().unwrap();
    while reading.marks.last().is_none_or(|mark| mark.position < end) {
        reading.event().await;
    }
    assert!(reading.reader.reads_backfill(), "what is not known yet may have rows");
    locker.batch_execute("ROLLBACK").await.unwrap();
    while reading.reader.reads_backfill() {
        reading.event().await;
    }
    assert!(reading.marks.is_sorted_by(|one, next| one.position < next.position), "marks rise");
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
    let open = reading.reader.open_transactions();
    let [open] = open.as_slice() else { panic!("{open:?}") };
    assert_eq!((open.prepared, open.prepared_at.is_some()), (two_phase, two_phase), "{open:?}");
    assert!(open.messages >= 5_500 && open.bytes > 200 * 5_500 && open.position.contains('/'), "{open:?}");
    // Prepared over a restart of the reader, too.
    let mark = reading.marks.last().cloned().expect("there are marks");
    reading.reader.acknowledge(&mark).await.unwrap();
    let relations = reading.relations.clone();
    drop(reading);
    let start =
        LogStart { resume: Some(mark), relations, tables: followed("s"), before_images: Vec::new(), memory: MemoryBudget::new(64 << 20) };
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
    assert!(reading.reader.open_transactions().is_empty());
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

/// The table that changes come to, whatever its key: the last column of each row, sorted. What the log leaves out is that of
/// the row before.
fn last_columns<'a>(batches: impl IntoIterator<Item = &'a ChangeBatch>) -> Vec<String> {
    let mut table: BTreeMap<Vec<Option<String>>, Option<String>> = BTreeMap::new();
    for batch in batches {
        let last = batch.relation.columns().len() - 1;
        let value = |column: usize, row: usize| {
            let array = batch.records.column(column);
            let naive = arrow_schema::DataType::Timestamp(arrow_schema::TimeUnit::Microsecond, None);
            let timestamp = matches!(array.data_type(), arrow_schema::DataType::Timestamp(..));
            let array = if timestamp { &arrow_cast::cast(array, &naive).unwrap() } else { array };
            (!array.is_null(row)).then(|| arrow_cast::display::array_value_to_string(array, row).unwrap())
        };
        let mut moved = None;
        for (row, code) in batch.change_type_codes().iter().enumerate() {
            let key: Vec<_> = batch.relation.key().iter().map(|column| value(*column, row)).collect();
            let unchanged = batch.unchanged.as_ref().is_some_and(|unchanged| unchanged.is_unchanged(last, row));
            match ChangeType::from_code(*code).unwrap() {
                ChangeType::Truncate => table.clear(),
                ChangeType::Delete => drop(table.remove(&key)),
                ChangeType::UpdateDelete => moved = Some(table.remove(&key).flatten()),
                _ => {
                    let before = moved.take().or_else(|| table.get(&key).cloned()).flatten();
                    table.insert(key, if unchanged { before } else { value(last, row) });
                }
            }
        }
    }
    let mut values: Vec<String> = table.into_values().map(|value| value.unwrap_or_else(|| "missing".to_owned())).collect();
    values.sort_unstable();
    values
}

async fn last_columns_of(server: &PostgresServer, table: &str) -> Vec<String> {
    let mut values: Vec<String> =
        server.query(&format!("SELECT v FROM {table}")).await.into_iter().map(|row| row[0].clone().unwrap()).collect();
    values.sort_unstable();
    values
}

fn reads<'a>(batches: impl IntoIterator<Item = &'a ChangeBatch>) -> usize {
    let codes = batches.into_iter().flat_map(|batch| batch.change_type_codes().iter());
    codes.filter(|code| **code == ChangeType::Read.code()).count()
}

/// Where ranges of blocks cannot be read, ranges of the key are, in the order that the key itself has.
async fn key_ranges(version: u32, new_slot: bool) {
    const KEYS: [(&str, &str, &str); 9] = [
        ("number", "a bigint, PRIMARY KEY (a)", "i"),
        ("text", "a text COLLATE \"C\", PRIMARY KEY (a)", "chr(33 + i % 90) || '''\\\"' || i"),
        ("local_text", "a varchar(40), PRIMARY KEY (a)", "CASE i % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'B' ELSE '_' END || i"),
        ("one_group", "a int, b text, PRIMARY KEY (a, b)", "1, 'x' || i"),
        ("three", "a date, b numeric, c char(6), PRIMARY KEY (b, c, a)", "'2024-01-01'::date + i % 7, i % 5 + 0.5, i"),
        ("times", "a timestamptz, b float8, PRIMARY KEY (a, b)", "'2024-03-31 00:00Z'::timestamptz + i * interval '7 min', 1.0 / i"),
        ("own_order", "a int, b s.size, c int, PRIMARY KEY (a, b, c)", "i % 3, (CASE i % 2 WHEN 0 THEN 's' ELSE 'l' END)::s.size, i"),
        ("domains", "a s.code, b int[], PRIMARY KEY (a, b) INCLUDE (v)", "'c' || i % 10, ARRAY[i, -i]"),
        ("bytes", "a bytea, b uuid, PRIMARY KEY (a, b)", "decode(lpad(to_hex(i % 256), 2, '0'), 'hex'), md5(i::text)::uuid"),
    ];
    install_crypto();
    let server = PostgresServer::start(version, &[]).await;
    server
        .execute(
            "CREATE SCHEMA s; CREATE TYPE s.size AS ENUM ('s', 'm', 'l'); CREATE DOMAIN s.word AS varchar(10); CREATE DOMAIN s.code AS s.word;
             CREATE FUNCTION s.lt(s.size, s.size) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1::text < $2::text';
             CREATE FUNCTION s.le(s.size, s.size) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1::text <= $2::text';
             CREATE FUNCTION s.eq(s.size, s.size) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1::text = $2::text';
             CREATE FUNCTION s.ge(s.size, s.size) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1::text >= $2::text';
             CREATE FUNCTION s.gt(s.size, s.size) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1::text > $2::text';
             CREATE FUNCTION s.cmp(s.size, s.size) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT CASE WHEN $1::text < $2::text THEN -1 WHEN $1::text > $2::text THEN 1 ELSE 0 END';
             CREATE OPERATOR s.< (LEFTARG = s.size, RIGHTARG = s.size, FUNCTION = s.lt);
             CREATE OPERATOR s.<= (LEFTARG = s.size, RIGHTARG = s.size, FUNCTION = s.le);
             CREATE OPERATOR s.= (LEFTARG = s.size, RIGHTARG = s.size, FUNCTION = s.eq);
             CREATE OPERATOR s.>= (LEFTARG = s.size, RIGHTARG = s.size, FUNCTION = s.ge);
             CREATE OPERATOR s.> (LEFTARG = s.size, RIGHTARG = s.size, FUNCTION = s.gt);
             CREATE OPERATOR CLASS s.size_ops DEFAULT FOR TYPE s.size USING btree AS OPERATOR 1 s.<, OPERATOR 2 s.<=, OPERATOR 3 s.=,
             OPERATOR 4 s.>=, OPERATOR 5 s.>, FUNCTION 1 s.cmp(s.size, s.size)",
        )
        .await;
    for (name, columns, values) in KEYS {
        let (columns, key) = columns.split_once(", PRIMARY").unwrap();
        // Some pages that were not analyzed, some that were.
        server
            .execute(&format!(
                "CREATE TABLE s.{name} (n int, {columns}, v text, PRIMARY{key});
                 INSERT INTO s.{name} SELECT i, {values}, 'row ' || i || repeat('x', 40) FROM generate_series(1, 3000) i"
            ))
            .await;
    }
    for statement in ["ANALYZE s.three", "ANALYZE s.one_group", "VACUUM s.number"] {
        server.execute(statement).await;
    }
    if !new_slot {
        server.execute("CREATE PUBLICATION logweir FOR ALL TABLES").await;
        server.execute("SELECT pg_create_logical_replication_slot('logweir', 'pgoutput')").await;
    }
    let client = server.connect().await;
    let changing = tokio::spawn(async move {
        for i in 1..60 {
            for (name, ..) in KEYS {
                let sql = format!(
                    "UPDATE s.{name} SET v = 'changed {i}' WHERE n = {i}; DELETE FROM s.{name} WHERE n = {} + 1000;
                     UPDATE s.{name} SET a = (SELECT a FROM s.{name} WHERE n = 2500), v = 'moved {i}' WHERE n = {i} + 500 AND '{name}' IN ('three', 'own_order');
                     UPDATE s.{name} SET n = n + 10000 WHERE n = {i} + 700",
                    i * 7
                );
                client.batch_execute(&sql).await.unwrap();
            }
        }
    });
    let mut options = options(&server);
    options.backfill = Some(BackfillOptions { chunk_rows: 170, tasks: 3, ..BackfillOptions::default() });
    let mut reading = Reading::open(options, followed("s"), None).await;
    let mut batches = reading.read_to_end().await;
    changing.await.unwrap();
    batches.extend(reading.read_to_end().await);
    for (name, ..) in KEYS {
        let of_table = || batches.iter().filter(|batch| batch.relation.name().table == name);
        assert_eq!(last_columns(of_table()), last_columns_of(&server, &format!("s.{name}")).await, "{name}");
        // As many pieces as there are ranges, and hardly a row twice.
        let pieces = of_table().filter(|batch| batch.change_type_codes().contains(&ChangeType::Read.code())).count();
        assert!(pieces >= 3000 / 170, "{name} in {pieces} pieces");
        assert!((2500..=3000).contains(&reads(of_table())), "{name}: {}", reads(of_table()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_of_keys_of_12() {
    key_ranges(12, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_of_keys_of_13_in_an_exact_snapshot() {
    key_ranges(13, true).await;
}

/// A reader that was stopped in the middle of a table. Its slot was there, so that waves have snapshots of their own.
async fn half_read(server: &PostgresServer, columns: &str, values: &str) -> (PostgresOptions, Reading, Vec<ChangeBatch>) {
    install_crypto();
    server
        .execute(&format!(
            "CREATE SCHEMA s; CREATE TABLE s.t ({columns}, v text, PRIMARY KEY (a)); ALTER TABLE s.t ALTER v SET STORAGE EXTERNAL;
             INSERT INTO s.t SELECT {values} FROM generate_series(1, 6000) i; CREATE PUBLICATION logweir FOR ALL TABLES"
        ))
        .await;
    server.execute("SELECT pg_create_logical_replication_slot('logweir', 'pgoutput')").await;
    let mut options = options(server);
    options.backfill = Some(BackfillOptions { chunk_rows: 100, tasks: 2, ..BackfillOptions::default() });
    let mut reading = Reading::open(options.clone(), followed("s"), None).await;
    let mut batches = vec![reading.batch().await];
    // Nobody takes what is read, and no chunk is begun a second after the first.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let half = |mark: &LogMark| {
        let part = &mark.offset.0["backfill"]["pending"][0];
        part["place"].is_object() || part["next_block"].as_u64().is_some_and(|block| block > 0)
    };
    while !reading.marks.last().is_some_and(half) {
        batches.extend(reading.event().await);
    }
    (options, reading, batches)
}

async fn reopened(options: PostgresOptions, reading: Reading) -> Reading {
    let mark = reading.marks.last().cloned().expect("there are marks");
    let relations = reading.relations.clone();
    drop(reading);
    let start =
        LogStart { resume: Some(mark), relations, tables: followed("s"), before_images: Vec::new(), memory: MemoryBudget::new(64 << 20) };
    loop {
        match PostgresSource::new(options.clone()).open_log(start.clone()).await {
            Ok(reader) => return Reading { reader, marks: Vec::new(), relations: Vec::new() },
            Err(error) if error.is_transient() => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A restart goes on behind the ranges that were read, as long as a row is there that one of them ended with.
async fn resumes(version: u32, meanwhile: &[&str], least: usize, most: usize) {
    let server = PostgresServer::start(version, &[]).await;
    let (options, reading, mut batches) = half_read(&server, "a text", "'secret ' || i, 'row ' || i").await;
    let before = reads(&batches);
    let checkpoint = serde_json::to_string(&reading.marks.last().unwrap().offset.0).unwrap();
    assert!((100..4000).contains(&before), "read half of it: {before}");
    assert!(!checkpoint.contains("secret") && checkpoint.contains("ends"), "{checkpoint}");
    for statement in meanwhile {
        server.execute(statement).await;
    }
    let mut reading = reopened(options, reading).await;
    let rest = reading.read_to_end().await;
    let after = reads(&rest);
    assert!((least..=most).contains(&(before + after)), "{before} rows before, {after} after");
    batches.extend(rest);
    assert_eq!(last_columns(&batches), last_columns_of(&server, "s.t").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_behind_the_ranges_that_were_read() {
    resumes(12, &["DELETE FROM s.t WHERE a = 'secret 1'"], 5_999, 6_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_begins_a_table_anew_whose_rows_have_all_changed() {
    const AGAIN: &str = "UPDATE s.t SET v = v || ' again'";
    resumes(13, &[AGAIN], 6_100, 10_000).await;
    // Another transaction's rows where the old ones lay, and an index in another file.
    resumes(13, &[AGAIN, "VACUUM s.t", AGAIN], 6_100, 10_000).await;
    resumes(12, &["REINDEX TABLE s.t"], 6_100, 10_000).await;
}

/// Rows that move, by their key or by their place, from where nothing is read yet to where all is: a value that the log
/// leaves out is there all the same.
async fn moving_rows(version: u32, keys_change: bool) {
    let server = PostgresServer::start(version, &[]).await;
    let (_, mut reading, mut batches) =
        half_read(&server, "a int, w int, filler text", "i, 0, repeat('f', 230), i || repeat(md5(i::text), 100)").await;
    server.execute("DELETE FROM s.t WHERE a <= 2000").await;
    server.execute("VACUUM s.t").await;
    server.execute("UPDATE s.t SET w = 1 WHERE a > 4500").await;
    if keys_change {
        server.execute("UPDATE s.t SET a = 0 - a WHERE a > 5800 AND a < 5850").await;
    }
    batches.extend(reading.read_to_end().await);
    assert!(!reading.reader.reads_backfill());
    let unchanged = batches.iter().filter_map(|batch| batch.unchanged.as_ref());
    assert!(unchanged.count() > 0, "the log leaves values out");
    let (found, expected) = (last_columns(&batches), last_columns_of(&server, "s.t").await);
    assert_eq!(found.iter().filter(|value| *value == "missing").count(), 0);
    assert!(found == expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_move_while_a_table_is_read_lose_nothing() {
    moving_rows(12, true).await;
    moving_rows(15, false).await;
    moving_rows(18, true).await;
}
