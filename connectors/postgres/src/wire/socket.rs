//! What the bytes go over: TCP, a Unix socket, and TLS over TCP.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use logweir_core::{Error, Result};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::tls::{self, Encrypted};
use crate::options::{PostgresOptions, TlsMode};

/// A peer that is silent for this long is asked whether it is still there…
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// … again after this …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// … and so many times before the connection is given up.
const KEEPALIVE_RETRIES: u32 = 3;

/// What was sent and is not confirmed for this long ends the connection too: with something under way nobody is asked.
#[cfg(target_os = "linux")]
const UNCONFIRMED_MAX: Duration = Duration::from_secs(60);

/// A stream of bytes to a server.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<Encrypted>),
}

impl Socket {
    /// Connects to where the options say, until `deadline`, encrypted if `encrypt` and the server can; what the options demand
    /// of encryption is seen to. A Unix socket needs none.
    pub(super) async fn connect(options: &PostgresOptions, encrypt: bool, deadline: Instant) -> Result<Socket> {
        if options.host.starts_with('/') {
            let path = format!("{}/.s.PGSQL.{}", options.host.trim_end_matches('/'), options.port);
            let connected = UnixStream::connect(&path).await;
            return connected
                .map(Socket::Unix)
                .map_err(|error| Error::transient("could not connect to the server's socket").context("socket", &path).source(error));
        }
        let mut stream = tcp(options, deadline).await?;
        if !encrypt {
            return Ok(Socket::Tcp(stream));
        }
        match tls::is_offered(&mut stream).await? {
            true => Ok(Socket::Tls(Box::new(tls::encrypt(stream, options).await?))),
            false if options.tls.mode == TlsMode::Prefer => Ok(Socket::Tcp(stream)),
            false => Err(tls::not_offered()),
        }
    }

    /// True if nobody but this machine sees the bytes, or they are encrypted.
    pub(super) fn is_private(&self) -> bool {
        match self {
            Socket::Tcp(stream) => stream.peer_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback()),
            Socket::Unix(_) | Socket::Tls(_) => true,
        }
    }

    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self, Socket::Tls(_))
    }

    /// What a session can be bound to, where it is encrypted and the certificate has such a thing.
    pub(super) fn end_point(&self) -> Option<Vec<u8>> {
        match self {
            Socket::Tls(stream) => tls::end_point(stream),
            _ => None,
        }
    }
}

async fn tcp(options: &PostgresOptions, deadline: Instant) -> Result<TcpStream> {
    let failed = |error: io::Error| Error::transient("could not connect to the server").source(error);
    let addresses = lookup_host((options.host.as_str(), options.port)).await;
    let addresses: Vec<_> = addresses.map_err(|error| Error::transient("could not find the server's address").source(error))?.collect();
    let mut last = Error::transient("could not find the server's address");
    for (i, address) in addresses.iter().enumerate() {
        // An address that does not answer must leave time for the others.
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / u32::try_from(addresses.len() - i).unwrap_or(u32::MAX);
        match timeout_at(now + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                prepare(&stream).map_err(failed)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = failed(error),
            Err(elapsed) => last = failed(io::Error::new(io::ErrorKind::TimedOut, elapsed)),
        }
    }
    Err(last)
}

/// Small messages are not held back, and a peer that vanished is noticed.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
    let socket = SockRef::from(stream);
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNCONFIRMED_MAX))?;
    socket.set_tcp_keepalive(&keepalive)
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Socket::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Socket::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_that_vanishes_is_noticed_and_small_messages_go_at_once() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut options = PostgresOptions::new("127.0.0.1", "weir", "shop");
        options.port = listener.local_addr().unwrap().port();
        let deadline = Instant::now() + Duration::from_secs(10);
        let Socket::Tcp(stream) = Socket::connect(&options, false, deadline).await.unwrap() else { panic!("not over TCP") };
        assert!(stream.nodelay().unwrap());
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_RETRIES);
    }
}
