//! The binary `logweir` under test: its configuration, its processes, and how they end.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::oracle::Lake;
use crate::servers::{DatabaseServer, PostgresServer};

/// The binary: `LOGWEIR_BIN`, else the one beside this test, built first so that it is never an old one.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("LOGWEIR_BIN") {
            return PathBuf::from(path);
        }
        // <target>/<profile>/deps/<test>
        let test = std::env::current_exe().expect("a test knows its own path");
        let profile = test.parent().and_then(Path::parent).expect("a test lies in the deps of a profile");
        let name = profile.file_name().and_then(|name| name.to_str()).map(|name| if name == "debug" { "dev" } else { name });
        let target = profile.parent().expect("a profile lies in the target directory");
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .args(["build", "--quiet", "--package", "logweir", "--bin", "logweir", "--profile", name.expect("a profile has a name")])
            .arg("--target-dir")
            .arg(target)
            .status()
            .expect("cargo can be run");
        assert!(status.success(), "logweir does not build");
        profile.join("logweir")
    })
}

/// Options of the `files` destination and the state store for a bucket of the emulator.
fn store_options(endpoint: &str) -> Value {
    json!({ "endpoint": endpoint, "allow_http": "true", "region": "us-east-1", "access_key_id": "test", "secret_access_key": { "env": "WEIR_TEST_S3_SECRET" } })
}

fn lake_profile(lake: &Lake) -> Value {
    match lake {
        Lake::Directory(path) => json!({ "files": { "url": format!("file://{}", path.display()) } }),
        Lake::Bucket { endpoint, bucket, prefix } => {
            json!({ "files": { "url": format!("s3://{bucket}/{prefix}"), "options": store_options(endpoint) } })
        }
    }
}

/// An installation of logweir: a directory with a configuration and, unless told otherwise, the state and the lake.
#[derive(Debug)]
pub struct Engine {
    directory: TempDir,
    config: Value,
    lake: Lake,
    environment: Vec<(String, String)>,
    /// Given to the processes as a limit on the size of the files they write, in bytes.
    file_size_max: Option<u64>,
}

impl Engine {
    /// A stream `shop` from everything in `schema` of a live server, from the beginning of its log, into a local directory.
    pub fn new(server: &DatabaseServer, schema: &str) -> Self {
        let source = json!({ "mysql": {
            "host": "127.0.0.1", "port": server.port(), "user": server.user(), "password": { "env": "WEIR_TEST_PASSWORD" },
        } });
        let mut engine = Self::with_source(&source, schema);
        engine.environment.push(("WEIR_TEST_PASSWORD".to_owned(), server.password().to_owned()));
        engine
    }

    /// The same from recorded binlog files.
    pub fn recorded(pattern: &Path, schema: &str) -> Self {
        Self::with_source(&json!({ "mysql_files": { "path": pattern } }), schema)
    }

    /// A stream `shop` from the slot `weir` and the publication `weir` of a PostgreSQL server, from where the slot stands, into a
    /// local directory.
    pub fn postgres(server: &PostgresServer, schema: &str) -> Self {
        let source = json!({ "postgres": {
            "host": "127.0.0.1", "port": server.port(), "user": server.user(), "password": { "env": "WEIR_TEST_PASSWORD" },
            "database": server.database(), "slot": "weir", "publication": "weir",
        } });
        let mut engine = Self::with_source(&source, schema);
        engine.environment.push(("WEIR_TEST_PASSWORD".to_owned(), server.password().to_owned()));
        engine
    }

    fn with_source(source: &Value, schema: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("logweir-engine-").tempdir().expect("a temporary directory can be made");
        let lake = Lake::Directory(directory.path().join("lake"));
        let config = json!({
            "state": { "dir": directory.path().join("state") },
            "memory": "256MiB",
            "connect_timeout": "20s",
            "profiles": { "source": source, "lake": lake_profile(&lake) },
            "streams": { "shop": {
                "source": "source",
                "tables": { "include": [format!("{schema}.*")] },
                "start": "earliest",
                "destinations": [ { "profile": "lake", "rotate": { "interval": "300ms" }, "path": "{schema}/{table}/" } ],
            } },
        });
        Engine { directory, config, lake, environment: vec![("WEIR_TEST_S3_SECRET".to_owned(), "test".to_owned())], file_size_max: None }
    }

    /// Puts the lake elsewhere.
    #[must_use]
    pub fn lake(mut self, lake: Lake) -> Self {
        self.config["profiles"]["lake"] = lake_profile(&lake);
        self.lake = lake;
        self
    }

    /// Adds a destination of this name.
    #[must_use]
    pub fn also(mut self, name: &str, lake: &Lake) -> Self {
        self.config["profiles"][name] = lake_profile(lake);
        let destinations = self.config["streams"]["shop"]["destinations"].as_array_mut().expect("a stream has destinations");
        destinations.push(json!({ "profile": name, "rotate": { "interval": "300ms" }, "path": "{schema}/{table}/" }));
        self
    }

    /// Keeps the state in a bucket of the emulator.
    #[must_use]
    pub fn state_in(mut self, endpoint: &str, url: &str) -> Self {
        self.config["state"] = json!({ "url": url, "options": store_options(endpoint) });
        self
    }

    /// Keeps the change log in a bucket of the emulator, too, beside the directory `log` of the installation; `more` is what else is said of it.
    #[must_use]
    pub fn change_log_in(mut self, endpoint: &str, url: &str, more: &Value) -> Self {
        let mut log = json!({ "url": url, "options": store_options(endpoint), "dir": self.directory.path().join("log") });
        for (key, value) in more.as_object().into_iter().flatten() {
            log[key] = value.clone();
        }
        self.config["streams"]["shop"]["change_log"] = log;
        self
    }

    /// Changes the configuration: a JSON pointer and its new value.
    #[must_use]
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer begins with a slash");
        let parent = self.config.pointer_mut(parent).expect("the parent is there");
        parent[key] = value;
        self
    }

    /// Bounds the size of the files that its processes can write: the nearest thing to a full disk that needs no mount.
    #[must_use]
    pub fn file_size_max(mut self, bytes: Option<u64>) -> Self {
        self.file_size_max = bytes;
        self
    }

    /// Changes the environment of its processes.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Where the files go.
    pub fn destination(&self) -> &Lake {
        &self.lake
    }

    /// The installation's directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let config = self.directory.path().join("logweir.yaml");
        // JSON is YAML.
        let text = serde_json::to_string_pretty(&self.config).expect("a JSON value can be written");
        // Another process may just be reading it.
        let written = config.with_extension("new");
        std::fs::write(&written, text).and_then(|()| std::fs::rename(&written, &config)).expect("the configuration can be written");
        let mut command = match self.file_size_max {
            None => Command::new(binary()),
            Some(bytes) => {
                let mut command = Command::new("prlimit");
                // Without the signal, whose default is to kill, a write beyond the limit fails like one on a full disk.
                command.arg(format!("--fsize={bytes}")).args(["env", "--ignore-signal=XFSZ"]).arg(binary());
                command
            }
        };
        let (verb, rest) = arguments.split_first().expect("a command has a verb");
        command.arg(verb).arg(config).args(rest).current_dir(self.directory.path()).stdin(Stdio::null());
        command.env("LOGWEIR_LOG", std::env::var("LOGWEIR_LOG").unwrap_or_else(|_| "info".to_owned()));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command (`["check"]`) to its end, at most this long.
    pub fn run(&self, arguments: &[&str], timeout: Duration) -> Finished {
        self.start(arguments).wait(timeout)
    }

    /// Runs until everything that the source holds now has landed; anything but exit code 0 fails the test.
    pub fn catch_up(&self) -> Finished {
        let finished = self.run(&["run", "--until-caught-up"], Duration::from_secs(180));
        assert_eq!(finished.code, Some(0), "run --until-caught-up failed: {}", finished.stderr);
        finished
    }

    /// Starts a process.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("logweir can be started");
        let stdout = collect(child.stdout.take().expect("standard output is piped"));
        let stderr = collect(child.stderr.take().expect("standard error is piped"));
        Running { child, stdout, stderr }
    }
}

/// What an HTTP endpoint of this machine answers, with its head.
pub fn http_get(port: u16, path: &str) -> String {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).expect("the endpoint takes connections");
    connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).expect("a request can be sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("the answer is text");
    answer
}

/// What a pipe gave so far, and the thread that reads it.
struct Pipe {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

fn collect(pipe: impl std::io::Read + Send + 'static) -> Pipe {
    let text = Arc::new(Mutex::new(String::new()));
    let shared = Arc::clone(&text);
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if let Ok(mut text) = shared.lock() {
                text.push_str(&line);
                text.push('\n');
            }
        }
    });
    Pipe { text, reader: Some(reader) }
}

impl Pipe {
    fn so_far(&self) -> String {
        self.text.lock().map(|text| text.clone()).unwrap_or_default()
    }

    fn finish(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.so_far()
    }
}

/// A process under way; killed when dropped.
pub struct Running {
    child: Child,
    stdout: Pipe,
    stderr: Pipe,
}

/// How a process ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its results.
    pub stdout: String,
    /// Its messages.
    pub stderr: String,
}

impl Running {
    /// `kill -9`.
    pub fn kill(mut self) -> Finished {
        let _ = self.child.kill();
        self.wait(Duration::from_secs(30))
    }

    /// Asks it to end (SIGTERM) and waits.
    pub fn terminate(self, timeout: Duration) -> Finished {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        self.wait(timeout)
    }

    /// Waits for its end; a process that takes longer fails the test.
    pub fn wait(mut self, timeout: Duration) -> Finished {
        let deadline = Instant::now() + timeout;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Finished { code: status.code(), stdout: self.stdout.finish(), stderr: self.stderr.finish() };
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                panic!("logweir did not end within {timeout:?}; its messages:\n{}", self.stderr.finish());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// True while it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its messages so far.
    pub fn messages(&self) -> String {
        self.stderr.so_far()
    }

    /// Waits until its messages hold a text; fails the test if it ends first, or after the timeout.
    pub fn wait_for_message(&mut self, text: &str, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        while !self.messages().contains(text) {
            let running = self.is_running();
            assert!(running || self.messages().contains(text), "it ended without saying {text:?}: {}", self.messages());
            assert!(Instant::now() < deadline, "it did not say {text:?} within {timeout:?}: {}", self.messages());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
