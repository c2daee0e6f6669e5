//! Where a log is opened: what a configuration's start or a checkpoint's mark means on the server that answers now.
//!
//! On the server it was made on, a mark's file and offset are exact. On another one (a failover, a restore, a new address)
//! they mean nothing: there the GTIDs of the mark find the place, and the incarnation is raised so that positions keep
//! rising. A log that was started by a set of GTIDs is always reopened by GTIDs, because what the set lacked may lie on
//! both sides of any offset.

use logweir_core::{Error, Incarnation, LogMark, LogPosition, Result, TimestampMicros};

use crate::offset::{BinlogOffset, GtidState};
use crate::options::{FIRST_POSITION, Start};
use crate::server::{Facts, Flavour, LogFile, Server};
use crate::stream::{DumpStart, clamp_position};

/// In a mark's offset, beside the members of [`BinlogOffset`]: reopen by GTIDs, also on the same server.
const BY_GTID: &str = "by_gtid";

/// The largest start that the protocol can name without GTIDs.
const POSITION_MAX: u64 = u32::MAX as u64;

/// What may follow the last transaction of a file: an event that names the next file.
const FILE_TAIL_BYTES_MAX: u64 = 1024;

/// Where and how a log is opened.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) incarnation: Incarnation,
    pub(crate) dump: DumpStart,
    /// The transactions before the place, where they are known.
    pub(crate) gtid: Option<GtidState>,
    pub(crate) by_gtid: bool,
    /// The mark this place was found by, if it is one of this very log.
    resume: Option<LogMark>,
    commit_time: Option<TimestampMicros>,
}

impl Place {
    fn at(file: String, position: u64, gtid: Option<GtidState>) -> Self {
        let dump = DumpStart::Position { file, position };
        Place { incarnation: 0, dump, gtid, by_gtid: false, resume: None, commit_time: None }
    }

    fn after(gtid: GtidState) -> Self {
        let dump = DumpStart::Gtid(gtid.clone());
        Place { incarnation: 0, dump, gtid: Some(gtid), by_gtid: true, resume: None, commit_time: None }
    }

    /// The file and offset of the first event that the dump sends, once the server has said in which file it begins.
    pub(crate) fn first(&self, first_file: &str) -> (String, u64) {
        match &self.dump {
            DumpStart::Position { file, position } => (file.clone(), *position),
            DumpStart::Gtid(_) => (first_file.to_owned(), FIRST_POSITION),
        }
    }

    /// The mark of this place.
    pub(crate) fn mark(&self, first_file: &str, identity: &str) -> Result<LogMark> {
        if let Some(mark) = &self.resume {
            return Ok(mark.clone());
        }
        let (file, position) = self.first(first_file);
        let offset = BinlogOffset {
            file,
            position,
            incarnation: self.incarnation,
            gtid: self.gtid.clone(),
            server: Some(identity.to_owned()),
            doubtful: Vec::new(),
        };
        let mark = LogMark { position: offset.log_position()?, offset: offset.to_source_offset()?, commit_time: self.commit_time };
        Ok(self.sign(mark))
    }

    /// Writes into a mark of the log opened here how to reopen it.
    pub(crate) fn sign(&self, mut mark: LogMark) -> LogMark {
        if let (true, Some(offset)) = (self.by_gtid, mark.offset.0.as_object_mut()) {
            offset.insert(BY_GTID.to_owned(), true.into());
        }
        mark
    }

    /// The mark moved on to the place that a heartbeat named. Opened by GTIDs a server leaves out what we have and says so only
    /// this way; without them the last event's end is the place, and heartbeats tell nothing new.
    pub(crate) fn moved_to(&self, mark: LogMark, passed: Option<&(String, u32)>) -> LogMark {
        let moved = || {
            let (file, low) = passed.filter(|_| self.by_gtid)?;
            let mut offset = BinlogOffset::of(&mark).ok()?;
            let high = if offset.file == *file { offset.position & !u64::from(u32::MAX) } else { 0 };
            offset.file.clone_from(file);
            offset.position = high | u64::from(*low);
            let position = offset.log_position().ok().filter(|position| *position > mark.position)?;
            let offset = offset.to_source_offset().ok()?;
            Some(self.sign(LogMark { position, offset, commit_time: mark.commit_time }))
        };
        moved().unwrap_or(mark)
    }
}

/// Finds the place of a configured start.
pub(crate) async fn of_start(server: &mut Server, facts: &Facts, start: &Start) -> Result<Place> {
    match start {
        Start::Now => {
            let end = server.log_end(facts).await?;
            Ok(Place::at(end.file, end.position, end.gtid))
        }
        Start::Earliest => {
            let files = server.log_files(facts).await?;
            let first = files.into_iter().next().ok_or_else(|| Error::transient("the server lists no binlog files"))?;
            let gtid = match facts.flavour {
                Flavour::Mariadb => server.mariadb_gtids_at(&first.name, FIRST_POSITION).await?,
                // Told by the file's own first events.
                Flavour::Mysql => None,
            };
            Ok(Place::at(first.name, FIRST_POSITION, gtid))
        }
        Start::Position { file, position } => {
            let files = server.log_files(facts).await?;
            let missing = |message: &'static str| with_files(Error::config(message), file, *position, &files);
            let Some(found) = files.iter().find(|found| found.name == *file) else {
                return Err(missing("the start names a binlog file that the server does not have")
                    .remedy("choose a file from SHOW BINARY LOGS, or start: earliest"));
            };
            if *position > found.bytes {
                return Err(missing("the start lies behind the end of its binlog file").remedy("choose a place within the file"));
            }
            let position = clamp_position(*position);
            let gtid = match facts.flavour {
                Flavour::Mariadb => server.mariadb_gtids_at(file, position).await?,
                Flavour::Mysql => None,
            };
            Ok(Place::at(file.clone(), position, gtid))
        }
        Start::Gtid(text) => {
            let gtid = match facts.flavour {
                Flavour::Mysql => GtidState::Mysql(Start::mysql_set(text)?),
                Flavour::Mariadb => GtidState::Mariadb(Start::mariadb_position(text)?),
            };
            if !facts.has_gtids() {
                return Err(Error::config("cannot start by GTIDs: the server does not give them")
                    .context("gtid_mode", facts.variable("gtid_mode").unwrap_or("absent"))
                    .remedy("turn gtid_mode ON on the server, or start at a file and position"));
            }
            check_gtids(facts, &gtid)?;
            Ok(Place::after(gtid))
        }
    }
}

/// Finds the place of a mark.
pub(crate) async fn of_mark(server: &mut Server, facts: &Facts, mark: &LogMark) -> Result<Place> {
    let offset = BinlogOffset::of(mark)?;
    let by_gtid = mark.offset.0.get(BY_GTID).and_then(serde_json::Value::as_bool).unwrap_or(false);
    let same_server = offset.server.as_deref().is_none_or(|identity| identity == facts.identity);
    let found = Place {
        incarnation: offset.incarnation,
        dump: DumpStart::Position { file: offset.file.clone(), position: offset.position },
        gtid: offset.gtid.clone(),
        by_gtid,
        resume: Some(mark.clone()),
        commit_time: mark.commit_time,
    };
    if !same_server || by_gtid {
        let gtid = offset.gtid.filter(|_| facts.has_gtids()).ok_or_else(|| {
            Error::log_gone("this is not the server that the checkpoint was made on, and without GTIDs its place cannot be found here")
                .context("checkpoint's server", offset.server.as_deref().unwrap_or("unknown"))
                .context("this server", &facts.identity)
                .remedy("point the stream at the old server again, or start it anew with start: and an empty state")
        })?;
        let gtid = for_flavour(gtid, facts)?;
        check_gtids(facts, &gtid)?;
        let dump = DumpStart::Gtid(gtid.clone());
        return Ok(match same_server {
            true => Place { dump, gtid: Some(gtid), ..found },
            false => {
                let incarnation =
                    offset.incarnation.checked_add(1).ok_or_else(|| Error::corrupt("the checkpoint's incarnation is at its end"))?;
                tracing::warn!(
                    checkpoint_server = offset.server.as_deref().unwrap_or("unknown"),
                    server = facts.identity,
                    incarnation,
                    "the log goes on on another server, found by its GTIDs"
                );
                Place { incarnation, dump, gtid: Some(gtid), by_gtid: true, resume: None, ..found }
            }
        });
    }
    let files = server.log_files(facts).await?;
    let gone = |message: &'static str| with_files(Error::log_gone(message), &offset.file, offset.position, &files);
    let Some(at) = files.iter().position(|file| file.name == offset.file) else {
        return Err(gone("the server no longer has the binlog file to go on from").remedy(format!(
            "what it held is lost to the stream: start it anew with start: earliest or now and an empty state; then keep binlogs \
             for longer: {}",
            facts.raise_retention()
        )));
    };
    let bytes = files.get(at).map_or(0, |file| file.bytes);
    if offset.position > bytes {
        return Err(gone("the server's binlog file is shorter than when it was read: the log was reset, or lost its end in a crash")
            .context("bytes", bytes)
            .remedy("start the stream anew with start: and an empty state; set sync_binlog = 1 so that a crash loses nothing"));
    }
    if offset.position > POSITION_MAX {
        // Only a transaction that ends the file gets there; the next file's beginning is the same place.
        let next = files.get(at + 1).filter(|_| bytes - offset.position <= FILE_TAIL_BYTES_MAX);
        let next =
            next.ok_or_else(|| gone("a place beyond 4 GiB in a binlog file cannot be reopened yet").remedy("run FLUSH BINARY LOGS"))?;
        return Ok(Place { dump: DumpStart::Position { file: next.name.clone(), position: FIRST_POSITION }, ..found });
    }
    Ok(found)
}

/// A state in the words of the server's flavour.
fn for_flavour(gtid: GtidState, facts: &Facts) -> Result<GtidState> {
    match (&gtid, facts.flavour) {
        (GtidState::Mysql(_), Flavour::Mysql) | (GtidState::Mariadb(_), Flavour::Mariadb) => Ok(gtid),
        _ => Err(Error::log_gone("the checkpoint was made on a server of the other kind, whose GTIDs mean nothing here")
            .context("this server", &facts.identity)
            .remedy("start the stream anew with start: and an empty state")),
    }
}

/// Refuses transactions that the server no longer has, or never had.
fn check_gtids(facts: &Facts, gtid: &GtidState) -> Result<()> {
    let GtidState::Mysql(set) = gtid else {
        // MariaDB says itself what it misses.
        return Ok(());
    };
    let server = |name: &str| crate::gtid::MysqlGtidSet::parse(facts.variable(name).unwrap_or_default());
    if !server("gtid_purged")?.is_subset(set) {
        return Err(Error::log_gone("the server has purged transactions that follow the GTIDs to go on from")
            .context("gtid_purged", facts.variable("gtid_purged").unwrap_or_default())
            .remedy(format!(
                "start the stream anew with start: earliest or now and an empty state; then keep binlogs for longer: {}",
                facts.raise_retention()
            )));
    }
    if !set.is_subset(&server("gtid_executed")?) {
        return Err(Error::log_gone("the GTIDs to go on from hold transactions that the server does not have")
            .context("gtid_executed", facts.variable("gtid_executed").unwrap_or_default())
            .remedy("point the stream at the server that has them, or start it anew with start: and an empty state"));
    }
    Ok(())
}

fn with_files(error: Error, file: &str, position: u64, files: &[LogFile]) -> Error {
    let name = |file: Option<&LogFile>| file.map_or("none", |file| file.name.as_str()).to_owned();
    error
        .context("file", file)
        .context("position", position)
        .context("oldest file", name(files.first()))
        .context("newest file", name(files.last()))
}

/// The position of a mark made here must not lie before one made earlier.
pub(crate) fn is_progress(mark: &LogMark, last: LogPosition) -> bool {
    mark.position >= last
}
