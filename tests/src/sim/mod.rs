//! A simulation of whole streams: a seeded log, destinations and a state store that fail and stall by chance, and a
//! process that is killed at any step, on one thread and in no real time.
//!
//! A failure is replayed by its seed: time is tokio's paused clock, chance comes from the seed, and nothing else is
//! left to differ. What survives a kill is in the [`World`]; what does not is a [`Life`].

mod clock;
mod log;
mod run;
mod sink;
mod source;
mod store;

pub use clock::SimClock;
pub use log::{Change, SimLog, Transaction};
pub use run::{Ending, Life, Setting, World, simulate};
pub use sink::{Lake, Row, SimSink};
pub use source::SimSource;
pub use store::{Disk, SimStore};
