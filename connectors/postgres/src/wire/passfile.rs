//! `.pgpass`: where PostgreSQL's own clients look for a password that they were not given.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use tracing::warn;

use crate::options::PostgresOptions;

/// The directories whose sockets count as `localhost`.
const DEFAULT_SOCKET_DIRECTORIES: [&str; 2] = ["/tmp", "/var/run/postgresql"];

/// No password file is larger.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The file to look in: `PGPASSFILE`, or `.pgpass` in the home directory.
pub(super) fn file() -> Option<PathBuf> {
    let named = std::env::var_os("PGPASSFILE").filter(|name| !name.is_empty()).map(PathBuf::from);
    named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".pgpass")))
}

/// The password that a file has for a connection. A file that others may read is not used, as libpq does not.
pub(super) fn lookup(file: &Path, options: &PostgresOptions) -> Option<SecretString> {
    let metadata = std::fs::metadata(file).ok()?;
    let refused = if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        Some("it is no plain file of reasonable size")
    } else if is_open_to_others(&metadata) {
        Some("others may read it; run chmod 600")
    } else {
        None
    };
    if let Some(reason) = refused {
        warn!(file = %file.display(), reason, "the password file is not used");
        return None;
    }
    let text = std::fs::read_to_string(file).inspect_err(|error| warn!(file = %file.display(), %error, "the password file cannot be read"));
    let port = options.port.to_string();
    let host = match options.host.as_str() {
        directory if DEFAULT_SOCKET_DIRECTORIES.contains(&directory) => "localhost",
        host => host,
    };
    let wanted = [host, &port, &options.database, &options.user];
    text.ok()?.lines().find_map(|line| password(line, wanted))
}

#[cfg(unix)]
fn is_open_to_others(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o077 != 0
}

#[cfg(not(unix))]
fn is_open_to_others(_: &std::fs::Metadata) -> bool {
    false
}

/// The password of a line `host:port:database:user:password` if the line is for what is wanted.
fn password(line: &str, wanted: [&str; 4]) -> Option<SecretString> {
    if line.starts_with('#') {
        return None;
    }
    let mut rest = line;
    for wanted in wanted {
        let (field, after) = split(rest)?;
        if field != "*" && unescaped(field) != wanted {
            return None;
        }
        rest = after;
    }
    Some(SecretString::from(unescaped(rest)))
}

/// A field, up to a colon that is not escaped, and what follows the colon.
fn split(line: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    let end = line.bytes().position(|byte| {
        let ends = byte == b':' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    Some((&line[..end], &line[end + 1..]))
}

/// Without the backslashes that escape what follows them.
fn unescaped(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut characters = field.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => text.extend(characters.next()),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn found(text: &str, host: &str) -> Option<String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("passwords");
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        lookup(&file, &PostgresOptions::new(host, "we:ir", "shop")).map(|password| password.expose_secret().to_owned())
    }

    #[test]
    fn the_first_line_that_fits() {
        for (text, password) in [
            ("db:5432:shop:we\\:ir:s3cret", Some("s3cret")),
            ("#db:5432:shop:we\\:ir:s3cret", None),
            ("*:*:*:*:any", Some("any")),
            ("db:5433:*:*:other port\ndb:5432:*:*:this one\n*:*:*:*:late", Some("this one")),
            ("db:5432:shop:we\\:ir:with\\:colon\\\\and:more\r\n", Some("with:colon\\and:more")),
            ("db:5432:shop:we:ir:s3cret", None),
            ("db:5432:shop\n\ndb", None),
            ("\\*:5432:shop:we\\:ir:a star is a star", None),
            ("*:*:*:*:ünïcode", Some("ünïcode")),
            ("", None),
        ] {
            assert_eq!(found(text, "db").as_deref(), password, "{text}");
        }
    }

    #[test]
    fn the_usual_socket_is_localhost() {
        let text = "localhost:*:*:*:here\n/srv/sockets:*:*:*:there";
        assert_eq!(found(text, "/var/run/postgresql").as_deref(), Some("here"));
        assert_eq!(found(text, "/srv/sockets").as_deref(), Some("there"));
    }

    #[test]
    fn a_file_for_everybody_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("passwords");
        std::fs::write(&file, "*:*:*:*:s3cret").unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        let options = PostgresOptions::new("db", "weir", "shop");
        assert!(lookup(&file, &options).is_none());
        assert!(lookup(directory.path(), &options).is_none());
        assert!(lookup(&directory.path().join("missing"), &options).is_none());
    }
}
