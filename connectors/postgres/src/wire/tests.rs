//! What a server might send and none does: over a pair of sockets, with ourselves at the other end.

#![allow(clippy::unwrap_used)]

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use logweir_core::{ErrorKind, Result, TimestampMicros};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::channel::Channel;
use super::socket::{Plain, Socket};
use super::{Connection, CopyBoth};
use crate::lsn::Lsn;
use crate::options::PostgresOptions;

const COPY_BOTH: &[u8] = b"W\0\0\0\x07\0\0\0";
const PATIENCE: Duration = Duration::from_secs(10);

fn framed(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag], &u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], body].concat()
}

/// A session that waits for its first question, and the other end.
fn session() -> (Connection, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut connection =
        Connection::new(Arc::new(PostgresOptions::new("db", "weir", "shop")), Channel::new(Socket::Plain(Plain::Unix(ours))));
    connection.channel.inbox.trust();
    connection.busy = false;
    (connection, theirs)
}

async fn stream() -> (CopyBoth, UnixStream) {
    let (connection, mut theirs) = session();
    theirs.write_all(COPY_BOTH).await.unwrap();
    let stream = connection.copy_both("START_REPLICATION").await.unwrap();
    theirs.read_exact(&mut [0; 1 + 4 + 17 + 1]).await.unwrap();
    (stream, theirs)
}

async fn fill(stream: &mut CopyBoth) -> Result<()> {
    tokio::time::timeout(PATIENCE, poll_fn(|cx| stream.poll_fill(cx))).await.unwrap()
}

fn poll_once(stream: &mut CopyBoth) -> Poll<Result<()>> {
    stream.poll_fill(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn what_came_before_the_end_is_handed_out_before_it() {
    let said = framed(b'E', b"VERROR\0C55000\0Mno\0\0");
    for (last, kind) in [
        (&said[..], ErrorKind::Config),
        (&b""[..], ErrorKind::Transient),
        (b"d\0\0\0\x09cut", ErrorKind::Transient),
        (b"c\0\0\0\x04", ErrorKind::Transient),
        (b"C\0\0\0\x0bCOPY 0\0", ErrorKind::Transient),
        (b"d\0\0\0\x03", ErrorKind::Corrupt),
        (b"T\0\0\0\x04", ErrorKind::Corrupt),
    ] {
        let (mut stream, mut theirs) = stream().await;
        theirs.write_all(&[framed(b'd', b"w1"), framed(b'd', b""), framed(b'd', b"w2"), last.to_vec()].concat()).await.unwrap();
        drop(theirs);
        let mut payloads = Vec::new();
        let error = loop {
            match fill(&mut stream).await {
                Ok(()) => payloads.extend(std::iter::from_fn(|| stream.next_payload().map(<[u8]>::to_vec))),
                Err(error) => break error,
            }
        };
        assert_eq!((payloads, error.kind()), (vec![b"w1".to_vec(), Vec::new(), b"w2".to_vec()], kind), "{error:?}");
        for _ in 0..2 {
            assert_eq!(fill(&mut stream).await.unwrap_err().kind(), kind, "the end stays the end");
            assert!(stream.next_payload().is_none());
        }
    }
}

#[tokio::test]
async fn messages_beside_the_stream_are_noted_and_not_handed_out() {
    let (mut stream, mut theirs) = stream().await;
    let notice = framed(b'N', b"SNOTICE\0Mhello\0\0");
    let status = framed(b'S', b"in_hot_standby\0on\0");
    theirs.write_all(&[notice.clone(), status].concat()).await.unwrap();
    assert!(poll_once(&mut stream).is_pending());
    theirs.write_all(&[framed(b'd', b"w1"), notice, framed(b'N', b"not a notice"), framed(b'd', b"w2")].concat()).await.unwrap();
    fill(&mut stream).await.unwrap();
    assert_eq!(stream.next_payload(), Some(&b"w1"[..]));
    assert_eq!(stream.next_payload(), Some(&b"w2"[..]));
    assert_eq!(stream.next_payload(), None);
    assert_eq!(stream.buffered(), 0);
    assert_eq!(stream.parameter("in_hot_standby"), Some("on"));
}

#[tokio::test]
async fn a_server_that_does_not_listen_hears_the_newest_later() {
    let (mut stream, mut theirs) = stream().await;
    // Far more than a socket holds.
    for place in 1..=100_000u64 {
        let place = Lsn(place);
        match place.0 == 99_000 {
            true => stream.send_status_and_ask(place, place, place, TimestampMicros(0)),
            false => stream.send_status(place, place, place, TimestampMicros(0)),
        }
    }
    assert!(stream.poll_flush(&mut Context::from_waker(Waker::noop())).is_pending());
    // Changes are read all the same.
    theirs.write_all(&framed(b'd', b"w1")).await.unwrap();
    fill(&mut stream).await.unwrap();
    assert_eq!(stream.next_payload(), Some(&b"w1"[..]));

    let (mut update, mut updates, mut asked) = ([0; 39], 0, 0);
    loop {
        let reading = async {
            tokio::select! {
                biased;
                read = theirs.read_exact(&mut update) => read.unwrap(),
                filled = poll_fn(|cx| stream.poll_fill(cx)) => panic!("nothing was sent: {filled:?}"),
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap();
        assert_eq!(&update[..6], b"d\0\0\0\x26r");
        (updates, asked) = (updates + 1, asked + update[38]);
        if update[6..14] == 100_000u64.to_be_bytes() {
            break;
        }
    }
    assert!(updates < 50_000, "what could not be sent was replaced: {updates}");
    assert_eq!(asked, 1, "a question is not lost with the update that asked it");
    assert!(stream.poll_flush(&mut Context::from_waker(Waker::noop())).is_ready());
}

#[tokio::test]
async fn why_the_server_went_is_told_although_nothing_can_be_sent_to_it() {
    let (mut stream, mut theirs) = stream().await;
    theirs.write_all(&framed(b'E', b"VFATAL\0C57P01\0Mterminating\0\0")).await.unwrap();
    drop(theirs);
    stream.send_status(Lsn(1), Lsn(1), Lsn(1), TimestampMicros(0));
    let error = fill(&mut stream).await.unwrap_err();
    assert_eq!(super::sqlstate(&error), Some("57P01"), "{error:?}");
}

/// Bytes that look like a server's, and then do not.
fn utterances() -> impl Strategy<Value = Vec<u8>> {
    let tag = prop::sample::select(b"RKCdcGHDIENASZTWvX\0".to_vec());
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        Just(b"VERROR\0C22P02\0Minvalid: \"x\"\0\0".to_vec()),
        Just(b"\0\x01id\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0".to_vec()),
        Just(b"\0\x02\0\0\0\x0242\xff\xff\xff\xff".to_vec()),
        Just(b"I".to_vec()),
        Just(b"\0\0\0".to_vec()),
    ];
    let message = (tag, body).prop_map(|(tag, body)| framed(tag, &body));
    let noise = prop::collection::vec(any::<u8>(), 0..20);
    (prop::collection::vec(message, 0..12), noise).prop_map(|(messages, noise)| [messages.concat(), noise].concat())
}

#[tokio::test]
async fn a_socket_that_is_not_watched_gives_what_has_come_and_wakes_again_once_it_is() {
    let (mut stream, mut theirs) = stream().await;
    for watched in [false, false, true, true, false, true] {
        stream.watch(watched).unwrap();
        assert!(poll_once(&mut stream).is_pending());
        theirs.write_all(&framed(b'd', b"w1")).await.unwrap();
        if watched {
            fill(&mut stream).await.unwrap();
        } else {
            assert!(matches!(poll_once(&mut stream), Poll::Ready(Ok(()))));
        }
        assert_eq!(stream.next_payload(), Some(&b"w1"[..]));
    }
    // What came while nobody watched is found by whoever waits afterwards, and so is the end.
    stream.watch(false).unwrap();
    theirs.write_all(&framed(b'd', b"w2")).await.unwrap();
    stream.watch(true).unwrap();
    fill(&mut stream).await.unwrap();
    assert_eq!(stream.next_payload(), Some(&b"w2"[..]));
    stream.watch(false).unwrap();
    drop(theirs);
    assert!(matches!(poll_once(&mut stream), Poll::Ready(Err(error)) if error.kind() == ErrorKind::Transient));
}

proptest! {
    #[test]
    fn anything_is_survived(bytes in utterances(), asked in 0..4, cut in any::<prop::sample::Index>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut connection, mut theirs) = session();
            let (first, second) = bytes.split_at(cut.index(bytes.len() + 1));
            let talk = async {
                theirs.write_all(first).await.unwrap();
                tokio::task::yield_now().await;
                let _ = theirs.write_all(second).await;
                theirs.shutdown().await.unwrap();
                theirs
            };
            let listen = async {
                match asked {
                    0 => drop(connection.query("SELECT 1").await),
                    1 => if let Ok(mut copy) = connection.copy_out("COPY").await {
                        while let Ok(Some(_)) = copy.next().await {}
                    },
                    2 => drop(super::authentication::authenticate(&mut connection).await),
                    _ => if let Ok(mut stream) = connection.copy_both("START_REPLICATION").await {
                        while fill(&mut stream).await.is_ok() {
                            while stream.next_payload().is_some() {}
                        }
                    },
                }
            };
            tokio::time::timeout(PATIENCE, async { tokio::join!(talk, listen) }).await.unwrap();
        });
    }
}
