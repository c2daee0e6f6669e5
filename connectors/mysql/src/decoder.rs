//! Decodes a binlog into Arrow batches. No I/O: bytes in, events out.

use std::collections::VecDeque;
use std::sync::Arc;

use logweir_core::{Incarnation, LogEvent, LogMark, LogPosition, Relation, RelationName, Result, TableFilter, TimestampMicros};

use crate::catalog::TableShape;
use crate::offset::GtidState;

/// How a decoder is set up.
#[derive(Debug, Clone)]
pub struct DecoderOptions {
    /// The tables and columns wanted; others are skipped undecoded.
    pub tables: TableFilter,
    /// First word of every position.
    pub incarnation: Incarnation,
    /// The mark to go on from: positions, timestamps and versions continue from it.
    pub resume: Option<LogMark>,
    /// Relation versions known from the checkpoint.
    pub relations: Vec<Arc<Relation>>,
    /// True if a server can be asked for the shape of a table: then `decode` asks once for every table (and again after
    /// a DDL statement that may touch it). False for recordings.
    pub has_catalog: bool,
    /// Bytes held in builders at which batches are cut, at the end of the transaction.
    pub flush_bytes: usize,
    /// Bytes held in builders at which batches are cut even inside a transaction (without a mark).
    pub flush_bytes_max: usize,
    /// The transactions before the start, where they are known to the last one; marks then carry the state on. `None`: it
    /// is learned where a file begins, from the list every file begins with.
    pub gtid: Option<GtidState>,
    /// Changes at or before this position were handed out already (inside a transaction, before a fault) and are not
    /// decoded again.
    pub skip_through: Option<LogPosition>,
    /// The server's identity, put into marks.
    pub server: Option<String>,
}

/// What came of a call of [`BinlogDecoder::decode`].
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Every byte was taken (an incomplete event is kept until the rest of it comes).
    All,
    /// Nothing more is taken until [`BinlogDecoder::provide_shape`] was called for this relation; then call `decode`
    /// again with the bytes from `consumed` on.
    NeedsShape {
        /// The table.
        relation: RelationName,
        /// Bytes taken.
        consumed: usize,
    },
}

/// A binlog decoder: give it bytes in any cut, take events.
#[derive(Debug)]
pub struct BinlogDecoder {
    ready: VecDeque<LogEvent>,
}

impl BinlogDecoder {
    /// A decoder at the start of `file` (a binlog file's name, whose number after the last dot is part of every position),
    /// at `offset` in it. A file's magic number is skipped at offset 0.
    pub fn new(options: DecoderOptions, file: &str, offset: u64) -> Result<Self> {
        let _ = (options, file, offset);
        Ok(BinlogDecoder { ready: VecDeque::new() })
    }

    /// Goes on with the next recorded file; the previous one must have ended on an event boundary.
    pub fn next_file(&mut self, file: &str) -> Result<()> {
        let _ = file;
        Ok(())
    }

    /// Takes bytes of the log: the content of a binlog file, or the events of a network stream one after the other
    /// (without packet headers and status bytes). Any cut gives the same events. Before an error is returned,
    /// everything up to the last whole transaction, and a mark, is ready to be taken.
    pub fn decode(&mut self, bytes: &[u8], now: TimestampMicros) -> Result<Decoded> {
        let _ = (bytes, now);
        Ok(Decoded::All)
    }

    /// The answer to [`Decoded::NeedsShape`]; `None` if the table is no longer there.
    pub fn provide_shape(&mut self, relation: &RelationName, shape: Option<TableShape>) -> Result<()> {
        let _ = (relation, shape);
        Ok(())
    }

    /// Cuts batches at the end of the last whole transaction, if one ended since the last mark, and makes a mark.
    /// Inside a transaction it does nothing but that. True if anything became ready.
    pub fn flush(&mut self) -> Result<bool> {
        Ok(false)
    }

    /// A mark of the place that the log has been passed to: for an idle log, where nothing but events without rows went by.
    /// `None` inside a transaction, and while changes or events wait that must be handed out before.
    pub fn mark(&self) -> Option<LogMark> {
        None
    }

    /// The next event that is ready.
    pub fn next_event(&mut self) -> Option<LogEvent> {
        self.ready.pop_front()
    }
}
