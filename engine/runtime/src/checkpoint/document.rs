//! The checkpoint document: one per stream, replaced whole. What it says is what was decided.
//!
//! JSON, because a person reads it in an emergency and it is small: schemas, and a line per destination. Its `format`
//! is raised when an older version could not read it; a newer version reads every older format.

use std::collections::BTreeMap;
use std::sync::Arc;

use logweir_core::{Column, Error, LogMark, LogPosition, Relation, RelationName, Result, Staged, TimestampMicros};
use serde::{Deserialize, Serialize};

/// The format this version writes, and the newest it reads.
pub const FORMAT: u32 = 1;

/// Everything a stream needs to go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointDocument {
    /// The format of the document.
    pub format: u32,
    /// The stream's name.
    pub stream: String,
    /// The source's relations: of each table the version that holds where the stream resumes, and every later one.
    pub relations: Vec<Arc<Relation>>,
    /// Columns of versions that are not among `relations` any more and that no version there has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<GoneColumns>,
    /// How far each destination is, by its name.
    pub consumers: BTreeMap<String, ConsumerCheckpoint>,
    /// How far the change log on disk is, where the stream keeps one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogCheckpoint>,
}

/// Columns that a table once had.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GoneColumns {
    /// The table.
    pub table: RelationName,
    /// The columns, each as it was last.
    pub columns: Vec<Column>,
}

/// How far a change log on disk is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogCheckpoint {
    /// Everything at or before it is durable in the log, and what lies behind it there does not count.
    pub mark: LogMark,
    /// By which rules its changes were made: [`StreamSpec::rules`](crate::StreamSpec::rules). An older version did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<String>,
}

/// How far one destination is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConsumerCheckpoint {
    /// Number of the decision, from 0, which is the place where the log was opened.
    pub epoch: u64,
    /// Everything at or before it is visible, once `staged` is committed.
    pub mark: LogMark,
    /// Decided and perhaps not yet visible: to be committed before anything else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub staged: Vec<Staged>,
    /// While something is staged: everything at or before it was visible before that was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible: Option<LogPosition>,
    /// Rows at or before the mark since the stream began, by relation.
    #[serde(default)]
    pub rows: BTreeMap<String, u64>,
    /// When it was decided, by our clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<TimestampMicros>,
}

impl ConsumerCheckpoint {
    /// Everything at or before it is visible, whether or not what was decided last has been committed yet.
    pub fn visible(&self) -> LogPosition {
        match (self.staged.is_empty(), self.visible) {
            (false, Some(visible)) => visible,
            // An older version did not say.
            (false, None) | (true, _) => self.mark.position,
        }
    }
}

impl CheckpointDocument {
    /// A document as it is kept.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).map_err(|error| Error::internal("a checkpoint could not be written as JSON").source(error))
    }

    /// Reads a document that this or an older version wrote.
    ///
    /// There is no older copy to fall back to, on purpose: an older decision would land changes a second time.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        const REMEDY: &str =
            "restore the document from a copy made after the stream's last run, or remove it to begin anew at the configured start";
        let corrupt = |error| Error::corrupt("the checkpoint document is not what logweir writes").source(error).remedy(REMEDY);
        let version: Version = serde_json::from_slice(bytes).map_err(corrupt)?;
        if version.format > FORMAT {
            return Err(Error::config("the checkpoint document was written by a newer version of logweir")
                .context("format", version.format)
                .context("newest known", FORMAT)
                .remedy("run that version or a newer one"));
        }
        serde_json::from_slice(bytes).map_err(corrupt)
    }

    /// Where the log of the source is opened again: behind what the change log holds, or else what every destination has passed.
    pub fn resume(&self) -> Option<&LogMark> {
        self.log.as_ref().map(|log| &log.mark).or_else(|| self.passed())
    }

    /// The tables, each in its newest version with the columns that it has lost at its end.
    pub fn recalled(&self) -> Vec<Arc<Relation>> {
        let gone = self.gone.iter().map(|gone| (&gone.table, gone.columns.as_slice()));
        recalled(self.relations.iter(), gone)
    }

    /// The mark that every destination has passed.
    pub fn passed(&self) -> Option<&LogMark> {
        self.consumers.values().map(|consumer| &consumer.mark).min_by_key(|mark| mark.position)
    }
}

/// Of each table its newest version, with the columns that it has lost at its end; `relations` and `gone` are what is known of it, `gone` the
/// oldest.
pub(super) fn recalled<'a>(
    relations: impl Iterator<Item = &'a Arc<Relation>>,
    gone: impl Iterator<Item = (&'a RelationName, &'a [Column])>,
) -> Vec<Arc<Relation>> {
    let mut versions: BTreeMap<&RelationName, Vec<&Arc<Relation>>> = BTreeMap::new();
    for relation in relations {
        versions.entry(relation.name()).or_default().push(relation);
    }
    let gone: BTreeMap<&RelationName, &[Column]> = gone.collect();
    let mut recalled = Vec::new();
    for (name, mut versions) in versions {
        versions.sort_by_key(|relation| std::cmp::Reverse(relation.version()));
        let Some((newest, older)) = versions.split_first() else { continue };
        let earlier = older.iter().flat_map(|relation| relation.columns()).chain(gone.get(name).into_iter().copied().flatten());
        recalled.push(Arc::new(newest.with_gone_columns(earlier)));
    }
    recalled
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use logweir_core::ErrorKind;

    use super::*;

    /// Written by the first version; it must be read for ever.
    const FORMAT_1: &str = include_str!("format_1.json");

    #[test]
    fn the_first_format_is_read() {
        let document = CheckpointDocument::from_bytes(FORMAT_1.as_bytes()).unwrap();
        assert_eq!(document.format, 1);
        assert_eq!(document.stream, "shop");
        assert_eq!(document.relations[0].name().to_string(), "shop.orders");
        assert_eq!(document.relations[0].key(), [0]);
        assert_eq!(document.consumers["lake"].rows["shop.orders"], 41);
        assert_eq!(document.consumers["lake"].staged.len(), 1);
        assert_eq!(document.resume().unwrap(), &document.consumers["archive"].mark);
        // What we write today is still that.
        let again = CheckpointDocument::from_bytes(&document.to_bytes().unwrap()).unwrap();
        assert_eq!(again, document);
    }

    #[test]
    fn other_bytes_are_refused_and_say_what_to_do() {
        for (bytes, kind) in [
            (&b""[..], ErrorKind::Corrupt),
            (b"{", ErrorKind::Corrupt),
            (b"{\"format\":1}", ErrorKind::Corrupt),
            (b"\xff\xfe", ErrorKind::Corrupt),
            (b"{\"format\":2,\"whatever\":[]}", ErrorKind::Config),
        ] {
            let error = CheckpointDocument::from_bytes(bytes).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.get_remedy().is_some());
        }
        let half = &FORMAT_1[..FORMAT_1.len() / 2];
        assert_eq!(CheckpointDocument::from_bytes(half.as_bytes()).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
