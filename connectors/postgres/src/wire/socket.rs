//! What the bytes go over: TCP, a Unix socket, and TLS over TCP.
//!
//! The runtime watches a socket and wakes us for every packet that comes, which under load costs more than all the rest: a
//! walsender sends row by row. A reader that looks at its socket from time to time has it unwatched ([`Socket::watch`]): then
//! packets wake nobody, the system's buffer fills, and the server's side gets cheaper too.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
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
    Plain(Plain),
    Tls(Box<Encrypted>),
}

/// A socket of the system, watched by the runtime or not.
#[derive(Debug)]
pub(super) enum Plain {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Reads and writes what is possible at once. If nothing is, nobody is woken when something becomes so.
    UnwatchedTcp(std::net::TcpStream),
    UnwatchedUnix(std::os::unix::net::UnixStream),
    /// The runtime would not take it back.
    Lost,
}

impl Socket {
    /// Connects to where the options say, until `deadline`, encrypted if `encrypt` and the server can; what the options demand
    /// of encryption is seen to. A Unix socket needs none.
    pub(super) async fn connect(options: &PostgresOptions, encrypt: bool, deadline: Instant) -> Result<Socket> {
        if options.host.starts_with('/') {
            let path = format!("{}/.s.PGSQL.{}", options.host.trim_end_matches('/'), options.port);
            let connected = UnixStream::connect(&path).await;
            return connected
                .map(|stream| Socket::Plain(Plain::Unix(stream)))
                .map_err(|error| Error::transient("could not connect to the server's socket").context("socket", &path).source(error));
        }
        let mut stream = tcp(options, deadline).await?;
        if !encrypt {
            return Ok(Socket::Plain(Plain::Tcp(stream)));
        }
        match tls::is_offered(&mut stream).await? {
            true => Ok(Socket::Tls(Box::new(tls::encrypt(stream, options).await?))),
            false if options.tls.mode == TlsMode::Prefer => Ok(Socket::Plain(Plain::Tcp(stream))),
            false => Err(tls::not_offered()),
        }
    }

    /// True if nobody but this machine sees the bytes, or they are encrypted.
    pub(super) fn is_private(&self) -> bool {
        let peer = match self {
            Socket::Plain(Plain::Tcp(stream)) => stream.peer_addr(),
            Socket::Plain(Plain::UnwatchedTcp(stream)) => stream.peer_addr(),
            Socket::Plain(Plain::Lost) => return false,
            Socket::Plain(Plain::Unix(_) | Plain::UnwatchedUnix(_)) | Socket::Tls(_) => return true,
        };
        peer.is_ok_and(|address| address.ip().to_canonical().is_loopback())
    }

    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self, Socket::Tls(_))
    }

    /// What a session can be bound to, where it is encrypted and the certificate has such a thing.
    pub(super) fn end_point(&self) -> Option<Vec<u8>> {
        match self {
            Socket::Tls(stream) => tls::end_point(stream),
            Socket::Plain(_) => None,
        }
    }

    /// Has the runtime watch the socket, or leave it alone. Unwatched, a poll that finds nothing wakes nobody later: whoever
    /// polls comes back by himself. After an error the socket is lost.
    pub(super) fn watch(&mut self, watched: bool) -> io::Result<()> {
        match self {
            Socket::Plain(plain) => plain.watch(watched),
            Socket::Tls(stream) => stream.get_mut().0.get_mut().watch(watched),
        }
    }
}

impl Plain {
    fn watch(&mut self, watched: bool) -> io::Result<()> {
        *self = match (std::mem::replace(self, Plain::Lost), watched) {
            (Plain::Tcp(stream), false) => Plain::UnwatchedTcp(stream.into_std()?),
            (Plain::Unix(stream), false) => Plain::UnwatchedUnix(stream.into_std()?),
            (Plain::UnwatchedTcp(stream), true) => Plain::Tcp(TcpStream::from_std(stream)?),
            (Plain::UnwatchedUnix(stream), true) => Plain::Unix(UnixStream::from_std(stream)?),
            (same, _) => same,
        };
        Ok(())
    }
}

/// What a call that must not wait gave.
fn at_once<T>(mut call: impl FnMut() -> io::Result<T>) -> Poll<io::Result<T>> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return Poll::Ready(result),
        }
    }
}

fn read_at_once(mut stream: impl Read, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    let read = ready!(at_once(|| stream.read(buffer.initialize_unfilled())))?;
    buffer.advance(read);
    Poll::Ready(Ok(()))
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
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

impl AsyncRead for Plain {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Plain::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Plain::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Plain::UnwatchedTcp(stream) => read_at_once(stream, buffer),
            Plain::UnwatchedUnix(stream) => read_at_once(stream, buffer),
            Plain::Lost => gone(),
        }
    }
}

impl AsyncWrite for Plain {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Plain::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Plain::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Plain::UnwatchedTcp(stream) => at_once(|| stream.write(bytes)),
            Plain::UnwatchedUnix(stream) => at_once(|| stream.write(bytes)),
            Plain::Lost => gone(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Plain::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Plain::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Plain::UnwatchedTcp(_) | Plain::UnwatchedUnix(_) => Poll::Ready(Ok(())),
            Plain::Lost => gone(),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Plain::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Plain::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Plain::UnwatchedTcp(stream) => Poll::Ready(stream.shutdown(Shutdown::Write)),
            Plain::UnwatchedUnix(stream) => Poll::Ready(stream.shutdown(Shutdown::Write)),
            Plain::Lost => gone(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Socket::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Socket::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
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
        let Socket::Plain(Plain::Tcp(stream)) = Socket::connect(&options, false, deadline).await.unwrap() else { panic!("not over TCP") };
        assert!(stream.nodelay().unwrap());
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_RETRIES);
    }
}
