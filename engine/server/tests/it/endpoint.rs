//! A running process: its HTTP endpoint, `status` beside it, and signals.
//!
//! The source is a server that is not there: the stream keeps trying, which is all these tests need of it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};

use crate::{Finished, logweir};

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn configuration(directory: &Path, http: SocketAddr) {
    let nobody = free_address().port();
    let text = format!(
        "connect_timeout: 1h
http: {{ listen: \"{http}\" }}
profiles:
  db: {{ mysql: {{ host: 127.0.0.1, port: {nobody}, user: weir }} }}
  lake: {{ files: {{ url: \"file://{}/lake\" }} }}
streams:
  shop: {{ source: db, destinations: [ {{ profile: lake }} ] }}
",
        directory.display()
    );
    std::fs::write(directory.join("logweir.yaml"), text).unwrap();
}

/// Starts, and returns when the stream has failed to reach its server once: by then everything listens.
fn start(directory: &Path) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child = logweir(directory, &["--log-format", "json", "run", "logweir.yaml"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while stderr.read_line(&mut line).unwrap() > 0 {
        let entry: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not a line of JSON: {line}"));
        if entry["level"] == "WARN" {
            return (child, stderr);
        }
        line.clear();
    }
    panic!("it ended: {:?}", child.wait());
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut connection = TcpStream::connect(address).unwrap();
    write!(connection, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn terminate(child: &Child) {
    assert!(std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
}

#[test]
fn a_process_that_is_not_ready_says_why_and_ends_when_told() {
    let directory = tempfile::tempdir().unwrap();
    let http = free_address();
    configuration(directory.path(), http);
    let (mut child, mut stderr) = start(directory.path());

    assert_eq!(get(http, "/healthz"), (200, "ok\n".to_owned()));
    let (code, body) = get(http, "/readyz");
    assert_eq!(code, 503);
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["ready"], false);
    assert!(body["streams"][0]["error"].as_str().unwrap().contains("127.0.0.1"), "{body}");
    let (code, metrics) = get(http, "/metrics");
    assert_eq!(code, 200);
    assert!(metrics.contains("logweir_errors_total{stream=\"shop\",kind=\"transient\"}"), "{metrics}");
    assert_eq!(get(http, "/nothing").0, 404);

    let status: Finished = logweir(directory.path(), &["status", "logweir.yaml", "--format", "json"]).output().unwrap().into();
    let status: serde_json::Value = serde_json::from_str(&status.code(0).stdout).unwrap();
    assert_eq!(status["pid"], child.id());
    assert_eq!(status["streams"][0]["state"], "retrying");

    // The address is taken, and the second process says so.
    let second: Finished = logweir(directory.path(), &["run", "logweir.yaml"]).output().unwrap().into();
    second.code(1).says(&[&http.to_string(), "http.listen"]);

    terminate(&child);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest}");
    assert!(rest.contains("SIGTERM"), "{rest}");
}
