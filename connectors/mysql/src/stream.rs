//! The dump of a server's binlog, as the bytes of its events.
//!
//! The client's stream splits what it reads; the exact bytes of an event (header, body, checksum) are put together again in
//! the caller's buffer, because the decoder checks the checksum over all of them. Three of the stream's habits are dealt
//! with here: it panics on an event that is shorter than it says, it hands out the events inside a compressed
//! transaction behind the transaction itself, and before the first format description it does not know of checksums.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use logweir_core::{Error, Result};
use mysql_async::binlog::events::Event;
use mysql_async::prelude::Queryable;
use mysql_async::{BinlogStream, BinlogStreamRequest, Conn, GnoInterval, Sid};
use mysql_common::packets::Tag;
use tokio::time::timeout;

use crate::failure::{READING_BINLOG, SAME_SERVER_ID, code, failure};
use crate::gtid::MysqlGtidSet;
use crate::offset::GtidState;
use crate::options::FIRST_POSITION;
use crate::server::{Facts, Flavour, with_grant};

/// How often an idle server says that it is there.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(5);

/// A server that was silent for this long is taken for gone: a few heartbeats.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(20);

/// How long the server may take to begin the dump: it may have to search files for a GTID.
const BEGIN_MAX: Duration = Duration::from_secs(60);

/// How long the server waits for us before it hangs up: back-pressure may last, a dead client is found by keepalive.
const SERVER_PATIENCE_SECONDS: u32 = 24 * 60 * 60;

/// The message of the error when another replica comes with our server_id: only one of the two can be served.
pub(crate) const SERVER_ID_TAKEN: &str = "another replica came with our server_id, and the server hung up on us";

/// Marks lie in one of the last files: what is decoded at a time holds no more of them.
const FILES_KEPT: usize = 64;

const ROTATE: u8 = 4;
const FORMAT_DESCRIPTION: u8 = 15;
const GTID_LIST: u8 = 163;
const HEARTBEAT_V1: u8 = 27;
const HEARTBEAT_V2: u8 = 41;

/// How we are known among the replicas of a server.
#[derive(Debug, Clone)]
pub(crate) struct Replica {
    pub(crate) server_id: u32,
    /// Like it, for servers that tell replicas by it.
    pub(crate) uuid: String,
}

impl Replica {
    /// A replica with the given id, or one at random from the upper half of the range, where people put none.
    pub(crate) fn new(server_id: Option<u32>) -> Self {
        let server_id = server_id.unwrap_or_else(|| rand::random_range(0x8000_0000..=u32::MAX));
        let bits: u128 = rand::random();
        // A UUID of version 4.
        let uuid = format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            bits as u32,
            (bits >> 32) as u16,
            (bits >> 48) as u16 & 0xfff,
            (bits >> 64) as u16 & 0xfff,
            (bits >> 80) as u64
        );
        Replica { server_id, uuid }
    }
}

/// Where a dump begins.
#[derive(Debug, Clone)]
pub(crate) enum DumpStart {
    /// At an event in a file.
    Position { file: String, position: u64 },
    /// After these transactions.
    Gtid(GtidState),
}

/// What was pulled from the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pulled {
    /// An event, now at the end of the buffer.
    Event,
    /// A sign of life, and the place up to which the server has sent, or left out, everything.
    Heartbeat {
        /// The file; `None` if it cannot be read.
        file: Option<String>,
        /// The low 32 bits of the offset.
        offset: u32,
    },
}

/// A dump under way.
pub(crate) struct EventStream {
    /// `None` after a panic: what it holds then is not to be trusted.
    stream: Option<BinlogStream>,
    /// The file that the dump began in, as the server named it.
    first_file: String,
    /// What came with the opening, for the decoder: the event that named the file, and the file's first event.
    first_events: Vec<u8>,
    /// The file whose events come now.
    file: String,
    /// When the files of the last events were begun.
    begun: VecDeque<(String, u32)>,
    /// The dump was opened at a place in a file, and no event of that place has come yet.
    at_start: bool,
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EventStream(from {})", self.first_file)
    }
}

impl EventStream {
    /// Begins a dump over `connection`, which is used up.
    pub(crate) async fn open(mut connection: Conn, facts: &Facts, replica: &Replica, start: &DumpStart) -> Result<EventStream> {
        const DOING: &str = "could not begin to read the binlog";
        let grant = |error| with_grant(error, facts, "REPLICATION SLAVE");
        let in_time = |_| Error::transient("the server did not begin to send the binlog in time").context("seconds", BEGIN_MAX.as_secs());
        let opening = async {
            connection.query_drop(session(facts, replica, start)).await.map_err(|error| failure(DOING, error))?;
            let file;
            let request = BinlogStreamRequest::new(replica.server_id).with_hostname(b"logweir");
            let request = match start {
                DumpStart::Position { file: name, position } => {
                    file = name.clone().into_bytes();
                    request.with_filename(&file).with_pos(*position)
                }
                DumpStart::Gtid(GtidState::Mysql(set)) => request.with_gtid().with_gtid_set(sids(set)?),
                // In the session variables; the server finds the file.
                DumpStart::Gtid(GtidState::Mariadb(_)) => request,
            };
            connection.get_binlog_stream(request).await.map_err(|error| dump_failure(DOING, error))
        };
        let stream = timeout(BEGIN_MAX, opening).await.map_err(in_time)?.map_err(grant)?;
        let mut stream = EventStream {
            stream: Some(stream),
            first_file: String::new(),
            first_events: Vec::new(),
            file: String::new(),
            begun: VecDeque::new(),
            at_start: matches!(start, DumpStart::Position { .. }),
        };
        // The dump begins with the name of its file, in an event that is in no file.
        let first = timeout(BEGIN_MAX, std::future::poll_fn(|cx| stream.poll_client(cx))).await.map_err(in_time)?.map_err(grant)?;
        if first.header().event_type_raw() != ROTATE {
            return Err(Error::corrupt("the server did not begin the binlog with the name of its file")
                .context("event type", first.header().event_type_raw()));
        }
        stream.first_file = rotate_target(first.data(), facts)
            .ok_or_else(|| Error::corrupt("the server began the binlog with a file name that cannot be read"))?;
        stream.file.clone_from(&stream.first_file);
        append(&first, &mut stream.first_events);
        // Then comes the description of its format, which says when the file was begun.
        let second = timeout(BEGIN_MAX, std::future::poll_fn(|cx| stream.poll_client(cx))).await.map_err(in_time)??;
        stream.note(&second);
        append(&second, &mut stream.first_events);
        Ok(stream)
    }

    /// The events that the dump began with; the decoder learns from them that it listens to a server.
    pub(crate) fn first_events(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.first_events)
    }

    /// When a file was begun, in seconds since 1970, if its first event came lately.
    pub(crate) fn begun(&self, file: &str) -> Option<u32> {
        self.begun.iter().rev().find(|(name, _)| name == file).map(|(_, begun)| *begun)
    }

    /// Keeps what an event says of the files.
    fn note(&mut self, event: &Event) {
        match event.header().event_type_raw() {
            ROTATE => self.file = event.data().get(8..).map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default(),
            // The server hides from those who begin in the middle when it started, but not when it wrote this event.
            FORMAT_DESCRIPTION => {
                if self.begun.len() >= FILES_KEPT {
                    self.begun.pop_front();
                }
                self.begun.push_back((self.file.clone(), event.header().timestamp()));
            }
            GTID_LIST => {}
            _ => self.at_start = false,
        }
    }

    /// The file that the dump began in.
    pub(crate) fn first_file(&self) -> &str {
        &self.first_file
    }

    /// Pulls one event and appends its bytes to `buffer`. Cancel safe: nothing is taken unless it is ready.
    pub(crate) fn poll_pull(&mut self, cx: &mut Context<'_>, buffer: &mut Vec<u8>) -> Poll<Result<Pulled>> {
        loop {
            let event = match self.poll_client(cx) {
                Poll::Ready(Ok(event)) => event,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            };
            // Comes from inside a compressed transaction, which was handed out whole before.
            if !event.footer().get_checksum_enabled() {
                continue;
            }
            // Heartbeats have no place in the log.
            let header = event.header();
            match header.event_type_raw() {
                HEARTBEAT_V1 => {
                    let file = String::from_utf8(event.data().to_vec()).ok();
                    return Poll::Ready(Ok(Pulled::Heartbeat { file, offset: header.log_pos() }));
                }
                // Only sent to those who ask for it, which we do not.
                HEARTBEAT_V2 => return Poll::Ready(Ok(Pulled::Heartbeat { file: None, offset: 0 })),
                _ => {}
            }
            self.note(&event);
            append(&event, buffer);
            return Poll::Ready(Ok(Pulled::Event));
        }
    }

    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event>> {
        const DOING: &str = "could not go on reading the binlog";
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(Error::transient("the binlog's stream is broken")));
        };
        // The client unwraps on events that are shorter than their header says.
        match catch_unwind(AssertUnwindSafe(|| Pin::new(stream).poll_next(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(Some(Ok(event)))) => Poll::Ready(Ok(event)),
            Ok(Poll::Ready(Some(Err(error)))) => Poll::Ready(Err(match self.at_start && is_unreadable(&error) {
                true => no_event_there(error),
                false => dump_failure(DOING, error),
            })),
            Ok(Poll::Ready(None)) => Poll::Ready(Err(Error::transient("the server ended the binlog's stream"))),
            Err(_) => {
                self.stream = None;
                Poll::Ready(Err(Error::transient("the server sent an event that is shorter than it says")))
            }
        }
    }
}

/// Puts the bytes of an event together as the server sent them.
fn append(event: &Event, buffer: &mut Vec<u8>) {
    let header = event.header();
    buffer.reserve(header.event_size() as usize);
    buffer.extend_from_slice(&header.timestamp().to_le_bytes());
    buffer.push(header.event_type_raw());
    buffer.extend_from_slice(&header.server_id().to_le_bytes());
    buffer.extend_from_slice(&header.event_size().to_le_bytes());
    buffer.extend_from_slice(&header.log_pos().to_le_bytes());
    buffer.extend_from_slice(&header.flags_raw().to_le_bytes());
    buffer.extend_from_slice(event.data());
    if header.event_type_raw() == FORMAT_DESCRIPTION {
        match event.footer().get_checksum_alg() {
            Ok(Some(algorithm)) => buffer.push(algorithm as u8),
            Ok(None) => {}
            Err(unknown) => buffer.push(unknown.0),
        }
    }
    if let Some(checksum) = event.checksum() {
        buffer.extend_from_slice(&checksum);
    }
}

/// The statement that prepares the session for the dump.
fn session(facts: &Facts, replica: &Replica, start: &DumpStart) -> String {
    let heartbeat = HEARTBEAT.as_nanos();
    let uuid = &replica.uuid;
    // Older names first, then those of MySQL 8.4; a server takes no notice of those that it does not know.
    let mut statement = format!(
        "SET @@SESSION.net_write_timeout = {SERVER_PATIENCE_SECONDS}, @master_heartbeat_period = {heartbeat}, \
         @source_heartbeat_period = {heartbeat}, @slave_uuid = '{uuid}', @replica_uuid = '{uuid}'"
    );
    if facts.variable("binlog_checksum").is_some() {
        statement.push_str(", @master_binlog_checksum = @@GLOBAL.binlog_checksum, @source_binlog_checksum = @@GLOBAL.binlog_checksum");
    }
    if facts.flavour == Flavour::Mariadb {
        // 4: understands MariaDB's GTID events, so that the server does not rewrite them.
        statement.push_str(", @mariadb_slave_capability = 4");
        if let DumpStart::Gtid(GtidState::Mariadb(position)) = start {
            statement.push_str(&format!(
                ", @slave_connect_state = '{position}', @slave_gtid_strict_mode = 0, @slave_gtid_ignore_duplicates = 0"
            ));
        }
    }
    statement
}

fn sids(set: &MysqlGtidSet) -> Result<Vec<Sid<'static>>> {
    let sid = |(uuid, tag, ranges): (&[u8; 16], &str, &[(u64, u64)])| {
        let intervals = ranges.iter().map(|(first, last)| GnoInterval::new(*first, last + 1)).collect();
        let sid = Sid::new(*uuid).with_intervals(intervals);
        if tag.is_empty() {
            return Ok(sid);
        }
        let tag = Tag::new(tag.to_owned()).map_err(|error| Error::config("a GTID set has a tag that no server takes").source(error))?;
        Ok(sid.with_tag(tag))
    };
    set.ranges().map(sid).collect()
}

/// The file that a rotate event names. In the first one of a dump a checksum may follow, and nothing says so.
fn rotate_target(data: &[u8], facts: &Facts) -> Option<String> {
    let name = data.get(8..)?;
    let is_name = |name: &[u8]| {
        let digits = name.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
        name.len() > digits.len() && !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
    };
    let has_checksum = facts.variable("binlog_checksum").is_some_and(|algorithm| !algorithm.eq_ignore_ascii_case("NONE"));
    let shorter = name.get(..name.len().saturating_sub(4)).unwrap_or_default();
    let name = [if has_checksum { shorter } else { name }, name, shorter].into_iter().find(|name| is_name(name))?;
    String::from_utf8(name.to_vec()).ok()
}

/// The error of a dump, where the dump thread's own complaints are told apart by their text.
fn dump_failure(doing: &'static str, error: mysql_async::Error) -> Error {
    if !matches!(code(&error), Some(READING_BINLOG | SAME_SERVER_ID)) {
        return failure(doing, error);
    }
    let text = complaint(&error);
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if code(&error) == Some(SAME_SERVER_ID) || has(&["same server_uuid", "same server_id"]) {
        return Error::config(SERVER_ID_TAKEN)
            .source(error)
            .remedy("give each replica a server_id of its own: server_id in this source's profile, or leave it out for one at random");
    }
    if has(&["server id was not set", "server_id is 0", "misconfigured master", "misconfigured source"]) {
        return Error::config("the server has no server_id, and so serves no replicas")
            .source(error)
            .remedy("set server_id to a number above 0 in the server's configuration");
    }
    if has(&["could not find next log"]) {
        return Error::log_gone("the file of the binlog that was being read is gone: the log was reset or purged meanwhile")
            .source(error)
            .remedy("remove the stream's checkpoint and choose a new start:");
    }
    if has(&["exceeded max_allowed_packet", "max_allowed_packet"]) {
        return Error::config("an event of the binlog is larger than the server may send")
            .source(error)
            .remedy("run SET GLOBAL max_allowed_packet = 1073741824 on the server");
    }
    let gone = [
        "could not find first log",
        "purged",
        "impossible position",
        "position > file size",
        "more gtids",
        "not in the",
        "missing the gtid",
    ];
    if has(&gone) {
        return Error::log_gone("the server's binlog no longer holds the place to go on from").source(error);
    }
    if has(&["truncated", "bogus data", "corrupt", "checksum", "event read", "read error", "i/o error"]) {
        return Error::corrupt("the server cannot read its own binlog").source(error);
    }
    Error::config("the server refused to send the binlog").source(error)
}

/// What the dump thread complains of, in lower case, without the places that it adds ("the last event read from …").
fn complaint(error: &mysql_async::Error) -> String {
    let text = error.to_string().to_ascii_lowercase();
    text.split("the first event '").next().unwrap_or_default().to_owned()
}

/// True if the dump thread could make nothing of the bytes that it found.
fn is_unreadable(error: &mysql_async::Error) -> bool {
    let text = complaint(error);
    let words = ["max_allowed_packet", "bogus data", "truncated", "corrupt", "checksum", "event read", "read error", "i/o error"];
    code(error) == Some(READING_BINLOG) && words.iter().any(|word| text.contains(word))
}

/// The error when that happens with the very first bytes.
fn no_event_there(error: mysql_async::Error) -> Error {
    Error::config("the position to begin at is not where an event of the binlog begins").source(error).remedy(
        "choose a position that SHOW BINLOG EVENTS IN 'the file' names, or the beginning of the file: 4; if it is a checkpoint's, the \
             log was reset or is damaged: remove the stream's checkpoint and choose a new start:",
    )
}

/// A dump's first position: before it lies the magic number, which is not sent.
pub(crate) fn clamp_position(position: u64) -> u64 {
    position.max(FIRST_POSITION)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use logweir_core::ErrorKind;
    use mysql_async::ServerError;

    #[test]
    fn the_dump_threads_complaints() {
        let kind = |message: &str| {
            dump_failure("m", mysql_async::Error::Server(ServerError { code: 1236, message: message.into(), state: "HY000".into() })).kind()
        };
        assert_eq!(kind("Could not find first log file name in binary log index file"), ErrorKind::LogGone);
        assert_eq!(
            kind("Cannot replicate because the source purged required binary logs. Replicate the missing transactions"),
            ErrorKind::LogGone
        );
        assert_eq!(
            kind("Error: connecting slave requested to start from GTID 0-1-9, which is not in the master's binlog"),
            ErrorKind::LogGone
        );
        assert_eq!(kind("A replica with the same server_uuid/server_id as this replica has connected"), ErrorKind::Config);
        assert_eq!(kind("binlog truncated in the middle of event; consider out of disk space on source"), ErrorKind::Corrupt);
        let places =
            "the first event 'bin.000002' at 4, the last event read from 'bin.000002' at 360, the last byte read from './bin.1' at 360.";
        assert_eq!(kind(&format!("could not find next log; {places}")), ErrorKind::LogGone);
        assert_eq!(kind(&format!("something never heard of; {places}")), ErrorKind::Config, "the place is no complaint");
        assert_eq!(kind("something never heard of"), ErrorKind::Config);
    }

    #[test]
    fn a_set_becomes_half_open_intervals() {
        let set = MysqlGtidSet::parse("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7").unwrap();
        let sids = sids(&set).unwrap();
        let intervals: Vec<_> = sids[0].intervals().iter().map(|interval| (interval.start(), interval.end())).collect();
        assert_eq!(intervals, [(1, 6), (7, 8)]);
        let tagged = super::sids(&MysqlGtidSet::parse("3e11fa47-71ca-11e1-9e33-c80aa9429562:1:t_1:1").unwrap()).unwrap();
        assert_eq!(tagged.iter().map(|sid| sid.tag().is_some()).collect::<Vec<_>>(), [false, true]);
    }
}
