//! Runs streams: reads a source's log, transforms it, and lands it in every destination, exactly once.
//!
//! A stream is a reader task, a [change log](changelog), a consumer task per destination, and one coordinator that owns
//! the state store and drives the [checkpoint] state machine. The reader and the destinations meet only in
//! the change log; they agree on how far the stream is only in the checkpoint document, replaced whole. Whatever fails,
//! the way back is the same as after a crash: everything is dropped, and the stream begins again at the document.
//!
//! Time comes from [`Clock`](logweir_core::Clock) and chance from a seed, so that a simulation can replay a failure.

pub mod changelog;
pub mod checkpoint;
mod consumer;
mod instruments;
mod pipeline;
mod progress;
mod reader;
mod recorder;
mod retry;
mod shutdown;
pub mod state;
mod stream;

pub use pipeline::{DRAIN_TIMEOUT, STOP_TIMEOUT};
pub use progress::{ConsumerProgress, Lag, LogProgress, ProgressSnapshot, StreamProgress, StreamState};
pub use retry::Backoff;
pub use shutdown::Shutdown;
pub use stream::{Acknowledge, ChangeLogSpec, Destination, StreamSpec, TransformFactory, no_transforms, run_stream};
