//! The wire protocol against a real server.

use std::future::poll_fn;
use std::time::Duration;

use logweir_core::TimestampMicros;
use logweir_postgres::Lsn;
use logweir_postgres::wire::{Connection, Mode};
use secrecy::SecretString;

use crate::server::Server;

#[tokio::test]
async fn questions_copies_and_the_log() {
    let server = Server::start(15, &[]).await;
    let mut connection = Connection::connect(&server.options(), Mode::Query).await.unwrap();
    assert_eq!(connection.version() / 10_000, 15);
    assert_eq!(connection.parameter("TimeZone"), Some("UTC"));

    let rows = connection.query("SELECT 1 AS a; SELECT 2 AS b, NULL AS c").await.unwrap();
    assert_eq!((rows.columns.join(" "), rows.get(0, 0), rows.get(0, 1)), ("b c".to_owned(), Some("2"), None));

    let error = connection.query("SELECT * FROM nowhere").await.unwrap_err();
    assert!(error.report().contains("relation \"nowhere\" does not exist"), "{error:?}");

    connection.query("CREATE TABLE public.t (id int PRIMARY KEY, name text); CREATE PUBLICATION p FOR TABLE public.t").await.unwrap();
    connection.query("SELECT pg_create_logical_replication_slot('s', 'pgoutput')").await.unwrap();
    connection.query("INSERT INTO public.t SELECT i, 'name ' || i FROM generate_series(1, 1000) i").await.unwrap();

    let mut copy = connection.copy_out("COPY (SELECT id FROM public.t) TO STDOUT (FORMAT BINARY)").await.unwrap();
    let (mut run, mut bytes) = (Vec::new(), Vec::new());
    while copy.read(&mut run).await.unwrap() {
        bytes.extend_from_slice(&run);
    }
    assert_eq!(bytes.len(), 19 + 1000 * (2 + 4 + 4) + 2);
    assert_eq!(connection.query("SELECT 3").await.unwrap().first(), Some("3"));

    let walsender = Connection::connect(&server.options(), Mode::Replication).await.unwrap();
    let start = "START_REPLICATION SLOT s LOGICAL 0/0 (proto_version '1', publication_names 'p')";
    let mut stream = walsender.copy_both(start).await.unwrap();
    let mut rows = 0;
    while rows < 1000 {
        poll_fn(|cx| stream.poll_fill(cx)).await.unwrap();
        while let Some(payload) = stream.next_payload() {
            rows += usize::from(payload[0] == b'w' && payload[25] == b'I');
        }
    }
    let end: Lsn = connection.query("SELECT pg_current_wal_lsn()").await.unwrap().first().unwrap().parse().unwrap();
    stream.send_status_and_ask(end, end, end, TimestampMicros(0));
    loop {
        poll_fn(|cx| stream.poll_fill(cx)).await.unwrap();
        if stream.next_payload().is_some_and(|payload| payload[0] == b'k') {
            break;
        }
    }
    stream.finish(Duration::from_secs(10)).await.unwrap();
    let slot = connection.query("SELECT active, confirmed_flush_lsn FROM pg_replication_slots").await.unwrap();
    assert_eq!((slot.get(0, 0), slot.get(0, 1).unwrap().parse::<Lsn>().unwrap()), (Some("f"), end));
}

#[tokio::test]
async fn passwords() {
    let server = Server::start(15, &[]).await;
    server.ask("CREATE ROLE weir LOGIN PASSWORD 'pass-w0rd'").await;
    server.hba("host all weir 127.0.0.1/32 scram-sha-256").await;
    let mut options = server.options();
    options.user = "weir".to_owned();
    options.password = Some(SecretString::from("pass-w0rd"));
    Connection::connect(&options, Mode::Query).await.unwrap().close().await;
}
