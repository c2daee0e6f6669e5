//! Sources: where changes come from.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::change::{ChangeBatch, LogEvent};
use crate::clock::TimestampMicros;
use crate::error::{Error, Result};
use crate::memory::MemoryBudget;
use crate::position::{LogMark, LogPosition};
use crate::relation::{Relation, RelationName};
use crate::tables::{Pattern, TableFilter};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The stream would run, but something is worth knowing.
    Warning,
    /// The stream would stop, or be wrong.
    Error,
}

/// Something a check noticed, with its remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A short stable name of the kind of finding, in snake case: `binlog_format`.
    pub code: &'static str,
    /// What was found, as a sentence without a full stop.
    pub message: String,
    /// The exact statement or step that mends it.
    pub remedy: String,
}

impl Finding {
    /// The code of what keeps a log from being opened at the mark of a checkpoint.
    pub const CHECKPOINT: &str = "checkpoint";

    /// What a failure says, with its own remedy, or with `remedy` if it has none.
    pub fn of_error(severity: Severity, code: &'static str, error: &Error, remedy: &str) -> Self {
        let mut message = error.report();
        if let Some(remedy) = error.get_remedy() {
            // It is shown on its own line.
            message = message.replacen(&format!("; {remedy}"), "", 1);
        }
        Finding { severity, code, message, remedy: error.get_remedy().unwrap_or(remedy).to_owned() }
    }
}

/// How far the reading of the rows is that were there before the log. For eyes: nothing decides by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackfillProgress {
    /// Nothing is left to be read.
    pub complete: bool,
    /// Tables that were read or are to be read, as far as is known by now.
    pub tables: u64,
    /// Those of them that are read whole.
    pub tables_read: u64,
    /// Rows read, of all tables. Those of a table that is read again count again.
    pub rows_read: u64,
    /// Tables of which something is read and something is not, by name.
    pub under_way: Vec<TableBackfill>,
}

/// How far one table is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableBackfill {
    /// `schema.table`
    pub table: String,
    /// Rows read.
    pub rows_read: u64,
    /// Chunks read.
    pub chunks_read: u64,
    /// Chunks that the table has, about: what it holds is not counted before.
    pub chunks: u64,
}

impl TableBackfill {
    /// The share of it that is read, about: from 0 to 1.
    pub fn share(&self) -> f64 {
        (self.chunks_read as f64 / self.chunks.max(1) as f64).min(1.0)
    }
}

/// Where and how a log is opened.
#[derive(Debug, Clone)]
pub struct LogStart {
    /// The mark to go on from; `None` without a checkpoint, and then the source's configured start holds.
    pub resume: Option<LogMark>,
    /// The relations known at the time of the checkpoint, every version that may still be met.
    pub relations: Vec<Arc<Relation>>,
    /// The tables wanted.
    pub tables: TableFilter,
    /// Patterns over `schema.table`: tables of whose updates the rows as they were before are handed out too, as far as the
    /// source's log has them ([`ChangeBatch::before`](crate::ChangeBatch::before)). Empty, and then it costs nothing, if nobody
    /// asks for them.
    pub before_images: Vec<Pattern>,
    /// Batches acquire their memory here before they are handed out.
    pub memory: MemoryBudget,
}

/// How much the answer to a query may hold, and how long the query may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryLimit {
    /// Bytes of all values.
    pub bytes_max: usize,
    /// Rows.
    pub rows_max: usize,
    /// Time that the server may take over it.
    pub timeout: Duration,
}

/// A database, or a recording of one. Cheap to make: nothing is opened until a method asks for it.
#[async_trait]
pub trait Source: Send + Sync {
    /// Looks for everything that would stop a stream over `tables` later, with the statement that mends it. Changes
    /// nothing. An error means that the source could not be looked at (unreachable, wrong password). `resume` is the mark that the
    /// stream goes on from, if it has a checkpoint; what keeps the log from being opened there is a finding [`Finding::CHECKPOINT`].
    async fn check(&self, tables: &TableFilter, resume: Option<&LogMark>) -> Result<Vec<Finding>>;

    /// The tables there are now, with the types they would be carried as.
    async fn relations(&self, tables: &TableFilter) -> Result<Vec<Relation>>;

    /// Up to `rows_max` rows of a followed table, as `READ` changes of the relation that it is carried as: the very values that the log
    /// gives. Any rows will do, and no more is read for them than must be, however large the table is. A recording gives the
    /// first changes that it holds of the table, whatever their type. `None` if there is no such table, or it is not followed. For
    /// eyes: positions and times of such rows mean nothing.
    async fn sample(&self, tables: &TableFilter, table: &RelationName, rows_max: usize) -> Result<Option<ChangeBatch>> {
        let _ = (tables, rows_max);
        Err(Error::config("this kind of source cannot be asked for rows").context("table", table))
    }

    /// The answer to a query in the source's own SQL, of the types that its tables are carried as. It changes nothing: the query runs in
    /// a transaction that may only read, and several statements are refused. An error of kind `Config` if the answer is larger
    /// than the limit, or the query is wrong; then with the server's words, as far as they hold no values of rows.
    async fn query(&self, sql: &str, limit: QueryLimit) -> Result<RecordBatch> {
        let _ = (sql, limit);
        Err(Error::config("this kind of source cannot be asked").remedy("ask a database, or read files"))
    }

    /// Opens the log. Only one reader of a stream is open at a time.
    async fn open_log(&self, start: LogStart) -> Result<Box<dyn LogReader>>;
}

/// Reads a log from a start to its end, which for a live log never comes.
///
/// **Order.** Events come in log order; positions in a relation strictly rise; `_metadata_timestamp` never falls.
/// A [`LogEvent::Relation`] precedes the first batch of its version. Batches of different relations may be handed
/// out in any order between two marks.
///
/// **Backfill.** A reader may hand out rows that were there before the log, as `READ` changes, between two transactions. Their
/// positions lie behind every transaction that the reading of them surely saw, and before everything handed out later.
///
/// **Marks.** The first event is a mark of the place where the log was opened, so that a start at "now" is pinned before
/// any change. Marks lie between transactions; all changes at or before a mark were handed out before it, and no
/// change after it was. Marks keep coming while the log is idle (at least one in `IDLE_MARK_SECONDS`), so
/// that a quiet table set does not pin the source's log.
///
/// **Restart.** Opened again at any mark it handed out, a reader hands out the same changes with the same positions,
/// relation versions, timestamps (read timestamps aside) and before images, cut into batches as it likes.
///
/// **Retry.** A reader reconnects by itself after a transient fault, without limit and with bounded backoff, and goes on
/// where it was. An error it returns is final for this reader; before it, everything whole that precedes the fault
/// was handed out, followed by a mark.
#[async_trait]
pub trait LogReader: Send {
    /// The next event; `None` at the end of a recorded log, after a final mark. Waits while the log is idle or memory is
    /// spent. Cancel safe: an event is either returned or will be.
    async fn next(&mut self) -> Result<Option<LogEvent>>;

    /// Everything at or before `mark` is visible in every destination: the source may forget it. Marks come in rising
    /// order. Must be called from time to time on sources that retain log for us; costs nothing on others.
    async fn acknowledge(&mut self, mark: &LogMark) -> Result<()>;

    /// The position that the log reaches at the moment: a mark at or after it will have passed everything the source
    /// held when this was asked. `None` for a recorded log, which ends by itself.
    async fn end(&mut self) -> Result<Option<LogPosition>>;

    /// From now on there is a mark behind every transaction with changes, whatever that costs: to land what lies before a change that cannot be
    /// carried. Called before the first [`next`](Self::next), or not at all.
    fn mark_each_transaction(&mut self) {}

    /// True while rows that were there before the log are still to be handed out (`READ` changes): until then a reader has
    /// not caught up, whatever position it has reached.
    fn reads_backfill(&self) -> bool {
        false
    }

    /// How far the reading of these rows is, that of earlier readers with it. `None` if none are wanted. Asked at every mark while
    /// [`reads_backfill`](Self::reads_backfill), so it must not take long.
    fn backfill(&self) -> Option<BackfillProgress> {
        None
    }

    /// Bytes of log that the source keeps for this reader's sake and could drop otherwise: what fills its disk when marks are
    /// not acknowledged. `None`, from the first answer on, of a source that keeps nothing for us. Asked from time to time, for
    /// eyes only; must answer within seconds. An error says that it could not be learned, and nothing of the reader.
    async fn retained(&mut self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Transactions whose changes were read and are kept back, because the source has not decided them yet. Empty of a source whose log
    /// has a transaction when it is committed, and no earlier. Asked from time to time, for eyes only.
    fn open_transactions(&self) -> Vec<OpenTransaction> {
        Vec::new()
    }
}

/// A transaction that was read in part or whole, and that may still be undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenTransaction {
    /// What the source calls it, as in `_metadata_source['transaction_id']`.
    pub transaction_id: String,
    /// True if it is prepared (two-phase commit) and waits to be decided; else it is under way.
    pub prepared: bool,
    /// When it was prepared, by the source's clock.
    pub prepared_at: Option<TimestampMicros>,
    /// Where its first record that was read stands in the source's log, in the source's own words.
    pub position: String,
    /// Messages of the log that are kept: a row is one.
    pub messages: u64,
    /// Bytes of them.
    pub bytes: u64,
}

impl dyn LogReader {
    /// The longest a live reader goes without a mark, idle or not, unless a transaction is open for longer.
    pub const IDLE_MARK_SECONDS: u64 = 10;
}
