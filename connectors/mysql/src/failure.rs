//! What the client's errors mean: who can do something about them, and what.

use logweir_core::{Error, ErrorKind};
use mysql_async::{DriverError, IoError};

/// Server errors that say: this user may not do that.
const DENIED: [u16; 9] = [
    1044, // no access to the database
    1045, // wrong user or password
    1130, // this host may not connect
    1142, // no privilege on the table
    1143, // no privilege on the column
    1227, // a global privilege is missing
    1370, // no privilege on the routine
    1698, // the account has no password to compare with
    3118, // the account is locked
];

/// Server errors that go away by themselves.
const TRANSIENT: [u16; 13] = [
    1021, // disk full, waiting
    1040, // too many connections
    1042, // host name not resolved
    1053, // shutting down
    1077, // shut down
    1129, // host blocked after too many failed connections
    1158, // network errors
    1159, // read timeout
    1160, // write error
    1161, // write timeout
    1203, // the user has too many connections
    1317, // interrupted
    1927, // the connection was killed (MariaDB)
];

/// A server error with this number comes from the dump thread: the message tells more.
pub(crate) const READING_BINLOG: u16 = 1236;

/// MariaDB's own number for a replica that came with the server_id of another.
pub(crate) const SAME_SERVER_ID: u16 = 4052;

/// The error of `doing` something ("could not connect") on a server.
pub(crate) fn failure(doing: &'static str, error: mysql_async::Error) -> Error {
    let kind = match &error {
        mysql_async::Error::Server(server) if DENIED.contains(&server.code) => ErrorKind::Denied,
        mysql_async::Error::Server(server) if TRANSIENT.contains(&server.code) => ErrorKind::Transient,
        // A server restarting or failing over answers with all sorts of things; what is certain is that it answered.
        mysql_async::Error::Server(_) => ErrorKind::Config,
        error if is_tls(error) => ErrorKind::Config,
        mysql_async::Error::Io(_) => ErrorKind::Transient,
        mysql_async::Error::Driver(DriverError::ConnectionClosed | DriverError::PacketOutOfOrder | DriverError::PoolDisconnected) => {
            ErrorKind::Transient
        }
        mysql_async::Error::Driver(_) | mysql_async::Error::Url(_) => ErrorKind::Config,
        mysql_async::Error::Other(_) => ErrorKind::Transient,
    };
    let remedy = match &error {
        mysql_async::Error::Server(server) => match server.code {
            1045 | 1698 => Some("check user and password, and that the account may connect from this host"),
            1130 => Some("create the account for this host: CREATE USER 'user'@'host'"),
            1129 => Some("run mysqladmin flush-hosts on the server"),
            3159 => Some("the server takes encrypted connections only: set tls: { mode: require } or stricter"),
            _ => None,
        },
        error if is_tls(error) => {
            Some("check tls: the mode, that ca signed the server's certificate, and for verify_full that it names this host")
        }
        _ => None,
    };
    let wrapped = Error::new(kind, doing).source(error);
    match remedy {
        Some(remedy) => wrapped.remedy(remedy),
        None => wrapped,
    }
}

/// True if the two ends do not agree on encryption, or one does not believe the other.
fn is_tls(error: &mysql_async::Error) -> bool {
    match error {
        mysql_async::Error::Io(IoError::Tls(_)) => true,
        // What rustls finds wrong with a certificate comes as an error of reading.
        mysql_async::Error::Io(IoError::Io(error)) => error.kind() == std::io::ErrorKind::InvalidData,
        _ => false,
    }
}

/// The number of a server error.
pub(crate) fn code(error: &mysql_async::Error) -> Option<u16> {
    match error {
        mysql_async::Error::Server(server) => Some(server.code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mysql_async::ServerError;

    fn server(code: u16) -> mysql_async::Error {
        mysql_async::Error::Server(ServerError { code, message: "m".into(), state: "HY000".into() })
    }

    #[test]
    fn kinds() {
        for (code, kind) in [(1045, ErrorKind::Denied), (1227, ErrorKind::Denied), (1040, ErrorKind::Transient), (1064, ErrorKind::Config)]
        {
            assert_eq!(failure("could not look", server(code)).kind(), kind, "{code}");
        }
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = failure("could not connect", mysql_async::Error::Io(IoError::Io(refused)));
        assert!(error.is_transient() && error.report().contains("connection refused"), "{error:?}");
    }

    #[test]
    fn a_wrong_password_says_what_to_do() {
        let error = failure("could not connect", server(1045));
        assert!(error.to_string().contains("check user and password"), "{error}");
        assert_eq!(code(&server(1045)), Some(1045));
    }
}
