//! A MariaDB or MySQL server under test.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, OptsBuilder};
use tempfile::TempDir;

use super::process::{Process, START_TIMEOUT, free_port};
use super::{mariadb, mysql};

/// Whose server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// MariaDB of the distribution.
    MariaDb,
    /// MySQL of Debian sid.
    MySql,
}

/// A running server. Its binlog is in row format with full images and full metadata unless options say otherwise.
#[derive(Debug)]
pub struct DatabaseServer {
    flavour: Flavour,
    port: u16,
    process: Option<Process>,
    directory: TempDir,
}

/// Servers of one process differ in their server id.
static SERVER_IDS: AtomicU32 = AtomicU32::new(100);

/// The user that logweir connects as; it may follow the log and read the tables, nothing else.
const FOLLOWER: &str = "weir";
/// The follower's password.
const FOLLOWER_PASSWORD: &str = "weir-Pa55 word'";

impl DatabaseServer {
    /// Starts a MariaDB server; `options` are lines of its configuration that win over ours.
    pub async fn mariadb(options: &[&str]) -> Self {
        Self::start(Flavour::MariaDb, options).await
    }

    /// Starts a MySQL server; `options` are lines of its configuration that win over ours.
    pub async fn mysql(options: &[&str]) -> Self {
        Self::start(Flavour::MySql, options).await
    }

    /// Starts a server and makes the follower's account.
    pub async fn start(flavour: Flavour, options: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("logweir-db-").tempdir().expect("a temporary directory can be made");
        // Of its own, because a server that starts removes what others have in a common one.
        std::fs::create_dir(directory.path().join("tmp")).expect("a directory can be made");
        let mut server = DatabaseServer { flavour, port: 0, process: None, directory };
        server.configure(options);
        match flavour {
            Flavour::MariaDb => mariadb::initialise(&server.path("data"), &server.path("tmp"), &server.path("install.log")),
            Flavour::MySql => mysql::initialise(&server.path("my.cnf"), &server.path("install.log")),
        }
        server.launch().await;
        let rights = match flavour {
            Flavour::MariaDb => "REPLICATION SLAVE, BINLOG MONITOR, SELECT",
            Flavour::MySql => "REPLICATION SLAVE, REPLICATION CLIENT, SELECT",
        };
        let password = FOLLOWER_PASSWORD.replace('\'', "''");
        server.execute(&format!("CREATE USER {FOLLOWER}@'%' IDENTIFIED BY '{password}'")).await;
        server.execute(&format!("GRANT {rights} ON *.* TO {FOLLOWER}@'%'")).await;
        server
    }

    fn configure(&self, options: &[&str]) {
        let mut lines = vec!["[mysqld]".to_owned(), "bind-address=127.0.0.1".to_owned()];
        let in_directory = |name: &str| self.path(name).display().to_string();
        lines.push(format!("datadir={}", in_directory("data")));
        lines.push(format!("tmpdir={}", in_directory("tmp")));
        lines.push(format!("socket={}", in_directory("sock")));
        lines.push(format!("pid_file={}", in_directory("pid")));
        lines.push(format!("log_error={}", in_directory("error.log")));
        lines.push(format!("server_id={}", SERVER_IDS.fetch_add(1, Ordering::Relaxed)));
        let log = ["log_bin=mysql-bin", "binlog_format=ROW", "binlog_row_image=FULL", "binlog_row_metadata=FULL", "secure_file_priv="];
        // Tests crash logweir, never the server, so its own durability only costs time.
        let quick = ["sync_binlog=0", "innodb_flush_log_at_trx_commit=0", "innodb_buffer_pool_size=64M"];
        lines.extend(log.into_iter().chain(quick).map(str::to_owned));
        match self.flavour {
            Flavour::MariaDb => lines.extend(mariadb::OPTIONS.iter().map(|&option| option.to_owned())),
            Flavour::MySql => lines.extend(mysql::options()),
        }
        lines.extend(options.iter().map(|&option| option.to_owned()));
        std::fs::write(self.path("my.cnf"), lines.join("\n") + "\n").expect("the configuration can be written");
    }

    /// Starts the process and waits until it answers; another process may take the free port first, hence the tries.
    async fn launch(&mut self) {
        for _ in 0..3 {
            let port = if self.port == 0 { free_port() } else { self.port };
            let my_cnf = self.path("my.cnf");
            let mut command = match self.flavour {
                Flavour::MariaDb => mariadb::server(&my_cnf),
                Flavour::MySql => mysql::server(&my_cnf),
            };
            command.arg(format!("--port={port}"));
            let mut process = Process::start(&mut command, &self.path("output.log"));
            let deadline = Instant::now() + START_TIMEOUT;
            while Instant::now() < deadline && !process.has_ended() {
                self.port = port;
                if self.try_connect_root().await.is_ok() {
                    self.process = Some(process);
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            if !process.has_ended() {
                break;
            }
            self.port = 0;
        }
        let log = std::fs::read_to_string(self.path("error.log")).unwrap_or_default();
        panic!("{:?} did not start; the end of its log:\n{}", self.flavour, log.lines().rev().take(20).collect::<Vec<_>>().join("\n"));
    }

    /// Stops the server in an orderly way; its files stay.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.terminate();
        }
    }

    /// Starts a stopped server again, on the same port.
    pub async fn restart(&mut self) {
        self.stop();
        self.launch().await;
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Whose server it is.
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The user that logweir connects as.
    pub fn user(&self) -> &'static str {
        FOLLOWER
    }

    /// The password of [`user`](Self::user).
    pub fn password(&self) -> &'static str {
        FOLLOWER_PASSWORD
    }

    /// Where the binlog files lie.
    pub fn data_directory(&self) -> PathBuf {
        self.path("data")
    }

    async fn try_connect_root(&self) -> mysql_async::Result<Conn> {
        let options = OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.port)
            .user(Some("root"))
            .prefer_socket(false)
            .init(vec!["SET NAMES utf8mb4, time_zone = '+00:00'"]);
        Conn::new(options).await
    }

    /// A connection as root.
    pub async fn connect(&self) -> Conn {
        self.try_connect_root().await.expect("a running server accepts root")
    }

    /// Runs one statement as root.
    pub async fn execute(&self, sql: &str) {
        let mut connection = self.connect().await;
        if let Err(error) = connection.query_drop(sql).await {
            panic!("{sql}: {error}");
        }
        let _ = connection.disconnect().await;
    }

    /// The rows of one query as root.
    pub async fn query<T: FromRow + Send + 'static>(&self, sql: &str) -> Vec<T> {
        let mut connection = self.connect().await;
        let rows = connection.query(sql).await;
        let _ = connection.disconnect().await;
        rows.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The names of the binlog files, in order.
    pub async fn binlog_files(&self) -> Vec<String> {
        let rows: Vec<mysql_async::Row> = self.query("SHOW BINARY LOGS").await;
        rows.iter().filter_map(|row| row.get::<String, _>(0)).collect()
    }

    /// Applies recorded binlog files of a server of the same flavour, by its own tools.
    pub fn replay(&self, files: &[PathBuf]) {
        let (mut tool, mut client) = match self.flavour {
            Flavour::MariaDb => (mariadb::binlog_tool(), mariadb::client()),
            Flavour::MySql => (mysql::binlog_tool(), mysql::client()),
        };
        let mut tool = tool.args(files).stdout(Stdio::piped()).spawn().expect("the binlog tool can be run");
        client.args(["--host=127.0.0.1", "--user=root"]).arg(format!("--port={}", self.port));
        let status = client.stdin(tool.stdout.take().expect("standard output is piped")).status().expect("the client can be run");
        // It holds the pipe's other end; with it gone, a tool that still writes ends.
        drop(client);
        let read = tool.wait().expect("the binlog tool ends");
        assert!(status.success() && read.success(), "the recording could not be replayed");
    }

    /// The row changes that the server's own tool finds in its binlog, by table: how much must arrive.
    pub async fn binlog_counts(&self) -> BTreeMap<String, BinlogCounts> {
        let mut files = Vec::new();
        for name in self.binlog_files().await {
            files.push(self.data_directory().join(name));
        }
        let mut command = match self.flavour {
            Flavour::MariaDb => mariadb::binlog_tool(),
            Flavour::MySql => mysql::binlog_tool(),
        };
        count_row_changes(&mut command, &files)
    }
}

/// Row changes of one table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BinlogCounts {
    /// Rows inserted.
    pub inserts: u64,
    /// Rows updated.
    pub updates: u64,
    /// Rows deleted.
    pub deletes: u64,
    /// True if the tool met a type that it cannot read (MySQL's: geometries), after which it leaves out rows.
    pub incomplete: bool,
}

/// How a statement begins as the tool shows it, and what counts it.
type Verb = (&'static str, fn(&mut BinlogCounts) -> &mut u64);

fn count_row_changes(command: &mut Command, files: &[PathBuf]) -> BTreeMap<String, BinlogCounts> {
    let output = command.args(["--verbose", "--base64-output=decode-rows"]).args(files).output().expect("the binlog tool can be run");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    let mut counts = BTreeMap::<String, BinlogCounts>::new();
    let mut table = String::new();
    for line in output.stdout.split(|&byte| byte == b'\n') {
        let Some(line) = line.strip_prefix(b"### ") else { continue };
        let line = String::from_utf8_lossy(line);
        let verbs: [Verb; 3] = [
            ("INSERT INTO ", |counts| &mut counts.inserts),
            ("UPDATE ", |counts| &mut counts.updates),
            ("DELETE FROM ", |counts| &mut counts.deletes),
        ];
        if let Some((name, counter)) = verbs.iter().find_map(|(verb, counter)| Some((line.strip_prefix(verb)?, counter))) {
            table = name.replace('`', "");
            *counter(counts.entry(table.clone()).or_default()) += 1;
        } else if line.contains("!! Don't know how to handle column type") {
            counts.entry(table.clone()).or_default().incomplete = true;
        }
    }
    counts
}
