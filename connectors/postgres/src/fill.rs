//! Drives the backfill beside the log: which tables are to be read, when the log stands still for a wave, and where the rows
//! go in its order.
//!
//! The log and the backfill take turns. A wave lasts a second or two; then the log has the floor until it is drained, or for
//! as long. While the snapshot of a new slot is held the log has not begun yet, and waves follow one another.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use futures::FutureExt;
use futures::future::BoxFuture;
use logweir_core::{
    BackfillProgress, ChangeBatch, ChangeType, Error, LogEvent, LogPosition, MemoryPermit, MetadataBuilder, Relation, Result, SourcePlace,
    TableFilter, TimestampMicros,
};
use tokio::time::{Instant, sleep_until, timeout};

use crate::backfill::{
    BackfillState, Chunk, Cut, KeyPlace, PartProgress, Parts, PendingPart, Pool, Proof, Range, Shapes, Survey, Surveyed, TablePlan,
    Unverified, Wave, WaveEvent, Way, Work, plan_tables, survey,
};
use crate::decoder::{Described, PgoutputDecoder, Reshaped, mark_position};
use crate::lsn::Lsn;
use crate::options::PostgresOptions;
use crate::publication::{self, Publication, Told};
use crate::quote::literal;
use crate::server::{self, Facts};
use crate::session::Session;
use crate::slots::{self, START_ANEW, SlotOptions};
use crate::types::{ColumnType, Oid};
use crate::wire::{Connection, Mode};

/// How rows of a backfill were read: `_metadata_read_method`.
const READ_METHOD: &str = "postgresql-backfill";

/// How often it is looked whether tables have joined the publication. Where a look takes long, less often.
const SURVEY_INTERVAL: Duration = Duration::from_secs(10);
const SURVEY_SHARE: u32 = 50;

/// No chunk is begun in a wave after this time; the second while the log has not begun.
const WAVE: Duration = Duration::from_secs(1);
const EXACT_WAVE: Duration = Duration::from_secs(5);

/// The log has the floor between two waves until it is drained, and for this long at most.
const SLICE: Duration = Duration::from_secs(1);

/// The exact snapshot of a new slot is held for this long at most, unless tables without a key need it: it keeps the server
/// from cleaning up.
const EXACT_MAX: Duration = Duration::from_secs(600);

/// Parts and chunks that are planned for one wave.
const PARTS_MAX: usize = 64;
const CHUNKS_MAX: usize = 256;

/// A table that was started over so often is read by an exact snapshot, which nothing overtakes.
const OVERTAKEN_MAX: u32 = 3;

/// Waits after a wave that could not read: for transactions to end, for a server to come back.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Making a temporary slot waits for other transactions, and the log waits meanwhile.
const TEMPORARY_SLOT_MAX: Duration = Duration::from_secs(60);

/// What keeps the log from going on.
enum Floor {
    /// Nothing.
    Log,
    /// The catalog is asked how these parts are read.
    Planning(Vec<PendingPart>, BoxFuture<'static, Result<Shapes>>),
    /// Chunks are read.
    Wave(Box<Running>),
    /// An exact snapshot is made.
    Snapshot(BoxFuture<'static, Result<(Lsn, Pool)>>),
}

struct Running {
    wave: Wave,
    parts: Vec<Reading>,
    exact: bool,
    /// What the snapshots see was in the log before this place.
    seen: Lsn,
    read: u64,
    early: bool,
    /// A task ended in the middle of a chunk.
    broken: bool,
}

/// A part that a wave reads.
struct Reading {
    part: PendingPart,
    plan: Arc<TablePlan>,
    /// The chunks that are read, by number, and the rows of each.
    chunks: BTreeMap<u64, (Chunk, u64)>,
    /// Rows that were handed out, those of chunks that are not read whole with them.
    rows: u64,
}

/// What a look at the server found.
struct Look {
    survey: Survey,
    /// Tables to be read again.
    again: Vec<Oid>,
    reshaped: Vec<Reshaped>,
    took: Duration,
}

/// See the module.
pub(crate) struct Fill {
    options: Arc<PostgresOptions>,
    tables: TableFilter,
    /// Rows that were there before are wanted.
    active: bool,
    state: BackfillState,
    /// The published tables were looked at, at least once.
    surveyed: bool,
    floor: Floor,
    pool: Option<Pool>,
    idle: Vec<Connection>,
    ready: VecDeque<LogEvent>,
    /// The last position given away: place in the log and number.
    last: (u64, u64),
    /// Rows that were handed out hold what the log has up to here: before that they must not be decided, or they would stay where a
    /// server comes back without it.
    not_before: Lsn,
    errand: Option<BoxFuture<'static, Result<Look>>>,
    looked: Option<Result<Look>>,
    told: Told,
    survey_at: Instant,
    wave_at: Instant,
    slice_until: Instant,
    attempts: u32,
}

impl Fill {
    pub(crate) fn new(options: Arc<PostgresOptions>, tables: TableFilter) -> Self {
        let now = Instant::now();
        Fill {
            active: options.backfill.is_some(),
            options,
            tables,
            state: BackfillState::default(),
            surveyed: false,
            floor: Floor::Log,
            pool: None,
            idle: Vec::new(),
            ready: VecDeque::new(),
            last: (0, 0),
            not_before: Lsn::default(),
            errand: None,
            looked: None,
            told: Told::default(),
            survey_at: now,
            wave_at: now,
            slice_until: now,
            attempts: 0,
        }
    }

    /// Begins where a checkpoint, or a new slot, says.
    pub(crate) fn begin(&mut self, state: BackfillState, pool: Option<Pool>, surveyed: bool, position: LogPosition) {
        self.state = state;
        self.pool = pool.filter(|_| !self.state.pending.is_empty());
        self.surveyed = surveyed;
        self.last = (position.commit(), position.ordinal());
        if surveyed && self.state.reshaped.is_empty() {
            self.survey_at = Instant::now() + SURVEY_INTERVAL;
        }
        if self.active && !self.state.pending.is_empty() {
            tracing::info!(
                slot = self.options.slot,
                parts = self.state.pending.len(),
                exact = self.pool.is_some(),
                "reading the rows that are there"
            );
        }
    }

    /// The session is lost, and with it what was held beside it.
    pub(crate) fn interrupt(&mut self) {
        self.floor = Floor::Log;
        self.pool = None;
        self.idle.clear();
    }

    /// There is a session again.
    pub(crate) fn resume(&mut self) {
        self.slice_until = Instant::now() + SLICE;
    }

    pub(crate) fn state(&self) -> &BackfillState {
        &self.state
    }

    /// True while rows that were there before are still to be handed out.
    pub(crate) fn is_under_way(&self) -> bool {
        self.active && (!self.surveyed || !self.state.pending.is_empty() || !self.state.reshaped.is_empty())
    }

    /// How far it is, with what is being read; `None` if rows that were there before are not wanted.
    pub(crate) fn progress(&self) -> Option<BackfillProgress> {
        let mut reading = HashMap::new();
        if let Floor::Wave(running) = &self.floor {
            reading.extend(running.parts.iter().filter(|reading| reading.rows > 0).map(|reading| (reading.part.part, reading.progress())));
        }
        self.active.then(|| self.state.progress(&reading, !self.is_under_way()))
    }

    /// Takes note of transactions that became whole, and of tables that have another shape.
    pub(crate) fn note(&mut self, session: &mut Session) {
        let reshaped = session.decoder.take_reshaped();
        let committed = session.committed.drain(..);
        if !self.active {
            for table in reshaped.iter().filter(|table| table.retyped || table.recreated) {
                tracing::warn!(relation = %table.name, "rows that did not change since have another form in the source: without backfill they are not read again");
            }
            return;
        }
        // Also while it is being looked whether there is anything to read: what the look does not see must not be missed.
        if !self.surveyed || self.errand.is_some() || self.looked.is_some() || !self.state.pending.is_empty() {
            committed.for_each(|xid| self.state.unverified.push(xid));
        }
        if !reshaped.is_empty() {
            self.state.reshaped.extend(reshaped);
            self.survey_at = Instant::now();
        }
    }

    /// Looks at changes before they are handed out: where a row changes its key and the log leaves a value of it out, the old
    /// row may never have been read. Then its table is read from its beginning.
    pub(crate) fn watch(&mut self, batch: &ChangeBatch, session: &Session) {
        let begun = |part: &PendingPart| !part.exact && !part.is_at_start();
        if !self.state.pending.iter().any(begun) || !moves_unlogged_values(batch) {
            return;
        }
        let oids = session.decoder.oids(batch.relation.name());
        for part in self.state.pending.iter_mut().filter(|part| begun(part) && (oids.is_empty() || oids.contains(&part.oid))) {
            tracing::info!(relation = %batch.relation.name(), "rows changed their keys meanwhile: the table is read from its beginning");
            part.start_over();
            part.overtaken += 1;
            part.exact = part.overtaken >= OVERTAKEN_MAX;
        }
    }

    /// No mark may be handed out before the log has passed this place.
    pub(crate) fn not_before(&self) -> Lsn {
        self.not_before
    }

    pub(crate) fn take_ready(&mut self) -> Option<LogEvent> {
        self.ready.pop_front()
    }

    /// True if the log stands still for the backfill.
    pub(crate) fn has_the_floor(&self) -> bool {
        !matches!(self.floor, Floor::Log)
    }

    /// True if the log, which is at rest, should stand still now.
    pub(crate) fn wants_the_floor(&self, session: &Session) -> bool {
        if !self.active || !self.state.pending.iter().any(PendingPart::is_unread) || Instant::now() < self.wave_at {
            return false;
        }
        match &self.pool {
            Some(_) => (session.hold_at.is_none() || session.is_held()) && self.readable_exactly(session).next().is_some(),
            None => {
                let turn = session.drained || Instant::now() >= self.slice_until;
                turn && session.hold_at.is_none() && (self.eligible(session).next().is_some() || self.needs_snapshot())
            }
        }
    }

    /// Parts that can be read by a snapshot of now.
    fn eligible(&self, session: &Session) -> impl Iterator<Item = &PendingPart> {
        let passed = session.decoder.passed();
        self.state.pending.iter().filter(move |part| part.is_unread() && !part.exact && part.after <= passed)
    }

    /// Parts that can be read by the exact snapshot that is held. One that joined the publication later lacks changes between.
    fn readable_exactly(&self, session: &Session) -> impl Iterator<Item = &PendingPart> {
        let at = session.hold_at.unwrap_or_default();
        self.state.pending.iter().filter(move |part| part.is_unread() && part.after <= at)
    }

    /// Tables of which there are parts to be read.
    fn unread_tables(&self) -> HashSet<Oid> {
        self.state.pending.iter().filter(|part| part.is_unread()).map(|part| part.oid).collect()
    }

    fn needs_snapshot(&self) -> bool {
        self.state.pending.iter().filter(|part| part.is_unread()).all(|part| part.exact)
    }

    /// The log stands still from now on.
    pub(crate) fn take_the_floor(&mut self, session: &mut Session) -> Result<()> {
        let parts: Vec<PendingPart> = match &self.pool {
            Some(_) => self.readable_exactly(session).take(PARTS_MAX).cloned().collect(),
            None => self.eligible(session).take(PARTS_MAX).cloned().collect(),
        };
        let (options, facts) = (Arc::clone(&self.options), Arc::clone(&session.facts));
        if parts.is_empty() {
            self.floor = Floor::Snapshot(exact_snapshot(options, facts).boxed());
            return Ok(());
        }
        let asked = parts.clone();
        let idle = self.idle.pop();
        let planning = async move {
            let mut connection = match idle {
                Some(connection) => connection,
                None => Connection::connect(&options, Mode::Query).await?,
            };
            plan_tables(&mut connection, &facts, &options.publication, &asked).await
        };
        self.floor = Floor::Planning(parts, planning.boxed());
        Ok(())
    }

    /// One step of what has the floor. Cancel safe.
    pub(crate) async fn step(&mut self, session: &mut Session) -> Result<()> {
        match &mut self.floor {
            Floor::Log => Ok(()),
            Floor::Snapshot(making) => {
                let made = making.await;
                self.floor = Floor::Log;
                match made {
                    Ok((at, pool)) => {
                        tracing::info!(slot = self.options.slot, %at, "tables without a key are read by an exact snapshot");
                        session.hold_at = Some(at);
                        let unread = self.unread_tables();
                        for part in self.state.pending.iter_mut().filter(|part| part.exact && unread.contains(&part.oid)) {
                            // Whatever of the table was landed is repeated.
                            part.start_over();
                            part.begun = true;
                        }
                        self.pool = Some(pool);
                        Ok(())
                    }
                    Err(error) => self.put_off(error),
                }
            }
            Floor::Planning(parts, planning) => {
                let shapes = planning.await;
                let parts = std::mem::take(parts);
                self.floor = Floor::Log;
                match shapes {
                    Ok(shapes) => self.start_wave(session, parts, shapes),
                    Err(error) => self.put_off(error),
                }
            }
            Floor::Wave(running) => match running.wave.next().await {
                Some(event) => self.take(session, event),
                None => self.end_wave(session),
            },
        }
    }

    fn start_wave(&mut self, session: &mut Session, parts: Vec<PendingPart>, mut shapes: Shapes) -> Result<()> {
        session.decoder.learn(&[], std::mem::take(&mut shapes.types));
        let chunk_rows = self.options.backfill.as_ref().map_or(0, |backfill| backfill.chunk_rows);
        let exact = self.pool.is_some();
        let mut work = VecDeque::new();
        let mut planned = Vec::new();
        let mut emptied = HashSet::new();
        for mut part in parts {
            if work.len() >= CHUNKS_MAX {
                break;
            }
            let plan = match (shapes.tables.get(&part.oid), shapes.parts.get(&part.part)) {
                (Some(table), Some(place)) => {
                    let key = (table.shape.replica_identity == b'f').then_some(table.key.as_slice());
                    let (relation, types, recreated) = describe(&mut session.decoder, &table.shape, key, table.cut)?;
                    self.note_described(session, part.oid);
                    // The rows of the table that had the name are gone with it.
                    if recreated || self.state.emptied.0.contains(&part.oid) {
                        self.empty(session, &relation, part.oid, &mut emptied)?;
                    }
                    let plan = TablePlan::new(&session.facts, relation, types, (table, place), &part, exact, chunk_rows);
                    (!plan.relation.columns().is_empty()).then_some(plan)
                }
                // Dropped, or taken out of the publication.
                _ => None,
            };
            let (oid, place) = (part.oid, part.part);
            let same = |pending: &PendingPart| pending.oid == oid && pending.part == place;
            let Some(plan) = plan.map(Arc::new) else {
                self.state.pending.retain(|pending| !same(pending));
                continue;
            };
            if exact && plan.is_rewritten(&part) {
                self.note_rewritten(&plan);
            }
            if plan.begins_anew(&part) {
                tracing::warn!(relation = %plan.name, "what was read of the table does not count any more: it is read from its beginning");
                part.start_over();
                self.state.pending.iter_mut().filter(|pending| same(pending)).for_each(PendingPart::start_over);
            }
            if part.exact && part.begun && part.is_at_start() && !plan.relation.key_declared() {
                self.empty(session, &plan.relation, part.oid, &mut emptied)?;
            }
            lay_out(&mut work, planned.len(), &plan, part.next_block);
            planned.push(Reading { part, plan, chunks: BTreeMap::new(), rows: 0 });
        }
        if planned.is_empty() {
            return Ok(());
        }
        let proof = if exact {
            Proof::Exact
        } else {
            let ended = planned.iter().map(|reading| reading.part.ended).max().unwrap_or(0);
            Proof::Compared { unverified: self.state.unverified.clone(), ended }
        };
        let idle = std::mem::take(&mut self.idle);
        let longest = if exact { EXACT_WAVE } else { WAVE };
        let wave = Wave::start(&self.options, &session.facts, self.pool.take(), idle, &proof, work, longest);
        self.floor =
            Floor::Wave(Box::new(Running { wave, parts: planned, exact, seen: Lsn::default(), read: 0, early: false, broken: false }));
        Ok(())
    }

    /// A table of which nothing counts as read need not be read again for the shape in which it is read now.
    fn note_described(&mut self, session: &mut Session, oid: Oid) {
        let reshaped = session.decoder.take_reshaped();
        let is_unread = |part| self.state.pending.iter().any(|pending| (pending.part, pending.oid) == part && pending.is_at_start());
        let whole = self.state.known.iter().all(|(part, _)| part.1 != oid || !self.state.known.is_published(part) || is_unread(part));
        if !whole && !reshaped.is_empty() {
            self.state.reshaped.extend(reshaped);
            self.survey_at = Instant::now();
        }
    }

    /// Takes away, once and before anything of it is read, what was landed of a table that is read anew.
    fn empty(&mut self, session: &Session, relation: &Arc<Relation>, oid: Oid, emptied: &mut HashSet<Oid>) -> Result<()> {
        self.state.emptied.0.remove(&oid);
        // Rows of its other parts come behind this, perhaps in a later wave.
        self.state.pending.iter_mut().filter(|part| part.oid == oid).for_each(|part| part.begun = false);
        if emptied.insert(oid) {
            let truncate = self.truncate(session, relation)?;
            self.ready.push_back(LogEvent::Changes(truncate));
        }
        Ok(())
    }

    fn take(&mut self, session: &mut Session, event: WaveEvent) -> Result<()> {
        let Floor::Wave(running) = &mut self.floor else { return Ok(()) };
        match event {
            WaveEvent::Rows { plan, columns, rows, read_time } => {
                running.read += rows as u64;
                if let Some(reading) = running.parts.iter_mut().find(|reading| reading.part.part == plan.part) {
                    reading.rows += rows as u64;
                }
                let batch = self.batch(session, &plan.relation, columns, rows, ChangeType::Read, read_time)?;
                self.ready.push_back(LogEvent::Changes(batch));
            }
            WaveEvent::Done(chunk, rows) => {
                if let Some(reading) = running.parts.get_mut(chunk.index) {
                    reading.chunks.insert(chunk.number, (chunk, rows));
                }
            }
            WaveEvent::Verified(snapshot, end) => {
                running.seen = running.seen.max(end);
                self.state.unverified.verify(&snapshot);
            }
            WaveEvent::TooEarly(snapshot) => {
                running.early = true;
                self.state.unverified.verify(&snapshot);
            }
            // It is planned anew.
            WaveEvent::Outdated => running.early = true,
            WaveEvent::Rewritten(plan) => {
                running.early = true;
                if running.exact {
                    self.note_rewritten(&plan);
                }
            }
            // Its other tasks go on; what this one had taken is read again.
            WaveEvent::Failed(error) if error.is_transient() => {
                (running.early, running.broken) = (true, true);
                tracing::warn!(error = error.report(), "a part of a table could not be read, trying again");
            }
            WaveEvent::Failed(error) => {
                self.floor = Floor::Log;
                return Err(error);
            }
        }
        Ok(())
    }

    /// An older snapshot does not see all rows of a table that was rewritten: it is read again later.
    fn note_rewritten(&mut self, plan: &TablePlan) {
        if let Some(oid) = self.state.pending.iter().find(|part| part.part == plan.part).map(|part| part.oid)
            && !self.state.reshaped.iter().any(|table| table.oid == oid)
        {
            tracing::info!(relation = %plan.name, "the table was rewritten meanwhile: it is read again");
            let name = plan.relation.name().clone();
            self.state.reshaped.push(Reshaped { oid, name, added: Vec::new(), retyped: true, recreated: false });
            self.survey_at = Instant::now();
        }
    }

    fn end_wave(&mut self, session: &mut Session) -> Result<()> {
        let Floor::Wave(running) = std::mem::replace(&mut self.floor, Floor::Log) else { return Ok(()) };
        let Running { wave, parts, exact, seen, read, early, broken } = *running;
        let (pool, idle) = wave.into_connections();
        let mut progress = false;
        for Reading { part, plan, chunks, .. } in parts {
            let Some(pending) = self.state.pending.iter_mut().find(|pending| pending.oid == part.oid && pending.part == part.part) else {
                continue;
            };
            if pending.overtaken != part.overtaken {
                // What the wave read is landed and not wrong, but does not count.
                continue;
            }
            // Chunks behind one that was not read are read again.
            for (_, (chunk, rows)) in
                chunks.into_iter().enumerate().take_while(|(place, (number, _))| *place as u64 == *number).map(|(_, chunk)| chunk)
            {
                progress = true;
                pending.begun = true;
                let read = pending.progress.get_or_insert_with(|| PartProgress::new(&plan));
                read.rows += rows;
                read.chunks_read += 1;
                if matches!(chunk.range, Range::Blocks { .. }) {
                    pending.file = chunk.plan.file;
                }
                match (chunk.range, &chunk.plan.way) {
                    (Range::Blocks { end: Some(end), .. }, _) => pending.next_block = end,
                    (Range::Key { end: Some(end), .. }, Way::Key { key, .. }) => {
                        pending.place.get_or_insert_with(|| KeyPlace::new(key)).advance(end);
                    }
                    _ => pending.next_block = PendingPart::READ,
                }
            }
            let unread = pending.is_unread();
            if let Some(read) = &mut pending.progress {
                (read.chunks_read, read.chunks) = plan.count(unread.then_some(pending.next_block), read.chunks_read);
            }
        }
        let moved = read > 0 || progress;
        if moved && !exact {
            self.not_before = self.not_before.max(seen);
            session.decoder.note_seen(seen);
        }
        self.forget_passed(session.decoder.passed());
        let now = Instant::now();
        self.slice_until = now + SLICE;
        session.heard_at = now;
        // What came meanwhile is not known yet.
        session.drained = false;
        if progress && !early {
            self.attempts = 0;
        } else {
            self.wave_at = now + self.wait();
        }
        if exact {
            let needed = self.readable_exactly(session).any(|part| part.exact);
            let unread = self.readable_exactly(session).next().is_some();
            // A part of a chunk may have been landed. What cannot be merged begins anew with another snapshot, behind a `TRUNCATE`.
            let unfit = broken && needed;
            self.pool = pool.filter(|pool| unread && !unfit && (needed || (session.hold_at.is_none() && pool.since.elapsed() < EXACT_MAX)));
            if self.pool.is_none() {
                session.hold_at = None;
            }
        } else {
            self.idle = idle;
        }
        if moved && session.decoder.passed() >= self.not_before {
            let mut mark = session.mark(session.decoder.passed(), session.decoder.commit_time(), &self.state)?;
            mark.position = mark.position.max(self.position(session));
            self.ready.push_back(LogEvent::Mark(mark));
        }
        Ok(())
    }

    /// Forgets the parts that are read whole, once the log has come to where the snapshots were: until then it may still show that
    /// something of them must be read again.
    pub(crate) fn forget_passed(&mut self, passed: Lsn) {
        if passed < self.not_before || self.state.pending.iter().all(PendingPart::is_unread) {
            return;
        }
        self.state.retire();
        if self.state.pending.is_empty() {
            // Nobody asks which transactions are visible.
            self.state.unverified = Unverified::default();
            self.idle.clear();
            tracing::info!(slot = self.options.slot, "all rows that were there are read");
        }
    }

    /// What failed beside the log is tried again; the log goes on meanwhile.
    fn put_off(&mut self, error: Error) -> Result<()> {
        if !error.is_transient() {
            return Err(error);
        }
        tracing::warn!(error = error.report(), "the rows that are there cannot be read now, trying again");
        self.wave_at = Instant::now() + self.wait();
        Ok(())
    }

    fn wait(&mut self) -> Duration {
        let (first, longest) = AGAIN;
        let wait = first.saturating_mul(1 << self.attempts.min(16)).min(longest);
        self.attempts = self.attempts.saturating_add(1);
        wait
    }

    /// The position of the last row read at the place where the log stands.
    fn position(&self, session: &Session) -> LogPosition {
        LogPosition::new(session.incarnation(), 0, self.last.0, self.last.1, true)
    }

    /// A position at the place where the log stands, behind everything handed out.
    pub(crate) fn next_position(&mut self, session: &Session) -> LogPosition {
        let here = mark_position(session.incarnation(), session.decoder.passed()).commit();
        if self.last.0 != here {
            self.last = (here, 0);
        }
        self.last.1 += 1;
        self.position(session)
    }

    fn batch(
        &mut self,
        session: &Session,
        relation: &Arc<Relation>,
        columns: Vec<ArrayRef>,
        rows: usize,
        change_type: ChangeType,
        read_time: TimestampMicros,
    ) -> Result<ChangeBatch> {
        let timestamp = session.decoder.commit_time().unwrap_or(read_time);
        let place = SourcePlace { log_position: session.decoder.passed().0, log_file: None, transaction: None };
        let mut metadata = MetadataBuilder::new(READ_METHOD);
        let mut last = self.position(session);
        for _ in 0..rows {
            last = self.next_position(session);
            metadata.push(timestamp, last, change_type, read_time, place);
        }
        let mut columns = columns;
        columns.extend(metadata.finish());
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let records = RecordBatch::try_new_with_options(Arc::clone(relation.schema()), columns, &options)
            .map_err(|error| Error::internal("could not put a batch together").context("relation", relation.name()).source(error))?;
        Ok(ChangeBatch {
            relation: Arc::clone(relation),
            records,
            unchanged: None,
            before: None,
            last,
            memory: Arc::new(MemoryPermit::uncounted()),
        })
    }

    /// Takes away what was landed of a table that is read anew.
    fn truncate(&mut self, session: &Session, relation: &Arc<Relation>) -> Result<ChangeBatch> {
        tracing::warn!(relation = %relation.name(), "a table is read anew: what was landed of it before is emptied first");
        let columns = relation.columns().iter().map(|column| new_null_array(column.field.data_type(), 1)).collect();
        let time = session.decoder.commit_time().unwrap_or(TimestampMicros(0));
        self.batch(session, relation, columns, 1, ChangeType::Truncate, time)
    }

    /// Waits for what is asked beside the log, and asks it when it is due. Cancel safe.
    pub(crate) async fn errand(&mut self) {
        match &mut self.errand {
            Some(errand) => {
                let looked = errand.await;
                self.errand = None;
                self.looked = Some(looked);
            }
            None => sleep_until(self.survey_at).await,
        }
    }

    /// Makes use of what was asked, and begins to ask what is due.
    pub(crate) fn settle(&mut self, session: &mut Session) -> Result<()> {
        match self.looked.take() {
            Some(Ok(mut look)) => {
                session.decoder.learn_cut_keys(std::mem::take(&mut look.survey.cut_keys));
                let took = look.took;
                self.learn(look);
                // What came while it was being looked is waited for: the next look is for that.
                let pause = if self.state.reshaped.is_empty() { SURVEY_INTERVAL.max(took * SURVEY_SHARE) } else { Duration::ZERO };
                self.survey_at = Instant::now() + pause;
                if self.pool.is_some() && self.readable_exactly(session).next().is_none() {
                    self.pool = None;
                    session.hold_at = None;
                }
            }
            Some(Err(error)) if error.is_transient() => {
                self.survey_at = Instant::now() + SURVEY_INTERVAL;
                tracing::debug!(error = error.report(), "could not look which tables are published");
            }
            Some(Err(error)) => return Err(error),
            None => {}
        }
        if self.errand.is_none() && Instant::now() >= self.survey_at {
            let (options, facts, told) = (Arc::clone(&self.options), Arc::clone(&session.facts), Arc::clone(&self.told));
            let look = look(options, facts, told, self.tables.clone(), self.state.clone());
            self.errand = Some(look.boxed());
        }
        Ok(())
    }

    /// Takes note of what a look at the server found.
    fn learn(&mut self, look: Look) {
        let Look { survey, again, reshaped, .. } = look;
        for name in &survey.left {
            tracing::warn!(relation = %name, "a table, or a part of it, is not published and followed any more: its changes do not arrive");
        }
        if let Some(operations) = survey.narrowed {
            tracing::warn!(
                publication = self.options.publication,
                %operations,
                remedy = "ALTER PUBLICATION … SET (publish = 'insert, update, delete, truncate')",
                "the publication leaves out operations that it sent before: they do not arrive"
            );
        }
        for gap in &survey.gaps {
            if gap.wanted {
                tracing::warn!(relation = %gap.name, "a table was not published whole, or not logged, for a while: it is read again");
            } else {
                tracing::warn!(
                    relation = %gap.name,
                    remedy = format!("to have it whole, {START_ANEW}"),
                    "a table was not published whole, or not logged, for a while: what happened to its rows meanwhile is missing"
                );
            }
        }
        if !self.active {
            self.state.followed = survey.known;
            return;
        }
        self.surveyed = true;
        let gaps: HashSet<Oid> = survey.gaps.iter().filter(|gap| gap.wanted).map(|gap| gap.oid).collect();
        self.state.known = survey.known;
        self.state.followed = Parts::default();
        self.state.forget_tables(|oid| again.contains(&oid) || gaps.contains(&oid));
        let known = &self.state.known;
        self.state
            .pending
            .retain(|part| !again.contains(&part.oid) && !gaps.contains(&part.oid) && known.is_published((part.part, part.oid)));
        for name in &survey.names {
            tracing::info!(relation = %name, "the rows of a published table are to be read");
        }
        self.state.pending.extend(survey.found);
        let pending = &self.state.pending;
        self.state.emptied.0.extend(gaps);
        self.state.emptied.0.retain(|oid| pending.iter().any(|part| part.oid == *oid));
        if self.state.pending.is_empty() {
            self.state.unverified = Unverified::default();
        }
        self.state.reshaped.retain(|table| !reshaped.contains(table));
    }
}

impl Reading {
    /// What it has read so far. One piece has no chunks: of it, rows are taken for them.
    fn progress(&self) -> PartProgress {
        let mut progress = PartProgress::new(&self.plan);
        progress.rows = self.rows;
        progress.chunks_read = match self.plan.way {
            Way::Whole => (self.rows / self.plan.chunk_rows.max(1)).min(self.plan.chunks.saturating_sub(1)),
            Way::Blocks { .. } | Way::Key { .. } => self.chunks.len() as u64,
        };
        progress
    }
}

/// Adds the chunks of a part, from a block on where it is read by blocks, as far as a wave has room for them.
fn lay_out(work: &mut VecDeque<Work>, index: usize, plan: &Arc<TablePlan>, next_block: u64) {
    let chunk = |number, range| Work::Chunk(Chunk { index, number, plan: Arc::clone(plan), range });
    match &plan.way {
        Way::Blocks { each, all } => {
            let mut first = next_block;
            for number in 0.. {
                let end = Some(first + each).filter(|end| end < all);
                work.push_back(chunk(number, Range::Blocks { first, end }));
                match end {
                    Some(end) if work.len() < CHUNKS_MAX => first = end,
                    _ => break,
                }
            }
        }
        // Where its ranges end is found when they are taken.
        Way::Key { after, .. } if plan.chunks > 1 => {
            work.push_back(Work::Cut(Cut { index, number: 0, plan: Arc::clone(plan), after: after.clone() }));
        }
        Way::Key { after, .. } => work.push_back(chunk(0, Range::Key { after: after.clone(), end: None })),
        Way::Whole => work.push_back(chunk(0, Range::Blocks { first: 0, end: None })),
    }
}

/// True if a row of the batch has another key than before, and a value that is not in the log.
fn moves_unlogged_values(batch: &ChangeBatch) -> bool {
    let Some(unchanged) = &batch.unchanged else { return false };
    let codes = batch.change_type_codes();
    let moved = |row: usize| codes.get(row) == Some(&ChangeType::UpdateDelete.code());
    // The new row follows the old one, perhaps in the next batch.
    (0..codes.len())
        .filter(|row| moved(*row))
        .any(|old| old + 1 >= codes.len() || unchanged.columns.iter().any(|(_, rows)| rows.value(old + 1)))
}

/// The relation of a table that the catalog describes, and how its columns are read.
fn describe(
    decoder: &mut PgoutputDecoder,
    shape: &crate::message::RelationShape,
    key: Option<&[String]>,
    cut: bool,
) -> Result<(Arc<Relation>, Vec<ColumnType>, bool)> {
    loop {
        match decoder.describe(shape, key, cut)? {
            Described::Known { relation, types, recreated } => return Ok((relation, types, recreated)),
            // The catalog was asked for all of them: what it does not know is gone.
            Described::Ask(question) => decoder.learn(&question.types, Vec::new()),
        }
    }
}

/// Keeps our publication in step with the configuration, and looks what is published.
async fn look(options: Arc<PostgresOptions>, facts: Arc<Facts>, told: Told, tables: TableFilter, state: BackfillState) -> Result<Look> {
    let begun = Instant::now();
    let reshaped = state.reshaped.clone();
    let mut connection = Connection::connect(&options, Mode::Query).await?;
    if options.create
        && !facts.in_recovery
        && let Some(publication) = Publication::find(&mut connection, &options.publication).await?
        && publication.ours
        && !publication.all_tables
    {
        publication::extend(&mut connection, &publication, &tables, &told).await?;
    }
    let mut again = Vec::new();
    if options.backfill.is_some() {
        for table in &reshaped {
            if table.recreated || table.retyped || has_defaults(&mut connection, table).await? {
                again.push(table.oid);
            }
        }
    }
    // Of a stream that once had a backfill, what was known then.
    let known = if options.backfill.is_some() || state.followed.is_empty() { &state.known } else { &state.followed };
    let exclude = options.backfill.as_ref().map(|backfill| backfill.exclude.as_slice());
    let asked = Surveyed { publication: &options.publication, known, again: Some(&again), tables: &tables, exclude };
    let found = survey(&mut connection, asked).await?;
    if options.backfill.is_some() && (!found.found.is_empty() || state.pending.iter().any(|part| !part.is_unread())) {
        // So that the log moves behind what was found, also where nothing else happens.
        server::reachable_end(&mut connection).await?;
    } else if !found.known.says_the_same(known)
        && let Err(error) = server::reachable_end(&mut connection).await
    {
        // A mark will hold it when something happens.
        tracing::debug!(error = error.report(), "could not write a message into the log");
    }
    connection.close().await;
    Ok(Look { survey: found, again, reshaped, took: begun.elapsed() })
}

/// True if a column that is new has a value in rows that were there before it.
async fn has_defaults(connection: &mut Connection, table: &Reshaped) -> Result<bool> {
    if table.added.is_empty() {
        return Ok(false);
    }
    let names: Vec<String> = table.added.iter().map(|name| literal(name)).collect();
    let rows = connection
        .query(&format!(
            "SELECT FROM pg_catalog.pg_attribute WHERE attrelid = {} AND attname IN ({}) AND (atthasdef OR atthasmissing OR attidentity <> '')",
            table.oid,
            names.join(", ")
        ))
        .await?;
    Ok(!rows.is_empty())
}

/// Makes a slot that lives as long as its connection, for the snapshot that is exact at its place.
async fn exact_snapshot(options: Arc<PostgresOptions>, facts: Arc<Facts>) -> Result<(Lsn, Pool)> {
    let making = async {
        let mut query = Connection::connect(&options, Mode::Query).await?;
        let mut walsender = Connection::connect(&options, Mode::Replication).await?;
        let name = format!("{:.40}_{:08x}", options.slot, rand::random::<u32>());
        let settings = SlotOptions { temporary: true, export_snapshot: true, ..SlotOptions::default() };
        let created = slots::create(&mut walsender, &mut query, &facts, &name, settings).await?;
        let snapshot = created.snapshot.ok_or_else(|| Error::transient("the server gave no snapshot with the temporary slot"))?;
        let pool = Pool::import(&options, &snapshot, options.backfill.as_ref().map_or(1, |backfill| backfill.tasks)).await?;
        walsender.close().await;
        query.close().await;
        Ok((created.consistent, pool))
    };
    timeout(TEMPORARY_SLOT_MAX, making)
        .await
        .map_err(|_| Error::transient("could not get an exact snapshot while older transactions are under way"))?
}
