//! A source over a simulated log: cuts it into batches and marks by chance, stalls, fails, and forgets what it may.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use logweir_core::{
    Clock, Error, Finding, LogEvent, LogMark, LogPosition, LogReader, LogStart, MemoryBudget, Relation, Result, Source, TableFilter,
};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::clock::SimClock;
use super::log::{Change, SimLog, TABLES};
use super::run::{Life, Setting, World};

/// A source as one process sees it.
pub struct SimSource {
    world: Arc<World>,
    life: Arc<Life>,
}

impl SimSource {
    /// The world's log, in this life.
    pub fn new(world: Arc<World>, life: Arc<Life>) -> Self {
        SimSource { world, life }
    }
}

#[async_trait]
impl Source for SimSource {
    async fn check(&self, _: &TableFilter, _: Option<&LogMark>) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }

    async fn relations(&self, _: &TableFilter) -> Result<Vec<Relation>> {
        Ok(self.world.log.relations.iter().filter_map(|versions| versions.last()).map(|relation| relation.as_ref().clone()).collect())
    }

    async fn open_log(&self, start: LogStart) -> Result<Box<dyn LogReader>> {
        self.life.step().await;
        self.life.weather("the source could not be reached")?;
        let log = Arc::clone(&self.world.log);
        let resume = start.resume.unwrap_or_else(|| log.beginning());
        let forgotten = self.world.forgotten();
        if forgotten.is_some_and(|forgotten| resume.position < forgotten) {
            return Err(Error::log_gone("the source was told to forget this").context("resume", resume.position));
        }
        Ok(Box::new(SimReader {
            setting: self.world.setting.clone(),
            next: log.after(resume.position),
            last_mark: resume.position,
            queue: VecDeque::from([LogEvent::Mark(resume)]),
            announced: HashSet::new(),
            rng: StdRng::seed_from_u64(self.life.chance()),
            tables: start.tables,
            memory: start.memory,
            clock: self.world.clock,
            failed: false,
            log,
            world: Arc::clone(&self.world),
            life: Arc::clone(&self.life),
        }))
    }
}

struct SimReader {
    world: Arc<World>,
    life: Arc<Life>,
    log: Arc<SimLog>,
    setting: Setting,
    clock: SimClock,
    tables: TableFilter,
    memory: MemoryBudget,
    rng: StdRng,
    next: usize,
    /// Of those handed out.
    last_mark: LogPosition,
    queue: VecDeque<LogEvent>,
    announced: HashSet<(usize, u32)>,
    failed: bool,
}

impl SimReader {
    /// A value of the next transaction cannot be carried.
    fn fault(&self) -> Error {
        self.world.met_fault(self.last_mark);
        Error::data("a value cannot be carried").context("transaction", self.next)
    }

    /// Some transactions, as events: their changes by relation, cut anywhere, then a mark. A last transaction that
    /// cannot be read whole is handed out in part, without a mark.
    fn read_on(&mut self) {
        let whole_end = self.setting.bad_transaction.unwrap_or(usize::MAX).min(self.log.transactions.len());
        let end = (self.next + self.rng.random_range(1..5)).min(whole_end);
        let mut changes = self.log.transactions[self.next..end].iter().flat_map(|transaction| &transaction.changes).collect::<Vec<_>>();
        let mut marked = true;
        if end == whole_end && whole_end < self.log.transactions.len() {
            self.failed = true;
            let bad = &self.log.transactions[whole_end].changes;
            let part = self.rng.random_range(0..=bad.len());
            if self.rng.random_bool(0.5) && part > 0 {
                changes.extend(&bad[..part]);
                marked = false;
            }
        }
        changes.retain(|change| self.tables.accepts(self.log.relations[change.table][0].name()));
        let mut by_relation: Vec<Vec<&Change>> = Vec::new();
        for change in changes {
            match by_relation.iter_mut().find(|group| (group[0].table, group[0].version) == (change.table, change.version)) {
                Some(group) => group.push(change),
                None => by_relation.push(vec![change]),
            }
        }
        // Between two marks the relations may come in any order; one relation's versions keep theirs.
        let mut order: Vec<usize> = (0..TABLES).collect();
        order.shuffle(&mut self.rng);
        by_relation.sort_by_key(|group| order[group[0].table]);
        for group in by_relation {
            if self.announced.insert((group[0].table, group[0].version)) {
                let relation = &self.log.relations[group[0].table][group[0].version as usize - 1];
                self.queue.push_back(LogEvent::Relation(Arc::clone(relation)));
            }
            let mut rest = &group[..];
            while !rest.is_empty() {
                let (part, after) = rest.split_at(self.rng.random_range(1..=rest.len()));
                self.queue.push_back(LogEvent::Changes(self.log.batch(part)));
                rest = after;
            }
        }
        if marked && end > self.next {
            self.queue.push_back(LogEvent::Mark(self.log.transactions[end - 1].mark.clone()));
        }
        self.next = end;
    }
}

#[async_trait]
impl LogReader for SimReader {
    async fn next(&mut self) -> Result<Option<LogEvent>> {
        self.life.step().await;
        if self.rng.random_ratio(1, 4) {
            self.clock.sleep(Duration::from_millis(self.rng.random_range(0..200))).await;
        }
        if self.queue.is_empty() {
            if self.failed {
                return Err(self.fault());
            }
            if self.next == self.log.transactions.len() {
                if !self.setting.live {
                    return Ok(None);
                }
                self.clock.sleep(Duration::from_secs(<dyn LogReader>::IDLE_MARK_SECONDS)).await;
                return Ok(Some(LogEvent::Mark(self.log.end())));
            }
            self.life.weather("the connection was lost")?;
            self.read_on();
        }
        if let Some(LogEvent::Changes(batch)) = self.queue.front_mut() {
            let permit = self.memory.acquire(batch.bytes()).await;
            batch.memory = Arc::new(permit);
        }
        let event = self.queue.pop_front();
        match &event {
            Some(LogEvent::Mark(mark)) => self.last_mark = mark.position,
            None => return Err(self.fault()),
            _ => {}
        }
        Ok(event)
    }

    async fn acknowledge(&mut self, mark: &LogMark) -> Result<()> {
        self.life.step().await;
        self.world.forget(mark.position);
        Ok(())
    }

    async fn end(&mut self) -> Result<Option<LogPosition>> {
        Ok(self.setting.live.then(|| self.log.end().position))
    }

    async fn retained(&mut self) -> Result<Option<u64>> {
        self.life.step().await;
        self.life.weather("the question was lost")?;
        Ok(self.setting.live.then(|| self.log.transactions.len() as u64))
    }
}
