//! Where to go on in a binlog: what a mark of this connector holds.
//!
//! File and position reopen the same server exactly; the GTID state finds the place on another one, whose files and offsets
//! do not compare. The tables whose shape must be asked again are part of the place too: after a DDL statement the old
//! shape must not come back with a restart.

use logweir_core::{Error, Incarnation, LogMark, LogPosition, RelationName, Result, SourceOffset};
use serde::{Deserialize, Serialize};

use crate::gtid::{MariadbGtidPosition, MysqlGtidSet};

/// The transactions that lie before a place in the log, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GtidState {
    /// MySQL: every transaction executed so far.
    Mysql(MysqlGtidSet),
    /// MariaDB: the last transaction of each domain.
    Mariadb(MariadbGtidPosition),
}

/// The [`SourceOffset`] of a binlog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BinlogOffset {
    /// Name of the file, without directories.
    pub file: String,
    /// Where the next transaction begins.
    pub position: u64,
    /// How often the log had moved to another server or started over.
    pub incarnation: Incarnation,
    /// The transactions passed, where they are known to the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gtid: Option<GtidState>,
    /// The server that wrote the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Tables whose checkpointed shape a DDL statement made doubtful and whose new one was not met yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubtful: Vec<RelationName>,
}

impl BinlogOffset {
    /// Reads the offset of a mark.
    pub fn of(mark: &LogMark) -> Result<Self> {
        BinlogOffset::deserialize(&mark.offset.0).map_err(|error| {
            Error::corrupt("the checkpoint does not hold a place in a binlog")
                .source(error)
                .remedy("start the stream anew, or restore the state it was started with")
        })
    }

    /// The offset as the engine carries it.
    pub fn to_source_offset(&self) -> Result<SourceOffset> {
        serde_json::to_value(self).map(SourceOffset).map_err(|error| Error::internal("could not write a place in a binlog").source(error))
    }

    /// The position of a mark at this offset.
    pub fn log_position(&self) -> Result<LogPosition> {
        Ok(LogPosition::new(self.incarnation, file_number(&self.file)?, self.position, 0, false))
    }
}

/// The number behind the last dot of a binlog file's name, which orders the files of a server.
pub fn file_number(file: &str) -> Result<u32> {
    file.rsplit_once('.')
        .and_then(|(_, number)| number.parse().ok())
        .ok_or_else(|| Error::config("the name of a binlog file must end in a dot and the file's number").context("file", file))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_survives_the_checkpoint() {
        let offset = BinlogOffset {
            file: "mysql-bin.000012".into(),
            position: 5_000_000_000,
            incarnation: 2,
            gtid: None,
            server: Some("0f0a".into()),
            doubtful: vec![RelationName::new("shop", "orders")],
        };
        let mark = LogMark { position: offset.log_position().unwrap(), offset: offset.to_source_offset().unwrap(), commit_time: None };
        assert_eq!(BinlogOffset::of(&mark).unwrap(), offset);
        assert_eq!(mark.position, LogPosition::new(2, 12, 5_000_000_000, 0, false));
    }

    #[test]
    fn file_numbers() {
        assert_eq!(file_number("a.b.1000001").unwrap(), 1_000_001);
        for name in ["binlog", "binlog.", "binlog.x1", "binlog.99999999999", ""] {
            assert!(file_number(name).is_err(), "{name}");
        }
    }
}
