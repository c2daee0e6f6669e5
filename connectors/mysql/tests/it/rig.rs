//! A server in a temporary directory, and a reading of a log as plain values.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use logweir_core::{
    Error, LogEvent, LogMark, LogPosition, LogReader, LogStart, MemoryBudget, MetadataColumn, Pattern, Relation, Source, TableFilter,
};
use logweir_mysql::options::{MysqlOptions, Start};
use logweir_mysql::source::MysqlSource;
use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, OptsBuilder};
use secrecy::SecretString;
use tempfile::TempDir;

const START_MAX: Duration = Duration::from_secs(60);

/// A wait for something that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    Mariadb,
    Mysql,
}

pub(crate) struct Rig {
    pub(crate) port: u16,
    process: Child,
    directory: TempDir,
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn mysql_root() -> PathBuf {
    let rigs = std::env::var_os("LOGWEIR_RIGS").map(PathBuf::from);
    let rigs = rigs.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/logweir/rigs"));
    let root = rigs.join("mysql");
    assert!(root.exists(), "MySQL is not at {}: run scripts/install-test-tools", root.display());
    root
}

fn mysqld() -> Command {
    let root = mysql_root();
    let mut command = Command::new(root.join("usr/lib64/ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(root.join("usr/lib/x86_64-linux-gnu")).arg(root.join("usr/sbin/mysqld"));
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
}

impl Rig {
    pub(crate) async fn mariadb(options: &[&str]) -> Rig {
        Rig::start(Flavour::Mariadb, options).await
    }

    pub(crate) async fn start(flavour: Flavour, options: &[&str]) -> Rig {
        let directory = tempfile::Builder::new().prefix("logweir-it-").tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let path = directory.path().to_owned();
        let at = |name: &str| path.join(name).display().to_string();
        let mut lines = vec![
            "[mysqld]".to_owned(),
            "bind-address=127.0.0.1".to_owned(),
            format!("port={port}"),
            format!("datadir={}", at("data")),
            format!("socket={}", at("sock")),
            format!("pid_file={}", at("pid")),
            format!("log_error={}", at("error.log")),
            // A starting server clears the common one of every other server's temporary tables.
            format!("tmpdir={}", at("tmp")),
        ];
        let common = "server_id=41 log_bin=mysql-bin binlog_format=ROW binlog_row_image=FULL binlog_row_metadata=FULL sync_binlog=0 \
                      innodb_flush_log_at_trx_commit=0 innodb_buffer_pool_size=32M";
        lines.extend(common.split_whitespace().map(str::to_owned));
        if flavour == Flavour::Mysql {
            let root = mysql_root();
            let root = root.display();
            lines.extend([
                format!("basedir={root}/usr"),
                format!("lc-messages-dir={root}/usr/share/mysql"),
                format!("character-sets-dir={root}/usr/share/mysql/charsets"),
                format!("plugin-dir={root}/usr/lib/mysql/plugin"),
            ]);
            lines.extend(["mysqlx=OFF", "secure_file_priv=", "gtid_mode=ON", "enforce_gtid_consistency=ON"].map(str::to_owned));
        }
        lines.extend(options.iter().map(|&option| option.to_owned()));
        std::fs::create_dir(at("tmp")).unwrap();
        std::fs::write(at("my.cnf"), lines.join("\n") + "\n").unwrap();
        let defaults = format!("--defaults-file={}", at("my.cnf"));
        match flavour {
            Flavour::Mariadb => run(Command::new("mariadb-install-db")
                .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", "--user=root"])
                .env("TMPDIR", at("tmp"))
                .arg(format!("--datadir={}", at("data")))),
            Flavour::Mysql => run(mysqld().arg(&defaults).args(["--user=root", "--initialize-insecure"])),
        }
        let mut command = match flavour {
            Flavour::Mariadb => Command::new("mariadbd"),
            Flavour::Mysql => mysqld(),
        };
        let log = std::fs::File::create(at("output.log")).unwrap();
        command.arg(&defaults).arg("--user=root").stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let rig = Rig { port, process: command.spawn().unwrap(), directory };
        let deadline = Instant::now() + START_MAX;
        while rig.try_root().await.is_err() {
            assert!(
                Instant::now() < deadline,
                "the server did not start: {}",
                std::fs::read_to_string(at("error.log")).unwrap_or_default()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        rig.execute("CREATE USER weir@'%' IDENTIFIED BY 'pass-w0rd'").await;
        let monitor = if flavour == Flavour::Mariadb { "BINLOG MONITOR" } else { "REPLICATION CLIENT" };
        rig.execute(&format!("GRANT REPLICATION SLAVE, {monitor}, SELECT ON *.* TO weir@'%'")).await;
        rig.execute("CREATE DATABASE shop").await;
        rig
    }

    async fn try_root(&self) -> mysql_async::Result<Conn> {
        let options = OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(self.port).user(Some("root")).prefer_socket(false);
        Conn::new(options).await
    }

    pub(crate) async fn execute(&self, sql: &str) {
        self.try_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    pub(crate) async fn try_execute(&self, sql: &str) -> mysql_async::Result<()> {
        let mut connection = self.try_root().await?;
        connection.query_drop(sql).await?;
        connection.disconnect().await
    }

    pub(crate) async fn query<T: FromRow + Send + 'static>(&self, sql: &str) -> Vec<T> {
        let mut connection = self.try_root().await.unwrap();
        let rows = connection.query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        connection.disconnect().await.unwrap();
        rows
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn options(&self) -> MysqlOptions {
        let mut options = MysqlOptions::new("127.0.0.1", "weir");
        options.port = self.port;
        options.password = Some(SecretString::from("pass-w0rd"));
        options
    }

    pub(crate) fn source(&self, start: Start) -> MysqlSource {
        MysqlSource::new(MysqlOptions { start, ..self.options() })
    }
}

pub(crate) fn tables(patterns: &[&str]) -> TableFilter {
    TableFilter { include: patterns.iter().map(|&pattern| Pattern::new(pattern)).collect(), ..TableFilter::default() }
}

pub(crate) fn start(resume: Option<&Reading>) -> LogStart {
    LogStart {
        resume: resume.map(|reading| reading.marks.last().unwrap().clone()),
        relations: resume.map(|reading| reading.relations.clone()).unwrap_or_default(),
        tables: tables(&["shop.*"]),
        before_images: Vec::new(),
        memory: MemoryBudget::new(64 * 1024 * 1024),
    }
}

/// What a reader handed out.
#[derive(Default)]
pub(crate) struct Reading {
    pub(crate) marks: Vec<LogMark>,
    pub(crate) relations: Vec<std::sync::Arc<Relation>>,
    /// Every change by position, as text: table, change type and the values of its columns.
    pub(crate) changes: BTreeMap<LogPosition, String>,
}

impl Reading {
    pub(crate) fn last(&self) -> &LogMark {
        self.marks.last().unwrap()
    }

    /// The changes behind a position.
    pub(crate) fn behind(&self, position: LogPosition) -> BTreeMap<LogPosition, String> {
        self.changes.range(position..).filter(|(at, _)| **at > position).map(|(at, text)| (*at, text.clone())).collect()
    }

    pub(crate) fn texts(&self) -> Vec<&str> {
        self.changes.values().map(String::as_str).collect()
    }

    pub(crate) fn take(&mut self, event: LogEvent) {
        match event {
            LogEvent::Relation(relation) => self.relations.push(relation),
            LogEvent::Mark(mark) => {
                if let Some(before) = self.marks.last() {
                    assert!(mark.position >= before.position, "marks never go back: {} after {}", mark.position, before.position);
                }
                assert!(self.changes.keys().all(|at| *at <= mark.position), "no change behind a mark came before it");
                self.marks.push(mark);
            }
            LogEvent::Changes(batch) => {
                assert!(batch.memory.bytes() > 0, "memory was acquired");
                assert!(
                    self.relations.iter().any(|known| **known == *batch.relation) || self.marks.len() == 1 || !self.relations.is_empty()
                );
                for row in 0..batch.rows() {
                    let at = batch.position(row);
                    if let Some(mark) = self.marks.last() {
                        assert!(at > mark.position, "a change at {at} behind the mark {}", mark.position);
                    }
                    let mut text = format!("{} {:?}", batch.relation.name(), batch.change_type_codes()[row]);
                    for column in 0..batch.relation.columns().len() {
                        let value = arrow_cast::display::array_value_to_string(batch.records.column(column), row).unwrap();
                        text.push_str(&format!(" {value}"));
                    }
                    let again = self.changes.insert(at, text);
                    assert!(again.is_none(), "{at} was handed out twice");
                }
                let timestamps = batch.metadata(MetadataColumn::Timestamp);
                assert_eq!(timestamps.len(), batch.rows());
            }
        }
    }
}

use arrow_array::Array;

/// Reads until a mark at or behind `end`.
pub(crate) async fn read_to(reader: &mut dyn LogReader, reading: &mut Reading, end: LogPosition) {
    while reading.marks.last().is_none_or(|mark| mark.position < end) {
        let next = tokio::time::timeout(PATIENCE, reader.next()).await;
        let at = reading.marks.last().map(|mark| mark.position);
        let next = next.unwrap_or_else(|_| panic!("nothing came for long; the last mark is {at:?}, wanted {end}"));
        reading.take(next.unwrap().expect("a live log has no end"));
    }
}

/// Reads to the end the log has now.
pub(crate) async fn catch_up(reader: &mut dyn LogReader, reading: &mut Reading) {
    let end = reader.end().await.unwrap().unwrap();
    read_to(reader, reading, end).await;
}

/// Reads a recording to its end, or to its error.
pub(crate) async fn read_all(reader: &mut dyn LogReader) -> (Reading, Option<Error>) {
    let mut reading = Reading::default();
    loop {
        match tokio::time::timeout(PATIENCE, reader.next()).await.unwrap() {
            Ok(Some(event)) => reading.take(event),
            Ok(None) => return (reading, None),
            Err(error) => return (reading, Some(error)),
        }
    }
}

pub(crate) async fn open(source: &dyn Source, start: LogStart) -> Box<dyn LogReader> {
    source.open_log(start).await.unwrap_or_else(|error| panic!("the log cannot be opened: {error:?}"))
}

pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap_or_else(|error| panic!("{} cannot be copied: {error}", from.display()));
}
