//! The beginning of a session: encryption, who we are, and what the session shall be like.

use std::sync::Arc;

use logweir_core::{Error, ErrorKind, Result};
use postgres_protocol::message::frontend;
use tokio::time::Instant;

use super::channel::Channel;
use super::connection::{Connection, Mode};
use super::failure::{ServerError, failure, sqlstate};
use super::frame::Frame;
use super::message::{self, Fields};
use super::socket::Socket;
use super::{authentication, tls};
use crate::options::{PostgresOptions, TlsMode};

pub(super) const CONNECTING: &str = "could not connect to the server";

/// What is fixed for every session, walsenders too, so that a value's text does not depend on how server, database or role
/// are set up, and nothing is cut off for taking long.
const SESSION: [(&str, &str); 11] = [
    ("application_name", "logweir"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "iso_8601"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    // Names of types and relations are shown with their schema, and no function of a user takes the place of a system's.
    ("search_path", ""),
    ("quote_all_identifiers", "off"),
    ("statement_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
];

/// How long a table may be locked by others before a question about it, or a copy of it, is given up and put again later: a
/// prepared transaction may hold it for ever. A walsender waits for transactions to end as long as it takes.
fn lock_timeout(mode: Mode) -> &'static str {
    if mode == Mode::Replication { "0" } else { "10s" }
}

/// A session that is ready for its first question.
pub(super) async fn start(options: Arc<PostgresOptions>, mode: Mode, deadline: Instant) -> Result<Connection> {
    let started = attempt(Arc::clone(&options), mode, options.tls.mode != TlsMode::Disable, deadline).await;
    let mut connection = match started {
        // What is only preferred is given up if it is what does not work: a handshake, or a line of pg_hba.conf.
        Err(error) if options.tls.mode == TlsMode::Prefer && concerns_encryption(&error) => {
            attempt(options, mode, false, deadline).await.map_err(|_| error)?
        }
        started => started?,
    };
    connection.note_version();
    // These came later, and a server that does not know a setting refuses the session.
    for (since, setting) in [(140_000, "idle_session_timeout"), (170_000, "transaction_timeout")] {
        if connection.version() >= since {
            connection.query(&format!("SET {setting} = 0")).await?;
        }
    }
    Ok(connection)
}

async fn attempt(options: Arc<PostgresOptions>, mode: Mode, encrypt: bool, deadline: Instant) -> Result<Connection> {
    let socket = Socket::connect(&options, encrypt, deadline).await?;
    let mut connection = Connection::new(options, Channel::new(socket));
    let started = async {
        hello(&mut connection, mode).await?;
        authentication::authenticate(&mut connection).await?;
        settle(&mut connection).await
    };
    // A server that does not believe our certificate says so only now.
    started.await.map_err(tls::explained)?;
    Ok(connection)
}

/// True if a connection that is not encrypted may succeed.
fn concerns_encryption(error: &Error) -> bool {
    match sqlstate(error) {
        Some(code) => code == "28000",
        None => error.kind() == ErrorKind::Config,
    }
}

async fn hello(connection: &mut Connection, mode: Mode) -> Result<()> {
    let options = Arc::clone(&connection.options);
    let who = [("user", options.user.as_str()), ("database", options.database.as_str())];
    let replication = (mode == Mode::Replication).then_some(("replication", "database"));
    let parameters = who.into_iter().chain(replication).chain(SESSION).chain([("lock_timeout", lock_timeout(mode))]);
    frontend::startup_message(parameters, &mut connection.channel.outbox)
        .map_err(|error| Error::config("user or database cannot be sent to a server").source(error))?;
    connection.channel.send().await
}

/// Waits until the server has told what it tells at the start.
async fn settle(connection: &mut Connection) -> Result<()> {
    loop {
        let frame = connection.next().await?;
        match frame.tag {
            message::READY_FOR_QUERY => {
                connection.busy = false;
                connection.channel.inbox.trust();
                return Ok(());
            }
            message::BACKEND_KEY_DATA => {
                let mut fields = Fields::new(frame);
                let key = (fields.i32()?, fields.i32()?);
                connection.key = Some(key);
            }
            message::ERROR_RESPONSE => return Err(refusal(frame)),
            // Of a later minor version of the protocol the server leaves out what we did not ask for.
            message::NEGOTIATE_PROTOCOL_VERSION => {}
            tag => return Err(message::unexpected(tag, "the start of the session")),
        }
    }
}

/// The server does not want a session with us.
pub(super) fn refusal(frame: Frame<'_>) -> Error {
    match ServerError::parse(frame) {
        Ok(error) => failure(CONNECTING, error),
        Err(error) => error,
    }
}
