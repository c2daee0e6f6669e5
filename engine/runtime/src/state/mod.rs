//! State stores: where the checkpoint document is kept.

mod local;
mod object;

pub use local::LocalStateStore;
pub use object::ObjectStateStore;

use logweir_core::{Error, Result};

/// The longest stream name: it is part of a path.
const NAME_BYTES_MAX: usize = 200;

/// A stream's name is a directory of its store, so it must be fit for one everywhere.
fn check_stream_name(stream: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if stream.is_empty() || stream.len() > NAME_BYTES_MAX || stream.starts_with('.') || !stream.chars().all(plain) {
        return Err(Error::config("a stream's name must be letters, digits, '-', '_' and '.', not beginning with '.'")
            .context("stream", stream)
            .remedy("rename the stream"));
    }
    Ok(())
}

/// Who we are, for the message that another owner gets to read.
pub(crate) fn holder() -> String {
    // Informative only: a machine without the file is still told apart by the process id.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("process {} on {}", std::process::id(), if host.is_empty() { "this machine" } else { host })
}
