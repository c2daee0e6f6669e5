//! A destination that remembers every row, with both phases, chance, and a watch over its contract.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, Int64Array};
use async_trait::async_trait;
use logweir_core::{ChangeBatch, ConsumerName, Error, Finding, LogPosition, Relation, Result, Sink, Staged, Writer, WriterContext};
use serde_json::json;

use super::log::Change;
use super::run::{Life, World};

/// A landed row.
pub type Row = Change;

/// What outlives the process: files by name, staged or visible.
#[derive(Debug, Default)]
pub struct Lake {
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    staged: BTreeMap<String, Vec<Row>>,
    visible: BTreeMap<String, Vec<Row>>,
}

impl Lake {
    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every visible row, in log order.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.files().visible.values().flatten().cloned().collect();
        rows.sort_by_key(|row| row.position);
        rows
    }

    /// Files staged and not visible.
    pub fn staged_files(&self) -> usize {
        self.files().staged.len()
    }
}

/// The lake as one process sees it.
pub struct SimSink {
    world: Arc<World>,
    life: Arc<Life>,
    index: usize,
}

impl SimSink {
    /// Lake `index` of the world, in this life.
    pub fn new(world: Arc<World>, life: Arc<Life>, index: usize) -> Self {
        SimSink { world, life, index }
    }

    fn lake(&self) -> &Lake {
        &self.world.lakes[self.index]
    }
}

/// Makes a file visible; repeatable. Nothing may become visible that the durable document does not decide.
fn publish(world: &World, lake: &Lake, file: &str) -> Result<()> {
    let mut files = lake.files();
    if files.visible.contains_key(file) {
        return Ok(());
    }
    let Some(rows) = files.staged.remove(file) else {
        return Err(Error::corrupt("a decided file is neither staged nor visible").context("file", file));
    };
    if !world.disk.document_holds(&format!("\"{file}\"")) {
        world.blame(format!("{file} became visible without having been decided"));
    }
    files.visible.insert(file.to_owned(), rows);
    Ok(())
}

fn file_of(token: &Staged) -> Result<&str> {
    token.0["file"].as_str().ok_or_else(|| Error::corrupt("a token without a file"))
}

#[async_trait]
impl Sink for SimSink {
    async fn check(&self) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    async fn recover(&self, consumer: &ConsumerName, staged: &[Staged]) -> Result<()> {
        for token in staged {
            self.life.step().await;
            self.world.outage(self.index)?;
            self.life.weather("a decided file could not be published")?;
            publish(&self.world, self.lake(), file_of(token)?)?;
        }
        self.life.step().await;
        let own = format!("{consumer}/");
        self.lake().files().staged.retain(|file, _| !file.starts_with(&own));
        Ok(())
    }

    async fn open(&self, context: WriterContext) -> Result<Box<dyn Writer>> {
        self.life.step().await;
        self.world.outage(self.index)?;
        self.life.weather("the destination could not be opened")?;
        Ok(Box::new(SimWriter {
            world: Arc::clone(&self.world),
            life: Arc::clone(&self.life),
            index: self.index,
            consumer: context.consumer,
            run: context.run,
            files: 0,
            accepted: BTreeMap::new(),
            evolved: BTreeMap::new(),
            undecided: Vec::new(),
            last: None,
        }))
    }
}

struct SimWriter {
    world: Arc<World>,
    life: Arc<Life>,
    index: usize,
    consumer: ConsumerName,
    run: String,
    files: u64,
    accepted: BTreeMap<String, Vec<Row>>,
    evolved: BTreeMap<String, u32>,
    /// Staged and not yet committed.
    undecided: Vec<Staged>,
    last: Option<LogPosition>,
}

/// Notices a call that is dropped before it returns, although the process lives.
struct Call<'a> {
    world: &'a World,
    life: &'a Life,
    name: &'static str,
    returned: bool,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.returned && !self.life.is_over() {
            self.world.blame(format!("Writer::{} was cancelled", self.name));
        }
    }
}

impl SimWriter {
    fn lake(&self) -> &Lake {
        &self.world.lakes[self.index]
    }

    /// A slow destination takes its time at every call.
    async fn toil(&self) {
        if self.world.setting.slow == Some(self.index) {
            self.world.rest(Duration::from_secs(3)).await;
        } else {
            self.life.stall().await;
        }
    }

    async fn write_rows(&mut self, batch: ChangeBatch) -> Result<()> {
        self.life.step().await;
        self.toil().await;
        self.world.outage(self.index)?;
        self.life.weather("the destination did not take a batch")?;
        let name = batch.relation.name().to_string();
        if self.evolved.get(&name) != Some(&batch.relation.version()) {
            self.world.blame(format!("a batch of {name} v{} without evolve", batch.relation.version()));
        }
        let integers = |column: usize| batch.records.column(column).as_primitive_opt::<Int64Type>();
        let (ids, values) = (integers(0), integers(1));
        let table = batch.relation.name().table.trim_start_matches('t').parse();
        let table = table.map_err(|_| Error::internal("a table of the simulation is called t and a number"))?;
        for row in 0..batch.rows() {
            let position = batch.position(row);
            if Some(position) == self.world.setting.bad_row {
                return Err(Error::data("the destination cannot hold a value"));
            }
            let value = |column: Option<&Int64Array>| column.filter(|column| column.is_valid(row)).map(|column| column.value(row));
            let version = batch.relation.version();
            let change_type = batch.change_type_codes()[row];
            let row = Row { table, version, position, change_type, id: value(ids), value: value(values) };
            self.accepted.entry(name.clone()).or_default().push(row);
        }
        Ok(())
    }

    async fn stage_files(&mut self) -> Result<Vec<Staged>> {
        self.toil().await;
        let mut tokens = Vec::new();
        for (name, rows) in std::mem::take(&mut self.accepted) {
            self.life.step().await;
            self.world.outage(self.index)?;
            self.life.weather("a file could not be staged")?;
            if rows.windows(2).any(|pair| pair[0].position >= pair[1].position) {
                self.world.blame(format!("changes of {name} came out of order"));
            }
            self.files += 1;
            let file = format!("{}/{name}-{}-{}", self.consumer, self.run, self.files);
            self.lake().files().staged.insert(file.clone(), rows);
            tokens.push(Staged(json!({ "file": file })));
        }
        self.life.step().await;
        self.undecided.clone_from(&tokens);
        Ok(tokens)
    }

    async fn commit_files(&mut self, staged: &[Staged]) -> Result<()> {
        self.toil().await;
        if staged != self.undecided {
            self.world.blame("commit was not given what was staged last".into());
        }
        for token in staged {
            self.life.step().await;
            self.world.outage(self.index)?;
            self.life.weather("a decided file could not be published")?;
            publish(&self.world, self.lake(), file_of(token)?)?;
        }
        self.life.step().await;
        self.undecided.clear();
        Ok(())
    }
}

/// Runs one call of the writer under watch.
macro_rules! watched {
    ($self:ident, $name:literal, $work:expr) => {{
        let (world, life) = (Arc::clone(&$self.world), Arc::clone(&$self.life));
        let mut call = Call { world: &world, life: &life, name: $name, returned: false };
        let result = $work.await;
        call.returned = true;
        result
    }};
}

#[async_trait]
impl Writer for SimWriter {
    async fn evolve(&mut self, relation: Arc<Relation>) -> Result<()> {
        self.evolved.insert(relation.name().to_string(), relation.version());
        Ok(())
    }

    async fn write(&mut self, batch: ChangeBatch) -> Result<()> {
        self.last = self.last.max(Some(batch.last));
        watched!(self, "write", self.write_rows(batch))
    }

    async fn stage(&mut self) -> Result<Vec<Staged>> {
        watched!(self, "stage", self.stage_files())
    }

    async fn commit(&mut self, staged: &[Staged]) -> Result<()> {
        watched!(self, "commit", self.commit_files(staged))
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn close(self: Box<Self>) -> Result<()> {
        if !self.accepted.is_empty() || !self.undecided.is_empty() {
            self.world.blame("a writer was closed with changes in its hands".into());
        }
        Ok(())
    }
}
