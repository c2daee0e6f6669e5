//! The walsender's stream: the log one way, how far we have come the other.

use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use logweir_core::{Error, Result, TimestampMicros};
use postgres_protocol::message::frontend;
use tokio::time::timeout;
use tracing::debug;

use super::channel::{Channel, hung_up, lost};
use super::connection::Connection;
use super::failure::{ServerError, failure};
use super::frame::{FRAME_BYTES_MAX, Frame, HEADER_BYTES, header};
use super::message::{self, Parameters};
use crate::lsn::Lsn;

const STREAMING: &str = "could not stream from the server";

/// Microseconds from 1970, where our clock begins, to 2000, where the server's does.
const SERVER_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Bytes of a status update on the wire: tag, length, kind, three places, clock, whether to reply.
const STATUS_BYTES: usize = 5 + 1 + 3 * 8 + 8 + 1;

/// A walsender that sends.
///
/// Reading and writing are polled, not awaited, so that a reader can stop waiting at any time and lose nothing.
#[derive(Debug)]
pub struct CopyBoth {
    channel: Channel,
    parameters: Parameters,
    /// Bytes at the front of the inbox that are whole messages which do not end the stream.
    whole: usize,
    /// True if the message after those ends the stream.
    ending: bool,
    /// Whether the last status update that is queued asks for a reply.
    asks_reply: bool,
    /// Why nothing can be sent any more. Reading goes on: the server's own reason may be on its way.
    mute: Option<Error>,
}

impl Connection {
    /// Runs `START_REPLICATION …`; from then on there are no more questions.
    pub async fn copy_both(mut self, sql: &str) -> Result<CopyBoth> {
        self.ask(sql).await?;
        let frame = self.next().await?;
        match frame.tag {
            message::COPY_BOTH_RESPONSE => {
                Ok(CopyBoth { channel: self.channel, parameters: self.parameters, whole: 0, ending: false, asks_reply: false, mute: None })
            }
            message::ERROR_RESPONSE => {
                let error = ServerError::parse(frame)?;
                Err(self.fail(STREAMING, error).await)
            }
            tag => Err(message::unexpected(tag, "the start of the stream")),
        }
    }
}

impl CopyBoth {
    /// Waits until [`next_payload`](Self::next_payload) has something, and reads what the socket holds, as much as fits. The
    /// end of the stream is an error, told after all that came before it was taken. Sends what is queued on the way.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.send(cx);
        loop {
            self.skip_asides();
            if self.whole == 0 {
                self.scan()?;
            }
            if self.ending && self.whole == 0 {
                return Poll::Ready(Err(self.end()));
            }
            if self.whole == 0 {
                ready!(self.poll_read(cx))?;
            } else if self.begins_with_payload() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Has the runtime watch the socket, which it does from the start, or leave it alone: see [`Socket::watch`]. Unwatched,
    /// [`poll_fill`](Self::poll_fill) finds what has come by then, and whoever it leaves waiting comes back by himself.
    ///
    /// [`Socket::watch`]: super::socket::Socket::watch
    pub fn watch(&mut self, watched: bool) -> Result<()> {
        self.channel.socket.watch(watched).map_err(lost)
    }

    /// The next message of the walsender, undecoded: `w` or `k` and what follows. `None` if no whole one is here.
    pub fn next_payload(&mut self) -> Option<&[u8]> {
        self.skip_asides();
        if self.whole == 0 {
            return None;
        }
        let frame = self.channel.inbox.take().ok().flatten()?;
        self.whole = self.whole.saturating_sub(HEADER_BYTES + frame.body.len());
        Some(frame.body)
    }

    /// How many bytes of whole messages are here and were not taken.
    pub fn buffered(&self) -> usize {
        self.whole
    }

    /// What the server says of itself.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name)
    }

    /// Tells the server how far we have come, now if the socket takes it, otherwise with later polls. An update that could
    /// not be sent yet is replaced.
    pub fn send_status(&mut self, written: Lsn, flushed: Lsn, applied: Lsn, now: TimestampMicros) {
        self.queue_status(written, flushed, applied, now, false);
    }

    /// As [`send_status`](Self::send_status), and asks the server to answer at once with a keepalive: for who has heard
    /// nothing for a long time and wants to know whether there still is a server.
    pub fn send_status_and_ask(&mut self, written: Lsn, flushed: Lsn, applied: Lsn, now: TimestampMicros) {
        self.queue_status(written, flushed, applied, now, true);
    }

    fn queue_status(&mut self, written: Lsn, flushed: Lsn, applied: Lsn, now: TimestampMicros, reply: bool) {
        let outbox = &mut self.channel.outbox;
        // Of a longer queue the last update is untouched, and older than this one.
        let replaced = outbox.len().checked_sub(STATUS_BYTES);
        if let Some(length) = replaced {
            outbox.truncate(length);
        }
        self.asks_reply = reply || (replaced.is_some() && self.asks_reply);
        put_status(outbox, [written, flushed, applied], now, self.asks_reply);
        // Nobody is woken for this attempt; who polls for changes polls this too.
        self.send(&mut Context::from_waker(Waker::noop()));
    }

    /// Sends what is queued. Errors are those of [`poll_fill`](Self::poll_fill).
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.send(cx);
        if self.channel.outbox.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Ends the stream in good order, so that the slot is free when this returns. What the server still sends is dropped.
    pub async fn finish(mut self, patience: Duration) -> Result<()> {
        self.watch(true)?;
        frontend::copy_done(&mut self.channel.outbox);
        let finishing = async {
            self.channel.send().await?;
            loop {
                let frame = self.channel.next().await?;
                match frame.tag {
                    message::READY_FOR_QUERY => break,
                    message::ERROR_RESPONSE => return Err(failure(STREAMING, ServerError::parse(frame)?)),
                    _ => {}
                }
            }
            frontend::terminate(&mut self.channel.outbox);
            self.channel.send().await
        };
        match timeout(patience, finishing).await {
            Ok(finished) => finished,
            Err(_) => Err(Error::transient("could not end the stream in time").context("seconds", patience.as_secs_f32())),
        }
    }

    fn send(&mut self, cx: &mut Context<'_>) {
        if self.mute.is_none()
            && let Poll::Ready(Err(error)) = self.channel.poll_send(cx)
        {
            self.mute = Some(error);
        }
        if self.mute.is_some() {
            self.channel.outbox.clear();
        }
    }

    /// Reads until the socket is empty or the buffer full; ready when that made something whole.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.channel.inbox.make_room();
        let mut end = None;
        while end.is_none() && self.channel.inbox.room() > 0 {
            let Channel { socket, inbox, .. } = &mut self.channel;
            match inbox.poll_read(cx, socket) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(_)) => end = Some(hung_up()),
                Poll::Ready(Err(error)) => end = Some(lost(error)),
                Poll::Pending => break,
            }
        }
        let full = self.channel.inbox.room() == 0;
        self.scan()?;
        match end {
            // What came before the end is handed out first; a socket that ended says so again.
            _ if self.whole > 0 || self.ending => Poll::Ready(Ok(())),
            Some(error) => Poll::Ready(Err(error)),
            // One message fills the buffer and is not whole: there will be more room.
            None if full => Poll::Ready(Ok(())),
            None => match &self.mute {
                Some(error) if !will_be_read(error) => Poll::Ready(Err(error.clone())),
                _ => Poll::Pending,
            },
        }
    }

    /// Finds out how many of the received bytes are whole messages of the stream.
    fn scan(&mut self) -> Result<()> {
        let received = self.channel.inbox.received();
        while !self.ending {
            let rest = received.get(self.whole..).unwrap_or_default();
            match header(rest, FRAME_BYTES_MAX) {
                Ok(Some((tag, size))) if size <= rest.len() => match tag {
                    message::COPY_DATA => self.whole += size,
                    tag if message::is_aside(tag) => self.whole += size,
                    _ => self.ending = true,
                },
                Ok(_) => break,
                // Told when what came before it was taken.
                Err(_) if self.whole > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn begins_with_payload(&self) -> bool {
        self.channel.inbox.received().first() == Some(&message::COPY_DATA)
    }

    /// Takes what a server may send at any time from the front.
    fn skip_asides(&mut self) {
        while self.whole > 0 && !self.begins_with_payload() {
            let Ok(Some(frame)) = self.channel.inbox.take() else { return };
            self.whole = self.whole.saturating_sub(HEADER_BYTES + frame.body.len());
            if let Err(error) = message::note(frame, &mut self.parameters) {
                debug!(%error, "not understood, and not needed");
            }
        }
    }

    /// What the message says that ends the stream. It stays, to be told again.
    fn end(&self) -> Error {
        let received = self.channel.inbox.received();
        let Ok(Some((tag, size))) = header(received, FRAME_BYTES_MAX) else { return hung_up() };
        let Some(body) = received.get(HEADER_BYTES..size) else { return hung_up() };
        match tag {
            message::ERROR_RESPONSE => match ServerError::parse(Frame { tag, body }) {
                Ok(error) => failure(STREAMING, error),
                Err(error) => error,
            },
            // A walsender says so when its server shuts down.
            message::COPY_DONE | message::COMMAND_COMPLETE | message::READY_FOR_QUERY => Error::transient("the server ended the stream"),
            tag => message::unexpected(tag, "changes"),
        }
    }
}

/// True if what went wrong with sending is sure to end the receiving too, after what the server said before it went.
fn will_be_read(error: &Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut};
    let io = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| matches!(io.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut))
}

/// Writes a standby status update.
fn put_status(out: &mut BytesMut, [written, flushed, applied]: [Lsn; 3], now: TimestampMicros, reply: bool) {
    out.put_u8(message::COPY_DATA);
    out.put_u32(STATUS_BYTES as u32 - 1);
    out.put_u8(b'r');
    for place in [written, flushed, applied] {
        out.put_u64(place.0);
    }
    out.put_i64(now.0.saturating_sub(SERVER_EPOCH_MICROS));
    out.put_u8(reply.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_update() {
        let mut out = BytesMut::new();
        put_status(&mut out, [Lsn(0x0102), Lsn(3), Lsn(4)], TimestampMicros(SERVER_EPOCH_MICROS + 5), true);
        assert_eq!(out.len(), STATUS_BYTES);
        assert_eq!(&out[..], b"d\0\0\0\x26r\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x05\x01");
    }
}
