//! The contracts of [`Sink`] and [`Writer`].

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field};
use logweir_core::{
    ChangeBatch, ChangeType, Column, ConsumerName, LogPosition, MemoryBudget, MetadataBuilder, Relation, RelationName, Severity, Sink,
    SourcePlace, Staged, TimestampMicros, Writer, WriterContext,
};

/// A visible row: `schema.table`, and its position in the text form.
pub type LandedRow = (String, String);

const TABLES: [&str; 3] = ["t0", "t1", "t2"];
/// What a writer of the suite may buffer.
const WRITER_BYTES: usize = 8 * 1024 * 1024;

struct Suite<'a, R> {
    sink: &'a dyn Sink,
    read: R,
    memory: MemoryBudget,
    runs: u32,
    place: u64,
    /// What must be visible.
    expected: Vec<LandedRow>,
}

/// Runs the suite over an empty destination; `read` tells every row that is visible in it, in any order.
pub async fn sink<R: AsyncFn() -> Vec<LandedRow>>(sink: &dyn Sink, read: R) {
    let mut suite = Suite { sink, read, memory: MemoryBudget::new(1 << 20), runs: 0, place: 0, expected: Vec::new() };
    suite.check().await;
    suite.two_phases().await;
    suite.a_crash_before_the_decision().await;
    suite.a_crash_after_the_decision().await;
    suite.writing_goes_on_before_the_commit().await;
    suite.a_schema_changes().await;
    suite.more_than_the_writer_may_buffer().await;
    suite.two_consumers().await;
    suite.check().await;
}

fn consumer(destination: &str) -> ConsumerName {
    ConsumerName { stream: "suite".into(), destination: destination.into() }
}

fn relation(table: &str, version: u32, since: u64) -> Arc<Relation> {
    let column = |name: &str, data_type, source_type: &str| Column {
        field: Arc::new(Field::new(name, data_type, true)),
        source_type: source_type.into(),
        detail: serde_json::Value::Null,
    };
    let mut columns = vec![column("id", DataType::Int64, "bigint"), column("name", DataType::Utf8, "varchar(40)")];
    if version > 1 {
        columns.push(column("added", DataType::Int64, "bigint"));
    }
    Arc::new(Relation::new(RelationName::new("suite", table), version, LogPosition::new(0, 1, since, 0, false), columns, vec![0]))
}

impl<R: AsyncFn() -> Vec<LandedRow>> Suite<'_, R> {
    /// The destination is fit, and looking at it leaves nothing behind.
    async fn check(&self) {
        let findings = self.sink.check().await.expect("the destination can be looked at");
        assert!(findings.iter().all(|finding| finding.severity != Severity::Error), "{findings:?}");
        self.assert_visible("after a check").await;
    }

    async fn open(&mut self, name: &ConsumerName) -> Box<dyn Writer> {
        self.runs += 1;
        let context = WriterContext { consumer: name.clone(), run: format!("{:08x}", self.runs), memory_bytes: WRITER_BYTES };
        let mut writer = self.sink.open(context).await.expect("a recovered destination can be opened");
        for table in TABLES {
            writer.evolve(relation(table, 1, 0)).await.expect("a relation is taken");
        }
        assert!(!writer.interval().is_zero(), "changes wait for some time at most, not for none");
        writer
    }

    async fn recover(&self, name: &ConsumerName, staged: &[Staged]) {
        // As it comes back from the checkpoint.
        let text = serde_json::to_string(staged).expect("tokens are JSON");
        let staged: Vec<Staged> = serde_json::from_str(&text).expect("tokens come back from JSON");
        self.sink.recover(name, &staged).await.expect("a destination can be recovered");
    }

    /// Changes of the next transaction, and what they will be when visible.
    fn batch(&mut self, relation: &Arc<Relation>, rows: u64) -> (ChangeBatch, Vec<LandedRow>) {
        self.place += 100;
        let mut metadata = MetadataBuilder::new("suite");
        let mut landed = Vec::new();
        for row in 1..=rows {
            let position = LogPosition::new(0, 1, self.place, row, true);
            let time = TimestampMicros(1_700_000_000_000_000 + self.place as i64);
            let place = SourcePlace {
                log_position: self.place,
                log_file: Some(metadata.intern_file("log.000001")),
                transaction: Some(metadata.intern_transaction("0-1-7")),
            };
            metadata.push(time, position, ChangeType::Insert, time, place);
            landed.push((relation.name().to_string(), position.to_string()));
        }
        let last = metadata.last_position().expect("a batch has rows");
        let ids = || Arc::new(Int64Array::from_iter_values(1..=rows as i64)) as ArrayRef;
        let mut columns = vec![ids(), Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("name {row}")))) as ArrayRef];
        if relation.version() > 1 {
            columns.push(ids());
        }
        columns.extend(metadata.finish());
        let records = RecordBatch::try_new(Arc::clone(relation.schema()), columns).expect("columns fit the relation");
        // All of the pipeline's memory: a writer that held on to it could not be given a second batch.
        let memory = self.memory.try_acquire(1 << 20).expect("the writer has given back the last batch's memory");
        (ChangeBatch { relation: Arc::clone(relation), records, unchanged: None, before: None, last, memory: Arc::new(memory) }, landed)
    }

    /// Writes some changes of every table; what they are when visible.
    async fn write(&mut self, writer: &mut dyn Writer) -> Vec<LandedRow> {
        let mut rows = Vec::new();
        for (i, table) in TABLES.iter().enumerate() {
            let (batch, landed) = self.batch(&relation(table, 1, 0), 3 + i as u64);
            writer.write(batch).await.expect("a batch is taken");
            rows.extend(landed);
        }
        rows
    }

    async fn assert_visible(&self, when: &str) {
        let mut found = (self.read)().await;
        let mut expected = self.expected.clone();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{when}");
    }

    async fn two_phases(&mut self) {
        let name = consumer("a");
        self.recover(&name, &[]).await;
        let mut writer = self.open(&name).await;
        assert_eq!(writer.stage().await.expect("nothing can be staged"), [], "nothing accepted, no tokens");
        for round in 0..3 {
            let rows = self.write(writer.as_mut()).await;
            self.assert_visible("accepted").await;
            let staged = writer.stage().await.expect("what was accepted can be staged");
            assert!(!staged.is_empty(), "what was accepted has tokens");
            self.assert_visible("staged").await;
            writer.commit(&staged).await.expect("what was staged can be committed");
            self.expected.extend(rows);
            self.assert_visible(&format!("committed in round {round}")).await;
            writer.commit(&staged).await.expect("a commit can be repeated");
            self.assert_visible("committed twice").await;
            assert_eq!(writer.stage().await.expect("nothing can be staged"), [], "everything was staged");
        }
        writer.close().await.expect("a writer with nothing in its hands can be closed");
        self.recover(&name, &[]).await;
        self.assert_visible("recovered after a clean end").await;
    }

    async fn a_crash_before_the_decision(&mut self) {
        let name = consumer("a");
        // Accepted, not staged.
        let mut writer = self.open(&name).await;
        self.write(writer.as_mut()).await;
        drop(writer);
        self.recover(&name, &[]).await;
        self.assert_visible("accepted, then gone").await;
        // Staged, not decided.
        let mut writer = self.open(&name).await;
        self.write(writer.as_mut()).await;
        let undecided = writer.stage().await.expect("what was accepted can be staged");
        assert!(!undecided.is_empty());
        drop(writer);
        self.recover(&name, &[]).await;
        self.recover(&name, &[]).await;
        self.assert_visible("staged, then gone").await;
        // The same place goes on.
        let mut writer = self.open(&name).await;
        let rows = self.write(writer.as_mut()).await;
        let staged = writer.stage().await.expect("what was accepted can be staged");
        writer.commit(&staged).await.expect("what was staged can be committed");
        self.expected.extend(rows);
        self.assert_visible("written after two crashes").await;
        writer.close().await.expect("a writer with nothing in its hands can be closed");
    }

    async fn a_crash_after_the_decision(&mut self) {
        let name = consumer("a");
        // Decided, not committed; and something after it that is not decided.
        let mut writer = self.open(&name).await;
        let rows = self.write(writer.as_mut()).await;
        let decided = writer.stage().await.expect("what was accepted can be staged");
        self.write(writer.as_mut()).await;
        drop(writer);
        self.recover(&name, &decided).await;
        self.expected.extend(rows);
        self.assert_visible("decided, then gone").await;
        self.recover(&name, &decided).await;
        self.assert_visible("recovered twice").await;
        // Committed, and the document still names the tokens; a later start finds them so, too.
        let mut writer = self.open(&name).await;
        let rows = self.write(writer.as_mut()).await;
        let committed = writer.stage().await.expect("what was accepted can be staged");
        writer.commit(&committed).await.expect("what was staged can be committed");
        self.expected.extend(rows);
        drop(writer);
        self.recover(&name, &committed).await;
        self.assert_visible("committed, then gone").await;
        if let Some((first, _)) = committed.split_first() {
            self.recover(&name, std::slice::from_ref(first)).await;
            self.assert_visible("recovered in part").await;
        }
    }

    async fn writing_goes_on_before_the_commit(&mut self) {
        let name = consumer("a");
        self.recover(&name, &[]).await;
        let mut writer = self.open(&name).await;
        let first = self.write(writer.as_mut()).await;
        let staged = writer.stage().await.expect("what was accepted can be staged");
        let second = self.write(writer.as_mut()).await;
        writer.commit(&staged).await.expect("what was staged can be committed while more is accepted");
        self.expected.extend(first);
        self.assert_visible("only what was staged").await;
        let staged = writer.stage().await.expect("what was accepted since can be staged");
        writer.commit(&staged).await.expect("what was staged can be committed");
        self.expected.extend(second);
        self.assert_visible("then the rest").await;
        writer.close().await.expect("a writer with nothing in its hands can be closed");
    }

    async fn a_schema_changes(&mut self) {
        let name = consumer("a");
        self.recover(&name, &[]).await;
        let mut writer = self.open(&name).await;
        let (old, new) = (relation("t1", 1, 0), relation("t1", 2, self.place + 50));
        let (batch, mut rows) = self.batch(&old, 5);
        writer.write(batch).await.expect("a batch is taken");
        writer.evolve(Arc::clone(&new)).await.expect("a new version is taken");
        let (batch, landed) = self.batch(&new, 5);
        rows.extend(landed);
        writer.write(batch).await.expect("a batch of the new version is taken");
        let staged = writer.stage().await.expect("both versions can be staged");
        writer.commit(&staged).await.expect("both versions can be committed");
        self.expected.extend(rows);
        self.assert_visible("two versions").await;
        writer.close().await.expect("a writer with nothing in its hands can be closed");
    }

    async fn more_than_the_writer_may_buffer(&mut self) {
        let name = consumer("a");
        self.recover(&name, &[]).await;
        let mut writer = self.open(&name).await;
        let mut rows = Vec::new();
        let mut bytes = 0;
        while bytes < 3 * WRITER_BYTES {
            let (batch, landed) = self.batch(&relation("t2", 1, 0), 20_000);
            bytes += batch.bytes();
            writer.write(batch).await.expect("a batch is taken, however many came before");
            rows.extend(landed);
        }
        self.assert_visible("written out early, and invisible").await;
        let staged = writer.stage().await.expect("much can be staged");
        writer.commit(&staged).await.expect("much can be committed");
        self.expected.extend(rows);
        self.assert_visible("much").await;
        writer.close().await.expect("a writer with nothing in its hands can be closed");
    }

    /// Consumers that share a destination do not clear away each other's.
    async fn two_consumers(&mut self) {
        let (a, b) = (consumer("a"), consumer("b"));
        self.recover(&a, &[]).await;
        self.recover(&b, &[]).await;
        let mut writer = self.open(&b).await;
        let rows = self.write(writer.as_mut()).await;
        let staged = writer.stage().await.expect("what was accepted can be staged");
        drop(writer);
        self.recover(&a, &[]).await;
        self.recover(&b, &staged).await;
        self.expected.extend(rows);
        self.assert_visible("the other's recovery left it alone").await;
    }
}
