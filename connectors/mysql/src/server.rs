//! A server as plain SQL shows it: who it is, what its log holds, what it may be asked.
//!
//! Questions go over one connection beside the dump, made when first needed. It is out of `self` while a question is
//! under way, so a question that is dropped half-way takes its connection with it and leaves nothing half-read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use logweir_core::{Error, LogPosition, Result};
use mysql_async::prelude::{FromValue, Queryable};
use mysql_async::{Conn, Params, Row};
use tokio::time::timeout;

use crate::failure::failure;
use crate::gtid::{MariadbGtidPosition, MysqlGtidSet};
use crate::offset::{GtidState, file_number};
use crate::options::MysqlOptions;

/// No question takes longer than this on a server in order; `SHOW BINARY LOGS` over thousands of files takes seconds.
const QUESTION_SECONDS_MAX: u64 = 60;

/// A single attempt to connect takes no longer than this, whatever the configured patience.
const CONNECT_SECONDS_MAX: u64 = 10;

/// Whose dialect and protocol the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    Mysql,
    Mariadb,
}

/// What a server says of itself when it is first asked.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) flavour: Flavour,
    /// Major, minor, patch.
    pub(crate) version: (u32, u32, u32),
    /// Tells this server from every other one, also after it moved to another address.
    pub(crate) identity: String,
    /// The account that we are to the server, quoted for a GRANT: `'weir'@'%'`.
    pub(crate) account: String,
    variables: HashMap<String, String>,
}

impl Facts {
    /// A global variable, if the server has it.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// True if the variable is there and on.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.variable(name).is_some_and(|value| value.eq_ignore_ascii_case("ON") || value == "1")
    }

    /// True if the log can be opened after a set of GTIDs.
    pub(crate) fn has_gtids(&self) -> bool {
        match self.flavour {
            Flavour::Mariadb => true,
            Flavour::Mysql => self.is_on("gtid_mode"),
        }
    }

    /// The privilege to read positions of the log, by the server's own name.
    pub(crate) fn monitor_privilege(&self) -> &'static str {
        match self.flavour {
            Flavour::Mariadb if self.version >= (10, 5, 2) => "BINLOG MONITOR",
            _ => "REPLICATION CLIENT",
        }
    }

    /// How the setting for keeping binlogs is raised to a week.
    pub(crate) fn raise_retention(&self) -> &'static str {
        if self.variable("binlog_expire_logs_seconds").is_some() {
            "SET GLOBAL binlog_expire_logs_seconds = 604800"
        } else {
            "SET GLOBAL expire_logs_days = 7"
        }
    }

    #[cfg(test)]
    pub(crate) fn of(variables: &[(&str, &str)], account: &str) -> Self {
        Facts::new(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(), account)
            .expect("the variables hold a version")
    }

    fn new(variables: HashMap<String, String>, account: &str) -> Result<Self> {
        // Only MariaDB has domains; its version may be set to look like MySQL's.
        let flavour = if variables.contains_key("gtid_domain_id") { Flavour::Mariadb } else { Flavour::Mysql };
        let text = |name: &str| variables.get(name).map_or("", String::as_str);
        let version = version(text("version"))
            .ok_or_else(|| Error::config("could not understand the server's version").context("version", text("version")))?;
        let identity = match (flavour, text("server_uuid"), text("server_uid")) {
            (Flavour::Mysql, uuid, _) if !uuid.is_empty() => format!("mysql:{uuid}"),
            (Flavour::Mariadb, _, uid) if !uid.is_empty() => format!("mariadb:{uid}"),
            (Flavour::Mysql, ..) => format!("mysql:{}:{}:{}", text("server_id"), text("hostname"), text("port")),
            (Flavour::Mariadb, ..) => format!("mariadb:{}:{}:{}", text("server_id"), text("hostname"), text("port")),
        };
        let account = account.rsplit_once('@').map_or_else(
            || format!("'{}'", account.replace('\'', "''")),
            |(user, host)| format!("'{}'@'{}'", user.replace('\'', "''"), host.replace('\'', "''")),
        );
        Ok(Facts { flavour, version, identity, account, variables })
    }
}

/// The numbers that a version begins with: `10.11.19-MariaDB-log`, `9.7.0`.
fn version(text: &str) -> Option<(u32, u32, u32)> {
    let numbers = text.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    let mut parts = numbers.split('.').map(|part| part.parse::<u32>().ok());
    Some((parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
}

/// A place in a server's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogEnd {
    pub(crate) file: String,
    pub(crate) position: u64,
    /// The transactions before it, where the server says so.
    pub(crate) gtid: Option<GtidState>,
}

impl LogEnd {
    pub(crate) fn log_position(&self, incarnation: u32) -> Result<LogPosition> {
        Ok(LogPosition::new(incarnation, file_number(&self.file)?, self.position, 0, false))
    }
}

/// A file of a server's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogFile {
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

/// A server, and the connection that answers questions.
#[derive(Debug)]
pub(crate) struct Server {
    options: Arc<MysqlOptions>,
    connection: Option<Conn>,
}

impl Server {
    pub(crate) fn new(options: Arc<MysqlOptions>) -> Self {
        Server { options, connection: None }
    }

    pub(crate) fn options(&self) -> &Arc<MysqlOptions> {
        &self.options
    }

    /// A new connection of its own, for the dump.
    pub(crate) async fn connect(&self) -> Result<Conn> {
        let patience = self.options.connect_timeout.min(Duration::from_secs(CONNECT_SECONDS_MAX));
        let connecting = Conn::new(self.options.client()?);
        let connected = match timeout(patience, connecting).await {
            Ok(connected) => connected.map_err(|error| failure("could not connect to the server", error)),
            Err(_) => Err(Error::transient("could not connect to the server in time").context("seconds", patience.as_secs())),
        };
        connected.map_err(|error| error.context("server", self.options.address()).context("user", &self.options.user))
    }

    /// The answer to a question. `doing` is the message of the error: "could not list the binlog files".
    pub(crate) async fn ask(&mut self, doing: &'static str, sql: &str, params: impl Into<Params>) -> Result<Vec<Row>> {
        let params = params.into();
        let patience = Duration::from_secs(QUESTION_SECONDS_MAX);
        // A connection that was idle may be gone: then, and only then, the question is put once more.
        let kept = self.connection.take();
        let was_kept = kept.is_some();
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let mut answer = timeout(patience, put(&mut connection, sql, params.clone())).await;
        if was_kept && matches!(&answer, Ok(Err(error)) if error.is_fatal()) {
            connection = self.connect().await?;
            answer = timeout(patience, put(&mut connection, sql, params)).await;
        }
        match answer {
            Ok(Ok(rows)) => {
                self.connection = Some(connection);
                Ok(rows)
            }
            Ok(Err(error)) => {
                if !error.is_fatal() {
                    self.connection = Some(connection);
                }
                Err(failure(doing, error).context("server", self.options.address()))
            }
            Err(_) => Err(Error::transient(doing)
                .context("server", self.options.address())
                .context("seconds", QUESTION_SECONDS_MAX)
                .remedy("see what the server is busy with: SHOW PROCESSLIST")),
        }
    }

    /// What the server says of itself.
    pub(crate) async fn facts(&mut self) -> Result<Facts> {
        const DOING: &str = "could not read the server's variables";
        let rows = self.ask(DOING, "SHOW GLOBAL VARIABLES", ()).await?;
        let mut variables = HashMap::with_capacity(rows.len());
        for row in rows {
            variables
                .insert(get::<String>(&row, 0, DOING)?.to_ascii_lowercase(), get::<Option<String>>(&row, 1, DOING)?.unwrap_or_default());
        }
        let rows = self.ask("could not read the account's name", "SELECT CURRENT_USER()", ()).await?;
        let account = rows.first().map(|row| get::<String>(row, 0, DOING)).transpose()?.unwrap_or_default();
        Facts::new(variables, &account)
    }

    /// Where the log ends now.
    pub(crate) async fn log_end(&mut self, facts: &Facts) -> Result<LogEnd> {
        const DOING: &str = "could not read the end of the binlog";
        let statement = match facts.flavour {
            Flavour::Mysql if facts.version >= (8, 2, 0) => "SHOW BINARY LOG STATUS",
            _ => "SHOW MASTER STATUS",
        };
        let rows = self.ask(DOING, statement, ()).await.map_err(|error| with_grant(error, facts, facts.monitor_privilege()))?;
        let Some(row) = rows.first() else { return Err(log_bin_off(&self.options)) };
        let (file, position) = (get::<String>(row, 0, DOING)?, get::<u64>(row, 1, DOING)?);
        let gtid = match facts.flavour {
            Flavour::Mysql if facts.has_gtids() && row.len() > 4 => {
                let executed = get::<Option<String>>(row, 4, DOING)?.unwrap_or_default();
                Some(GtidState::Mysql(MysqlGtidSet::parse(&executed)?))
            }
            Flavour::Mysql => None,
            Flavour::Mariadb => self.mariadb_gtids_at(&file, position).await?,
        };
        Ok(LogEnd { file, position, gtid })
    }

    /// The GTIDs before a place in MariaDB's log; `None` if the server does not know.
    pub(crate) async fn mariadb_gtids_at(&mut self, file: &str, position: u64) -> Result<Option<GtidState>> {
        const DOING: &str = "could not read the GTIDs at a place in the binlog";
        let rows = self.ask(DOING, "SELECT BINLOG_GTID_POS(?, ?)", (file, position)).await?;
        let text = rows.first().map(|row| get::<Option<String>>(row, 0, DOING)).transpose()?.flatten();
        text.map(|text| MariadbGtidPosition::parse(&text).map(GtidState::Mariadb)).transpose()
    }

    /// GTIDs that the server tells of itself. `SHOW VARIABLES` cuts long values off, so they are asked for one by one.
    pub(crate) async fn gtids(&mut self, variable: &'static str) -> Result<String> {
        const DOING: &str = "could not read the server's GTIDs";
        let rows = self.ask(DOING, &format!("SELECT @@GLOBAL.{variable}"), ()).await?;
        Ok(rows.first().map(|row| get::<Option<String>>(row, 0, DOING)).transpose()?.flatten().unwrap_or_default())
    }

    /// The files the log still has, oldest first.
    pub(crate) async fn log_files(&mut self, facts: &Facts) -> Result<Vec<LogFile>> {
        const DOING: &str = "could not list the binlog files";
        let answer = self.ask(DOING, "SHOW BINARY LOGS", ()).await;
        let rows = answer.map_err(|error| match no_binary_logging(&error) {
            true => log_bin_off(&self.options),
            false => with_grant(error, facts, facts.monitor_privilege()),
        })?;
        rows.iter().map(|row| Ok(LogFile { name: get(row, 0, DOING)?, bytes: get(row, 1, DOING)? })).collect()
    }
}

async fn put(connection: &mut Conn, sql: &str, params: Params) -> mysql_async::Result<Vec<Row>> {
    match params {
        // The text protocol takes every statement; the binary one does not take all of SHOW.
        Params::Empty => connection.query(sql).await,
        params => connection.exec(sql, params).await,
    }
}

/// A value of an answer.
pub(crate) fn get<T: FromValue>(row: &Row, column: usize, doing: &'static str) -> Result<T> {
    row.get_opt::<T, _>(column)
        .and_then(std::result::Result::ok)
        .ok_or_else(|| Error::config(doing).context("unexpected answer in column", column))
}

/// Adds the statement that gives the missing privilege.
pub(crate) fn with_grant(error: Error, facts: &Facts, privilege: &str) -> Error {
    match error.kind() {
        logweir_core::ErrorKind::Denied => error.remedy(format!("run GRANT {privilege} ON *.* TO {}", facts.account)),
        _ => error,
    }
}

fn no_binary_logging(error: &Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(mysql_async::Error::Server(server)) = error.downcast_ref() {
            // ER_NO_BINARY_LOGGING
            return server.code == 1381;
        }
        cause = error.source();
    }
    false
}

fn log_bin_off(options: &MysqlOptions) -> Error {
    Error::config("the server writes no binlog")
        .context("server", options.address())
        .remedy("set log_bin and server_id in the server's configuration and restart it")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn flavours_and_identities() {
        let mysql = Facts::of(&[("version", "9.7.0"), ("server_uuid", "u-1"), ("gtid_mode", "ON")], "weir@%");
        assert_eq!((mysql.flavour, mysql.version, mysql.identity.as_str()), (Flavour::Mysql, (9, 7, 0), "mysql:u-1"));
        assert!(mysql.has_gtids());
        assert_eq!(mysql.account, "'weir'@'%'");

        // MariaDB that shows a MySQL version to please old clients.
        let posing = [("version", "5.6.51-log"), ("gtid_domain_id", "0"), ("server_id", "3"), ("hostname", "h"), ("port", "3306")];
        let mariadb = Facts::of(&posing, "o'neil@10.%");
        assert_eq!((mariadb.flavour, mariadb.identity.as_str()), (Flavour::Mariadb, "mariadb:3:h:3306"));
        assert_eq!(mariadb.account, "'o''neil'@'10.%'");
    }

    #[test]
    fn versions() {
        assert_eq!(version("10.11.19-MariaDB-log"), Some((10, 11, 19)));
        assert_eq!(version("8.0"), Some((8, 0, 0)));
        assert_eq!(version("unknown"), None);
    }
}
