//! The messages of pgoutput, protocol versions 1 to 4, as they lie in the bytes.
//!
//! Source of the format: the chapter "Logical Replication Message Formats" of PostgreSQL's documentation. Everything is
//! borrowed; tuples stay undecoded and are walked by whoever has their plan. Inside a streamed transaction (between
//! Stream Start and Stop) most messages carry the transaction id of their subtransaction first.

use logweir_core::{Error, Result, TimestampMicros};

use crate::lsn::Lsn;

/// Microseconds from 1970-01-01 to 2000-01-01, where the server's clock begins.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Columns a table may have: the server's own bound is 1,600, and 1,664 for what a query gives.
const COLUMNS_MAX: usize = 1664;

/// The letters that messages begin with.
pub(crate) mod tag {
    pub(crate) const BEGIN: u8 = b'B';
    pub(crate) const MESSAGE: u8 = b'M';
    pub(crate) const COMMIT: u8 = b'C';
    pub(crate) const ORIGIN: u8 = b'O';
    pub(crate) const RELATION: u8 = b'R';
    pub(crate) const TYPE: u8 = b'Y';
    pub(crate) const INSERT: u8 = b'I';
    pub(crate) const UPDATE: u8 = b'U';
    pub(crate) const DELETE: u8 = b'D';
    pub(crate) const TRUNCATE: u8 = b'T';
    pub(crate) const STREAM_START: u8 = b'S';
    pub(crate) const STREAM_STOP: u8 = b'E';
    pub(crate) const STREAM_COMMIT: u8 = b'c';
    pub(crate) const STREAM_ABORT: u8 = b'A';
    pub(crate) const BEGIN_PREPARE: u8 = b'b';
    pub(crate) const PREPARE: u8 = b'P';
    pub(crate) const COMMIT_PREPARED: u8 = b'K';
    pub(crate) const ROLLBACK_PREPARED: u8 = b'r';
    pub(crate) const STREAM_PREPARE: u8 = b'p';
}

/// Bytes from outside, read from the front.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

/// The bytes end too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Truncated;

impl From<Truncated> for Error {
    fn from(_: Truncated) -> Self {
        Error::corrupt("a message of the server ends in the middle")
    }
}

impl<'a> Bytes<'a> {
    #[inline]
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Truncated> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, Truncated> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn i16(&mut self) -> Result<i16, Truncated> {
        self.array().map(i16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, Truncated> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn i32(&mut self) -> Result<i32, Truncated> {
        self.array().map(i32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Result<u64, Truncated> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn lsn(&mut self) -> Result<Lsn, Truncated> {
        self.u64().map(Lsn)
    }

    /// A time of the server's clock.
    pub(crate) fn time(&mut self) -> Result<TimestampMicros, Truncated> {
        self.array().map(|bytes| TimestampMicros(i64::from_be_bytes(bytes).saturating_add(EPOCH_MICROS)))
    }

    /// Text that ends with a zero byte.
    pub(crate) fn text(&mut self) -> Result<&'a str> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Truncated)?;
        let text = self.take(end)?;
        self.take(1)?;
        std::str::from_utf8(text).map_err(|_| Error::corrupt("a name in the log is not UTF-8"))
    }
}

/// A transaction that is whole: what every one of its changes has in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begin {
    /// Where its commit record begins.
    pub(crate) commit_lsn: Lsn,
    pub(crate) commit_time: TimestampMicros,
    pub(crate) xid: u32,
}

/// What a transaction's end says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) commit_lsn: Lsn,
    /// Where the commit record ends.
    pub(crate) end_lsn: Lsn,
    pub(crate) commit_time: TimestampMicros,
}

/// A prepared transaction: at its preparation, and when it is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prepared<'a> {
    /// Where the record (of preparation, commit or rollback) begins.
    pub(crate) lsn: Lsn,
    pub(crate) end_lsn: Lsn,
    pub(crate) time: TimestampMicros,
    pub(crate) xid: u32,
    /// The name that the application gave it.
    pub(crate) gid: &'a str,
}

/// A column as a Relation message describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RelationColumn {
    /// 1: part of the replica identity.
    pub(crate) flags: u8,
    pub(crate) name: String,
    pub(crate) type_oid: u32,
    pub(crate) typmod: i32,
}

/// A table as the log (or the catalog) describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RelationShape {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) table: String,
    /// `d`efault, `n`othing, `f`ull or `i`ndex.
    pub(crate) replica_identity: u8,
    pub(crate) columns: Vec<RelationColumn>,
}

/// The changes of a row, their tuples undecoded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowMessage<'a> {
    pub(crate) relation: u32,
    /// The old tuple of an update or delete.
    pub(crate) old: Option<Old<'a>>,
    /// The new tuple of an insert or update.
    pub(crate) new: Option<Bytes<'a>>,
}

/// The old tuple of an update or delete.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Old<'a> {
    /// True if it holds the whole row, false if only the columns of the key.
    pub(crate) whole: bool,
    pub(crate) tuple: Bytes<'a>,
}

/// Reads the transaction id in front of messages of a streamed transaction.
pub(crate) fn streamed_xid(payload: &[u8]) -> Result<u32> {
    let mut bytes = Bytes(payload);
    bytes.u8()?;
    Ok(bytes.u32()?)
}

pub(crate) fn begin(body: &[u8]) -> Result<Begin> {
    let mut bytes = Bytes(body);
    Ok(Begin { commit_lsn: bytes.lsn()?, commit_time: bytes.time()?, xid: bytes.u32()? })
}

pub(crate) fn commit(body: &[u8]) -> Result<Commit> {
    let mut bytes = Bytes(body);
    bytes.u8()?;
    Ok(Commit { commit_lsn: bytes.lsn()?, end_lsn: bytes.lsn()?, commit_time: bytes.time()? })
}

/// Stream Commit: the transaction's id, and what Commit says.
pub(crate) fn stream_commit(body: &[u8]) -> Result<(u32, Commit)> {
    let mut bytes = Bytes(body);
    let xid = bytes.u32()?;
    Ok((xid, commit(bytes.0)?))
}

/// Stream Abort: the transaction, and the subtransaction that is gone (the same one if all of it is).
pub(crate) fn stream_abort(body: &[u8]) -> Result<(u32, u32)> {
    let mut bytes = Bytes(body);
    Ok((bytes.u32()?, bytes.u32()?))
}

pub(crate) fn begin_prepare(body: &[u8]) -> Result<Prepared<'_>> {
    prepared_fields(Bytes(body))
}

/// Prepare, Stream Prepare and Commit Prepared have the same form behind their flags.
pub(crate) fn prepared(body: &[u8]) -> Result<Prepared<'_>> {
    let mut bytes = Bytes(body);
    bytes.u8()?;
    prepared_fields(bytes)
}

fn prepared_fields(mut bytes: Bytes<'_>) -> Result<Prepared<'_>> {
    Ok(Prepared { lsn: bytes.lsn()?, end_lsn: bytes.lsn()?, time: bytes.time()?, xid: bytes.u32()?, gid: bytes.text()? })
}

/// Rollback Prepared: where the rollback ends, and the name.
pub(crate) fn rollback_prepared(body: &[u8]) -> Result<Prepared<'_>> {
    let mut bytes = Bytes(body);
    bytes.u8()?;
    let _prepared_end = bytes.lsn()?;
    let end_lsn = bytes.lsn()?;
    let _prepared_at = bytes.time()?;
    Ok(Prepared { lsn: end_lsn, end_lsn, time: bytes.time()?, xid: bytes.u32()?, gid: bytes.text()? })
}

pub(crate) fn relation(body: &[u8]) -> Result<RelationShape> {
    let mut bytes = Bytes(body);
    let oid = bytes.u32()?;
    let schema = bytes.text()?;
    // The protocol's short form of it.
    let schema = if schema.is_empty() { "pg_catalog" } else { schema };
    let table = bytes.text()?;
    let replica_identity = bytes.u8()?;
    let count = column_count(&mut bytes)?;
    let mut columns = Vec::with_capacity(count);
    for _ in 0..count {
        columns.push(RelationColumn { flags: bytes.u8()?, name: bytes.text()?.to_owned(), type_oid: bytes.u32()?, typmod: bytes.i32()? });
    }
    Ok(RelationShape { oid, schema: schema.to_owned(), table: table.to_owned(), replica_identity, columns })
}

/// The number of columns at the front of a tuple or relation.
#[inline]
pub(crate) fn column_count(bytes: &mut Bytes<'_>) -> Result<usize> {
    let count = bytes.i16()?;
    usize::try_from(count)
        .ok()
        .filter(|count| *count <= COLUMNS_MAX)
        .ok_or_else(|| Error::corrupt("a message of the server has an impossible number of columns"))
}

/// Insert, update or delete.
#[inline]
pub(crate) fn row(kind: u8, body: &[u8]) -> Result<RowMessage<'_>> {
    let mut bytes = Bytes(body);
    let relation = bytes.u32()?;
    let mut message = RowMessage { relation, old: None, new: None };
    let mut part = bytes.u8()?;
    if kind != tag::INSERT && (part == b'K' || part == b'O') {
        message.old = Some(Old { whole: part == b'O', tuple: bytes });
        if kind == tag::DELETE {
            return Ok(message);
        }
        pass_tuple(&mut bytes)?;
        part = bytes.u8()?;
    }
    if kind == tag::DELETE || part != b'N' {
        return Err(Error::corrupt("a change in the log has a tuple of an unknown kind").context("kind", part));
    }
    message.new = Some(bytes);
    Ok(message)
}

/// The tables that are emptied.
pub(crate) fn truncate(body: &[u8]) -> Result<Vec<u32>> {
    let mut bytes = Bytes(body);
    let count = bytes.u32()? as usize;
    bytes.u8()?;
    // Bounded by what is there.
    let mut relations = Vec::with_capacity(count.min(bytes.0.len() / 4));
    for _ in 0..count {
        relations.push(bytes.u32()?);
    }
    Ok(relations)
}

/// A value in a tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell<'a> {
    Null,
    /// Stored out of line and not changed: the log does not have it.
    Unchanged,
    Text(&'a [u8]),
    Binary(&'a [u8]),
}

impl Cell<'_> {
    /// Bytes of the value.
    pub(crate) fn len(&self) -> usize {
        match self {
            Cell::Text(bytes) | Cell::Binary(bytes) => bytes.len(),
            Cell::Null | Cell::Unchanged => 0,
        }
    }
}

/// The next value of a tuple.
#[inline]
pub(crate) fn cell<'a>(bytes: &mut Bytes<'a>) -> Result<Cell<'a>> {
    match bytes.u8()? {
        b't' => Ok(Cell::Text(cell_bytes(bytes)?)),
        b'b' => Ok(Cell::Binary(cell_bytes(bytes)?)),
        b'n' => Ok(Cell::Null),
        b'u' => Ok(Cell::Unchanged),
        kind => Err(Error::corrupt("a value in the log is of an unknown kind").context("kind", kind)),
    }
}

#[inline]
fn cell_bytes<'a>(bytes: &mut Bytes<'a>) -> Result<&'a [u8]> {
    let length = usize::try_from(bytes.i32()?).map_err(|_| Truncated)?;
    Ok(bytes.take(length)?)
}

fn pass_tuple(bytes: &mut Bytes<'_>) -> Result<()> {
    for _ in 0..column_count(bytes)? {
        cell(bytes)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn relation_body() -> Vec<u8> {
        let mut body = 16385u32.to_be_bytes().to_vec();
        body.extend_from_slice(b"shop\0orders\0d");
        body.extend_from_slice(&2i16.to_be_bytes());
        for (flags, name, oid) in [(1u8, "id", 23u32), (0, "note", 25)] {
            body.push(flags);
            body.extend_from_slice(name.as_bytes());
            body.push(0);
            body.extend_from_slice(&oid.to_be_bytes());
            body.extend_from_slice(&(-1i32).to_be_bytes());
        }
        body
    }

    #[test]
    fn a_relation_says_its_columns() {
        let shape = relation(&relation_body()).unwrap();
        assert_eq!((shape.oid, shape.schema.as_str(), shape.table.as_str(), shape.replica_identity), (16385, "shop", "orders", b'd'));
        assert_eq!(shape.columns[1], RelationColumn { flags: 0, name: "note".into(), type_oid: 25, typmod: -1 });
    }

    #[test]
    fn every_cut_is_an_error_and_no_panic() {
        let body = relation_body();
        for length in 0..body.len() {
            assert!(relation(&body[..length]).is_err(), "{length}");
        }
        let tuple = [&16385u32.to_be_bytes()[..], b"N", &1i16.to_be_bytes(), b"t", &1i32.to_be_bytes(), b"7"].concat();
        for length in 0..5 {
            assert!(row(tag::INSERT, &tuple[..length]).is_err(), "{length}");
        }
        let mut new = row(tag::INSERT, &tuple).unwrap().new.unwrap();
        assert_eq!(column_count(&mut new).unwrap(), 1);
        assert_eq!(cell(&mut new).unwrap(), Cell::Text(b"7"));
        assert!(cell(&mut new).is_err());
    }

    #[test]
    fn an_update_may_have_an_old_tuple() {
        let tuple = |value: &[u8]| [&1i16.to_be_bytes()[..], b"t", &(value.len() as i32).to_be_bytes(), value].concat();
        let body = [&7u32.to_be_bytes()[..], b"K", &tuple(b"1"), b"N", &tuple(b"2")].concat();
        let message = row(tag::UPDATE, &body).unwrap();
        let mut old = message.old.unwrap();
        assert!(!old.whole);
        assert_eq!(column_count(&mut old.tuple).unwrap(), 1);
        assert_eq!(cell(&mut old.tuple).unwrap(), Cell::Text(b"1"));
        let mut new = message.new.unwrap();
        column_count(&mut new).unwrap();
        assert_eq!(cell(&mut new).unwrap(), Cell::Text(b"2"));
    }
}
