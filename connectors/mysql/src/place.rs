//! Where a log is opened: what a configuration's start or a checkpoint's mark means on the server that answers now.
//!
//! On the server it was made on, a mark's file and offset are exact. On another one (a failover, a restore, a new address)
//! they mean nothing: there the GTIDs of the mark find the place, and the incarnation is raised so that positions keep
//! rising. A log that was started by a set of GTIDs is always reopened by GTIDs, because what the set lacked may lie on
//! both sides of any offset.

use std::collections::HashMap;
use std::time::Duration;

use logweir_core::{Error, Incarnation, LogMark, LogPosition, Result, TimestampMicros};
use tokio::time::{Instant, sleep};

use crate::gtid::{MariadbGtidPosition, MysqlGtidSet};
use crate::offset::{BinlogOffset, GtidState};
use crate::options::{FIRST_POSITION, Start};
use crate::server::{Facts, Flavour, LogFile, Server};
use crate::stream::{DumpStart, clamp_position};

/// In a mark's offset, beside the members of [`BinlogOffset`]: reopen by GTIDs, also on the same server.
const BY_GTID: &str = "by_gtid";

/// Likewise: when the mark's file was begun, in seconds since 1970. A log that was reset has files of the same names again.
const FILE_BEGUN: &str = "file_begun";

/// MySQL sends a transaction before it counts it as executed: so long one of a mark may still be missing there.
const EXECUTED_PATIENCE: Duration = Duration::from_secs(5);

const RESET: &str = "the server's binlog was reset, or restored from a backup, since the checkpoint was made";

const ANEW: &str = "what the log held is lost to the stream: remove the stream's checkpoint and choose a new start:";

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
    /// The server that the mark was made on, if it is another one.
    pub(crate) left: Option<String>,
}

impl Place {
    fn at(file: String, position: u64, gtid: Option<GtidState>) -> Self {
        let dump = DumpStart::Position { file, position };
        Place { incarnation: 0, dump, gtid, by_gtid: false, resume: None, commit_time: None, left: None }
    }

    fn after(gtid: GtidState) -> Self {
        let dump = DumpStart::Gtid(gtid.clone());
        Place { incarnation: 0, dump, gtid: Some(gtid), by_gtid: true, resume: None, commit_time: None, left: None }
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

    /// Refuses a file that was begun at another time than the one the mark was made in: it only has the same name.
    pub(crate) fn check_begun(&self, first_file: &str, begun: Option<u32>) -> Result<()> {
        let (Some(mark), DumpStart::Position { file, position }, Some(begun)) = (&self.resume, &self.dump, begun) else { return Ok(()) };
        let offset = BinlogOffset::of(mark)?;
        let before = mark.offset.0.get(FILE_BEGUN).and_then(serde_json::Value::as_u64);
        if offset.file != *file || file != first_file || before.is_none_or(|before| before == u64::from(begun)) {
            return Ok(());
        }
        Err(Error::log_gone(RESET).context("file", file).context("position", position).remedy(ANEW))
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
            check_gtids(server, facts, &gtid, Duration::ZERO, NEVER_HAD).await?;
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
        left: None,
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
        let missing = if same_server { RESET } else { NEVER_HAD };
        check_gtids(server, facts, &gtid, EXECUTED_PATIENCE, missing).await?;
        let dump = DumpStart::Gtid(gtid.clone());
        return Ok(match same_server {
            true => Place { dump, gtid: Some(gtid), ..found },
            false => {
                let incarnation =
                    offset.incarnation.checked_add(1).ok_or_else(|| Error::corrupt("the checkpoint's incarnation is at its end"))?;
                let left = Some(offset.server.unwrap_or_else(|| "unknown".to_owned()));
                Place { incarnation, dump, gtid: Some(gtid), by_gtid: true, resume: None, left, ..found }
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
    same_history(server, facts, &offset).await?;
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

/// What a server lacks that never was the stream's.
const NEVER_HAD: &str = "the GTIDs to go on from hold transactions that the server does not have";

/// Refuses a file and offset that are there, but in a log that has another past than the mark's.
async fn same_history(server: &mut Server, facts: &Facts, offset: &BinlogOffset) -> Result<()> {
    match &offset.gtid {
        Some(GtidState::Mysql(set)) if facts.flavour == Flavour::Mysql && facts.has_gtids() => {
            check_executed(server, set, EXECUTED_PATIENCE, RESET).await
        }
        // Beyond 4 GiB the server does not say.
        Some(GtidState::Mariadb(ours)) if facts.flavour == Flavour::Mariadb && offset.position <= POSITION_MAX => {
            let there = match server.mariadb_gtids_at(&offset.file, offset.position).await? {
                Some(GtidState::Mariadb(there)) if there == *ours => return Ok(()),
                Some(GtidState::Mariadb(there)) => format!("'{there}'"),
                _ => "none: no transaction begins there".to_owned(),
            };
            Err(Error::log_gone(RESET)
                .context("file", &offset.file)
                .context("position", offset.position)
                .context("checkpoint's GTIDs", format!("'{ours}'"))
                .context("GTIDs there", there)
                .remedy(ANEW))
        }
        _ => Ok(()),
    }
}

/// Refuses transactions that the server no longer has, or never had: then with the message `missing`.
async fn check_gtids(server: &mut Server, facts: &Facts, gtid: &GtidState, patience: Duration, missing: &'static str) -> Result<()> {
    match gtid {
        GtidState::Mysql(set) => {
            let purged = server.gtids("gtid_purged").await?;
            if !MysqlGtidSet::parse(&purged)?.is_subset(set) {
                return Err(Error::log_gone("the server has purged transactions that follow the GTIDs to go on from")
                    .context("gtid_purged", purged)
                    .remedy(format!(
                        "start the stream anew with start: earliest or now and an empty state; then keep binlogs for longer: {}",
                        facts.raise_retention()
                    )));
            }
            check_executed(server, set, patience, missing).await
        }
        // MariaDB says itself what it purged. A domain that it never met it takes for one yet to come, and sends everything.
        GtidState::Mariadb(position) => {
            let logged = server.gtids("gtid_binlog_state").await?;
            let applied = MariadbGtidPosition::parse(&server.gtids("gtid_slave_pos").await?)?;
            match lacking(position, &logged, &applied) {
                None => Ok(()),
                Some(domain) => Err(Error::log_gone(missing)
                    .context("domain", domain)
                    .context("GTIDs to go on from", format!("'{position}'"))
                    .context("gtid_binlog_state", format!("'{logged}'"))
                    .remedy(format!("point the stream at the server that has them; if there is none: {ANEW}"))),
            }
        }
    }
}

/// Refuses transactions that MySQL has not executed.
async fn check_executed(server: &mut Server, set: &MysqlGtidSet, patience: Duration, missing: &'static str) -> Result<()> {
    let until = Instant::now() + patience;
    loop {
        let executed = server.gtids("gtid_executed").await?;
        if set.is_subset(&MysqlGtidSet::parse(&executed)?) {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(Error::log_gone(missing)
                .context("gtid_executed", executed)
                .remedy(format!("point the stream at the server that has them; if there is none: {ANEW}")));
        }
        sleep(Duration::from_millis(250)).await;
    }
}

/// The first domain of `position` that MariaDB neither logged as far, nor applied exactly that far as a replica.
///
/// `logged` is @@gtid_binlog_state: the last transaction of every server in every domain.
fn lacking(position: &MariadbGtidPosition, logged: &str, applied: &MariadbGtidPosition) -> Option<u32> {
    let mut reached: HashMap<u32, u64> = HashMap::new();
    for gtid in logged.split(',') {
        let mut parts = gtid.trim().split('-').map(str::parse::<u64>);
        if let (Some(Ok(domain)), Some(Ok(_)), Some(Ok(sequence))) = (parts.next(), parts.next(), parts.next())
            && let Ok(domain) = u32::try_from(domain)
        {
            let last = reached.entry(domain).or_default();
            *last = sequence.max(*last);
        }
    }
    let lacks = |domain: u32, server: u32, sequence: u64| {
        reached.get(&domain).is_none_or(|last| *last < sequence) && applied.get(domain) != Some((server, sequence))
    };
    position.iter().find(|(domain, server, sequence)| lacks(*domain, *server, *sequence)).map(|(domain, ..)| domain)
}

/// Writes into a mark when its file was begun.
pub(crate) fn sign_begun(mut mark: LogMark, begun: impl Fn(&str) -> Option<u32>) -> LogMark {
    if let Some(offset) = mark.offset.0.as_object_mut()
        && let Some(begun) = offset.get("file").and_then(serde_json::Value::as_str).and_then(begun)
    {
        offset.insert(FILE_BEGUN.to_owned(), begun.into());
    }
    mark
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_mariadb_server_must_have_reached_every_domain() {
        let lacking = |ours: &str, logged: &str, applied: &str| {
            lacking(&MariadbGtidPosition::parse(ours).unwrap(), logged, &MariadbGtidPosition::parse(applied).unwrap())
        };
        assert_eq!(lacking("", "", ""), None);
        assert_eq!(lacking("0-1-5,7-1-3", "0-1-5,7-1-2,7-2-9", ""), None);
        assert_eq!(lacking("0-1-5,7-1-3", "0-1-5", ""), Some(7));
        assert_eq!(lacking("0-1-5", "0-1-4,0-2-3", ""), Some(0));
        // A replica that does not log what it applies knows the place if it is just there.
        assert_eq!(lacking("0-1-5", "", "0-1-5"), None);
        assert_eq!(lacking("0-1-5", "", "0-1-6"), Some(0));
    }
}
