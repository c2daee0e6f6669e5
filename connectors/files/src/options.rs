//! What a person configures about a files destination.

use std::collections::BTreeMap;
use std::time::Duration;

use logweir_core::{Error, Pattern, Result};
use url::Url;

use crate::layout::PathTemplate;

const MIB: u64 = 1024 * 1024;

/// Below this a file is mostly footer, and a store is mostly requests.
const ROTATE_BYTES_MIN: u64 = MIB;

/// S3 takes no object above 5 TiB; nobody wants to read one of a tenth of that either.
const ROTATE_BYTES_MAX: u64 = 64 * 1024 * MIB;

/// A files destination of one stream.
#[derive(Clone)]
pub struct FilesOptions {
    /// Where: `file:///data/lake`, `s3://bucket/prefix`.
    pub url: Url,
    /// Options of the store by `object_store`'s own names (`endpoint`, `region`, `allow_http`, `access_key_id`, …).
    pub options: BTreeMap<String, String>,
    /// The stream's name: the beginning of every file name.
    pub stream: String,
    /// The folders below `url`: a template of `{schema} {table} {stream} {yyyy} {mm} {dd} {hh}`.
    pub path: String,
    /// How long changes may wait to become visible.
    pub rotate_interval: Duration,
    /// A file is finished when it reaches this size.
    pub rotate_bytes: u64,
    /// The zstd level of the files, 1 to 22.
    pub compression_level: i32,
    /// Patterns over `schema.table` in the source: the tables whose files say what updated rows were before.
    pub before_images: Vec<Pattern>,
}

impl FilesOptions {
    /// The folders of `layout: flat`, Hive style, which every lake reader prunes by.
    pub const DEFAULT_PATH: &'static str = "{schema}/{table}/dt={yyyy}-{mm}-{dd}/";
    /// See [`FilesOptions::rotate_interval`].
    pub const DEFAULT_ROTATE_INTERVAL: Duration = Duration::from_secs(30);
    /// See [`FilesOptions::rotate_bytes`].
    pub const DEFAULT_ROTATE_BYTES: u64 = 128 * MIB;
    /// Measured by `benches/src/bin/encode.rs` on two cores: level 3 makes files 1.3 % smaller than level 1 for 26 % more CPU (0.56
    /// against 0.44 CPU-seconds per million rows), and the engine shares its cores with the decoder.
    pub const DEFAULT_COMPRESSION_LEVEL: i32 = 1;

    /// The defaults, for a stream that lands at `url`.
    pub fn new(url: Url, stream: impl Into<String>) -> Self {
        FilesOptions {
            url,
            options: BTreeMap::new(),
            stream: stream.into(),
            path: Self::DEFAULT_PATH.to_owned(),
            rotate_interval: Self::DEFAULT_ROTATE_INTERVAL,
            rotate_bytes: Self::DEFAULT_ROTATE_BYTES,
            compression_level: Self::DEFAULT_COMPRESSION_LEVEL,
            before_images: Vec::new(),
        }
    }

    /// Checks what can be checked without opening anything, and parses the path.
    pub(crate) fn validate(&self) -> Result<PathTemplate> {
        if self.stream.is_empty() {
            return Err(Error::config("a files destination needs the name of its stream"));
        }
        if self.rotate_interval.is_zero() {
            return Err(Error::config("rotate interval must be above zero").remedy("write for example `rotate: { interval: 30s }`"));
        }
        if !(ROTATE_BYTES_MIN..=ROTATE_BYTES_MAX).contains(&self.rotate_bytes) {
            return Err(Error::config("rotate size is out of range")
                .context("bytes", self.rotate_bytes)
                .remedy("choose a size from 1MiB to 64GiB, for example `rotate: { size: 128MiB }`"));
        }
        if !(1..=22).contains(&self.compression_level) {
            return Err(Error::config("compression level is out of range")
                .context("level", self.compression_level)
                .remedy("zstd knows the levels 1 to 22"));
        }
        PathTemplate::parse(&self.path)
    }
}

/// Options may hold credentials, so only their names are shown.
impl std::fmt::Debug for FilesOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilesOptions")
            .field("url", &self.url.as_str())
            .field("options", &self.options.keys().collect::<Vec<_>>())
            .field("stream", &self.stream)
            .field("path", &self.path)
            .field("rotate_interval", &self.rotate_interval)
            .field("rotate_bytes", &self.rotate_bytes)
            .field("compression_level", &self.compression_level)
            .finish()
    }
}
