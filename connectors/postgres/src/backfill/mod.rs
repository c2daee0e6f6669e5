//! The rows that were there before: read in chunks beside the log, and put into its order.
//!
//! A chunk is read while the log stands still at a mark, by a snapshot that holds every transaction before the mark; its rows
//! take positions right behind the mark. Whatever the log holds afterwards lies behind them and wins, also where the
//! snapshot has seen it already. Between two waves of chunks the log goes on.
//!
//! *Every transaction before the mark must be in the snapshot* is the whole of it, and the server does not promise that: a
//! transaction is visible only after its commit record is written, under synchronous replication long after. So
//!
//! * a slot that is new hands out a snapshot that is exact at its beginning: while it is held, chunks need no other proof,
//!   and tables without a key, which cannot be merged, are read by such a snapshot only;
//! * any other snapshot is compared with the transactions that the log has shown to be committed: one of them that it still
//!   has under way makes it too early;
//! * the changes of a table that joins the publication are sent from then on, those of transactions that were under way at
//!   that moment perhaps not: its chunks wait until all of these have ended.
//!
//! A chunk is a range of blocks, or of the key (`key`): where blocks cannot be found without reading the whole table (before
//! 14), and where rows have values that the log leaves out when they did not change.

mod copy;
mod key;
mod plan;
mod progress;
mod standing;
mod state;
mod wave;

pub(crate) use copy::{CopyDecoder, CopyError};
pub(crate) use key::KeyPlace;
pub(crate) use plan::{Shapes, Survey, Surveyed, TablePlan, Way, copied, look_up, plan_tables, primary_key, survey};
pub(crate) use progress::PartProgress;
pub use progress::backfill_progress;
pub(crate) use standing::Parts;
pub(crate) use state::{BackfillState, PendingPart, Unverified};
pub(crate) use wave::{Chunk, Cut, Pool, Proof, Range, Wave, WaveEvent, Work};
