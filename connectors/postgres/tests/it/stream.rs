//! The walsender's stream, and how it ends.

use std::future::poll_fn;
use std::time::Duration;

use logweir_core::{Error, ErrorKind, Result, TimestampMicros};
use logweir_postgres::Lsn;
use logweir_postgres::wire::{Connection, CopyBoth, Mode, sqlstate};
use tokio::time::{sleep, timeout};

use crate::server::{Server, VERSIONS};

const START: &str = "START_REPLICATION SLOT s LOGICAL 0/0 (proto_version '1', publication_names 'p')";
const PATIENCE: Duration = Duration::from_secs(30);

/// A server with a table, a publication and a slot.
async fn publishing(major: u32, settings: &[&str]) -> Server {
    let server = Server::start(major, settings).await;
    server.ask("CREATE TABLE public.t (id int PRIMARY KEY, name text); CREATE PUBLICATION p FOR TABLE public.t").await;
    server.ask("SELECT pg_create_logical_replication_slot('s', 'pgoutput')").await;
    server
}

async fn open(server: &Server) -> Result<CopyBoth> {
    Connection::connect(&server.options(), Mode::Replication).await?.copy_both(START).await
}

/// As [`open`], once the walsender before it has let go of the slot.
async fn open_when_free(server: &Server) -> CopyBoth {
    let opening = async {
        loop {
            match open(server).await {
                Err(error) if sqlstate(&error) == Some("55006") => sleep(Duration::from_millis(20)).await,
                opened => break opened.unwrap(),
            }
        }
    };
    timeout(PATIENCE, opening).await.expect("the slot should have become free")
}

async fn fill(stream: &mut CopyBoth) -> Result<()> {
    timeout(PATIENCE, poll_fn(|cx| stream.poll_fill(cx))).await.expect("the server should have said something")
}

/// Takes messages until so many rows were inserted.
async fn inserts(stream: &mut CopyBoth, count: usize) -> Result<()> {
    let mut seen = 0;
    while seen < count {
        fill(stream).await?;
        let mut buffered = stream.buffered();
        while let Some(payload) = stream.next_payload() {
            seen += usize::from(payload[0] == b'w' && payload[25] == b'I');
            let taken = payload.len() + 5;
            assert!(stream.buffered() <= buffered - taken, "what is buffered shrinks with what is taken");
            buffered = stream.buffered();
        }
        assert_eq!(buffered, 0);
    }
    Ok(())
}

/// How the stream ends.
async fn end(stream: &mut CopyBoth) -> Error {
    loop {
        if let Err(error) = fill(stream).await {
            return error;
        }
        while stream.next_payload().is_some() {}
    }
}

async fn wal_end(server: &Server) -> Lsn {
    server.ask("SELECT pg_current_wal_lsn()").await.first().unwrap().parse().unwrap()
}

#[tokio::test]
async fn changes_come_and_the_server_hears_how_far_we_are() {
    for major in VERSIONS {
        let server = publishing(major, &[]).await;
        server.ask("INSERT INTO public.t SELECT i, 'name ' || i FROM generate_series(1, 20000) i").await;
        let walsender = Connection::connect(&server.options(), Mode::Replication).await.unwrap();
        assert_eq!(walsender.version() / 10_000, major);
        let mut stream = walsender.copy_both(START).await.unwrap();
        inserts(&mut stream, 20_000).await.unwrap();
        let end = wal_end(&server).await;
        stream.send_status_and_ask(end, end, end, TimestampMicros(946_684_800_000_000));
        loop {
            fill(&mut stream).await.unwrap();
            if stream.next_payload().is_some_and(|payload| payload[0] == b'k') {
                break;
            }
        }
        let told = "SELECT confirmed_flush_lsn, write_lsn, flush_lsn, replay_lsn FROM pg_stat_replication, pg_replication_slots";
        let rows = server.ask(told).await;
        for column in 0..4 {
            assert_eq!(rows.get(0, column).unwrap().parse::<Lsn>().unwrap(), end, "{major}: {}", rows.columns[column]);
        }
        stream.finish(PATIENCE).await.unwrap();
        assert_eq!(server.ask("SELECT active FROM pg_replication_slots").await.first(), Some("f"), "{major}");
    }
}

#[tokio::test]
async fn a_message_larger_than_the_buffer() {
    let server = publishing(15, &[]).await;
    server.ask("INSERT INTO public.t VALUES (1, repeat('x', 50000000)), (2, 'y')").await;
    let mut stream = open(&server).await.unwrap();
    inserts(&mut stream, 2).await.unwrap();
    stream.finish(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn waiting_can_be_given_up_at_any_time() {
    let server = publishing(15, &[]).await;
    let mut stream = open(&server).await.unwrap();
    let writer = async {
        for _ in 0..100 {
            server.ask("INSERT INTO public.t SELECT i FROM (SELECT coalesce(max(id), 0) AS n FROM public.t) m, generate_series(n + 1, n + 10) i").await;
        }
    };
    let reader = async {
        let mut seen = 0;
        while seen < 1000 {
            if let Ok(filled) = timeout(Duration::from_micros(200), poll_fn(|cx| stream.poll_fill(cx))).await {
                filled.unwrap();
            }
            // One message at a time, with an update at every step.
            if let Some(payload) = stream.next_payload() {
                seen += usize::from(payload[0] == b'w' && payload[25] == b'I');
            }
            stream.send_status(Lsn(1), Lsn(1), Lsn(1), TimestampMicros(0));
        }
    };
    timeout(PATIENCE, async { tokio::join!(writer, reader) }).await.unwrap();
    stream.finish(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn streams_that_break() {
    let mut server = publishing(15, &[]).await;
    // Terminated by an administrator, in the middle of a transaction that we do not take.
    server.ask("INSERT INTO public.t SELECT i, repeat('x', 1000) FROM generate_series(1, 50000) i").await;
    let mut stream = open(&server).await.unwrap();
    fill(&mut stream).await.unwrap();
    server.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_replication").await;
    let error = end(&mut stream).await;
    assert!(error.is_transient(), "{error:?}");
    assert!(fill(&mut stream).await.unwrap_err().is_transient(), "an end stays an end");

    // The server is shut down, restarted, and there again; a stream that follows it is sent everything first.
    let mut stream = open_when_free(&server).await;
    inserts(&mut stream, 50_000).await.unwrap();
    let flushed = wal_end(&server).await;
    stream.send_status(flushed, flushed, flushed, TimestampMicros(0));
    for how in ["fast", "immediate"] {
        let follow = async {
            loop {
                match fill(&mut stream).await {
                    Err(error) => break error,
                    Ok(()) => {
                        while let Some(payload) = stream.next_payload() {
                            if payload[0] == b'k' && payload[17] == 1 {
                                let end = Lsn(u64::from_be_bytes(payload[1..9].try_into().unwrap()));
                                stream.send_status(end, end, end, TimestampMicros(0));
                            }
                        }
                    }
                }
            }
        };
        // Stopping blocks until the server has stopped, which waits for us.
        let stopping = tokio::task::spawn_blocking(move || {
            server.stop(how);
            server
        });
        let error = follow.await;
        assert!(error.is_transient(), "{how}: {error:?}");
        server = stopping.await.unwrap();
        assert!(open(&server).await.unwrap_err().is_transient());
        server.run().await;
        stream = open(&server).await.unwrap();
    }
    stream.finish(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn slots_that_cannot_be_read() {
    for major in VERSIONS {
        // Few and small segments, so that the log is soon gone (a bound came with 13).
        let bound: &[&str] = if major >= 13 { &["max_slot_wal_keep_size=16MB", "max_wal_size=32MB", "min_wal_size=32MB"] } else { &[] };
        let server = publishing(major, bound).await;
        let stream = open(&server).await.unwrap();
        let error = open(&server).await.unwrap_err();
        assert!(error.is_transient() && sqlstate(&error) == Some("55006"), "{major}: {error:?}");
        assert!(error.report().contains("is active for PID"), "{error:?}");
        stream.finish(PATIENCE).await.unwrap();

        let walsender = Connection::connect(&server.options(), Mode::Replication).await.unwrap();
        let error = walsender.copy_both(&START.replace("SLOT s", "SLOT nowhere")).await.unwrap_err();
        assert_eq!((error.kind(), sqlstate(&error)), (ErrorKind::Config, Some("42704")), "{major}: {error:?}");

        // A publication that is not there is missed when the first change is looked at.
        let walsender = Connection::connect(&server.options(), Mode::Replication).await.unwrap();
        server.ask("INSERT INTO public.t VALUES (1, 'a')").await;
        let mut stream = walsender.copy_both(&START.replace("'p'", "'nowhere'")).await.unwrap();
        if major < 18 {
            let error = end(&mut stream).await;
            assert_eq!((error.kind(), sqlstate(&error)), (ErrorKind::Config, Some("42704")), "{major}: {error:?}");
            assert!(error.report().contains("slot \"s\""), "where it happened is told: {error:?}");
        }
        drop(stream);

        if major >= 13 {
            while server.ask("SELECT 1 FROM pg_replication_slots WHERE active").await.first().is_some() {}
            for _ in 0..4 {
                server.ask("SELECT pg_logical_emit_message(false, 'fill', repeat('x', 1000000)) FROM generate_series(1, 20)").await;
                server.ask("SELECT pg_switch_wal()").await;
                server.ask("CHECKPOINT").await;
            }
            assert_eq!(server.ask("SELECT wal_status FROM pg_replication_slots").await.first(), Some("lost"), "{major}");
            let error = open(&server).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LogGone, "{major}: {error:?}");
        }
    }
}
