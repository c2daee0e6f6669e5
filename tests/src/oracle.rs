//! The oracle: what landed, merged, equals what the source holds.
//!
//! The comparison itself is `py/compare.py`, so that our files are judged by readers that share no code with us
//! (pyarrow and DuckDB), against the source asked by another client (PyMySQL, psycopg).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::servers::{DatabaseServer, Flavour, MotoServer, PostgresServer, rigs_directory};

/// Where the files of a destination lie.
#[derive(Debug, Clone)]
pub enum Lake {
    /// A local directory.
    Directory(PathBuf),
    /// A prefix in the bucket of an S3 emulator.
    Bucket {
        /// `http://127.0.0.1:port`.
        endpoint: String,
        /// The bucket.
        bucket: String,
        /// The prefix.
        prefix: String,
    },
}

impl Lake {
    /// A prefix in the emulator's bucket.
    pub fn bucket(server: &MotoServer, prefix: &str) -> Self {
        Lake::Bucket { endpoint: server.endpoint(), bucket: server.bucket().to_owned(), prefix: prefix.to_owned() }
    }

    fn request(&self) -> Value {
        match self {
            Lake::Directory(path) => json!({ "directory": path }),
            Lake::Bucket { endpoint, bucket, prefix } => json!({ "endpoint": endpoint, "bucket": bucket, "prefix": prefix }),
        }
    }
}

/// Compares tables of a schema, and, where `counted`, that every row change in the server's binlog is there by number.
/// Panics with what differs; returns a line that says what was compared.
pub async fn assert_equal(server: &DatabaseServer, lake: &Lake, schema: &str, tables: &[impl AsRef<str>], counted: bool) -> String {
    let tables: Vec<_> = tables.iter().map(|table| json!([schema, table.as_ref()])).collect();
    let flavour = match server.flavour() {
        Flavour::MariaDb => "mariadb",
        Flavour::MySql => "mysql",
    };
    let source = json!({ "host": "127.0.0.1", "port": server.port(), "flavour": flavour });
    let mut request = json!({ "source": source, "lake": lake.request(), "tables": tables });
    if counted {
        let counts = server.binlog_counts().await;
        let counts = counts.into_iter().map(|(table, counts)| {
            let numbers = json!({ "inserts": counts.inserts, "updates": counts.updates, "deletes": counts.deletes });
            (table, if counts.incomplete { Value::Null } else { numbers })
        });
        request["counts"] = Value::Object(counts.collect());
    }
    let (equal, report) = run_script("compare.py", &request);
    assert!(equal, "what landed in {lake:?} is not what the source holds: {report}");
    report
}

/// Whether changes are counted too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Only what is left in the end is compared.
    No,
    /// Every change since [`PostgresServer::count_changes`] must have landed, by number; those of partitions under their own names.
    Yes,
    /// The same, those of partitions under the name of the table that they are parts of.
    UnderRoots,
}

/// Compares tables, by schema and name, with what a PostgreSQL server holds; nothing else may have landed. Panics with what
/// differs; returns a line that says what was compared.
pub async fn assert_postgres_equal(server: &PostgresServer, lake: &Lake, tables: &[(String, String)], counted: Counted) -> String {
    let source = json!({ "host": "127.0.0.1", "port": server.port(), "database": server.database(), "flavour": "postgres" });
    let mut request = json!({ "source": source, "lake": lake.request(), "tables": tables, "only": true });
    if counted != Counted::No {
        let counts = server
            .change_counts(counted == Counted::UnderRoots)
            .await
            .into_iter()
            .map(|(table, counts)| (table, json!({ "inserts": counts.inserts, "updates": counts.updates, "deletes": counts.deletes })));
        request["counts"] = Value::Object(counts.collect());
    }
    let (equal, report) = run_script("compare.py", &request);
    assert!(equal, "what landed in {lake:?} is not what the source holds: {report}");
    report
}

/// Runs a script of `tests/py` with a request on its standard input; true if it ended with 0, and what it printed.
fn run_script(name: &str, request: &Value) -> (bool, String) {
    let python = rigs_directory().join("venv/bin/python");
    assert!(python.exists(), "{} is not there; run scripts/install-test-tools", python.display());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("py").join(name);
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Python can be started");
    // The request is small and the script reads it whole before it prints, so neither side waits for the other.
    let mut input = child.stdin.take().expect("standard input is piped");
    input.write_all(request.to_string().as_bytes()).expect("the script reads its input");
    drop(input);
    let output = child.wait_with_output().expect("the script ends");
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned() + String::from_utf8_lossy(&output.stderr).trim_end();
    (output.status.success(), text)
}
