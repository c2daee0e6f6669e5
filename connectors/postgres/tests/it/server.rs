//! A server of its own for a test, in a temporary directory.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use logweir_postgres::options::PostgresOptions;
use logweir_postgres::wire::{Connection, Mode, Rows};
use tempfile::TempDir;

/// Every major version that is supported.
pub(crate) const VERSIONS: [u32; 7] = [12, 13, 14, 15, 16, 17, 18];

const START_MAX: Duration = Duration::from_secs(60);

/// What every server is started with: small, and nothing waits for the disk.
const SETTINGS: &str = "wal_level=logical fsync=off synchronous_commit=off full_page_writes=off autovacuum=off max_wal_senders=8 \
                        max_replication_slots=8 max_connections=30 shared_buffers=64MB log_connections=on";

/// A running server: superuser `postgres`, database `postgres`, everybody on this machine is trusted unless
/// [`Server::hba`] says otherwise.
pub(crate) struct Server {
    pub(crate) port: u16,
    bin: PathBuf,
    directory: TempDir,
    process: Option<Child>,
    settings: Vec<String>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop("immediate");
    }
}

/// Where a version's programs are.
fn bin(major: u32) -> PathBuf {
    let rigs = std::env::var_os("LOGWEIR_RIGS").map(PathBuf::from);
    let rigs = rigs.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/logweir/rigs"));
    let found = [rigs.join(format!("postgres/{major}/bin")), format!("/usr/lib/postgresql/{major}/bin").into()]
        .into_iter()
        .find(|bin| bin.join("postgres").exists());
    // Without the links: the user that servers run as may not look into root's home.
    found.unwrap_or_else(|| panic!("PostgreSQL {major} is not there: run scripts/install-test-tools")).canonicalize().unwrap()
}

/// The user that servers run as if we are root, whom they refuse.
fn postgres_user() -> Option<(u32, u32)> {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("root needs a user `postgres` to run servers as");
    let ids: Vec<u32> = line.split(':').skip(2).take(2).map(|id| id.parse().unwrap()).collect();
    Some((ids[0], ids[1]))
}

impl Server {
    /// Starts a server of a major version with settings (`name=value`) beside the usual ones.
    pub(crate) async fn start(major: u32, settings: &[&str]) -> Server {
        let directory = tempfile::Builder::new().prefix("logweir-pg-").tempdir().unwrap();
        if let Some((user, group)) = postgres_user() {
            chown(directory.path(), Some(user), Some(group)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = SETTINGS.split_whitespace().chain(settings.iter().copied()).map(str::to_owned).collect();
        let mut server = Server { port, bin: bin(major), directory, process: None, settings };
        let made = server
            .program("initdb")
            .arg("-D")
            .arg(server.data())
            .args(["-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync"])
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));
        server.run().await;
        server
    }

    /// Starts it again after [`stop`](Self::stop).
    pub(crate) async fn run(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data()).args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-k"]).arg(self.directory.path());
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        let deadline = Instant::now() + START_MAX;
        while !self.status().contains("ready") {
            assert!(Instant::now() < deadline, "the server did not start: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops it: `smart`, `fast` or `immediate`.
    pub(crate) fn stop(&mut self, how: &str) {
        if let Some(mut process) = self.process.take() {
            let stopped = self.program("pg_ctl").arg("-D").arg(self.data()).args(["-m", how, "-w", "stop"]).output();
            if !stopped.is_ok_and(|output| output.status.success()) {
                let _ = process.kill();
            }
            let _ = process.wait();
        }
    }

    /// Replaces who may connect how (the lines of `pg_hba.conf`), at once.
    pub(crate) async fn hba(&self, lines: &str) {
        // Connections of the test itself go over the socket.
        std::fs::write(self.data().join("pg_hba.conf"), format!("local all postgres trust\n{lines}\n")).unwrap();
        self.reload().await;
    }

    /// Has the server read its files again, and waits until it has.
    pub(crate) async fn reload(&self) {
        let before = self.ask("SELECT pg_conf_load_time()").await;
        self.ask("SELECT pg_reload_conf()").await;
        while self.ask("SELECT pg_conf_load_time()").await == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The superuser's way in, over TCP.
    pub(crate) fn options(&self) -> PostgresOptions {
        let mut options = PostgresOptions::new("127.0.0.1", "postgres", "postgres");
        options.port = self.port;
        options
    }

    /// The superuser's way in, over the Unix socket.
    pub(crate) fn socket_options(&self) -> PostgresOptions {
        PostgresOptions { host: self.directory.path().display().to_string(), ..self.options() }
    }

    /// Runs statements as superuser on a connection of their own.
    pub(crate) async fn ask(&self, sql: &str) -> Rows {
        let mut connection = Connection::connect(&self.socket_options(), Mode::Query).await.unwrap();
        let rows = connection.query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        connection.close().await;
        rows
    }

    /// What the server wrote to its log.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Puts a copy of a file where only the server reads it, and says where.
    pub(crate) fn install(&self, file: &Path) -> PathBuf {
        let to = self.path(file.file_name().unwrap().to_str().unwrap());
        std::fs::copy(file, &to).unwrap();
        std::fs::set_permissions(&to, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        if let Some((user, group)) = postgres_user() {
            chown(&to, Some(user), Some(group)).unwrap();
        }
        to
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The last line of the file that a server keeps while it runs: `starting`, `ready`, …
    fn status(&self) -> String {
        let lines = std::fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        lines.lines().nth(7).unwrap_or_default().to_owned()
    }

    /// One of the version's programs, as the user that servers run as.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.current_dir(self.directory.path()).env("LC_ALL", "C");
        if let Some((user, group)) = postgres_user() {
            command.uid(user).gid(group);
        }
        command
    }
}
