//! Commands that fail, and those that need nothing.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use crate::{Finished, logweir, run};

/// A configuration whose server is not there: the port is one that nothing listens on.
fn unreachable_server(directory: &Path) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!(
        "connect_timeout: 1s
profiles:
  db: {{ mysql: {{ host: 127.0.0.1, port: {port}, user: weir, password: {{ env: SHOP_PASSWORD }} }} }}
  lake: {{ files: {{ url: \"file://{}/lake\" }} }}
streams:
  shop: {{ source: db, destinations: [ {{ profile: lake }} ] }}
",
        directory.display()
    );
    std::fs::write(directory.join("logweir.yaml"), text).unwrap();
}

#[test]
fn usage() {
    let directory = tempfile::tempdir().unwrap();
    run(directory.path(), &[]).code(2);
    run(directory.path(), &["walk"]).code(2).says(&["walk"]);
    run(directory.path(), &["run"]).code(2).says(&["CONFIG"]);
    run(directory.path(), &["run", "nowhere.yaml"]).code(2).says(&["nowhere.yaml", "could not read"]);
    let version = run(directory.path(), &["--version"]).code(0);
    assert_eq!(version.stdout, format!("logweir {}\n", env!("CARGO_PKG_VERSION")));
    let help = run(directory.path(), &["--help"]).code(0).stdout;
    for command in ["run", "check", "discover", "status", "sql", "drop", "quickstart", "schema"] {
        assert!(help.contains(&format!("  {command} ")), "{help}");
    }
}

#[test]
fn a_configuration_with_mistakes_is_refused_by_every_command() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("logweir.yaml"), "memroy: 1GiB\nprofiles: {}\nstreams: { a: 1 }\n").unwrap();
    for arguments in [
        &["run", "logweir.yaml"][..],
        &["check", "logweir.yaml"],
        &["discover", "logweir.yaml", "db"],
        &["status", "logweir.yaml", "--format", "json"],
        &["sql", "logweir.yaml", "SELECT 1"],
        &["drop", "logweir.yaml", "--stream", "a", "--yes"],
    ] {
        let finished = run(directory.path(), arguments).code(2).says(&["logweir.yaml:1:1", "`memory`", "logweir.yaml:3:15"]);
        assert_eq!(finished.stdout, "");
    }
}

#[test]
fn a_missing_secret_is_a_mistake_of_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    unreachable_server(directory.path());
    let finished: Finished = logweir(directory.path(), &["run", "logweir.yaml"]).env_remove("SHOP_PASSWORD").output().unwrap().into();
    finished.code(2).says(&["SHOP_PASSWORD", "not set", "logweir.yaml:3:"]);
}

#[test]
fn a_server_out_of_reach_is_tried_for_a_while() {
    let directory = tempfile::tempdir().unwrap();
    unreachable_server(directory.path());
    let command =
        |arguments: &[&str]| -> Finished { logweir(directory.path(), arguments).env("SHOP_PASSWORD", "hunter2").output().unwrap().into() };
    let finished = command(&["run", "logweir.yaml"]).code(1).says(&["127.0.0.1"]);
    assert!(!finished.stderr.contains("hunter2"));
    let checked = command(&["check", "logweir.yaml", "--format", "json"]).code(1);
    let report: serde_json::Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!(report["errors"], 1, "{report:#}");
    assert_eq!(report["findings"][0]["stream"], "shop");
    command(&["run", "logweir.yaml", "--stream", "shup"]).code(2).says(&["`shup`", "did you mean `shop`"]);
    command(&["discover", "logweir.yaml", "bd"]).code(2).says(&["`bd`", "db, lake"]);
    command(&["sql", "logweir.yaml", "SELECT * FROM shop.customers"]).code(1).says(&["no checkpoint", "logweir run"]);
    assert_eq!(command(&["sql", "logweir.yaml", "SELECT 1 AS one", "--format", "csv"]).code(0).stdout, "one\n1\n");
}

#[test]
fn a_change_log_that_may_outgrow_its_disk_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let found = |size: &str| {
        unreachable_server(directory.path());
        let path = directory.path().join("logweir.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        let log = format!("source: db, change_log: {{ retain: {{ size: {size} }} }},");
        std::fs::write(&path, text.replace("source: db,", &log)).unwrap();
        let checked: Finished =
            logweir(directory.path(), &["check", "logweir.yaml", "--format", "json"]).env("SHOP_PASSWORD", "x").output().unwrap().into();
        checked.code(1).stdout.contains("change_log_disk_space")
    };
    assert!(found("900000TiB"));
    assert!(!found("1MiB"));
}

#[test]
fn status_works_without_a_process_and_before_the_first_start() {
    let directory = tempfile::tempdir().unwrap();
    unreachable_server(directory.path());
    let finished: Finished =
        logweir(directory.path(), &["status", "logweir.yaml", "--format", "json"]).env("SHOP_PASSWORD", "x").output().unwrap().into();
    let status: serde_json::Value = serde_json::from_str(&finished.code(0).stdout).unwrap();
    assert_eq!(status["streams"][0]["stream"], "shop");
    assert_eq!(status["streams"][0]["state"], "not_started");
    assert!(!directory.path().join("logweir-state").exists(), "a look has made something");
}

#[test]
fn what_was_made_at_a_source_is_dropped_on_purpose_only() {
    let directory = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!(
        "connect_timeout: 1s
profiles:
  my: {{ mysql: {{ host: 127.0.0.1, port: {port}, user: weir }} }}
  pg: {{ postgres: {{ host: 127.0.0.1, port: {port}, user: weir, database: shop }} }}
  lake: {{ files: {{ url: \"file://{}/lake\" }} }}
streams:
  a: {{ source: my, destinations: [ {{ profile: lake }} ] }}
  B.1: {{ source: pg, destinations: [ {{ profile: lake }} ] }}
",
        directory.path().display()
    );
    std::fs::write(directory.path().join("logweir.yaml"), text).unwrap();
    let drop = |arguments: &[&str]| -> Finished {
        let arguments: Vec<&str> = ["drop", "logweir.yaml"].into_iter().chain(arguments.iter().copied()).collect();
        logweir(directory.path(), &arguments).stdin(Stdio::null()).output().unwrap().into()
    };
    let nothing = drop(&["--stream", "a"]).code(0);
    assert_eq!(nothing.stdout, "there is nothing to drop: the source of stream a keeps nothing for it\n");
    drop(&[]).code(2).says(&["--stream"]);
    drop(&["--stream", "b.1"]).code(2).says(&["`b.1`", "did you mean `B.1`"]);
    drop(&["--stream", "B.1"]).code(2).says(&["the replication slot logweir_b_1 at 127.0.0.1", "add --yes"]);
    drop(&["--stream", "B.1", "--yes"]).code(1).says(&["logweir_b_1", "could not connect"]);
}

#[test]
fn the_configuration_can_come_from_standard_input() {
    let directory = tempfile::tempdir().unwrap();
    let mut child =
        logweir(directory.path(), &["status", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"streams: 1\n").unwrap();
    Finished::from(child.wait_with_output().unwrap()).code(2).says(&["standard input:1:10", "profiles"]);
}

#[test]
fn the_schema_is_json() {
    let directory = tempfile::tempdir().unwrap();
    let schema: serde_json::Value = serde_json::from_str(&run(directory.path(), &["schema", "config"]).code(0).stdout).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["required"], serde_json::json!(["profiles", "streams"]));
}

#[test]
fn a_reader_that_has_had_enough_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = logweir(directory.path(), &["schema", "config"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let finished = Finished::from(child.wait_with_output().unwrap()).code(0);
    assert_eq!(finished.stderr, "");
}
