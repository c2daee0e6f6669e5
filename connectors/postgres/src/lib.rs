//! PostgreSQL and what speaks its protocol (AlloyDB, Cloud SQL, Aurora, Supabase, Neon): pgoutput straight into Arrow, and
//! the rows that were there before.

mod lsn;
pub mod options;
#[doc(hidden)]
pub mod types;
#[doc(hidden)]
pub mod wire;

pub use lsn::Lsn;
