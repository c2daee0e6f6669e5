//! Whole streams in simulation: killed at every step, in bad weather, beside a slow destination, fenced, drained.
//!
//! What must hold is always the same: a destination shows the log's beginning, every change once under its position; at
//! the end, all of it; nothing became visible that was not decided; the source forgot nothing that is not visible.

use std::sync::Arc;
use std::time::Duration;

use logweir_core::{ChangeBatch, Clock, ErrorKind, Relation, Result, Transform};
use logweir_runtime::{Acknowledge, Shutdown, StreamProgress, StreamState, no_transforms, run_stream};
use logweir_tests::sim::{Ending, Life, Setting, SimLog, World, simulate};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Seeds of each randomised test; `LOGWEIR_SIM_SEEDS` asks for more.
fn seeds() -> std::ops::Range<u64> {
    0..std::env::var("LOGWEIR_SIM_SEEDS").map_or(150, |seeds| seeds.parse().expect("LOGWEIR_SIM_SEEDS is a number"))
}

/// The error of a stream that was to end with one.
fn error_of(ending: Ending) -> logweir_core::Error {
    match ending {
        Ending::Returned(Err(error)) => error,
        other => panic!("the stream ended otherwise: {other:?}"),
    }
}

fn assert_done(ending: &Ending) {
    assert!(matches!(ending, Ending::Returned(Ok(()))), "{ending:?}");
}

#[test]
fn killed_at_every_step_nothing_is_missing_or_twice() {
    for on_disk in [None, Some(Acknowledge::Destination), Some(Acknowledge::Log)] {
        killed_at_every_step(Setting { transactions: 14, slow: Some(1), on_disk, ..Setting::default() });
    }
}

fn killed_at_every_step(setting: Setting) {
    let mut kill_at = 1;
    loop {
        let mut finished = false;
        simulate(kill_at, |_| {
            let setting = setting.clone();
            let finished = &mut finished;
            async move {
                // The same world every time: only the step differs.
                let world = World::new(7, setting);
                let (ending, _) = world.live(Some(kill_at)).await;
                match ending {
                    Ending::Returned(result) => {
                        result.unwrap();
                        *finished = true;
                    }
                    Ending::Killed => {
                        world.assert_nothing_twice();
                        assert_done(&world.live(None).await.0);
                    }
                }
                world.assert_landed(14);
                world.assert_tables();
            }
        });
        if finished {
            break;
        }
        kill_at += 1;
    }
    assert!(kill_at > 60, "a stream of 14 transactions has more than {kill_at} steps");
}

#[test]
fn killed_again_and_again_in_bad_weather_everything_lands_once() {
    for seed in seeds() {
        simulate(seed, |seed| async move {
            let mut rng = StdRng::seed_from_u64(seed);
            let setting = Setting {
                transactions: rng.random_range(1..120),
                destinations: rng.random_range(1..4),
                slow: rng.random_bool(0.5).then_some(0),
                weather_per_mille: [0, 2, 10, 40][rng.random_range(0..4)],
                live: rng.random_bool(0.5),
                memory_bytes: [16 * 1024, 64 * 1024, 1 << 20][rng.random_range(0..3)],
                on_disk: [None, Some(Acknowledge::Destination), Some(Acknowledge::Log)][rng.random_range(0..3)],
                ..Setting::default()
            };
            let world = World::new(seed, setting);
            for _ in 0..rng.random_range(0..10) {
                let (ending, _) = world.live(Some(rng.random_range(1..300))).await;
                if let Ending::Returned(result) = ending {
                    result.unwrap();
                    break;
                }
                world.assert_nothing_twice();
                if world.setting.on_disk.is_some() && rng.random_bool(0.5) {
                    world.damage_log();
                }
            }
            assert_done(&world.live(None).await.0);
            world.assert_landed(world.setting.transactions);
            world.assert_tables();
            for lake in world.lakes.iter() {
                assert_eq!(lake.staged_files(), 0, "nothing is left over");
            }
            // At a clean end the document holds no token: a file moved away afterwards is not missed.
            assert!(!world.disk.document_holds("\"file\""));
        });
    }
}

#[test]
fn before_an_error_of_the_source_everything_whole_is_landed() {
    for seed in seeds() {
        simulate(seed, |seed| async move {
            let mut rng = StdRng::seed_from_u64(seed);
            let bad = rng.random_range(0..40);
            let setting = Setting {
                transactions: 40,
                slow: rng.random_bool(0.5).then_some(0),
                weather_per_mille: [0, 5][rng.random_range(0..2)],
                bad_transaction: Some(bad),
                on_disk: [None, Some(Acknowledge::Destination), Some(Acknowledge::Log)][rng.random_range(0..3)],
                ..Setting::default()
            };
            let world = World::new(seed, setting);
            assert_eq!(error_of(world.live(None).await.0).kind(), ErrorKind::Data);
            // Not less than the last mark before the fault, in every destination alike; nothing of the bad transaction.
            let least = world.before_fault().map_or(0, |mark| world.log.after(mark));
            for destination in 0..2 {
                let landed = world.landed_transactions(destination);
                let (shown, wanted) = (world.log.changes(landed).len(), world.log.changes(least).len());
                assert!(shown >= wanted && landed <= bad, "{landed} transactions of {least} to {bad}");
            }
            world.assert_blameless();
            // Mended, the stream goes on.
            let mended = mend(&world);
            assert_done(&mended.live(None).await.0);
            mended.assert_landed(40);
        });
    }
}

/// The same world with a source that can be read to its end.
fn mend(world: &Arc<World>) -> Arc<World> {
    world.with_setting(Setting { bad_transaction: None, bad_row: None, ..world.setting.clone() })
}

#[test]
fn before_an_error_of_a_destination_everything_whole_is_landed() {
    for seed in seeds() {
        simulate(seed, |seed| async move {
            let mut rng = StdRng::seed_from_u64(seed);
            let log = Arc::new(SimLog::new(seed, 40));
            let rows = log.changes(40);
            let bad_row = rows[rng.random_range(0..rows.len())].position;
            let bad = log.after(bad_row);
            let setting = Setting {
                transactions: 40,
                slow: rng.random_bool(0.5).then_some(0),
                bad_row: Some(bad_row),
                on_disk: [None, Some(Acknowledge::Destination), Some(Acknowledge::Log)][rng.random_range(0..3)],
                ..Setting::default()
            };
            let world = World::with_log(seed, setting, log);
            assert_eq!(error_of(world.live(None).await.0).kind(), ErrorKind::Data);
            for destination in 0..2 {
                assert!(world.landed_transactions(destination) <= bad);
            }
            world.assert_blameless();
            let mended = mend(&world);
            assert_done(&mended.live(None).await.0);
            mended.assert_landed(40);
        });
    }
}

#[test]
fn a_drain_lands_what_was_read_and_the_next_start_goes_on() {
    for seed in seeds() {
        simulate(seed, |seed| async move {
            let mut rng = StdRng::seed_from_u64(seed);
            let world = World::new(seed, Setting::default());
            assert_done(&drained(&world, Duration::from_millis(rng.random_range(0..8_000))).await);
            let landed: Vec<_> = (0..2).map(|destination| world.lakes[destination].rows().len()).collect();
            assert_eq!(landed[0], landed[1], "a drain ends where every destination has everything");
            world.assert_blameless();
            assert_done(&world.live(None).await.0);
            world.assert_landed(60);
        });
    }
}

/// Lives until a shutdown is requested after some time.
async fn drained(world: &Arc<World>, after: Duration) -> Ending {
    let shutdown = Shutdown::new();
    let (clock, request) = (world.clock, shutdown.clone());
    let ask = async move {
        clock.sleep(after).await;
        request.request();
    };
    tokio::join!(world.live_with(None, no_transforms(), shutdown), ask).0.0
}

#[test]
fn a_drain_that_a_slow_destination_holds_up_is_given_up_in_time_and_loses_nothing() {
    simulate(3, |seed| async move {
        let world = World::new(seed, Setting { slow: Some(1), memory_bytes: 1 << 24, ..Setting::default() });
        let began = world.clock.now();
        let error = error_of(drained(&world, Duration::from_secs(5)).await);
        assert_eq!(error.get_context("seconds"), Some("60"), "{error}");
        let took = world.clock.now().since(began);
        assert!((Duration::from_secs(65)..Duration::from_secs(75)).contains(&took), "{took:?}");
        assert_done(&world.live(None).await.0);
        world.assert_landed(60);
    });
}

#[test]
fn of_two_processes_the_older_is_fenced_and_nothing_lands_twice() {
    for seed in seeds() {
        simulate(seed, |seed| async move {
            let mut rng = StdRng::seed_from_u64(seed);
            let world = World::new(seed, Setting { transactions: 80, ..Setting::default() });
            let later = Duration::from_millis(rng.random_range(0..4_000));
            let clock = world.clock;
            let newer = async {
                clock.sleep(later).await;
                world.live(None).await.0
            };
            let ((older, _), newer) = tokio::join!(world.live(None), newer);
            assert_done(&newer);
            match older {
                // It had ended before the newer began, or had nothing more to save.
                Ending::Returned(Ok(())) => {}
                other => assert_eq!(error_of(other).kind(), ErrorKind::Fenced),
            }
            world.assert_landed(80);
        });
    }
}

#[test]
fn a_slow_destination_does_not_hold_back_the_other_within_the_change_log() {
    simulate(1, |seed| async move {
        let world = World::new(seed, Setting { transactions: 40, slow: Some(0), memory_bytes: 1 << 24, ..Setting::default() });
        let stream = world.live(None);
        let (clock, watched) = (world.clock, Arc::clone(&world));
        let watch = async move {
            loop {
                clock.sleep(Duration::from_millis(100)).await;
                let landed = |destination: usize| watched.lakes[destination].rows().len();
                if landed(1) == watched.log.changes(40).len() {
                    return landed(0);
                }
            }
        };
        let ((ending, _), slow_had) = tokio::join!(stream, watch);
        assert_done(&ending);
        assert!(slow_had < world.log.changes(40).len(), "the fast one ended first");
        world.assert_landed(40);
    });
}

#[test]
fn with_a_change_log_on_disk_a_broken_destination_holds_up_nobody() {
    for (seed, acknowledge) in (0..8).zip([Acknowledge::Destination, Acknowledge::Log].into_iter().cycle()) {
        simulate(seed, |seed| async move {
            let setting = Setting {
                transactions: 150,
                memory_bytes: [32 * 1024, 1 << 20][seed as usize / 2 % 2],
                on_disk: Some(acknowledge),
                outage: Some((0, Duration::from_secs(3600))),
                ..Setting::default()
            };
            let world = World::new(seed, setting);
            let (clock, watched) = (world.clock, Arc::clone(&world));
            let watch = async move {
                let began = clock.now();
                while watched.lakes[1].rows().len() < watched.log.changes(150).len() {
                    clock.sleep(Duration::from_secs(1)).await;
                }
                assert!(clock.now().since(began) < Duration::from_secs(1800), "it did not wait for the other");
                clock.sleep(Duration::from_secs(60)).await;
                assert_eq!(watched.lakes[0].rows().len(), 0);
                let forgotten = watched.forgotten().map_or(0, |position| watched.log.after(position));
                assert_eq!(forgotten, if acknowledge == Acknowledge::Log { 150 } else { 0 });
            };
            let ((ending, _), ()) = tokio::join!(world.live(None), watch);
            assert_done(&ending);
            world.assert_landed(150);
        });
    }
}

#[test]
fn a_destination_that_is_behind_what_is_kept_is_told_so_or_waited_for() {
    for (seed, acknowledge) in (0..4).zip([Acknowledge::Destination, Acknowledge::Log].into_iter().cycle()) {
        simulate(seed, |seed| async move {
            let setting = Setting {
                transactions: 1500,
                memory_bytes: 1 << 20,
                on_disk: Some(acknowledge),
                // Less than a segment, of which there are two at least.
                retain_bytes: 1 << 20,
                outage: Some((0, Duration::from_secs(1200))),
                ..Setting::default()
            };
            let world = World::new(seed, setting);
            let (ending, _) = world.live(None).await;
            if acknowledge == Acknowledge::Log {
                let error = error_of(ending);
                assert_eq!((error.kind(), error.get_context("destination")), (ErrorKind::LogGone, Some("d0")), "{error}");
                assert_eq!(world.lakes[1].rows().len(), world.log.changes(1500).len());
                assert_eq!(world.lakes[0].rows().len(), 0);
                world.assert_blameless();
            } else {
                assert_done(&ending);
                world.assert_landed(1500);
            }
        });
    }
}

#[test]
fn what_cannot_be_reached_at_the_start_is_tried_for_the_connect_timeout_only() {
    simulate(1, |seed| async move {
        let world = World::new(seed, Setting { weather_per_mille: 1000, ..Setting::default() });
        let began = world.clock.now();
        assert_eq!(error_of(world.live(None).await.0).kind(), ErrorKind::Transient);
        let took = world.clock.now().since(began);
        assert!((Duration::from_secs(600)..Duration::from_secs(640)).contains(&took), "{took:?}");
    });
}

/// Keeps the changes of one table, and counts how often each version is planned.
struct OnlyTable {
    table: &'static str,
    planned: std::collections::HashSet<(String, u32)>,
}

impl Transform for OnlyTable {
    fn output(&mut self, relation: &Arc<Relation>) -> Result<Vec<Arc<Relation>>> {
        assert!(self.planned.insert((relation.name().to_string(), relation.version())), "planned twice");
        Ok(if relation.name().table == self.table { vec![Arc::clone(relation)] } else { Vec::new() })
    }

    fn apply(&self, batch: ChangeBatch) -> Result<Vec<ChangeBatch>> {
        assert!(self.planned.contains(&(batch.relation.name().to_string(), batch.relation.version())), "not planned");
        Ok(if batch.relation.name().table == self.table { vec![batch] } else { Vec::new() })
    }
}

#[test]
fn what_a_transform_drops_lands_nowhere_and_holds_nothing_up() {
    for seed in 0..20 {
        simulate(seed, |seed| async move {
            let world = World::new(seed, Setting { weather_per_mille: 5, ..Setting::default() });
            let transforms = Arc::new(|| Ok(vec![Box::new(OnlyTable { table: "t1", planned: Default::default() }) as Box<dyn Transform>]));
            // The watch over forgetting counts whole transactions, so it is asked for blame only without a transform.
            let (ending, _) = world.live_with(None, transforms, Shutdown::new()).await;
            assert_done(&ending);
            let mut expected = world.log.changes(60);
            expected.retain(|change| change.table == 1);
            for lake in world.lakes.iter() {
                assert_eq!(lake.rows(), expected);
            }
        });
    }
}

struct Panics;

impl Transform for Panics {
    fn output(&mut self, relation: &Arc<Relation>) -> Result<Vec<Arc<Relation>>> {
        Ok(vec![Arc::clone(relation)])
    }

    fn apply(&self, _: ChangeBatch) -> Result<Vec<ChangeBatch>> {
        panic!("a mistake of ours")
    }
}

#[test]
fn a_panic_in_a_task_ends_the_stream_with_an_error() {
    simulate(1, |seed| async move {
        let world = World::new(seed, Setting::default());
        let transforms = Arc::new(|| Ok(vec![Box::new(Panics) as Box<dyn Transform>]));
        let error = error_of(world.live_with(None, transforms, Shutdown::new()).await.0);
        assert_eq!(error.kind(), ErrorKind::Internal, "{error:?}");
        assert!(!error.report().contains("a mistake of ours"), "a panic's text may hold values");
        // What was wrong is put right, and nothing was lost by it.
        assert_done(&world.live(None).await.0);
        world.assert_landed(60);
    });
}

#[test]
fn progress_tells_what_was_read_and_landed_also_over_a_restart() {
    simulate(3, |seed| async move {
        let world = World::new(seed, Setting { transactions: 80, ..Setting::default() });
        let total = world.log.changes(80).len() as u64;
        // Late enough that something has landed.
        let (ending, _) = world.live(Some(220)).await;
        assert!(matches!(ending, Ending::Killed), "{ending:?}");
        let landed_before = world.lakes[0].rows().len() as u64;
        assert!(landed_before > 0 && landed_before < total, "{landed_before} of {total}");
        let life = Life::new(&world, None);
        let progress = Arc::new(StreamProgress::new("sim"));
        let spec = world.spec(&life, no_transforms());
        run_stream(spec, Arc::new(world.clock), Shutdown::new(), Arc::clone(&progress)).await.unwrap();
        let snapshot = progress.snapshot();
        assert_eq!(snapshot.state, StreamState::Stopped);
        assert!(snapshot.rows_read_total() < total, "only what was not decided is read again");
        for consumer in &snapshot.consumers {
            assert_eq!(consumer.rows_landed_total(), total, "rows are counted over restarts");
            assert_eq!(consumer.position, Some(world.log.end().position));
            assert!(consumer.freshness(world.clock.now()).is_some());
        }
        assert_eq!(snapshot.memory_budget_bytes, 256 * 1024 / 100 * 45 / 1024 * 1024 + 1024);
    });
}
