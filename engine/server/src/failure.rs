//! How a command fails: what is said on standard error, and the exit code.

use std::process::ExitCode;

use logweir_core::Error;

use crate::config::Problems;

/// Exit code: the work failed.
pub(crate) const WORK_FAILED: u8 = 1;

/// Exit code: the command line or the configuration is wrong.
pub(crate) const USAGE: u8 = 2;

/// Why a command ends without success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The configuration has mistakes.
    Configuration(Box<Problems>),
    /// The command line asks for something that is not there.
    Usage(String),
    /// The work failed.
    Work(Error),
}

impl Failure {
    /// Tells the person, and gives the exit code.
    pub(crate) fn show(&self) -> ExitCode {
        match self {
            Failure::Configuration(problems) => {
                eprint!("{}", problems.render());
                ExitCode::from(USAGE)
            }
            Failure::Usage(message) => {
                eprintln!("error: {message}");
                ExitCode::from(USAGE)
            }
            Failure::Work(error) => {
                eprintln!("error: {}", error.report());
                ExitCode::from(WORK_FAILED)
            }
        }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Failure::Configuration(Box::new(problems))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Work(error)
    }
}
