//! The checkpoint state machine: events in, actions out.
//!
//! It knows no task, clock or store, so every order of events and every crash can be tried. Each destination moves at
//! its own pace: it stages at a mark of its choice, and its part of the document is replaced. One save is under way at
//! a time; what is staged meanwhile shares the next one. A decision, once saved, is committed; what every destination
//! has committed is acknowledged to the source.
//!
//! * A destination that the document does not know begins where the stream resumes: what lies before, the source may
//!   have forgotten. It is given its own mark with the next save.
//! * A destination that is no longer configured leaves the document with the next save. What it had staged and not
//!   committed can no longer be, and [`Checkpoint::new`] says so.
//! * A destination that fails alone says so, is recovered to what was decided, and goes on; the others do not notice.
//! * A change log on disk is one more that moves at its own pace: it has a mark of its own, behind which the source is opened again.
//!   Who acknowledges to the source, the log or every destination, is the stream's choice; never what the log does not hold.
//! * Tokens leave the document with the first save after their commit, so that a later recovery does not look for
//!   files that their reader has moved away since.

use std::collections::BTreeMap;
use std::sync::Arc;

use logweir_core::{Column, Error, LogMark, LogPosition, Relation, RelationName, Result, Staged, TimestampMicros};

use super::document::{CheckpointDocument, ConsumerCheckpoint, FORMAT, GoneColumns, LogCheckpoint, recalled};

/// Where the change log is, and what follows from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogKept {
    /// In memory: it begins at the checkpoint.
    InMemory,
    /// On disk; the source may forget what every destination has committed.
    OnDisk,
    /// On disk; the source may forget what the log holds.
    OnDiskForSource,
}

/// What a destination has made durable and wants decided.
#[derive(Debug, Clone, PartialEq)]
pub struct StagedCheckpoint {
    /// The barrier: everything at or before it is staged or was committed earlier.
    pub mark: LogMark,
    /// The tokens; none if only the mark moves.
    pub staged: Vec<Staged>,
    /// Rows that this checkpoint adds, by relation.
    pub rows: BTreeMap<String, u64>,
    /// When it was staged.
    pub staged_at: TimestampMicros,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The reader announced a relation of the source. Precedes every checkpoint that covers its rows.
    Relation(Arc<Relation>),
    /// The log was opened at this mark.
    Opened(LogMark),
    /// A destination, by its index, staged. It may do so again once it has committed.
    Staged(usize, StagedCheckpoint),
    /// The change log on disk holds everything at or before this mark, durably.
    Logged(LogMark),
    /// The save asked for last is durable.
    Saved,
    /// A destination committed what it was told to.
    Committed(usize),
    /// A destination failed: its writer is gone, and with it what it had not staged.
    Failed(usize),
    /// A destination was brought to what it was told to recover.
    Recovered(usize),
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Save the document, then say [`Event::Saved`].
    Save(CheckpointDocument),
    /// Tell the destination to commit its tokens (perhaps none), then say [`Event::Committed`].
    Commit(usize, Vec<Staged>),
    /// Tell the destination to recover to this, then say [`Event::Recovered`].
    Recover(usize, ConsumerCheckpoint),
    /// Tell the source that it may forget everything at or before the mark.
    Acknowledge(LogMark),
}

/// Where a destination stands between two checkpoints.
#[derive(Debug, Clone, PartialEq)]
enum Phase {
    /// Nothing staged that is not committed.
    Idle,
    /// Staged, waiting for the save under way to end.
    Staged(StagedCheckpoint),
    /// Part of the save under way.
    Saving,
    /// Part of the save under way, whose writer has failed.
    SavingFailed,
    /// Decided; the writer makes it visible.
    Committing,
    /// Failed, and told what to recover to.
    Recovering,
    /// Not brought to what was decided when the stream was opened.
    Unrecovered,
}

#[derive(Debug, Clone)]
struct Consumer {
    name: String,
    /// What is durable; `None` only until the first save of a new stream.
    decided: Option<ConsumerCheckpoint>,
    /// The mark up to which everything is visible.
    committed: Option<LogMark>,
    phase: Phase,
}

#[derive(Debug, Clone)]
struct LogPart {
    acknowledges: bool,
    decided: Option<LogMark>,
    /// Durable in the log, waiting for a save.
    reached: Option<LogMark>,
    /// By which rules its changes were made.
    rules: Option<String>,
}

/// The state machine of one stream's checkpoints, from one opening of its log to the next.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    stream: String,
    relations: BTreeMap<(RelationName, u32), Arc<Relation>>,
    /// Columns of relations that were forgotten.
    gone: BTreeMap<RelationName, Vec<Column>>,
    consumers: Vec<Consumer>,
    log: Option<LogPart>,
    saving: Option<CheckpointDocument>,
    /// The opening mark came while a save was under way, or parts without a save of their own exist.
    unsaved_parts: bool,
    acknowledged: Option<LogPosition>,
    abandoned: Vec<(String, usize)>,
}

impl Checkpoint {
    /// Goes on from `document` (`None`: a new stream) with these destinations. [`Sink::recover`](logweir_core::Sink::recover)
    /// must have brought each to its [`staged`](Self::staged) tokens before the first event.
    pub fn new(stream: &str, document: Option<CheckpointDocument>, destinations: &[String], kept: LogKept) -> Result<Self> {
        let document = document.unwrap_or(CheckpointDocument {
            format: FORMAT,
            stream: stream.to_owned(),
            relations: Vec::new(),
            gone: Vec::new(),
            consumers: BTreeMap::new(),
            log: None,
        });
        if document.stream != stream {
            return Err(Error::config("the checkpoint document belongs to another stream")
                .context("stream", stream)
                .context("found", &document.stream)
                .remedy("give every stream a state directory or prefix of its own"));
        }
        let log = (kept != LogKept::InMemory).then(|| LogPart {
            acknowledges: kept == LogKept::OnDiskForSource,
            decided: document.log.clone().map(|log| log.mark),
            rules: document.log.clone().and_then(|log| log.rules),
            reached: None,
        });
        // Of a log that is not kept any more nobody reads.
        let resume = if log.is_some() { document.resume() } else { document.passed() }.cloned();
        let mut known = document.consumers;
        let consumers = destinations
            .iter()
            .map(|name| {
                let part = known.remove(name);
                let decided = part.or_else(|| resume.clone().map(ConsumerCheckpoint::begin));
                Consumer { name: name.clone(), committed: decided.as_ref().map(|part| part.mark.clone()), decided, phase: Phase::Idle }
            })
            .collect();
        Ok(Checkpoint {
            stream: document.stream,
            relations: document.relations.into_iter().map(|relation| (version_of(&relation), relation)).collect(),
            gone: document.gone.into_iter().map(|gone| (gone.table, gone.columns)).collect(),
            consumers,
            log,
            saving: None,
            unsaved_parts: false,
            acknowledged: None,
            abandoned: known.into_iter().map(|(name, part)| (name, part.staged.len())).collect(),
        })
    }

    /// Where the source's log is to be opened: the mark of the change log on disk, or else the least of all destinations; `None` for
    /// a new stream.
    pub fn resume(&self) -> Option<&LogMark> {
        self.logged().or_else(|| self.passed())
    }

    /// The mark that the change log on disk is to be opened at.
    pub fn logged(&self) -> Option<&LogMark> {
        self.log.as_ref()?.decided.as_ref()
    }

    /// By which rules the changes in the log were made, if that is known.
    pub fn log_rules(&self) -> Option<&str> {
        self.log.as_ref()?.rules.as_deref()
    }

    /// From here on changes are made by these rules.
    pub fn set_log_rules(&mut self, rules: &str) {
        if let Some(log) = &mut self.log {
            log.rules = Some(rules.to_owned());
        }
    }

    /// True if every destination has passed what the change log holds.
    pub fn all_have_passed_the_log(&self) -> bool {
        self.logged().is_none_or(|logged| self.passed().is_some_and(|passed| passed.position >= logged.position))
    }

    /// The change log on disk does not hold what the checkpoint says: the source has to tell it again.
    pub fn log_is_lost(&mut self) {
        if let Some(log) = &mut self.log {
            log.decided = None;
        }
    }

    /// A destination could not be recovered when the stream was opened: it will say that it has failed.
    pub fn is_unrecovered(&mut self, index: usize) {
        if let Some(consumer) = self.consumers.get_mut(index) {
            consumer.phase = Phase::Unrecovered;
            consumer.committed = None;
        }
    }

    /// The least mark of all destinations.
    fn passed(&self) -> Option<&LogMark> {
        // Of configured destinations alone: nobody needs what only a removed one had not passed.
        self.consumers.iter().filter_map(|consumer| consumer.decided.as_ref()).map(|part| &part.mark).min_by_key(|mark| mark.position)
    }

    /// The relations to open the source's log with: of each table the version that holds where it is opened, and later ones.
    pub fn relations(&self) -> Vec<Arc<Relation>> {
        let resume = self.resume().map_or(LogPosition::MIN, |mark| mark.position);
        let current = current_versions(&self.relations, resume);
        let wanted = |relation: &&Arc<Relation>| current.get(relation.name()).is_none_or(|current| relation.version() >= *current);
        self.relations.values().filter(wanted).map(Arc::clone).collect()
    }

    /// The tables of before with what they have lost, as [`CheckpointDocument::recalled`].
    pub fn recalled(&self) -> Vec<Arc<Relation>> {
        recalled(self.relations.values(), self.gone.iter().map(|(name, columns)| (name, columns.as_slice())))
    }

    /// What a destination had decided: its own mark, from which on it wants changes, and its counters.
    pub fn decided(&self, consumer: usize) -> Option<&ConsumerCheckpoint> {
        self.consumers.get(consumer)?.decided.as_ref()
    }

    /// The tokens that a destination must bring to light before it is opened.
    pub fn staged(&self, consumer: usize) -> &[Staged] {
        self.decided(consumer).map_or(&[], |part| &part.staged)
    }

    /// Destinations of the document that are configured no more, with the number of tokens lost with each.
    pub fn abandoned(&self) -> &[(String, usize)] {
        &self.abandoned
    }

    /// Everything at or before it is visible in every destination.
    pub fn committed(&self) -> Option<&LogMark> {
        let mut least: Option<&LogMark> = None;
        for consumer in &self.consumers {
            let mark = consumer.committed.as_ref()?;
            if least.is_none_or(|least| mark.position < least.position) {
                least = Some(mark);
            }
        }
        least
    }

    /// True if no save is under way and nothing waits for one or for a commit.
    pub fn is_idle(&self) -> bool {
        let logged = self.log.as_ref().is_none_or(|log| log.reached.is_none());
        self.saving.is_none() && !self.unsaved_parts && logged && self.consumers.iter().all(|consumer| consumer.phase == Phase::Idle)
    }

    /// At a clean end, when [idle](Self::is_idle): the document without the tokens that are committed, if it still has any.
    pub fn settle(&mut self) -> Option<Action> {
        let tokens_left = self.consumers.iter().any(|consumer| consumer.decided.as_ref().is_some_and(|part| !part.staged.is_empty()));
        (self.is_idle() && tokens_left).then(|| self.save())
    }

    /// Takes an event and says what to do, in order. An event that cannot come now is a mistake of the caller.
    pub fn handle(&mut self, event: Event) -> Result<Vec<Action>> {
        match event {
            Event::Relation(relation) => {
                self.relations.insert(version_of(&relation), relation);
                Ok(Vec::new())
            }
            Event::Opened(mark) => Ok(self.opened(mark)),
            Event::Staged(index, staged) => self.staged_by(index, staged),
            Event::Logged(mark) => self.logged_through(mark),
            Event::Saved => self.saved(),
            Event::Committed(index) => self.committed_by(index),
            Event::Failed(index) => self.failed(index),
            Event::Recovered(index) => self.recovered(index),
        }
    }

    fn logged_through(&mut self, mark: LogMark) -> Result<Vec<Action>> {
        let log = self.log.as_mut().ok_or_else(|| Error::internal("a change log that is not kept was written"))?;
        if log.decided.as_ref().is_some_and(|decided| decided.position > mark.position) {
            return Err(Error::internal("the change log went back").context("mark", mark.position));
        }
        log.reached = Some(mark);
        Ok(self.save_if_wanted())
    }

    fn failed(&mut self, index: usize) -> Result<Vec<Action>> {
        let consumer = self.consumers.get_mut(index).ok_or_else(|| Error::internal("an unknown destination failed"))?;
        let Some(decided) = consumer.decided.clone() else {
            // The save of the opening mark tells where it begins.
            consumer.phase = Phase::SavingFailed;
            return Ok(Vec::new());
        };
        match consumer.phase {
            Phase::Idle | Phase::Staged(_) | Phase::Committing | Phase::Unrecovered => {
                consumer.phase = Phase::Recovering;
                Ok(vec![Action::Recover(index, decided)])
            }
            // What it has to recover to is not known before the save has ended.
            Phase::Saving => {
                consumer.phase = Phase::SavingFailed;
                Ok(Vec::new())
            }
            Phase::SavingFailed | Phase::Recovering => Err(Error::internal("a destination failed that was not recovered")),
        }
    }

    fn recovered(&mut self, index: usize) -> Result<Vec<Action>> {
        let consumer = self.consumers.get_mut(index).filter(|consumer| consumer.phase == Phase::Recovering);
        let consumer = consumer.ok_or_else(|| Error::internal("a destination was recovered that had not failed"))?;
        consumer.phase = Phase::Idle;
        consumer.committed = consumer.decided.as_ref().map(|part| part.mark.clone());
        Ok(self.acknowledge().into_iter().collect())
    }

    fn opened(&mut self, mark: LogMark) -> Vec<Action> {
        for consumer in self.consumers.iter_mut().filter(|consumer| consumer.decided.is_none()) {
            // Of all destinations in one document, before any change is decided: otherwise one that has not staged
            // yet would be taken for a new one after a crash, and begin where another had got to.
            consumer.decided = Some(ConsumerCheckpoint::begin(mark.clone()));
            self.unsaved_parts = true;
        }
        let mut actions = self.save_if_wanted();
        // After a crash between commit and acknowledge the source has not heard yet; recovery made it true.
        actions.extend(self.acknowledge());
        actions
    }

    fn staged_by(&mut self, index: usize, staged: StagedCheckpoint) -> Result<Vec<Action>> {
        let consumer = self.consumers.get_mut(index).ok_or_else(|| Error::internal("an unknown destination staged"))?;
        let Some(decided) = &consumer.decided else {
            return Err(Error::internal("a destination staged before the log was opened"));
        };
        if consumer.phase != Phase::Idle {
            return Err(Error::internal("a destination staged twice without a commit"));
        }
        if staged.mark.position < decided.mark.position {
            return Err(Error::internal("a destination staged at a mark that it had passed")
                .context("mark", staged.mark.position)
                .context("decided", decided.mark.position));
        }
        consumer.phase = Phase::Staged(staged);
        Ok(self.save_if_wanted())
    }

    fn saved(&mut self) -> Result<Vec<Action>> {
        let mut document = self.saving.take().ok_or_else(|| Error::internal("a save ended that was not under way"))?;
        let mut actions = Vec::new();
        if let (Some(log), Some(saved)) = (&mut self.log, document.log) {
            log.decided = Some(saved.mark);
        }
        for (index, consumer) in self.consumers.iter_mut().enumerate() {
            let Some(part) = document.consumers.remove(&consumer.name) else { continue };
            if consumer.phase == Phase::Saving {
                consumer.phase = Phase::Committing;
                actions.push(Action::Commit(index, part.staged.clone()));
            } else if consumer.phase == Phase::SavingFailed {
                consumer.phase = Phase::Recovering;
                actions.push(Action::Recover(index, part.clone()));
            } else if consumer.committed.is_none() && consumer.phase == Phase::Idle {
                // The part that the opening mark made: there was nothing to commit before it.
                consumer.committed = Some(part.mark.clone());
            }
            consumer.decided = Some(part);
        }
        actions.extend(self.acknowledge());
        actions.extend(self.save_if_wanted());
        Ok(actions)
    }

    fn committed_by(&mut self, index: usize) -> Result<Vec<Action>> {
        let consumer = self.consumers.get_mut(index).filter(|consumer| consumer.phase == Phase::Committing);
        let consumer = consumer.ok_or_else(|| Error::internal("a destination committed what was not decided"))?;
        consumer.phase = Phase::Idle;
        consumer.committed = consumer.decided.as_ref().map(|part| part.mark.clone());
        Ok(self.acknowledge().into_iter().collect())
    }

    fn acknowledge(&mut self) -> Option<Action> {
        let mark = match &self.log {
            None => self.committed()?,
            Some(LogPart { acknowledges: true, decided, .. }) => decided.as_ref()?,
            // The source is opened where the log is, so it must not forget what lies behind that.
            Some(log) => {
                let (committed, logged) = (self.committed()?, log.decided.as_ref()?);
                if committed.position <= logged.position { committed } else { logged }
            }
        };
        if self.acknowledged.is_some_and(|acknowledged| acknowledged >= mark.position) {
            return None;
        }
        let mark = mark.clone();
        self.acknowledged = Some(mark.position);
        Some(Action::Acknowledge(mark))
    }

    fn save_if_wanted(&mut self) -> Vec<Action> {
        let staged = self.consumers.iter().any(|consumer| matches!(consumer.phase, Phase::Staged(_)));
        let logged = self.log.as_ref().is_some_and(|log| log.reached.is_some());
        if self.saving.is_none() && (staged || logged || self.unsaved_parts) { vec![self.save()] } else { Vec::new() }
    }

    /// The document of now: THE DECISION for every destination that has staged.
    fn save(&mut self) -> Action {
        let mut consumers = BTreeMap::new();
        for consumer in &mut self.consumers {
            let Some(mut part) = consumer.decided.clone() else { continue };
            match std::mem::replace(&mut consumer.phase, Phase::Idle) {
                Phase::Staged(staged) => {
                    part.epoch += 1;
                    part.visible = (!staged.staged.is_empty()).then_some(part.mark.position);
                    part.mark = staged.mark;
                    part.staged = staged.staged;
                    for (relation, rows) in staged.rows {
                        *part.rows.entry(relation).or_default() += rows;
                    }
                    part.decided_at = Some(staged.staged_at);
                    consumer.phase = Phase::Saving;
                }
                // Visible already: nobody needs to commit them again.
                Phase::Idle => {
                    part.staged.clear();
                    part.visible = None;
                }
                phase @ (Phase::Committing | Phase::Saving | Phase::SavingFailed | Phase::Recovering | Phase::Unrecovered) => {
                    consumer.phase = phase
                }
            }
            consumers.insert(consumer.name.clone(), part);
        }
        self.unsaved_parts = false;
        let log = self.log.as_mut().and_then(|log| log.reached.take().or_else(|| log.decided.clone()));
        let rules = self.log.as_ref().and_then(|log| log.rules.clone());
        let log = log.map(|mark| LogCheckpoint { mark, rules });
        let (format, stream) = (FORMAT, self.stream.clone());
        let mut document = CheckpointDocument { format, stream, relations: Vec::new(), gone: Vec::new(), consumers, log };
        // What every destination has passed may be needed again, if the log is lost.
        let oldest = document.passed().into_iter().chain(document.resume()).map(|mark| mark.position).min();
        self.forget_relations(oldest.unwrap_or(LogPosition::MIN));
        document.relations = self.relations.values().map(Arc::clone).collect();
        let gone = self.gone.iter().map(|(table, columns)| GoneColumns { table: table.clone(), columns: columns.clone() });
        document.gone = gone.collect();
        self.saving = Some(document.clone());
        Action::Save(document)
    }

    /// Of each table the newest version at or before the place where the stream would resume is needed, and all later ones.
    fn forget_relations(&mut self, resume: LogPosition) {
        let current = current_versions(&self.relations, resume);
        let gone: Vec<_> =
            self.relations.keys().filter(|(name, version)| current.get(name).is_some_and(|current| version < current)).cloned().collect();
        // Ascending: of a column the last version that had it counts.
        for version in gone {
            let Some(relation) = self.relations.remove(&version) else { continue };
            let columns = self.gone.remove(&version.0).unwrap_or_default();
            let left = |column: &&Column| !relation.has_column(column.name());
            let columns = columns.iter().filter(left).chain(relation.columns()).cloned().collect();
            self.gone.insert(version.0, columns);
        }
        // What a version has that is still there, that version tells.
        for (name, columns) in &mut self.gone {
            let there = self.relations.range((name.clone(), 0)..=(name.clone(), u32::MAX)).map(|(_, relation)| relation);
            let there: Vec<&Arc<Relation>> = there.collect();
            columns.retain(|column| !there.iter().any(|relation| relation.has_column(column.name())));
        }
        self.gone.retain(|_, columns| !columns.is_empty());
    }
}

/// Of each table the newest version that holds at `position`.
fn current_versions(relations: &BTreeMap<(RelationName, u32), Arc<Relation>>, position: LogPosition) -> BTreeMap<&RelationName, u32> {
    let mut current: BTreeMap<&RelationName, u32> = BTreeMap::new();
    for ((name, version), relation) in relations {
        if relation.since() <= position {
            let newest = current.entry(name).or_insert(*version);
            *newest = (*newest).max(*version);
        }
    }
    current
}

impl ConsumerCheckpoint {
    /// The part of a destination that begins at `mark`.
    fn begin(mark: LogMark) -> Self {
        ConsumerCheckpoint { epoch: 0, mark, staged: Vec::new(), visible: None, rows: BTreeMap::new(), decided_at: None }
    }
}

fn version_of(relation: &Relation) -> (RelationName, u32) {
    (relation.name().clone(), relation.version())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
