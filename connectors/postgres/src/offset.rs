//! Where to go on in a write-ahead log: what a mark of this connector holds.

use logweir_core::{Error, Incarnation, LogMark, Result, SourceOffset};
use serde::{Deserialize, Serialize};

use crate::backfill::BackfillState;
use crate::lsn::Lsn;

/// The [`SourceOffset`] of a logical replication slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PostgresOffset {
    /// Everything that committed before this place has been passed.
    pub(crate) lsn: Lsn,
    /// Where the last transaction with followed changes ended: what lies between there and `lsn` was of no interest.
    #[serde(default)]
    pub(crate) changed: Lsn,
    /// The log must be sent again from here, if that is before `lsn`: transactions were prepared and not decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hold: Option<Lsn>,
    /// How often the log had moved to another server or started over.
    pub(crate) incarnation: Incarnation,
    /// The cluster, as IDENTIFY_SYSTEM names it.
    pub(crate) system: String,
    /// The cluster's timeline: each promotion begins a new one.
    pub(crate) timeline: u32,
    /// The rows that were there before: which were read, which were not.
    #[serde(default, skip_serializing_if = "BackfillState::is_idle")]
    pub(crate) backfill: BackfillState,
}

impl PostgresOffset {
    /// Reads the offset of a mark.
    pub(crate) fn of(mark: &LogMark) -> Result<Self> {
        PostgresOffset::deserialize(&mark.offset.0).map_err(|error| {
            Error::corrupt("the checkpoint does not hold a place in a write-ahead log")
                .source(error)
                .remedy("start the stream anew, or restore the state it was started with")
        })
    }

    /// The offset as the engine carries it.
    pub(crate) fn to_source_offset(&self) -> Result<SourceOffset> {
        serde_json::to_value(self)
            .map(SourceOffset)
            .map_err(|error| Error::internal("could not write a place in a write-ahead log").source(error))
    }

    /// Where the server is asked to begin, and what it may forget: everything before.
    pub(crate) fn begin(&self) -> Lsn {
        self.hold.map_or(self.lsn, |hold| hold.min(self.lsn))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::decoder::mark_position;

    #[test]
    fn an_offset_survives_the_checkpoint() {
        let offset = PostgresOffset {
            lsn: "16/B374D848".parse().unwrap(),
            changed: Lsn(5),
            hold: Some("16/B3000000".parse().unwrap()),
            incarnation: 2,
            system: "7301234567890123456".into(),
            timeline: 3,
            backfill: BackfillState::default(),
        };
        let position = mark_position(offset.incarnation, offset.lsn);
        let mark = LogMark { position, offset: offset.to_source_offset().unwrap(), commit_time: None };
        assert_eq!(PostgresOffset::of(&mark).unwrap(), offset);
        assert_eq!(offset.begin().to_string(), "16/B3000000");
        assert!(PostgresOffset::of(&LogMark { offset: SourceOffset(serde_json::json!({ "file": "a" })), ..mark }).is_err());
    }
}
