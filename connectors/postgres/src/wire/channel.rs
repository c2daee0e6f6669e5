//! A socket with what was received from it and what is to be sent over it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use logweir_core::{Error, Result};
use tokio::io::AsyncWrite;

use super::frame::{Frame, Inbox};
use super::socket::Socket;

/// Both ways to a server. Every wait may be given up: nothing that was received or queued is lost.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) socket: Socket,
    pub(super) inbox: Inbox,
    /// What is to be sent and was not yet.
    pub(super) outbox: BytesMut,
    flushed: bool,
}

impl Channel {
    pub(super) fn new(socket: Socket) -> Self {
        Channel { socket, inbox: Inbox::new(), outbox: BytesMut::new(), flushed: true }
    }

    /// Sends what is queued.
    pub(super) async fn send(&mut self) -> Result<()> {
        poll_fn(|cx| self.poll_send(cx)).await
    }

    /// Sends what is queued, as far as the socket takes it.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.outbox.is_empty() {
            self.flushed = false;
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.outbox)).map_err(lost)?;
            if written == 0 {
                return Poll::Ready(Err(lost(std::io::ErrorKind::WriteZero.into())));
            }
            self.outbox.advance(written);
        }
        if !self.flushed {
            ready!(Pin::new(&mut self.socket).poll_flush(cx)).map_err(lost)?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until a whole message is here, and says what it is.
    pub(super) async fn next_tag(&mut self) -> Result<u8> {
        loop {
            if let Some(tag) = self.inbox.next_tag()? {
                return Ok(tag);
            }
            self.inbox.make_room();
            let Channel { socket, inbox, .. } = self;
            if poll_fn(|cx| inbox.poll_read(cx, socket)).await.map_err(lost)? == 0 {
                return Err(hung_up());
            }
        }
    }

    /// Waits for the next message.
    pub(super) async fn next(&mut self) -> Result<Frame<'_>> {
        self.next_tag().await?;
        // Never missing after the wait; said as an error because a panic would say no more.
        self.inbox.take()?.ok_or_else(hung_up)
    }
}

/// The connection broke.
pub(super) fn lost(error: std::io::Error) -> Error {
    Error::transient("lost the connection to the server").source(error)
}

/// The server closed the connection without a word.
pub(super) fn hung_up() -> Error {
    Error::transient("lost the connection to the server").source(std::io::Error::from(std::io::ErrorKind::UnexpectedEof))
}
