//! A connection, its seat, and how long it may stay unknown.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, OwnedSemaphorePermit};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// How long somebody may take to be known.
pub(crate) const STARTUP: Duration = Duration::from_secs(15);

/// What a request knows of its connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    known: Arc<AtomicBool>,
    /// Held while a password is looked at.
    pub(crate) passwords: Arc<Mutex<()>>,
}

impl Peer {
    fn new(address: SocketAddr) -> Self {
        Peer { address, known: Arc::default(), passwords: Arc::default() }
    }

    /// Somebody has proved who is asking: the connection stays.
    pub(crate) fn now_known(&self) {
        self.known.store(true, Ordering::Relaxed);
    }
}

/// What bytes go through.
pub(crate) enum Socket {
    Plain(TcpStream),
    Encrypted(Box<TlsStream<TcpStream>>),
}

/// A connection with a seat. Unless somebody is known in time, it ends.
pub(crate) struct Seated {
    socket: Socket,
    peer: Peer,
    patience: Pin<Box<Sleep>>,
    _seat: OwnedSemaphorePermit,
}

impl Seated {
    /// One that was accepted `since` then.
    pub(crate) fn new(socket: Socket, address: SocketAddr, since: Instant, seat: OwnedSemaphorePermit) -> Self {
        Seated { socket, peer: Peer::new(address), patience: Box::pin(sleep_until(since + STARTUP)), _seat: seat }
    }
}

impl Connected for Seated {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Seated {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.peer.known.load(Ordering::Relaxed) && this.patience.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        match &mut this.socket {
            Socket::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Socket::Encrypted(socket) => Pin::new(socket.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Seated {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().socket {
            Socket::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Socket::Encrypted(socket) => Pin::new(socket.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Socket::Encrypted(socket) => Pin::new(socket.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(match &mut self.get_mut().socket {
            Socket::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Socket::Encrypted(socket) => Pin::new(socket.as_mut()).poll_shutdown(cx),
        })?;
        Poll::Ready(Ok(()))
    }
}
