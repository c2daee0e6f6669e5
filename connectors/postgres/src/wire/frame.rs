//! Messages as they lie in the bytes: a tag, a length, a body.
//!
//! There is one buffer for each connection. It is read into at its end and handed out from its start as slices, and grows
//! only for a message that does not fit.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use logweir_core::{Error, Result};
use tokio::io::{AsyncRead, ReadBuf};

/// What is read at once. Large, so that a drained log takes few system calls and wake-ups whenever we are the slower side:
/// with 2 µs of work for each of a million small rows the buffer is filled 574 times, and 14,128 times with 8 KiB. Where the
/// walsender is the slower side the size makes no difference: it sends row by row, and we are woken for every few.
pub(super) const READ_BYTES: usize = 256 * 1024;

/// A buffer that grew beyond this for a large message is given back once it is empty.
const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The server's own bound is 1 GiB (`MaxAllocSize`) for what a message carries; a message of the log has a header before it.
pub(super) const FRAME_BYTES_MAX: usize = (1 << 30) + (1 << 16);

/// Until a session is established the other end may be anybody, and nothing that it has to say is longer.
const STRANGERS_FRAME_BYTES_MAX: usize = 64 * 1024;

/// Tag and length.
pub(super) const HEADER_BYTES: usize = 5;

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) tag: u8,
    pub(super) body: &'a [u8],
}

/// Bytes that were received and not used yet.
#[derive(Debug)]
pub(super) struct Inbox {
    /// All of it is initialised; `start..end` is what was received.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    frame_bytes_max: usize,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Inbox { bytes: vec![0; READ_BYTES], start: 0, end: 0, frame_bytes_max: STRANGERS_FRAME_BYTES_MAX }
    }

    /// The other end is known from now on, and may send what is large.
    pub(super) fn trust(&mut self) {
        self.frame_bytes_max = FRAME_BYTES_MAX;
    }

    /// What was received and not taken.
    pub(super) fn received(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The tag of the message that comes next, once all of it is here.
    pub(super) fn next_tag(&self) -> Result<Option<u8>> {
        let received = self.received();
        Ok(match header(received, self.frame_bytes_max)? {
            Some((tag, size)) if received.len() >= size => Some(tag),
            _ => None,
        })
    }

    /// Takes the message that comes next, once all of it is here.
    pub(super) fn take(&mut self) -> Result<Option<Frame<'_>>> {
        match header(self.received(), self.frame_bytes_max)? {
            Some((tag, size)) if self.end - self.start >= size => {
                let from = self.start;
                self.start += size;
                Ok(Some(Frame { tag, body: &self.bytes[from + HEADER_BYTES..from + size] }))
            }
            _ => Ok(None),
        }
    }

    /// Bytes that can be read before room must be made.
    pub(super) fn room(&self) -> usize {
        self.bytes.len() - self.end
    }

    /// Moves what was not taken to the front and makes sure that something can be read behind it. To be called when no
    /// whole message is left, so that what is moved is part of a single one.
    pub(super) fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > KEPT_BYTES_MAX {
                self.bytes = vec![0; READ_BYTES];
            }
        } else if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.room() == 0 {
            // Doubled with what came, not at once to the length that the message claims: that is only a claim.
            let claimed = header(self.received(), self.frame_bytes_max).ok().flatten().map_or(0, |(_, size)| size);
            let doubled = self.bytes.len() * 2;
            self.bytes.resize(if claimed > self.bytes.len() { claimed.min(doubled) } else { doubled }, 0);
        }
    }

    /// Reads once. Zero bytes are the end of the stream.
    pub(super) fn poll_read<S: AsyncRead + Unpin>(&mut self, cx: &mut Context<'_>, socket: &mut S) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(&mut self.bytes[self.end..]);
        ready!(Pin::new(socket).poll_read(cx, &mut buffer))?;
        let read = buffer.filled().len();
        self.end += read;
        Poll::Ready(Ok(read))
    }
}

const ERROR_RESPONSE: u8 = b'E';

/// Tag and whole size of the message that `bytes` begin with, once its header is there.
pub(super) fn header(bytes: &[u8], length_max: usize) -> Result<Option<(u8, usize)>> {
    let Some(&[tag, a, b, c, d]) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if tag == ERROR_RESPONSE && length > length_max && [a, b, c, d].iter().all(u8::is_ascii_alphabetic) {
        // An error of protocol 2, whose text begins where a length would stand: what a server says (up to 13 also for having been told to
        // stop) that has not looked at who is there.
        return Err(Error::transient("the server ended the connection before the session began").remedy("see the server's log"));
    }
    if !(4..=length_max).contains(&length) {
        return Err(Error::corrupt("the server sent a message with an impossible length").context("length", length));
    }
    Ok(Some((tag, 1 + length)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::task::Waker;

    use logweir_core::ErrorKind;

    use super::*;

    fn framed(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn an_error_from_before_a_session_is_no_damage() {
        const LENGTH_MAX: usize = 1 << 30;
        for (bytes, kind) in [
            (&b"EFATAL:  terminating connection due to administrator command\n\0"[..], ErrorKind::Transient),
            (b"Ecould not fork new process for connection: Resource temporarily unavailable\n\0", ErrorKind::Transient),
            (b"E\xff\xff\xff\xff", ErrorKind::Corrupt),
            (b"E\0\0\0\x03", ErrorKind::Corrupt),
            (b"DFATA", ErrorKind::Corrupt),
        ] {
            assert_eq!(header(bytes, LENGTH_MAX).unwrap_err().kind(), kind, "{}", bytes.escape_ascii());
        }
        assert_eq!(header(b"E\0\0\0\x05x", LENGTH_MAX).unwrap(), Some((b'E', 6)));
    }

    fn feed(inbox: &mut Inbox, mut bytes: &[u8]) {
        let mut cx = Context::from_waker(Waker::noop());
        while !bytes.is_empty() {
            inbox.make_room();
            assert!(inbox.poll_read(&mut cx, &mut bytes).is_ready());
        }
    }

    #[test]
    fn messages_cut_anywhere() {
        let messages = [framed(b'd', b"first"), framed(b'Z', b"I"), framed(b'd', b""), framed(b'd', &[7; 300])].concat();
        for cut in 0..=messages.len() {
            let mut inbox = Inbox::new();
            let mut seen = Vec::new();
            for part in [&messages[..cut], &messages[cut..]] {
                feed(&mut inbox, part);
                while let Some(frame) = inbox.take().unwrap() {
                    seen.push((frame.tag, frame.body.len()));
                }
            }
            assert_eq!(seen, [(b'd', 5), (b'Z', 1), (b'd', 0), (b'd', 300)], "cut at {cut}");
        }
    }

    #[test]
    fn a_message_larger_than_the_buffer_grows_it_and_the_buffer_shrinks_again() {
        let mut inbox = Inbox::new();
        inbox.trust();
        let body = vec![3; KEPT_BYTES_MAX + 1];
        feed(&mut inbox, &framed(b'd', &body));
        assert_eq!(inbox.next_tag().unwrap(), Some(b'd'));
        assert_eq!(inbox.take().unwrap().unwrap().body, body);
        inbox.make_room();
        assert_eq!(inbox.bytes.len(), READ_BYTES);
    }

    #[test]
    fn impossible_lengths() {
        for length in [0u32, 3, u32::MAX, (1 << 30) + (1 << 20)] {
            let mut inbox = Inbox::new();
            inbox.trust();
            let mut bytes = vec![b'd'];
            bytes.extend_from_slice(&length.to_be_bytes());
            feed(&mut inbox, &bytes);
            assert_eq!(inbox.take().unwrap_err().kind(), ErrorKind::Corrupt, "{length}");
            assert!(inbox.next_tag().is_err());
        }
        let mut inbox = Inbox::new();
        feed(&mut inbox, b"E\0\x01\0\x01");
        assert!(inbox.next_tag().is_err(), "a stranger has no more than 64 KiB to say");
    }
}
