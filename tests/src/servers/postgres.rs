//! A PostgreSQL server under test, of any version from 12 to 18, and standbys of it.
//!
//! PostgreSQL refuses to run as root. Where the tests do, the server runs as the user `postgres`, to whom its directory
//! then belongs.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::process::{Process, START_TIMEOUT, free_port, installed, is_root, rigs_directory};

/// The versions that `scripts/install-test-tools` installs.
pub const POSTGRES_VERSIONS: [u32; 7] = [12, 13, 14, 15, 16, 17, 18];

/// A running server, with a log that can be decoded unless options say otherwise.
#[derive(Debug)]
pub struct PostgresServer {
    version: u32,
    port: u16,
    process: Option<Process>,
    directory: TempDir,
}

/// The user that logweir connects as; it may follow the log and read the tables that `postgres` makes, nothing else.
const FOLLOWER: &str = "weir";
/// The follower's password.
const FOLLOWER_PASSWORD: &str = "weir-Pa55 word'";
/// The database that is there, beside the server's own.
const DATABASE: &str = "depot";
/// The slot that changes are counted from.
const COUNTING: &str = "counting";

/// Standbys of one process differ in their names.
static STANDBYS: AtomicU32 = AtomicU32::new(1);

/// Small and quick, and set so that whoever asks for values without saying how gets them in the least convenient form.
const SETTINGS: &[&str] = &[
    "listen_addresses = '127.0.0.1'",
    "wal_level = logical",
    "max_wal_senders = 20",
    "max_replication_slots = 20",
    "max_prepared_transactions = 10",
    "max_connections = 60",
    "password_encryption = 'scram-sha-256'",
    "shared_buffers = 32MB",
    "max_wal_size = 64MB",
    "min_wal_size = 4MB",
    // Tests kill processes, never the machine, so the system's own memory holds what was written.
    "fsync = off",
    "full_page_writes = off",
    "hot_standby_feedback = on",
    "timezone = 'Asia/Kathmandu'",
    "datestyle = 'SQL, DMY'",
    "intervalstyle = 'postgres_verbose'",
    "extra_float_digits = -2",
    "bytea_output = 'escape'",
    "log_line_prefix = '%m [%p] %q%u@%d %a '",
];

/// Who may come in: the administrator as he is, everybody else with a password.
const ACCESS: &str = "\
local all postgres trust
host all postgres 127.0.0.1/32 trust
host replication postgres 127.0.0.1/32 trust
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
";

impl PostgresServer {
    /// Starts a server of a major version and makes the follower's account and a database; `options` are lines of its
    /// configuration that win over ours.
    pub async fn start(version: u32, options: &[&str]) -> Self {
        let mut server = Self::new(version);
        server.initialise();
        server.configure(options);
        server.launch().await;
        let password = FOLLOWER_PASSWORD.replace('\'', "''");
        server.execute_in("postgres", &format!("CREATE ROLE {FOLLOWER} LOGIN REPLICATION PASSWORD '{password}'")).await;
        server.execute_in("postgres", &format!("CREATE DATABASE {DATABASE}")).await;
        for rights in ["USAGE ON SCHEMAS", "SELECT ON TABLES"] {
            server.execute(&format!("ALTER DEFAULT PRIVILEGES GRANT {rights} TO {FOLLOWER}")).await;
        }
        server
    }

    /// Starts a standby that follows a server by streaming replication, through a slot of its own.
    pub async fn standby_of(primary: &PostgresServer, options: &[&str]) -> Self {
        let name = format!("standby_{}", STANDBYS.fetch_add(1, Ordering::Relaxed));
        let mut server = Self::new(primary.version);
        // By hand and not by pg_basebackup, which none of the npm packages has and which refuses newer servers.
        let (begin, end) = if primary.version >= 15 {
            ("pg_backup_start('copy', true)", "pg_backup_stop(false)")
        } else {
            ("pg_start_backup('copy', true, false)", "pg_stop_backup(false, false)")
        };
        let session = primary.connect().await;
        session.batch_execute(&format!("SELECT pg_create_physical_replication_slot('{name}', true)")).await.expect("a slot can be made");
        session.batch_execute(&format!("SELECT {begin}")).await.expect("a backup can begin");
        // A file that vanishes while it is copied is made good by the log; a copy that is no copy does not start.
        let _ = Command::new("cp").arg("-a").arg(primary.path("data")).arg(server.directory.path()).output();
        let rows = session.query(&format!("SELECT labelfile FROM {end}"), &[]).await.expect("a backup can end");
        let data = server.path("data");
        for left_behind in ["postmaster.pid", "postmaster.opts"] {
            let _ = std::fs::remove_file(data.join(left_behind));
        }
        for emptied in ["pg_wal", "pg_replslot"] {
            let _ = std::fs::remove_dir_all(data.join(emptied));
            std::fs::create_dir(data.join(emptied)).expect("a directory can be made");
        }
        let label: String = rows[0].get(0);
        std::fs::write(data.join("backup_label"), label).expect("the label can be written");
        std::fs::write(data.join("standby.signal"), "").expect("the signal can be written");
        server.configure(&[]);
        let follow = [
            format!("primary_conninfo = 'host=127.0.0.1 port={} user=postgres dbname={DATABASE} application_name={name}'", primary.port),
            format!("primary_slot_name = '{name}'"),
        ];
        server.append(follow.iter().map(String::as_str).chain(options.iter().copied()));
        server.own(&data);
        server.launch().await;
        server
    }

    fn new(version: u32) -> Self {
        let directory = tempfile::Builder::new().prefix("logweir-pg-").tempdir().expect("a temporary directory can be made");
        let server = PostgresServer { version, port: 0, process: None, directory };
        server.own(server.directory.path());
        server
    }

    /// A program of this version, run by who may run it.
    fn program(&self, name: &str) -> Command {
        // The real place, since the way there may lead through directories that the user postgres may not enter.
        let path = installed(rigs_directory().join(format!("postgres/{}/bin/{name}", self.version)));
        let mut command = Command::new(path.canonicalize().expect("a path that is there has a real one"));
        command.current_dir(self.directory.path());
        if is_root() {
            let (uid, gid) = postgres_user();
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Gives a path, and what lies below it, to who runs the server.
    fn own(&self, path: &Path) {
        if is_root() {
            let status = Command::new("chown").args(["-R", "postgres:postgres"]).arg(path).status();
            assert!(status.is_ok_and(|status| status.success()), "{} cannot be given to postgres", path.display());
        }
    }

    fn initialise(&self) {
        let output = self
            .program("initdb")
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--wal-segsize=1", "--pgdata"])
            .arg(self.path("data"))
            .output()
            .expect("initdb can be run");
        assert!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::write(self.path("data/pg_hba.conf"), ACCESS).expect("pg_hba.conf can be written");
    }

    fn configure(&self, options: &[&str]) {
        let socket = format!("unix_socket_directories = '{}'", self.directory.path().display());
        self.append(SETTINGS.iter().copied().chain([socket.as_str()]).chain(options.iter().copied()));
    }

    fn append<'a>(&self, lines: impl Iterator<Item = &'a str>) {
        let path = self.path("data/postgresql.conf");
        let before = std::fs::read_to_string(&path).expect("initdb writes a configuration");
        let lines: Vec<_> = lines.collect();
        std::fs::write(path, format!("{before}\n{}\n", lines.join("\n"))).expect("the configuration can be written");
    }

    /// Starts the process and waits until it answers. Another process may take the free port first, and what a killed
    /// server left may still be there for a moment, hence the tries.
    async fn launch(&mut self) {
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline {
            let port = if self.port == 0 { free_port() } else { self.port };
            let mut command = self.program("postgres");
            command.arg("-D").arg(self.path("data")).args(["-p", &port.to_string()]);
            let mut process = Process::start(&mut command, &self.path("server.log"));
            let first = self.port == 0;
            self.port = port;
            while Instant::now() < deadline && !process.has_ended() {
                if self.try_connect("postgres").await.is_ok() {
                    self.process = Some(process);
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if first {
                self.port = 0;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("PostgreSQL {} did not start; the end of its log:\n{}", self.version, self.log_tail());
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path("server.log")).unwrap_or_default()).into_owned()
    }

    /// Stops the server in an orderly way, without waiting for its clients to leave; its files stay.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.end_by("INT", Duration::from_secs(90));
        }
    }

    /// `kill -9`: the server has no time for anything, and recovers when it starts again.
    pub fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Starts a server that was stopped or killed again, on the same port.
    pub async fn start_again(&mut self) {
        assert!(self.process.is_none(), "it runs");
        self.launch().await;
    }

    /// Stops and starts it.
    pub async fn restart(&mut self) {
        self.stop();
        self.start_again().await;
    }

    /// Makes a standby a server of its own.
    pub async fn promote(&self) {
        self.execute_in("postgres", "SELECT pg_promote()").await;
        self.wait_until("NOT pg_is_in_recovery()").await;
    }

    /// Changes a setting of the running server.
    pub async fn set(&self, setting: &str, value: &str) {
        self.execute_in("postgres", &format!("ALTER SYSTEM SET {setting} = {value}")).await;
        self.execute_in("postgres", "SELECT pg_reload_conf()").await;
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The major version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of its socket.
    pub fn socket_directory(&self) -> &Path {
        self.directory.path()
    }

    /// The user that logweir connects as.
    pub fn user(&self) -> &'static str {
        FOLLOWER
    }

    /// The password of [`user`](Self::user).
    pub fn password(&self) -> &'static str {
        FOLLOWER_PASSWORD
    }

    /// The database that is there.
    pub fn database(&self) -> &'static str {
        DATABASE
    }

    async fn try_connect(&self, database: &str) -> Result<Client, tokio_postgres::Error> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").dbname(database).application_name("test");
        let (client, connection) = config.connect(NoTls).await?;
        // Ends with the client, or with the server.
        tokio::spawn(connection);
        Ok(client)
    }

    /// A connection as administrator.
    pub async fn connect(&self) -> Client {
        match self.try_connect(DATABASE).await {
            Ok(client) => client,
            Err(error) => panic!("a running server refuses its administrator: {}\n{}", reason(&error), self.log_tail()),
        }
    }

    /// Runs statements as administrator.
    pub async fn execute(&self, sql: &str) {
        self.execute_in(DATABASE, sql).await;
    }

    /// Runs statements as administrator in a database.
    pub async fn execute_in(&self, database: &str, sql: &str) {
        let result = match self.try_connect(database).await {
            Ok(client) => client.batch_execute(sql).await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            panic!("{sql}: {}", reason(&error));
        }
    }

    /// The rows of one query, every value as the server's text.
    pub async fn query(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let messages = self.connect().await.simple_query(sql).await;
        let messages = messages.unwrap_or_else(|error| panic!("{sql}: {}\n{}", reason(&error), self.log_tail()));
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|place| row.get(place).map(str::to_owned)).collect()),
            _ => None,
        });
        rows.collect()
    }

    /// The one value of a query, as the server's text.
    pub async fn value(&self, sql: &str) -> String {
        let value = self.query(sql).await.into_iter().next().and_then(|row| row.into_iter().next().flatten());
        value.unwrap_or_else(|| panic!("{sql}: there is no value"))
    }

    /// From now on, all changes are counted: by a slot of their own, and the server's own test of decoding.
    pub async fn count_changes(&self) {
        self.execute(&format!("SELECT pg_create_logical_replication_slot('{COUNTING}', 'test_decoding')")).await;
    }

    /// The row changes since [`count_changes`](Self::count_changes), by table: how much must arrive. Those of partitions stand
    /// under their own names, or under that of the table that they are parts of.
    pub async fn change_counts(&self, under_roots: bool) -> BTreeMap<String, ChangeCounts> {
        let table = if under_roots { "coalesce(pg_partition_root(c.oid), c.oid)" } else { "c.oid" };
        let sql = format!(
            "SELECT n.nspname || '.' || t.relname, change[2], count(*) FROM (
                SELECT regexp_match(data, '^table (.*?): (INSERT|UPDATE|DELETE):') AS change
                FROM pg_logical_slot_peek_changes('{COUNTING}', NULL, NULL, 'include-xids', '0')) changes
            JOIN pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace ON quote_ident(s.nspname) || '.' || quote_ident(c.relname) = change[1]
            JOIN pg_class t ON t.oid = {table} JOIN pg_namespace n ON n.oid = t.relnamespace GROUP BY 1, 2"
        );
        let mut counts = BTreeMap::<String, ChangeCounts>::new();
        for row in self.query(&sql).await {
            let [Some(table), Some(verb), Some(number)] = &row[..] else { panic!("a count is not whole: {row:?}") };
            let counts = counts.entry(table.clone()).or_default();
            let number = number.parse().expect("a count is a number");
            match verb.as_str() {
                "INSERT" => counts.inserts = number,
                "UPDATE" => counts.updates = number,
                _ => counts.deletes = number,
            }
        }
        counts
    }

    /// Runs pgbench on it.
    pub fn pgbench(&self, arguments: &[&str]) {
        // Debian's, which none of the npm packages has; it gets along with servers of other versions.
        let mut command = Command::new(installed(rigs_directory().join("postgres/15/bin/pgbench")));
        command.args(["--host=127.0.0.1", "--username=postgres"]).arg(format!("--port={}", self.port)).args(arguments).arg(DATABASE);
        let output = command.output().expect("pgbench can be run");
        assert!(output.status.success(), "pgbench failed: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Waits until a condition holds, asking again and again; fails the test after a minute and a half.
    pub async fn wait_until(&self, condition: &str) {
        let deadline = Instant::now() + START_TIMEOUT;
        while self.query(&format!("SELECT coalesce(({condition}), false)")).await != [[Some("t".to_owned())]] {
            assert!(Instant::now() < deadline, "still not true: {condition}; the end of the server's log:\n{}", self.log_tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Row changes of one table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChangeCounts {
    /// Rows inserted.
    pub inserts: u64,
    /// Rows updated.
    pub updates: u64,
    /// Rows deleted.
    pub deletes: u64,
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // Its children end before it does, so that nothing writes to the directory while it is removed.
        if let Some(mut process) = self.process.take() {
            process.end_by("QUIT", Duration::from_secs(20));
        }
    }
}

/// What went wrong, in the server's words where they are its.
pub(crate) fn reason(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} ({})", error.message(), error.where_().or(error.detail()).unwrap_or_default()),
        None => format!("{error:?}"),
    }
}

/// The ids of user and group `postgres`.
fn postgres_user() -> (u32, u32) {
    let users = std::fs::read_to_string("/etc/passwd").expect("a system has users");
    let ids = users.lines().find_map(|line| {
        let mut fields = line.strip_prefix("postgres:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    ids.expect("there is no user postgres; run scripts/install-test-tools")
}
