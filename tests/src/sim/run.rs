//! The world, the lives of the process in it, and what must be true at the end.

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use logweir_core::{Clock, Error, LogPosition, Result, TableFilter, TimestampMicros};
use logweir_runtime::changelog::segment::{Compression, SegmentOptions};
use logweir_runtime::checkpoint::CheckpointDocument;
use logweir_runtime::{
    Acknowledge, ChangeLogSpec, Destination, Shutdown, StreamProgress, StreamSpec, TransformFactory, no_transforms, run_stream,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;

use super::clock::SimClock;
use super::log::{Change, SimLog};
use super::sink::{Lake, SimSink};
use super::source::SimSource;
use super::store::{Disk, SimStore};

/// What a world is like.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Transactions in the log.
    pub transactions: usize,
    /// Destinations.
    pub destinations: usize,
    /// A destination that takes its time.
    pub slow: Option<usize>,
    /// Of a thousand calls, how many fail in a way that may go away.
    pub weather_per_mille: u32,
    /// The log goes on for ever, and the stream ends when it has caught up.
    pub live: bool,
    /// A transaction, by index, that the source cannot read.
    pub bad_transaction: Option<usize>,
    /// A change that no destination can hold.
    pub bad_row: Option<LogPosition>,
    /// Memory of the stream.
    pub memory_bytes: usize,
    /// Changes are kept on disk, and this is who acknowledges them.
    pub on_disk: Option<Acknowledge>,
    /// What of them is kept.
    pub retain_bytes: u64,
    /// A destination that cannot be reached in the beginning, and for how long.
    pub outage: Option<(usize, Duration)>,
}

impl Default for Setting {
    fn default() -> Self {
        Setting {
            transactions: 60,
            destinations: 2,
            slow: None,
            weather_per_mille: 0,
            live: false,
            bad_transaction: None,
            bad_row: None,
            memory_bytes: 256 * 1024,
            on_disk: None,
            retain_bytes: 1 << 30,
            outage: None,
        }
    }
}

/// What outlives every process.
#[derive(Debug)]
pub struct World {
    /// What it is like.
    pub setting: Setting,
    /// What the source holds.
    pub log: Arc<SimLog>,
    /// Where the checkpoint is.
    pub disk: Arc<Disk>,
    /// Where changes land.
    pub lakes: Arc<Vec<Lake>>,
    /// Its time.
    pub clock: SimClock,
    /// Where changes are kept.
    directory: Arc<tempfile::TempDir>,
    /// When it began.
    began: TimestampMicros,
    record: Mutex<Record>,
    rng: Mutex<StdRng>,
}

#[derive(Debug, Default)]
struct Record {
    forgotten: Option<LogPosition>,
    /// The least of the last marks that readers handed out before they met the source's fault.
    before_fault: Option<LogPosition>,
    blame: Vec<String>,
}

impl World {
    /// A world from a seed.
    pub fn new(seed: u64, setting: Setting) -> Arc<Self> {
        let log = Arc::new(SimLog::new(seed, setting.transactions));
        Self::with_log(seed, setting, log)
    }

    /// A world around a log made before.
    pub fn with_log(seed: u64, setting: Setting, log: Arc<SimLog>) -> Arc<Self> {
        Arc::new(World {
            log,
            disk: Arc::new(Disk::default()),
            lakes: Arc::new((0..setting.destinations).map(|_| Lake::default()).collect()),
            began: SimClock::new().now(),
            clock: SimClock::new(),
            directory: Arc::new(tempfile::tempdir().expect("a temporary directory can be made")),
            record: Mutex::new(Record::default()),
            rng: Mutex::new(StdRng::seed_from_u64(seed ^ 0x5eed)),
            setting,
        })
    }

    /// The same world, of another kind from now on.
    pub fn with_setting(&self, setting: Setting) -> Arc<Self> {
        Arc::new(World {
            setting,
            log: Arc::clone(&self.log),
            disk: Arc::clone(&self.disk),
            lakes: Arc::clone(&self.lakes),
            clock: self.clock,
            directory: Arc::clone(&self.directory),
            began: self.began,
            record: Mutex::new(Record { forgotten: self.forgotten(), ..Record::default() }),
            rng: Mutex::new(StdRng::seed_from_u64(self.chance())),
        })
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something broke its contract.
    pub(super) fn blame(&self, what: String) {
        self.record().blame.push(what);
    }

    /// Up to where the source was told that it may forget.
    pub fn forgotten(&self) -> Option<LogPosition> {
        self.record().forgotten
    }

    pub(super) fn forget(&self, position: LogPosition) {
        if self.setting.on_disk.is_some() {
            let document = self.disk.document().map(|document| CheckpointDocument::from_bytes(&document).expect("a document can be read"));
            let logged = document.and_then(|document| document.log).map(|log| log.mark.position);
            if logged < Some(position) {
                self.blame(format!("the source may forget up to {position}, which the change log does not hold"));
            }
        }
        let by_destinations = self.setting.on_disk != Some(Acknowledge::Log);
        for (index, lake) in self.lakes.iter().enumerate() {
            let through = self.log.after(position);
            if by_destinations && lake.rows().len() < self.log.changes(through).len() {
                self.blame(format!("the source may forget up to {position}, which destination {index} does not show"));
            }
        }
        let mut record = self.record();
        record.forgotten = record.forgotten.max(Some(position));
    }

    /// A reader whose last mark lay at `position` meets the source's fault.
    pub(super) fn met_fault(&self, position: LogPosition) {
        let mut record = self.record();
        record.before_fault = Some(record.before_fault.map_or(position, |least| least.min(position)));
    }

    /// The last mark that readers handed out before they met the source's fault; the least, if several did because something
    /// else failed at the same time.
    pub fn before_fault(&self) -> Option<LogPosition> {
        self.record().before_fault
    }

    /// Fails for a destination that cannot be reached now.
    pub(super) fn outage(&self, destination: usize) -> Result<()> {
        match self.setting.outage {
            Some((broken, duration)) if broken == destination && self.clock.now().since(self.began) < duration => {
                Err(Error::transient("the destination could not be reached"))
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn rest(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }

    fn chance(&self) -> u64 {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).random()
    }

    /// What a stream of this world is made of, in one life.
    pub fn spec(self: &Arc<Self>, life: &Arc<Life>, transforms: TransformFactory) -> StreamSpec {
        let sink = |index| Arc::new(SimSink::new(Arc::clone(self), Arc::clone(life), index));
        StreamSpec {
            rules: String::new(),
            name: "sim".into(),
            source: Arc::new(SimSource::new(Arc::clone(self), Arc::clone(life))),
            tables: TableFilter::all(),
            before_images: Vec::new(),
            keep_before_images: Vec::new(),
            transforms,
            destinations: (0..self.setting.destinations)
                .map(|index| Destination { name: format!("d{index}"), sink: sink(index), transforms: no_transforms() })
                .collect(),
            change_log: self.setting.on_disk.map(|acknowledge| ChangeLogSpec {
                segments: SegmentOptions {
                    directory: self.directory.path().to_owned(),
                    store: None,
                    cache_bytes: u64::MAX,
                    compression: Compression::None,
                    retain_age: Duration::from_secs(3600),
                    retain_bytes: self.setting.retain_bytes,
                },
                acknowledge,
            }),
            state: Box::new(SimStore::new(Arc::clone(&self.disk), Arc::clone(life))),
            memory_bytes: self.setting.memory_bytes,
            connect_timeout: Duration::from_secs(600),
            until_caught_up: self.setting.live,
            seed: life.chance(),
        }
    }

    /// What a power cut may do to files that were written and not made durable: more at the end of the last one than was written. And what
    /// it must not, unless the source keeps the changes, too: less.
    pub fn damage_log(&self) {
        let files = std::fs::read_dir(self.directory.path()).expect("the directory is there");
        let mut files: Vec<_> = files.map(|file| file.expect("it can be listed").path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "changes"));
        files.sort();
        let Some(path) = files.last() else { return };
        let mut bytes = std::fs::read(path).expect("a segment can be read");
        let chance = self.chance();
        if self.setting.on_disk == Some(Acknowledge::Destination) && chance.is_multiple_of(3) {
            bytes.truncate(bytes.len().saturating_sub((chance >> 8) as usize % 4000));
        }
        bytes.extend((0..(chance >> 32) % 300).map(|byte| byte.wrapping_mul(chance) as u8));
        std::fs::write(path, bytes).expect("a segment can be written");
    }

    /// Every contract was kept.
    pub fn assert_blameless(&self) {
        let blame = &self.record().blame;
        assert!(blame.is_empty(), "{}", blame.join("\n"));
    }

    /// Every destination shows exactly the changes of the first `transactions` transactions.
    pub fn assert_landed(&self, transactions: usize) {
        let expected = self.log.changes(transactions);
        for (index, lake) in self.lakes.iter().enumerate() {
            assert_same_rows(&format!("destination {index}"), &lake.rows(), &expected);
        }
        self.assert_blameless();
    }

    /// After a kill, which may have come between two files of a commit: nothing is there twice or was never in the log.
    pub fn assert_nothing_twice(&self) {
        let log = self.log.changes(self.log.transactions.len());
        for lake in self.lakes.iter() {
            let rows = lake.rows();
            assert!(rows.windows(2).all(|pair| pair[0].position < pair[1].position), "a change landed twice");
            assert!(
                rows.iter().all(|row| log.binary_search_by_key(&row.position, |change| change.position).is_ok_and(|at| log[at] == *row))
            );
        }
        self.assert_blameless();
    }

    /// How many whole transactions a destination shows; what it shows must be the log's beginning.
    pub fn landed_transactions(&self, destination: usize) -> usize {
        let rows = self.lakes[destination].rows();
        let through = rows.last().map_or(0, |row| self.log.after(row.position) + 1);
        assert_same_rows(&format!("destination {destination}"), &rows, &self.log.changes(through));
        through
    }

    /// Rows merged by key are what the source's tables hold.
    pub fn assert_tables(&self) {
        for lake in self.lakes.iter() {
            let mut tables = vec![std::collections::BTreeMap::new(); self.log.tables.len()];
            for row in lake.rows() {
                let change_type = logweir_core::ChangeType::from_code(row.change_type).expect("a row has a known type");
                match (row.id, row.value) {
                    (None, _) => tables[row.table].clear(),
                    (Some(id), Some(value)) if !change_type.deletes() => {
                        tables[row.table].insert(id, value);
                    }
                    (Some(id), _) => {
                        tables[row.table].remove(&id);
                    }
                }
            }
            assert_eq!(tables, self.log.tables, "merged rows are the tables");
        }
    }
}

fn assert_same_rows(what: &str, found: &[Change], expected: &[Change]) {
    let different = found.iter().zip(expected).position(|(found, expected)| found != expected);
    assert!(
        different.is_none() && found.len() == expected.len(),
        "{what} shows {} rows of {}; the first that differs is {:?}: {:?} for {:?}",
        found.len(),
        expected.len(),
        different,
        different.and_then(|row| found.get(row)),
        different.and_then(|row| expected.get(row)),
    );
}

/// One process: it can be killed at a step, and then nothing it began goes on.
#[derive(Debug)]
pub struct Life {
    steps: AtomicU64,
    kill_at: Option<u64>,
    over: AtomicBool,
    killed: Notify,
    weather_per_mille: u32,
    rng: Mutex<StdRng>,
}

impl Life {
    /// A process of this world that is killed at its `kill_at`th step.
    pub fn new(world: &World, kill_at: Option<u64>) -> Arc<Self> {
        Arc::new(Life {
            steps: AtomicU64::new(0),
            kill_at,
            over: AtomicBool::new(false),
            killed: Notify::new(),
            weather_per_mille: world.setting.weather_per_mille,
            rng: Mutex::new(StdRng::seed_from_u64(world.chance())),
        })
    }

    /// A place where the process can be killed: what was done before is done, what comes after never happens.
    pub(super) async fn step(&self) {
        if self.is_over() {
            pending::<()>().await;
        }
        let step = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
        if self.kill_at == Some(step) {
            self.end();
            self.killed.notify_one();
            pending::<()>().await;
        }
    }

    /// Steps made.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// From now on calls may be dropped: the process ends.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn with_rng<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn chance(&self) -> u64 {
        self.with_rng(|rng| rng.random())
    }

    /// Fails by chance.
    pub(super) fn weather(&self, what: &'static str) -> Result<()> {
        if self.weather_per_mille > 0 && self.with_rng(|rng| rng.random_ratio(self.weather_per_mille, 1000)) {
            return Err(Error::transient(what));
        }
        Ok(())
    }

    /// Takes some time by chance.
    pub(super) async fn stall(&self) {
        let milliseconds = self.with_rng(|rng| if rng.random_ratio(1, 3) { rng.random_range(1..400) } else { 0 });
        if milliseconds > 0 {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        }
    }
}

/// How a life ended.
#[derive(Debug)]
pub enum Ending {
    /// By itself.
    Returned(Result<()>),
    /// Killed at the step asked for.
    Killed,
}

impl World {
    /// Lives one life: until the stream ends, or is killed at `kill_at`.
    pub async fn live(self: &Arc<Self>, kill_at: Option<u64>) -> (Ending, Arc<Life>) {
        self.live_with(kill_at, no_transforms(), Shutdown::new()).await
    }

    /// The same with transforms and a hand on the shutdown.
    pub async fn live_with(
        self: &Arc<Self>,
        kill_at: Option<u64>,
        transforms: TransformFactory,
        shutdown: Shutdown,
    ) -> (Ending, Arc<Life>) {
        let life = Life::new(self, kill_at);
        let spec = self.spec(&life, transforms);
        let progress = Arc::new(StreamProgress::new("sim"));
        let stream = run_stream(spec, Arc::new(self.clock), shutdown, progress);
        let ending = tokio::select! {
            biased;
            () = life.killed.notified() => Ending::Killed,
            result = stream => Ending::Returned(result),
        };
        life.end();
        // Tasks that were aborted are dropped when the runtime next looks at them.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        (ending, life)
    }
}

/// Runs `simulation` on one thread with paused time; says the seed when it fails.
pub fn simulate<F: Future<Output = ()>>(seed: u64, simulation: impl FnOnce(u64) -> F) {
    struct Seed(u64);
    impl Drop for Seed {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("the simulation failed with seed {}", self.0);
            }
        }
    }
    let _seed = Seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O can be made").block_on(simulation(seed));
}
