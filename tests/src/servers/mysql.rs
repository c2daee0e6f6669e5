//! How MySQL out of Debian sid, unpacked beside the system, is set up and started: by its own loader, with its own
//! libraries.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{installed, rigs_directory, user_arguments};

fn root() -> PathBuf {
    installed(rigs_directory().join("mysql"))
}

fn tool(name: &str) -> Command {
    let root = root();
    let mut command = Command::new(installed(root.join("usr/lib64/ld-linux-x86-64.so.2")));
    command.arg("--library-path").arg(root.join("usr/lib/x86_64-linux-gnu")).arg(installed(root.join("usr").join(name)));
    command
}

/// Makes an empty data directory.
pub(super) fn initialise(my_cnf: &Path, log: &Path) {
    let output = tool("sbin/mysqld")
        .arg(format!("--defaults-file={}", my_cnf.display()))
        .args(user_arguments())
        .arg("--initialize-insecure")
        .output()
        .expect("mysqld can be run");
    let _ = std::fs::write(log, [&output.stdout[..], &output.stderr[..]].concat());
    assert!(output.status.success(), "mysqld --initialize-insecure failed, see {}", log.display());
}

/// The command of the server.
pub(super) fn server(my_cnf: &Path) -> Command {
    let mut command = tool("sbin/mysqld");
    command.arg(format!("--defaults-file={}", my_cnf.display())).args(user_arguments());
    command
}

/// The command of `mysqlbinlog`.
pub(super) fn binlog_tool() -> Command {
    let mut command = tool("bin/mysqlbinlog");
    command.arg("--no-defaults");
    command
}

/// The command of `mysql`, the client.
pub(super) fn client() -> Command {
    let mut command = tool("bin/mysql");
    command.arg("--no-defaults");
    command
}

/// Settings beyond those that every server gets.
pub(super) fn options() -> Vec<String> {
    let root = root();
    let root = root.display();
    vec![
        format!("basedir={root}/usr"),
        format!("lc-messages-dir={root}/usr/share/mysql"),
        format!("character-sets-dir={root}/usr/share/mysql/charsets"),
        format!("plugin-dir={root}/usr/lib/mysql/plugin"),
        "mysqlx=OFF".to_owned(),
        "gtid_mode=ON".to_owned(),
        "enforce_gtid_consistency=ON".to_owned(),
        "innodb_redo_log_capacity=32M".to_owned(),
        "innodb_doublewrite=OFF".to_owned(),
        "performance_schema=OFF".to_owned(),
        "default_time_zone=+00:00".to_owned(),
    ]
}
