//! Messages from a client, and the connection they come over.
//!
//! A client may send anything: lengths are checked before memory is taken for them, and a body is read with checks.

use std::collections::BTreeMap;
use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// What a client may send before it is known; PostgreSQL has the same bound.
pub(crate) const STARTUP_BYTES_MAX: usize = 10_000;

/// What a client may send in a message: a statement of some hundred pages, or as many parameters.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Sent when this much has gathered.
const OUTPUT_BYTES: usize = 64 << 10;

/// What is taken from a client that goes on talking while its query runs.
const AHEAD_BYTES_MAX: usize = 64 << 10;

/// A socket, encrypted or not.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

/// Why a connection cannot go on.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The client is gone, or the network.
    Gone,
    /// What it sent is no message of the protocol.
    Malformed,
    /// A message longer than one may be.
    TooLarge,
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Broken::Gone
    }
}

/// What a connection begins with.
#[derive(Debug)]
pub(crate) enum Opening {
    Tls,
    Gss,
    Cancel { process: i32, secret: i32 },
    Start { minor: u16, parameters: BTreeMap<String, String> },
}

/// A connection.
pub(crate) struct Connection {
    socket: Box<dyn Socket>,
    input: BytesMut,
    /// Messages on their way out.
    pub(crate) output: BytesMut,
}

impl Connection {
    pub(crate) fn new(socket: Box<dyn Socket>) -> Self {
        Connection { socket, input: BytesMut::new(), output: BytesMut::new() }
    }

    /// The socket, for a handshake. `None` if the client went on talking, which must not get into an encrypted session.
    pub(crate) fn into_socket(self) -> Option<Box<dyn Socket>> {
        self.input.is_empty().then_some(self.socket)
    }

    /// Waits until so much has come. Cancel safe.
    async fn fill(&mut self, length: usize) -> Result<(), Broken> {
        while self.input.len() < length {
            // Memory is taken as bytes come, not as they are announced.
            self.input.reserve((length - self.input.len()).min(16 << 10));
            if self.socket.read_buf(&mut self.input).await? == 0 {
                return Err(Broken::Gone);
            }
        }
        Ok(())
    }

    /// The first message, which has no type.
    pub(crate) async fn opening(&mut self) -> Result<Opening, Broken> {
        self.fill(8).await?;
        let length = length(&self.input[..4], STARTUP_BYTES_MAX)?;
        if length < 8 {
            return Err(Broken::Malformed);
        }
        self.fill(length).await?;
        let mut body = Body(self.input.split_to(length).freeze());
        body.0.advance(4);
        match body.i32()? {
            80_877_103 => Ok(Opening::Tls),
            80_877_104 => Ok(Opening::Gss),
            80_877_102 => Ok(Opening::Cancel { process: body.i32()?, secret: body.i32()? }),
            version if version >> 16 == 3 => {
                let mut parameters = BTreeMap::new();
                loop {
                    let name = body.text()?;
                    if name.is_empty() {
                        break;
                    }
                    parameters.insert(name, body.text()?);
                }
                Ok(Opening::Start { minor: u16::try_from(version & 0xffff).unwrap_or(0), parameters })
            }
            _ => Err(Broken::Malformed),
        }
    }

    /// The next message: its type and what is in it. Cancel safe.
    pub(crate) async fn message(&mut self, bytes_max: usize) -> Result<(u8, Body), Broken> {
        self.fill(5).await?;
        let length = length(&self.input[1..5], bytes_max)?;
        self.fill(1 + length).await?;
        let mut body = self.input.split_to(1 + length).freeze();
        let kind = body.get_u8();
        body.advance(4);
        Ok((kind, Body(body)))
    }

    /// Waits until the client is gone. What it sends meanwhile is kept for later, up to a bound. Cancel safe.
    pub(crate) async fn gone(&mut self) {
        while self.input.len() < AHEAD_BYTES_MAX {
            self.input.reserve(4 << 10);
            if !matches!(self.socket.read_buf(&mut self.input).await, Ok(1..)) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Sends what has gathered.
    pub(crate) async fn flush(&mut self) -> Result<(), Broken> {
        if !self.output.is_empty() {
            self.socket.write_all_buf(&mut self.output).await?;
        }
        if self.output.capacity() > 4 * OUTPUT_BYTES {
            self.output = BytesMut::new();
        }
        self.socket.flush().await?;
        Ok(())
    }

    /// True if enough has gathered to be sent.
    pub(crate) fn is_full(&self) -> bool {
        self.output.len() >= OUTPUT_BYTES
    }

    /// Says good-bye as the transport has it.
    pub(crate) async fn close(mut self) {
        let _ = self.flush().await;
        let _ = self.socket.shutdown().await;
    }
}

/// The length that a message announces, which counts itself.
fn length(bytes: &[u8], most: usize) -> Result<usize, Broken> {
    let length = u32::from_be_bytes(bytes.try_into().map_err(|_| Broken::Malformed)?);
    let length = usize::try_from(length).map_err(|_| Broken::TooLarge)?;
    match length {
        0..4 => Err(Broken::Malformed),
        length if length > most => Err(Broken::TooLarge),
        length => Ok(length),
    }
}

/// What is in a message.
#[derive(Debug)]
pub(crate) struct Body(pub(crate) Bytes);

impl Body {
    pub(crate) fn u8(&mut self) -> Result<u8, Broken> {
        self.0.try_get_u8().map_err(|_| Broken::Malformed)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, Broken> {
        self.0.try_get_i16().map_err(|_| Broken::Malformed)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Broken> {
        self.0.try_get_i32().map_err(|_| Broken::Malformed)
    }

    /// A text that ends with a zero.
    pub(crate) fn text(&mut self) -> Result<String, Broken> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Broken::Malformed)?;
        let text = self.0.split_to(end);
        self.0.advance(1);
        String::from_utf8(text.into()).map_err(|_| Broken::Malformed)
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Result<Bytes, Broken> {
        if length > self.0.len() {
            return Err(Broken::Malformed);
        }
        Ok(self.0.split_to(length))
    }

    /// A value: its length, or less than zero for NULL.
    pub(crate) fn value(&mut self) -> Result<Option<Bytes>, Broken> {
        match usize::try_from(self.i32()?) {
            Ok(length) => self.bytes(length).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// A count and as many numbers.
    pub(crate) fn i16s(&mut self) -> Result<Vec<i16>, Broken> {
        let count = u16::from_ne_bytes(self.i16()?.to_ne_bytes());
        if usize::from(count) * 2 > self.0.len() {
            return Err(Broken::Malformed);
        }
        (0..count).map(|_| self.i16()).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<(u8, Body), Broken> {
        let (client, server) = tokio::io::duplex(1 << 16);
        let mut connection = Connection::new(Box::new(server));
        let mut client = client;
        client.write_all(bytes).await.unwrap();
        drop(client);
        connection.message(100).await
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        let (kind, mut body) = read(b"Q\0\0\0\x08abc\0").await.unwrap();
        assert_eq!((kind, body.text().unwrap().as_str()), (b'Q', "abc"));
        assert!(matches!(read(b"Q\0\0\0\x03").await, Err(Broken::Malformed)));
        assert!(matches!(read(b"Q\x7f\xff\xff\xff").await, Err(Broken::TooLarge)));
        assert!(matches!(read(b"Q\xff\xff\xff\xff").await, Err(Broken::TooLarge)));
        assert!(matches!(read(b"Q\0\0\0\x20abc").await, Err(Broken::Gone)));
        let mut short = Body(Bytes::from_static(b"\0"));
        assert!(short.i16().is_err() && short.i32().is_err() && short.u8().is_ok() && short.text().is_err());
        assert!(Body(Bytes::from_static(b"\0\0\0\x09abc")).value().is_err());
        assert!(Body(Bytes::from_static(b"\xff\xff\0\0")).i16s().is_err());
    }

    #[tokio::test]
    async fn an_opening_is_read_with_its_parameters() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let mut connection = Connection::new(Box::new(server));
        client.write_all(b"\0\0\0\x12\0\x03\0\0user\0ann\0\0").await.unwrap();
        let Opening::Start { minor, parameters } = connection.opening().await.unwrap() else { panic!("a start") };
        assert_eq!((minor, parameters["user"].as_str()), (0, "ann"));
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(matches!(connection.opening().await, Err(Broken::TooLarge)));
    }
}
