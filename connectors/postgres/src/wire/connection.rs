//! A session with a server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use logweir_core::{Error, Result};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::channel::{Channel, hung_up, lost};
use super::failure::{ServerError, failure};
use super::frame::Frame;
use super::message::{self, Parameters};
use super::socket::Socket;
use super::startup;
use crate::options::PostgresOptions;

/// What was said before a connection broke is here already.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// SQL and COPY.
    Query,
    /// A walsender of the database: SQL, and the commands of replication.
    Replication,
}

/// A session with a server. Errors of the server leave it usable; a question whose future was dropped does not.
pub struct Connection {
    pub(super) options: Arc<PostgresOptions>,
    pub(super) channel: Channel,
    pub(super) parameters: Parameters,
    /// Process and secret, for a request to cancel.
    pub(super) key: Option<(i32, i32)>,
    /// True from the question until the server is ready for the next.
    pub(super) busy: bool,
    version: u32,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("server", &self.options.address()).field("version", &self.version).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects, encrypts, authenticates and fixes what values look like: UTF-8, ISO dates in UTC, ISO 8601 intervals, floats
    /// in full, bytea in hexadecimal, names qualified (`search_path` is empty), and no timeouts of statements, locks or idle
    /// sessions. Takes no longer than the options' `connect_timeout`.
    pub async fn connect(options: &PostgresOptions, mode: Mode) -> Result<Connection> {
        let deadline = Instant::now() + options.connect_timeout;
        let connecting = Box::pin(startup::start(Arc::new(options.clone()), mode, deadline));
        let connected = match timeout(options.connect_timeout, connecting).await {
            Ok(connected) => connected,
            Err(_) => {
                Err(Error::transient("could not connect to the server in time").context("seconds", options.connect_timeout.as_secs_f32()))
            }
        };
        connected.map_err(|error| error.context("server", options.address()).context("user", &options.user))
    }

    pub(super) fn new(options: Arc<PostgresOptions>, channel: Channel) -> Self {
        Connection { options, channel, parameters: Parameters::default(), key: None, busy: true, version: 0 }
    }

    /// What the server says of itself: `server_version`, `TimeZone`, `in_hot_standby`, …
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name)
    }

    /// The server's version as one number: 150007 is 15.7, 90624 is 9.6.24. Zero if it cannot be understood.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The server's version was told.
    pub(super) fn note_version(&mut self) {
        self.version = self.parameter("server_version").and_then(version_number).unwrap_or(0);
    }

    /// True if another question may be put: false after one was given up half-way or the session has ended.
    pub fn is_ready(&self) -> bool {
        !self.busy
    }

    /// What is needed to cancel what the session is doing, to be kept by someone who does not wait for it.
    pub fn cancel_key(&self) -> Option<CancelKey> {
        let (process, secret) = self.key?;
        let encrypt = self.channel.socket.is_encrypted();
        Some(CancelKey { options: Arc::clone(&self.options), encrypt, process, secret })
    }

    /// Says goodbye. Without it the server notices the end by itself, and says so in its log.
    pub async fn close(mut self) {
        self.channel.outbox.clear();
        frontend::terminate(&mut self.channel.outbox);
        let goodbye = async {
            let _ = self.channel.send().await;
            let _ = self.channel.socket.shutdown().await;
        };
        // A server that does not take five bytes is not waited for.
        let _ = timeout(self.options.connect_timeout, goodbye).await;
    }

    /// Sends a statement or command.
    pub(super) async fn ask(&mut self, sql: &str) -> Result<()> {
        self.put(|outbox| frontend::query(sql, outbox)).await
    }

    /// Sends messages that the server answers until it is ready for the next.
    pub(super) async fn put(&mut self, write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>) -> Result<()> {
        if self.busy {
            return Err(Error::transient("the connection was left in the middle of an answer"));
        }
        let put = write(&mut self.channel.outbox);
        put.map_err(|error| Error::internal("a statement cannot be sent").source(error))?;
        self.busy = true;
        match self.channel.send().await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.last_words().await.unwrap_or(error)),
        }
    }

    /// Why the server ended the session, if it said so: found only by reading, after sending has failed.
    async fn last_words(&mut self) -> Option<Error> {
        let reading = async {
            loop {
                let frame = self.next().await.ok()?;
                if frame.tag == message::ERROR_RESPONSE {
                    return Some(failure("the server ended the session", ServerError::parse(frame).ok()?));
                }
            }
        };
        timeout(LAST_WORDS_MAX, reading).await.ok().flatten()
    }

    /// Waits for the next message of the answer; what a server may say at any time is noted and not handed out.
    pub(super) async fn next(&mut self) -> Result<Frame<'_>> {
        while message::is_aside(self.channel.next_tag().await?) {
            if let Some(frame) = self.channel.inbox.take()? {
                message::note(frame, &mut self.parameters)?;
            }
        }
        self.channel.next().await
    }

    /// The error of what was asked, once the server is ready for the next question.
    pub(super) async fn fail(&mut self, doing: &'static str, first: ServerError) -> Error {
        let mut cause = first;
        loop {
            match self.next().await {
                Ok(Frame { tag: message::READY_FOR_QUERY, .. }) => {
                    self.busy = false;
                    break;
                }
                // What came first is the cause, unless what follows ends the session.
                Ok(frame @ Frame { tag: message::ERROR_RESPONSE, .. }) => match ServerError::parse(frame) {
                    Ok(error) if error.severity() != "ERROR" => cause = error,
                    Ok(_) => {}
                    Err(_) => break,
                },
                Ok(_) => {}
                // After a fatal error the server closes the connection.
                Err(_) => break,
            }
        }
        failure(doing, cause)
    }
}

/// What is needed to cancel what a session is doing.
pub struct CancelKey {
    options: Arc<PostgresOptions>,
    encrypt: bool,
    process: i32,
    secret: i32,
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelKey").field("process", &self.process).finish_non_exhaustive()
    }
}

impl CancelKey {
    /// The server's process that serves the session.
    pub fn process(&self) -> i32 {
        self.process
    }

    /// Asks the server to give up what the session is doing now. Whether it was still doing it nobody says.
    pub async fn cancel(&self) -> Result<()> {
        let deadline = Instant::now() + self.options.connect_timeout;
        let asking = Box::pin(async {
            let mut socket = Socket::connect(&self.options, self.encrypt, deadline).await?;
            let mut request = BytesMut::new();
            frontend::cancel_request(self.process, self.secret, &mut request);
            socket.write_all(&request).await.map_err(lost)?;
            socket.flush().await.map_err(lost)?;
            // The server answers with nothing but the end of the connection, after it has passed on the request.
            match socket.read(&mut [0]).await {
                Ok(0) => Ok(()),
                Ok(_) => Err(hung_up()),
                Err(error) => Err(lost(error)),
            }
        });
        match timeout(self.options.connect_timeout, asking).await {
            Ok(asked) => asked,
            Err(_) => Err(Error::transient("could not cancel a statement in time").context("server", self.options.address())),
        }
    }
}

/// `server_version_num` of a `server_version`: `15.7 (Debian 15.7-0+deb12u1)`, `9.6.24`, `18beta1`, `11.2-YB-2.1`.
fn version_number(text: &str) -> Option<u32> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').map_or(text, |end| &text[..end]);
    let mut parts = digits.split('.').map(|part| part.parse::<u32>().ok().filter(|&part| part < 10_000));
    let (major, minor) = (parts.next()??, parts.next().flatten().unwrap_or(0));
    Some(match major {
        10.. => major * 10_000 + minor,
        _ => major * 10_000 + minor % 100 * 100 + parts.next().flatten().unwrap_or(0) % 100,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, number) in [
            ("15.7 (Debian 15.7-0+deb12u1)", Some(150_007)),
            ("18.4", Some(180_004)),
            ("18beta1", Some(180_000)),
            ("19devel", Some(190_000)),
            ("9.6.24", Some(90_624)),
            ("11.2-YB-2.21.0.0-b0", Some(110_002)),
            ("unknown", None),
            ("", None),
            ("99999999999", None),
        ] {
            assert_eq!(version_number(text), number, "{text}");
        }
    }
}
