//! The binary, as a person or a script meets it: exit codes, messages, and what the quickstart leaves behind.

#![allow(clippy::unwrap_used)]

mod command;
mod endpoint;
mod quickstart;
mod udf;

use std::path::Path;
use std::process::{Command, Output};

/// A command of the binary, in a directory, without the environment's opinion about logs.
fn logweir(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logweir"));
    command.current_dir(directory).args(arguments).env_remove("LOGWEIR_LOG");
    command
}

/// What a finished process left.
struct Finished {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn run(directory: &Path, arguments: &[&str]) -> Finished {
    logweir(directory, arguments).output().unwrap().into()
}

impl Finished {
    /// The exit code, with everything that was said if it is another one.
    #[track_caller]
    fn code(self, expected: i32) -> Self {
        assert_eq!(self.code, Some(expected), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Messages that must be there.
    #[track_caller]
    fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "{text:?} is not in\n{}", self.stderr);
        }
        self
    }
}
