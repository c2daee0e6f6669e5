//! Secrets: named in the file, never written into it.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

/// A secret is somewhere else: in an environment variable or in a file.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(extend("x-secret" = true))]
pub(crate) enum Secret {
    /// The name of an environment variable; one line break at its end is not part of the secret.
    Env(String),
    /// A file that holds the secret; one line break at its end is not part of it. A relative path begins at the
    /// configuration file's directory.
    File(PathBuf),
}

/// A secret longer than this is a wrong file.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

impl Secret {
    /// Fetches the secret; relative paths begin at `directory`. An error is a sentence for a person, without the secret.
    pub(crate) fn resolve(&self, directory: &Path) -> Result<SecretString, String> {
        match self {
            Secret::Env(name) => match std::env::var(name) {
                Ok(value) => match without_line_break(&value) {
                    "" => Err(format!("the environment variable {name} is empty")),
                    value => Ok(value.to_owned().into()),
                },
                Err(std::env::VarError::NotPresent) => Err(format!("the environment variable {name} is not set")),
                Err(std::env::VarError::NotUnicode(_)) => Err(format!("the environment variable {name} is not UTF-8")),
            },
            Secret::File(path) => {
                let path = directory.join(path);
                let unreadable = |error: &dyn fmt::Display| format!("could not read the secret file {}: {error}", path.display());
                let length = std::fs::metadata(&path).map_err(|error| unreadable(&error))?.len();
                if length > SECRET_BYTES_MAX {
                    return Err(unreadable(&"it is larger than 64 KiB"));
                }
                let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&error))?;
                let text = without_line_break(&text);
                if text.is_empty() {
                    return Err(format!("the secret file {} is empty", path.display()));
                }
                Ok(text.to_owned().into())
            }
        }
    }
}

/// What ends a line of a file is no part of a secret, nor is it of what a shell has read from one.
fn without_line_break(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}
