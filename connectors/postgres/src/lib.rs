//! PostgreSQL and what speaks its protocol (AlloyDB, Cloud SQL, Aurora, Supabase, Neon): pgoutput straight into Arrow, and
//! the rows that were there before.

mod backfill;
mod before;
mod buffer;
mod carried;
mod catalog;
mod check;
mod decoder;
mod fill;
mod heartbeat;
mod live;
mod lsn;
mod message;
mod offset;
mod opening;
pub mod options;
mod publication;
mod questions;
mod quote;
mod server;
mod session;
mod slots;
pub mod source;
mod spool;
mod transactions;
#[doc(hidden)]
pub mod types;
mod watch;
#[doc(hidden)]
pub mod wire;

pub use backfill::backfill_progress;
pub use lsn::Lsn;
