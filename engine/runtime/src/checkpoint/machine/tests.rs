//! Every order of events that two destinations can make, with a kill at every place.
//!
//! A breadth-first search over a small world: a log of a few marks, two destinations, a store whose save may be cut short
//! either way, sinks that remember what is visible. Every state that can be reached is visited, and in each of them must hold:
//!
//! * what is visible in a destination is the log's beginning, without a gap and nothing twice;
//! * nothing is visible that no saved document decided;
//! * the source was told to forget only what is visible everywhere, and the stream resumes at or after that;
//! * from every state the stream can come to its end.
//!
//! With a change log on disk destinations fail one by one, too, and the source may forget what the log holds instead.

use std::collections::{BTreeMap, HashSet, VecDeque};

use arrow_schema::{DataType, Field};
use logweir_core::{Column, SourceOffset};
use serde_json::json;

use super::*;

fn mark(place: u64) -> LogMark {
    LogMark { position: LogPosition::new(0, 1, place, 0, false), offset: SourceOffset(json!({ "place": place })), commit_time: None }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("d{index}")).collect()
}

/// A destination's place in the world.
#[derive(Debug, Clone, Default)]
struct Sink {
    /// Everything up to here was written and staged by the writer of this run.
    staged_through: u64,
    /// Told to commit, and not done yet.
    to_commit: Option<Vec<Staged>>,
    /// Done, and the machine does not know yet.
    done: bool,
    /// Its writer is gone.
    failed: bool,
    /// What the machine told it to recover to.
    to_recover: Option<ConsumerCheckpoint>,
    /// Stretches of the log that are visible, `(after, through)`.
    visible: Vec<(u64, u64)>,
}

impl Sink {
    /// Safe to repeat, as the contract of a sink has it: a token's file is there or is made.
    fn commit(&mut self, staged: &[Staged]) {
        for token in staged {
            let stretch = (token.0[0].as_u64().unwrap(), token.0[1].as_u64().unwrap());
            if !self.visible.contains(&stretch) {
                self.visible.push(stretch);
            }
        }
        self.visible.sort_unstable();
    }

    fn visible_through(&self) -> u64 {
        let mut through = 0;
        for (after, next) in &self.visible {
            assert_eq!(*after, through, "a gap or an overlap: {:?}", self.visible);
            through = *next;
        }
        through
    }
}

#[derive(Debug, Clone)]
struct World {
    kept: LogKept,
    log_end: u64,
    /// What is durable in the change log on disk.
    logged: u64,
    document: Option<CheckpointDocument>,
    machine: Checkpoint,
    saving: Option<CheckpointDocument>,
    sinks: Vec<Sink>,
    acknowledged: Option<u64>,
}

impl World {
    fn new(sinks: usize, log_end: u64, kept: LogKept) -> Self {
        let machine = Checkpoint::new("shop", None, &names(sinks), kept).unwrap();
        let sinks = vec![Sink::default(); sinks];
        let mut world = World { kept, log_end, logged: 0, document: None, machine, saving: None, sinks, acknowledged: None };
        world.open();
        world
    }

    fn handle(&mut self, event: Event) {
        for action in self.machine.handle(event).unwrap() {
            match action {
                Action::Save(document) => {
                    assert!(self.saving.is_none(), "one save at a time");
                    self.saving = Some(document);
                }
                Action::Commit(index, staged) => self.sinks[index].to_commit = Some(staged),
                Action::Recover(index, part) => self.sinks[index].to_recover = Some(part),
                Action::Acknowledge(mark) => {
                    assert!(self.acknowledged < Some(mark.position.commit()), "marks are acknowledged in rising order");
                    self.acknowledged = Some(mark.position.commit());
                }
            }
        }
    }

    fn open(&mut self) {
        let start = self.machine.resume().map_or(0, |mark| mark.position.commit());
        self.handle(Event::Opened(mark(start)));
    }

    /// The process ends, perhaps just after the save under way became durable, and starts again.
    fn kill(mut self, save_survives: bool) -> World {
        if let Some(document) = self.saving.take().filter(|_| save_survives) {
            self.document = Some(document);
        }
        self.machine = Checkpoint::new("shop", self.document.clone(), &names(self.sinks.len()), self.kept).unwrap();
        // What lies behind the mark is cut off.
        self.logged = self.machine.logged().map_or(0, |mark| mark.position.commit());
        for (index, sink) in self.sinks.iter_mut().enumerate() {
            sink.commit(self.machine.staged(index));
            sink.staged_through = self.machine.decided(index).map_or(0, |part| part.mark.position.commit());
            sink.to_commit = None;
            sink.done = false;
            sink.failed = false;
            sink.to_recover = None;
        }
        // The source hears it anew.
        self.acknowledged = None;
        self.open();
        self
    }

    fn next(&self) -> Vec<World> {
        let mut next = Vec::new();
        let mut push = |change: &dyn Fn(&mut World)| {
            let mut world = self.clone();
            change(&mut world);
            next.push(world);
        };
        if self.saving.is_some() {
            push(&|world| {
                world.document = world.saving.take();
                world.handle(Event::Saved);
            });
        }
        if self.kept != LogKept::InMemory {
            for through in self.logged + 1..=self.log_end {
                push(&|world| {
                    world.logged = through;
                    world.handle(Event::Logged(mark(through)));
                });
            }
            for (index, sink) in self.sinks.iter().enumerate() {
                if !sink.failed {
                    push(&|world| {
                        let sink = &mut world.sinks[index];
                        (sink.failed, sink.to_commit, sink.done) = (true, None, false);
                        world.handle(Event::Failed(index));
                    });
                }
                if sink.to_recover.is_some() {
                    push(&|world| {
                        let sink = &mut world.sinks[index];
                        let part = sink.to_recover.take().unwrap();
                        sink.commit(&part.staged);
                        (sink.staged_through, sink.failed) = (part.mark.position.commit(), false);
                        world.handle(Event::Recovered(index));
                    });
                }
            }
        }
        for (index, sink) in self.sinks.iter().enumerate() {
            let idle = self.machine.consumers[index].phase == Phase::Idle;
            for through in sink.staged_through + 1..=self.log_end {
                if idle {
                    push(&|world| {
                        let after = world.sinks[index].staged_through;
                        world.sinks[index].staged_through = through;
                        let rows = BTreeMap::from([("shop.orders".to_owned(), through - after)]);
                        let staged = vec![Staged(json!([after, through]))];
                        let checkpoint = StagedCheckpoint { mark: mark(through), staged, rows, staged_at: TimestampMicros(0) };
                        world.handle(Event::Staged(index, checkpoint));
                    });
                }
            }
            if sink.to_commit.is_some() {
                push(&|world| {
                    let staged = world.sinks[index].to_commit.take().unwrap();
                    world.sinks[index].commit(&staged);
                    world.sinks[index].done = true;
                });
            }
            if sink.done {
                push(&|world| {
                    world.sinks[index].done = false;
                    world.handle(Event::Committed(index));
                });
            }
        }
        next.push(self.clone().kill(false));
        if self.saving.is_some() {
            next.push(self.clone().kill(true));
        }
        next
    }

    fn check(&self) {
        for (index, sink) in self.sinks.iter().enumerate() {
            let visible = sink.visible_through();
            let decided = self.document.as_ref().and_then(|document| document.consumers.get(&names(2)[index]));
            let decided_through = decided.map_or(0, |part| part.mark.position.commit());
            assert!(visible <= decided_through, "visible to {visible}, decided to {decided_through}");
            let by_log = self.kept == LogKept::OnDiskForSource;
            assert!(by_log || self.acknowledged.is_none_or(|acknowledged| acknowledged <= visible), "acknowledged what is not visible");
            if let Some(part) = decided {
                assert_eq!(part.rows.values().sum::<u64>(), decided_through, "rows are counted exactly");
            }
        }
        let resume = self.document.as_ref().and_then(|document| document.resume()).map(|mark| mark.position.commit());
        if self.kept != LogKept::InMemory {
            assert!(self.acknowledged.is_none_or(|acknowledged| acknowledged <= self.logged), "acknowledged what is not in the log");
        }
        assert!(self.acknowledged.is_none() || resume >= self.acknowledged, "resume at {resume:?} after {:?}", self.acknowledged);
    }

    fn is_finished(&self) -> bool {
        let logged = self.kept == LogKept::InMemory || self.logged == self.log_end;
        logged && self.machine.is_idle() && self.sinks.iter().all(|sink| sink.visible_through() == self.log_end && !sink.done)
    }
}

#[test]
fn every_order_of_events_with_a_kill_at_every_place_lands_everything_once() {
    search(World::new(2, 3, LogKept::InMemory));
}

#[test]
fn with_a_log_on_disk_every_order_of_events_and_faults_lands_everything_once() {
    search(World::new(2, 2, LogKept::OnDisk));
    search(World::new(2, 2, LogKept::OnDiskForSource));
}

fn search(first: World) {
    let mut seen = HashSet::from([format!("{first:?}")]);
    let mut queue = VecDeque::from([first]);
    let mut finished = 0;
    while let Some(world) = queue.pop_front() {
        world.check();
        if world.is_finished() {
            finished += 1;
            // What the machine says at the end: nothing left to commit, everything acknowledged.
            let mut world = world.clone();
            assert_eq!(world.machine.committed().unwrap(), &mark(world.log_end));
            if let Some(Action::Save(document)) = world.machine.settle() {
                assert!(document.consumers.values().all(|part| part.staged.is_empty()));
                world.machine.handle(Event::Saved).unwrap();
            }
            assert_eq!(world.machine.settle(), None);
        } else {
            // Progress without a kill is possible from everywhere.
            assert!(world.next().len() > 1 + usize::from(world.saving.is_some()), "stuck: {world:?}");
        }
        for next in world.next() {
            if seen.insert(format!("{next:?}")) {
                queue.push_back(next);
            }
        }
    }
    assert!(finished > 0 && seen.len() > 1_000, "{finished} of {} states are an end", seen.len());
}

/// A stream with one destination, opened at 0 and committed through `through`.
fn landed(through: u64) -> World {
    let mut world = World::new(1, through, LogKept::InMemory);
    while !world.is_finished() {
        world = world.next().swap_remove(0);
    }
    world
}

#[test]
fn a_new_destination_begins_where_the_stream_resumes() {
    let document = landed(3).document.unwrap();
    let mut machine = Checkpoint::new("shop", Some(document), &names(2), LogKept::InMemory).unwrap();
    assert_eq!(machine.decided(1).unwrap().mark, mark(3));
    assert_eq!(machine.resume(), Some(&mark(3)));
    // The next save of anybody gives it a part of its own.
    let checkpoint = StagedCheckpoint { mark: mark(4), staged: vec![], rows: BTreeMap::new(), staged_at: TimestampMicros(1) };
    machine.handle(Event::Opened(mark(3))).unwrap();
    let actions = machine.handle(Event::Staged(0, checkpoint)).unwrap();
    let [Action::Save(document)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((document.consumers["d0"].mark.clone(), document.consumers["d1"].mark.clone()), (mark(4), mark(3)));
}

#[test]
fn a_removed_destination_does_not_hold_the_stream_back() {
    let mut document = landed(3).document.unwrap();
    let mut removed = document.consumers["d0"].clone();
    removed.mark = mark(1);
    removed.staged = vec![Staged(json!([0, 1]))];
    document.consumers.insert("old".into(), removed);
    let machine = Checkpoint::new("shop", Some(document), &names(1), LogKept::InMemory).unwrap();
    assert_eq!(machine.abandoned(), [("old".to_owned(), 1)]);
    assert_eq!(machine.resume(), Some(&mark(3)));
}

#[test]
fn renaming_the_only_destination_resumes_where_the_old_one_was() {
    let document = landed(3).document.unwrap();
    let machine = Checkpoint::new("shop", Some(document), &["renamed".to_owned()], LogKept::InMemory).unwrap();
    assert_eq!(machine.resume(), Some(&mark(3)));
}

#[test]
fn the_document_of_another_stream_is_refused() {
    let document = landed(1).document;
    assert_eq!(Checkpoint::new("other", document, &names(1), LogKept::InMemory).unwrap_err().kind(), logweir_core::ErrorKind::Config);
}

#[test]
fn relations_are_kept_as_long_as_a_resumed_reader_may_meet_them() {
    let relation = |table: &str, version: u32, since: u64| {
        let field = Arc::new(Field::new(format!("c{version}"), DataType::Int32, true));
        let column = Column { field, source_type: "int".into(), detail: serde_json::Value::Null };
        Arc::new(Relation::new(RelationName::new("shop", table), version, mark(since).position, vec![column], vec![]))
    };
    let mut world = World::new(2, 3, LogKept::InMemory);
    for (table, version, since) in [("orders", 1, 0), ("orders", 2, 1), ("orders", 3, 2), ("customers", 1, 0)] {
        world.handle(Event::Relation(relation(table, version, since)));
    }
    // d0 goes through to 3 while d1 stays at the beginning: everything may be met again.
    let kept = |world: &World| {
        let document = world.document.as_ref().unwrap();
        document.relations.iter().map(|relation| format!("{} {}", relation.name().table, relation.version())).collect::<Vec<_>>()
    };
    let stage = |world: &mut World, index: usize, through: u64| {
        let checkpoint = StagedCheckpoint { mark: mark(through), staged: vec![], rows: BTreeMap::new(), staged_at: TimestampMicros(0) };
        world.handle(Event::Staged(index, checkpoint));
        while let Some(document) = world.saving.take() {
            world.document = Some(document);
            world.handle(Event::Saved);
        }
        world.handle(Event::Committed(index));
    };
    stage(&mut world, 0, 3);
    assert_eq!(kept(&world), ["customers 1", "orders 1", "orders 2", "orders 3"]);
    stage(&mut world, 1, 1);
    assert_eq!(kept(&world), ["customers 1", "orders 2", "orders 3"]);
    stage(&mut world, 1, 3);
    assert_eq!(kept(&world), ["customers 1", "orders 3"]);
}

#[test]
fn events_that_cannot_come_are_refused() {
    let mut machine = Checkpoint::new("shop", None, &names(1), LogKept::InMemory).unwrap();
    let checkpoint = |place| StagedCheckpoint { mark: mark(place), staged: vec![], rows: BTreeMap::new(), staged_at: TimestampMicros(0) };
    assert!(machine.handle(Event::Saved).is_err());
    assert!(machine.handle(Event::Committed(0)).is_err());
    assert!(machine.handle(Event::Staged(0, checkpoint(1))).is_err(), "before the log was opened");
    machine.handle(Event::Opened(mark(2))).unwrap();
    assert!(machine.handle(Event::Staged(1, checkpoint(3))).is_err(), "unknown destination");
    assert!(machine.handle(Event::Staged(0, checkpoint(1))).is_err(), "behind its mark");
    machine.handle(Event::Staged(0, checkpoint(3))).unwrap();
    assert!(machine.handle(Event::Staged(0, checkpoint(4))).is_err(), "twice");
}
