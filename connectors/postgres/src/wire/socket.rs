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

use crate::options::PostgresOptions;

/// A peer that is silent for this long is asked whether it is still there…
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// … again after this …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// … and so many times before the connection is given up.
const KEEPALIVE_RETRIES: u32 = 3;

/// A stream of bytes to a server.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connects to where the options say, until `deadline`.
    pub(super) async fn connect(options: &PostgresOptions, deadline: Instant) -> Result<Socket> {
        if options.host.starts_with('/') {
            let path = format!("{}/.s.PGSQL.{}", options.host.trim_end_matches('/'), options.port);
            let connected = UnixStream::connect(&path).await;
            return connected
                .map(Socket::Unix)
                .map_err(|error| Error::transient("could not connect to the server's socket").context("socket", &path).source(error));
        }
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
                    return Ok(Socket::Tcp(stream));
                }
                Ok(Err(error)) => last = failed(error),
                Err(elapsed) => last = failed(io::Error::new(io::ErrorKind::TimedOut, elapsed)),
            }
        }
        Err(last)
    }

    /// True if nobody but this machine sees the bytes, or they are encrypted.
    pub(super) fn is_private(&self) -> bool {
        match self {
            Socket::Tcp(stream) => stream.peer_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback()),
            Socket::Unix(_) => true,
        }
    }
}

/// Small messages are not held back, and a peer that vanished is noticed.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
