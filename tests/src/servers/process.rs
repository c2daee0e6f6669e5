//! What every server under test needs: a place, a port, and an end.

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take until it answers. Generous: the machine may be busy compiling.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(90);

/// Where `scripts/install-test-tools` puts what it installs: `LOGWEIR_RIGS`, else `~/.cache/logweir/rigs`.
pub fn rigs_directory() -> PathBuf {
    match std::env::var_os("LOGWEIR_RIGS") {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/logweir/rigs"),
    }
}

/// The path of an installed file, or a panic with the command that installs it.
pub(super) fn installed(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "{} is not there; run scripts/install-test-tools", path.display());
    path
}

/// A program of the system by its name, or a panic with the command that installs it.
pub(super) fn program(name: &str) -> PathBuf {
    let directories = std::env::var_os("PATH").unwrap_or_default();
    // The servers of a distribution lie where users' PATHs often do not reach.
    let directories = std::env::split_paths(&directories).chain(["/usr/sbin".into(), "/usr/libexec".into()]);
    let found = directories.map(|directory| directory.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed; run scripts/install-test-tools"))
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port of the loopback interface can be had");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// True where the tests run as root.
pub(super) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// `--user=root` where the tests run as root, which the servers otherwise refuse.
pub(super) fn user_arguments() -> Vec<String> {
    if is_root() { vec!["--user=root".to_owned()] } else { Vec::new() }
}

/// A process that is killed and waited for when dropped.
#[derive(Debug)]
pub(super) struct Process(pub(super) Child);

impl Process {
    /// Starts it with its output in a file.
    pub(super) fn start(command: &mut Command, output: &Path) -> Process {
        let file = std::fs::File::options().create(true).append(true).open(output).expect("the output file can be opened");
        let copy = file.try_clone().expect("a file can be opened twice");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(copy).spawn();
        Process(child.unwrap_or_else(|error| panic!("could not start {command:?}: {error}")))
    }

    /// True once it ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    /// Asks it to end (SIGTERM) and waits; after a minute it is killed.
    pub(super) fn terminate(&mut self) {
        self.end_by("TERM", Duration::from_secs(60));
    }

    /// Sends it a signal and waits for its end; after the timeout it is killed.
    pub(super) fn end_by(&mut self, signal: &str, timeout: Duration) {
        let _ = Command::new("kill").arg(format!("-{signal}")).arg(self.0.id().to_string()).status();
        let deadline = Instant::now() + timeout;
        while !self.has_ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something listens on the port.
pub fn wait_for_port(port: u16) {
    let deadline = Instant::now() + START_TIMEOUT;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "nothing listens on port {port} after {START_TIMEOUT:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
