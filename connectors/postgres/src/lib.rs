//! PostgreSQL and what speaks its protocol (AlloyDB, Cloud SQL, Aurora, Supabase, Neon): pgoutput straight into Arrow, and
//! the rows that were there before.

mod carried;
mod catalog;
mod check;
mod lsn;
pub mod options;
mod publication;
mod slots;
pub mod source;
#[doc(hidden)]
pub mod types;
#[doc(hidden)]
pub mod wire;

pub use lsn::Lsn;
