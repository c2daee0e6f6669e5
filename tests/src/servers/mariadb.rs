//! How MariaDB of the distribution is set up and started.

use std::path::Path;
use std::process::Command;

use super::process::{program, user_arguments};

/// Makes an empty data directory.
pub(super) fn initialise(data: &Path, temporary: &Path, log: &Path) {
    let output = Command::new(program("mariadb-install-db"))
        .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
        .arg(format!("--datadir={}", data.display()))
        .args(user_arguments())
        .env("TMPDIR", temporary)
        .output()
        .expect("mariadb-install-db can be run");
    let _ = std::fs::write(log, [&output.stdout[..], &output.stderr[..]].concat());
    assert!(output.status.success(), "mariadb-install-db failed: {}", String::from_utf8_lossy(&output.stderr));
}

/// The command of the server.
pub(super) fn server(my_cnf: &Path) -> Command {
    let mut command = Command::new(program("mariadbd"));
    command.arg(format!("--defaults-file={}", my_cnf.display())).args(user_arguments());
    command
}

/// The command of `mariadb-binlog`.
pub(super) fn binlog_tool() -> Command {
    let mut command = Command::new(program("mariadb-binlog"));
    command.arg("--no-defaults");
    command
}

/// The command of `mariadb`, the client.
pub(super) fn client() -> Command {
    let mut command = Command::new(program("mariadb"));
    command.arg("--no-defaults");
    command
}

/// Settings beyond those that every server gets.
pub(super) const OPTIONS: &[&str] =
    &["gtid_strict_mode=ON", "gtid_domain_id=7", "innodb_log_file_size=32M", "innodb_doublewrite=0", "default_time_zone=+00:00"];
