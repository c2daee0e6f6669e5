//! Puts transactions together that the server sends before they are whole, and says when one is.
//!
//! * An ordinary transaction comes whole, between Begin and Commit, and goes straight on.
//! * A streamed one comes in blocks while it is under way, mixed with others; its messages wait in a spool until Stream
//!   Commit, and what its aborted subtransactions did is left out.
//! * A prepared one waits from its preparation until it is decided, which may be days. The server does not send it again
//!   once we have said that we have it, so until then the log is not acknowledged beyond its preparation.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use logweir_core::{Error, OpenTransaction, Result, TimestampMicros};

use crate::lsn::Lsn;
use crate::message::{self, Begin, Commit, tag};
use crate::spool::{Spool, SpoolReader};

/// What a message comes to.
pub(crate) enum Step {
    /// Of the transaction that is open, or a description: to be decoded now.
    Decode,
    /// A whole transaction begins.
    Begin(Begin),
    /// It ends.
    Commit(Commit),
    /// A transaction that waited became whole.
    Replay(Box<Replay>),
    /// Kept for later, or of no meaning for rows.
    Kept,
    /// Kept for later, or gone; nothing else commits before this place.
    Passed(Lsn),
}

/// A transaction that became whole, to be decoded from its spool.
pub(crate) struct Replay {
    pub(crate) begin: Begin,
    /// Where its commit record ends.
    pub(crate) end: Lsn,
    /// Its messages carry transaction ids.
    pub(crate) streamed: bool,
    pub(crate) reader: SpoolReader,
    pub(crate) aborted: Aborted,
}

/// Subtransactions whose changes the server took back.
#[derive(Debug, Default)]
pub(crate) struct Aborted(HashSet<u32>);

impl Aborted {
    /// True if a message is of such a subtransaction. Descriptions hold all the same.
    pub(crate) fn leaves_out(&self, subtransaction: u32, payload: &[u8]) -> bool {
        let describes = matches!(payload.first(), Some(&(tag::RELATION | tag::TYPE)));
        !describes && self.0.contains(&subtransaction)
    }
}

struct Waiting {
    spool: Spool,
    streamed: bool,
    aborted: Aborted,
}

struct PreparedTransaction {
    waiting: Waiting,
    /// Where its preparation stands in the log, and when it was.
    lsn: Lsn,
    time: TimestampMicros,
    xid: u32,
}

impl PreparedTransaction {
    fn new(waiting: Waiting, prepared: &message::Prepared<'_>) -> Self {
        PreparedTransaction { waiting, lsn: prepared.lsn, time: prepared.time, xid: prepared.xid }
    }
}

/// See the module.
pub(crate) struct Transactions {
    directory: Arc<PathBuf>,
    /// By transaction.
    streamed: HashMap<u32, Waiting>,
    /// The streamed transaction whose block is read.
    block: Option<u32>,
    /// The transaction whose preparation is read.
    preparing: Option<Spool>,
    /// By the name that the application gave.
    prepared: HashMap<String, PreparedTransaction>,
}

impl Transactions {
    /// `directory` is where transactions wait that are too large for memory.
    pub(crate) fn new(directory: Arc<PathBuf>) -> Self {
        Transactions { directory, streamed: HashMap::new(), block: None, preparing: None, prepared: HashMap::new() }
    }

    /// The place from which the log must be sent again if we end now, if it lies before what was passed.
    pub(crate) fn hold(&self) -> Option<Lsn> {
        self.prepared.values().map(|prepared| prepared.lsn).min()
    }

    /// Those that wait, by the place where they begin.
    pub(crate) fn open(&self) -> Vec<OpenTransaction> {
        let streamed = self.streamed.iter().map(|(xid, waiting)| (*xid, waiting, None));
        let prepared = self.prepared.values().map(|prepared| (prepared.xid, &prepared.waiting, Some(prepared)));
        let mut open: Vec<_> = streamed.chain(prepared).collect();
        // One that wrote nothing that is read begins where it was prepared.
        let begins = |waiting: &Waiting, prepared: Option<&PreparedTransaction>| {
            waiting.spool.extent().first.or(prepared.map(|prepared| prepared.lsn)).unwrap_or_default()
        };
        open.sort_by_key(|(xid, waiting, prepared)| (begins(waiting, *prepared), *xid));
        let shown = open.into_iter().map(|(xid, waiting, prepared)| OpenTransaction {
            transaction_id: xid.to_string(),
            prepared: prepared.is_some(),
            prepared_at: prepared.map(|prepared| prepared.time),
            position: begins(waiting, prepared).to_string(),
            messages: waiting.spool.extent().messages,
            bytes: waiting.spool.extent().bytes,
        });
        shown.collect()
    }

    /// Takes a message, and the place in the log that it stands at.
    pub(crate) fn take(&mut self, payload: &[u8], lsn: Lsn) -> Result<Step> {
        let (kind, body) = payload.split_first().ok_or_else(|| Error::corrupt("a message of the log is empty"))?;
        if let Some(xid) = self.block {
            return self.in_block(xid, *kind, payload, lsn);
        }
        if let Some(spool) = &mut self.preparing {
            if *kind == tag::PREPARE {
                let prepared = message::prepared(body)?;
                let spool = self.preparing.take().ok_or_else(|| Error::internal("a preparation is being read"))?;
                let waiting = Waiting { spool, streamed: false, aborted: Aborted::default() };
                self.prepared.insert(prepared.gid.to_owned(), PreparedTransaction::new(waiting, &prepared));
                return Ok(Step::Passed(prepared.end_lsn));
            }
            spool.push(0, lsn, payload)?;
            return Ok(Step::Kept);
        }
        match *kind {
            tag::BEGIN => Ok(Step::Begin(message::begin(body)?)),
            tag::COMMIT => Ok(Step::Commit(message::commit(body)?)),
            tag::STREAM_START => {
                let xid = message::streamed_xid(payload)?;
                let directory = &self.directory;
                self.streamed.entry(xid).or_insert_with(|| Waiting {
                    spool: Spool::new(Arc::clone(directory)),
                    streamed: true,
                    aborted: Aborted::default(),
                });
                self.block = Some(xid);
                Ok(Step::Kept)
            }
            tag::STREAM_COMMIT => {
                let (xid, commit) = message::stream_commit(body)?;
                let waiting = self.streamed.remove(&xid).ok_or_else(unknown)?;
                let begin = Begin { commit_lsn: commit.commit_lsn, commit_time: commit.commit_time, xid };
                replay(waiting, begin, commit.end_lsn)
            }
            tag::STREAM_ABORT => {
                let (xid, subtransaction) = message::stream_abort(body)?;
                if xid == subtransaction {
                    self.streamed.remove(&xid);
                } else if let Some(waiting) = self.streamed.get_mut(&xid) {
                    waiting.aborted.0.insert(subtransaction);
                }
                Ok(Step::Kept)
            }
            tag::STREAM_PREPARE => {
                let prepared = message::prepared(body)?;
                let waiting = self.streamed.remove(&prepared.xid).ok_or_else(unknown)?;
                self.prepared.insert(prepared.gid.to_owned(), PreparedTransaction::new(waiting, &prepared));
                Ok(Step::Passed(prepared.end_lsn))
            }
            tag::BEGIN_PREPARE => {
                message::begin_prepare(body)?;
                self.preparing = Some(Spool::new(Arc::clone(&self.directory)));
                Ok(Step::Kept)
            }
            tag::COMMIT_PREPARED => {
                let decided = message::prepared(body)?;
                let prepared = self.prepared.remove(decided.gid).ok_or_else(|| {
                    Error::log_gone("a prepared transaction was committed whose changes were sent before this slot was read")
                        .remedy("read the slot without two_phase, or remove the stream's checkpoint and read everything anew")
                })?;
                let begin = Begin { commit_lsn: decided.lsn, commit_time: decided.time, xid: decided.xid };
                replay(prepared.waiting, begin, decided.end_lsn)
            }
            tag::ROLLBACK_PREPARED => {
                let decided = message::rollback_prepared(body)?;
                self.prepared.remove(decided.gid);
                Ok(Step::Passed(decided.end_lsn))
            }
            _ => Ok(Step::Decode),
        }
    }

    fn in_block(&mut self, xid: u32, kind: u8, payload: &[u8], lsn: Lsn) -> Result<Step> {
        if kind == tag::STREAM_STOP {
            self.block = None;
            return Ok(Step::Kept);
        }
        // It says where the transaction came from first, and has no id of its own.
        if kind == tag::ORIGIN {
            return Ok(Step::Kept);
        }
        let subtransaction = message::streamed_xid(payload)?;
        let waiting = self.streamed.get_mut(&xid).ok_or_else(unknown)?;
        waiting.spool.push(subtransaction, lsn, payload)?;
        Ok(Step::Kept)
    }
}

fn replay(waiting: Waiting, begin: Begin, end: Lsn) -> Result<Step> {
    let Waiting { spool, streamed, aborted } = waiting;
    Ok(Step::Replay(Box::new(Replay { begin, end, streamed, reader: spool.into_reader()?, aborted })))
}

fn unknown() -> Error {
    Error::corrupt("the log ends a streamed transaction that it did not begin")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn transactions() -> Transactions {
        Transactions::new(Arc::new(std::env::temp_dir()))
    }

    fn streamed(kind: u8, xid: u32, rest: &[u8]) -> Vec<u8> {
        [&[kind][..], &xid.to_be_bytes(), rest].concat()
    }

    fn stream_commit(xid: u32) -> Vec<u8> {
        streamed(tag::STREAM_COMMIT, xid, &[&[0][..], &100u64.to_be_bytes(), &132u64.to_be_bytes(), &0i64.to_be_bytes()].concat())
    }

    fn prepared(kind: u8, xid: u32, gid: &str) -> Vec<u8> {
        let flags: &[u8] = if kind == tag::BEGIN_PREPARE { &[] } else { &[0] };
        let numbers = [&200u64.to_be_bytes()[..], &232u64.to_be_bytes(), &0i64.to_be_bytes(), &xid.to_be_bytes()].concat();
        [&[kind][..], flags, &numbers, gid.as_bytes(), &[0]].concat()
    }

    fn kept(step: Step) -> Vec<(u32, u8)> {
        let Step::Replay(mut replay) = step else { panic!("no transaction became whole") };
        let mut messages = Vec::new();
        loop {
            let message = replay.reader.peek().unwrap().map(|message| (message.subtransaction, message.payload.to_vec()));
            let Some((subtransaction, payload)) = message else { return messages };
            if !replay.aborted.leaves_out(subtransaction, &payload) {
                messages.push((subtransaction, payload[0]));
            }
            replay.reader.advance();
        }
    }

    #[test]
    fn blocks_of_two_transactions_and_an_aborted_subtransaction() {
        let mut transactions = transactions();
        let mut take = |payload: &[u8]| transactions.take(payload, Lsn(1)).unwrap();
        for xid in [7, 9] {
            take(&streamed(tag::STREAM_START, xid, &[1]));
            take(&streamed(tag::RELATION, xid + 1, b""));
            take(&streamed(tag::INSERT, xid, b""));
            take(&streamed(tag::INSERT, xid + 1, b""));
            take(&[tag::STREAM_STOP]);
        }
        let open: Vec<_> = transactions.open().into_iter().map(|open| (open.transaction_id, open.prepared, open.messages)).collect();
        assert_eq!(open, [("7".to_owned(), false, 3), ("9".to_owned(), false, 3)]);
        let mut take = |payload: &[u8]| transactions.take(payload, Lsn(1)).unwrap();
        take(&streamed(tag::STREAM_ABORT, 7, &8u32.to_be_bytes()));
        assert_eq!(kept(take(&stream_commit(7))), [(8, tag::RELATION), (7, tag::INSERT)]);
        take(&streamed(tag::STREAM_ABORT, 9, &9u32.to_be_bytes()));
        assert!(transactions.streamed.is_empty());
    }

    #[test]
    fn a_prepared_transaction_waits_and_holds_the_log() {
        let mut transactions = transactions();
        transactions.take(&prepared(tag::BEGIN_PREPARE, 5, "g"), Lsn(1)).unwrap();
        assert_eq!(transactions.open(), []);
        transactions.take(&[tag::INSERT, 1], Lsn(2)).unwrap();
        assert!(matches!(transactions.take(&prepared(tag::PREPARE, 5, "g"), Lsn(3)).unwrap(), Step::Passed(Lsn(232))));
        assert_eq!(transactions.hold(), Some(Lsn(200)));
        let [open] = &*transactions.open() else { panic!("{:?}", transactions.open()) };
        assert_eq!((open.transaction_id.as_str(), open.prepared, open.prepared_at.is_some()), ("5", true, true));
        assert_eq!((open.position.as_str(), open.messages, open.bytes), ("0/2", 1, 2));
        assert_eq!(kept(transactions.take(&prepared(tag::COMMIT_PREPARED, 5, "g"), Lsn(4)).unwrap()), [(0, tag::INSERT)]);
        assert_eq!((transactions.hold(), transactions.open()), (None, Vec::new()));
        assert!(transactions.take(&prepared(tag::COMMIT_PREPARED, 5, "g"), Lsn(4)).is_err());
    }
}
