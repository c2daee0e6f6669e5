//! Where changes are kept between the source and the destinations, and for how long.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::units::{Size, Span};

/// Where changes are kept on their way.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ChangeLog {
    /// In memory only: the slowest destination holds up the others, and a fault of one restarts the stream.
    Memory,
    /// On disk.
    #[serde(untagged)]
    Disk(ChangeLogOptions),
}

/// How changes are kept on disk.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ChangeLogOptions {
    /// The directory; `STATE/STREAM/log` when left out. A relative path begins at the configuration file's directory. One stream writes there.
    pub(crate) dir: Option<PathBuf>,
    /// How it is compressed.
    pub(crate) compression: Compression,
    /// How much is kept for those who come later.
    pub(crate) retain: Retain,
}

/// How much of the changes is kept.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Retain {
    /// What is older goes.
    pub(crate) age: Span,
    /// What is more goes, the oldest first. The stream waits instead for a destination that is as far behind; with `acknowledge: log` only for
    /// one that works.
    pub(crate) size: Size,
}

impl Default for Retain {
    fn default() -> Self {
        Retain { age: Span(Duration::from_secs(24 * 60 * 60)), size: Size(1 << 30) }
    }
}

/// How changes on disk are compressed.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Compression {
    /// Not.
    None,
    /// Fast.
    #[default]
    Lz4,
    /// Small.
    Zstd,
}

/// When the source may forget a change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Acknowledge {
    /// When it is visible in every destination.
    #[default]
    Destination,
    /// When the change log on disk holds it: no destination makes the source keep its log. One that is broken for longer than `retain` needs a
    /// backfill.
    Log,
}
