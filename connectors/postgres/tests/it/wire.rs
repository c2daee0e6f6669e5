//! Questions and copies.

use std::time::Duration;

use logweir_core::ErrorKind;
use logweir_postgres::wire::{Connection, Mode, sqlstate};

use crate::server::Server;

#[tokio::test]
async fn the_session_is_the_same_however_server_and_role_are_set_up() {
    let server = Server::start(15, &["timezone=Asia/Tokyo", "datestyle=german", "statement_timeout=1s", "idle_session_timeout=1s"]).await;
    server.ask("ALTER ROLE postgres SET intervalstyle = 'sql_standard'; ALTER ROLE postgres SET bytea_output = 'escape'").await;
    for mode in [Mode::Query, Mode::Replication] {
        let mut connection = Connection::connect(&server.options(), mode).await.unwrap();
        assert_eq!(connection.version() / 10_000, 15);
        assert_eq!(connection.parameter("TimeZone"), Some("UTC"));
        let rows = connection
            .query(
                "SELECT timestamptz '2024-02-03 04:05:06+09', interval '1 day 2 hours', 0.1::float4, '\\x00ff'::bytea, \
                 'pg_class'::regclass, current_setting('statement_timeout'), current_setting('idle_session_timeout'), \
                 current_setting('search_path')",
            )
            .await
            .unwrap();
        let values: Vec<_> = (0..rows.columns.len()).map(|column| rows.get(0, column).unwrap()).collect();
        assert_eq!(values, ["2024-02-02 19:05:06+00", "P1DT2H", "0.1", "\\x00ff", "pg_class", "0", "0", ""]);
        connection.close().await;
    }
}

#[tokio::test]
async fn questions_and_what_is_wrong_with_them() {
    let server = Server::start(15, &[]).await;
    let mut connection = Connection::connect(&server.socket_options(), Mode::Query).await.unwrap();
    let rows = connection.query("SELECT 1 AS a; SELECT 2 AS b, NULL AS c, '' AS d; SET timezone = 'UTC'").await.unwrap();
    assert_eq!((rows.columns.join(" "), rows.get(0, 0), rows.get(0, 1), rows.get(0, 2)), ("b c d".to_owned(), Some("2"), None, Some("")));
    assert_eq!((rows.len(), rows.get(1, 0), rows.get(0, 3)), (1, None, None));
    assert!(connection.query("").await.unwrap().is_empty());
    assert!(connection.query("SELECT WHERE false").await.unwrap().is_empty());

    connection.query("CREATE TABLE public.t (id int PRIMARY KEY, v int CHECK (v < 10))").await.unwrap();
    for (sql, kind, code) in [
        ("SELECT * FROM nowhere", ErrorKind::Config, "42P01"),
        ("SELECT 1; SELECT 4711 / 0; SELECT 2", ErrorKind::Config, "22012"),
        ("SELECT '4711x'::int", ErrorKind::Config, "22P02"),
        ("INSERT INTO public.t VALUES (4711, 4711)", ErrorKind::Config, "23514"),
    ] {
        let error = connection.query(sql).await.unwrap_err();
        assert_eq!((error.kind(), sqlstate(&error)), (kind, Some(code)), "{error:?}");
        assert!(!error.report().contains("4711"), "{error:?}");
        assert_eq!(connection.query("SELECT 3").await.unwrap().first(), Some("3"), "after {sql}");
    }

    // Given up half-way: never an answer to another question.
    let given_up = tokio::time::timeout(Duration::from_millis(50), connection.query("SELECT pg_sleep(0.2)")).await;
    assert!(given_up.is_err());
    assert!(connection.query("SELECT 4").await.unwrap_err().is_transient());
}

#[tokio::test]
async fn a_million_small_rows_and_one_large() {
    let server = Server::start(15, &[]).await;
    let mut connection = Connection::connect(&server.options(), Mode::Query).await.unwrap();
    connection.query("CREATE TABLE public.t AS SELECT i AS id FROM generate_series(1, 1000000) i").await.unwrap();
    let mut copy = connection.copy_out("COPY public.t TO STDOUT (FORMAT BINARY)").await.unwrap();
    let mut bytes: Vec<u8> = Vec::new();
    while let Some(message) = copy.next().await.unwrap() {
        assert!(!message.is_empty());
        bytes.extend_from_slice(message);
    }
    assert!(copy.next().await.unwrap().is_none());
    assert_eq!(bytes.len(), 19 + 1_000_000 * 10 + 2);
    let ids = bytes[19..bytes.len() - 2].chunks(10).map(|row| u64::from(u32::from_be_bytes(row[6..].try_into().unwrap())));
    assert_eq!(ids.sum::<u64>(), 1_000_000 * 1_000_001 / 2);

    // One message of 80 MB, and the connection as good as before.
    let mut copy = connection.copy_out("COPY (SELECT repeat('x', 80000000)) TO STDOUT (FORMAT BINARY)").await.unwrap();
    let mut total = 0;
    while let Some(message) = copy.next().await.unwrap() {
        total += message.len();
    }
    assert_eq!(total, 19 + 2 + 4 + 80_000_000 + 2);
    assert_eq!(connection.query("SELECT 1").await.unwrap().first(), Some("1"));

    for sql in ["COPY nowhere TO STDOUT", "COPY (SELECT 1 / (id - 500) FROM public.t) TO STDOUT"] {
        let error = async {
            let mut copy = connection.copy_out(sql).await?;
            while copy.next().await?.is_some() {}
            Ok::<_, logweir_core::Error>(())
        };
        assert!(sqlstate(&error.await.unwrap_err()).is_some());
        assert_eq!(connection.query("SELECT 1").await.unwrap().first(), Some("1"), "after {sql}");
    }
    assert!(connection.copy_out("SELECT 1").await.is_err());
}

#[tokio::test]
async fn a_session_that_is_ended_from_the_other_side() {
    let mut server = Server::start(15, &[]).await;
    let mut connection = Connection::connect(&server.options(), Mode::Query).await.unwrap();
    let process = connection.cancel_key().unwrap().process();
    server.ask(&format!("SELECT pg_terminate_backend({process})")).await;
    while server.ask(&format!("SELECT 1 FROM pg_stat_activity WHERE pid = {process}")).await.first().is_some() {}
    let error = connection.query("SELECT 1").await.unwrap_err();
    assert!(error.is_transient() && sqlstate(&error) == Some("57P01"), "{error:?}");
    assert!(!connection.is_ready());
    assert!(connection.query("SELECT 1").await.unwrap_err().is_transient());

    let mut connection = Connection::connect(&server.options(), Mode::Query).await.unwrap();
    let (slept, ()) = tokio::join!(connection.query("SELECT pg_sleep(60)"), async {
        while server.ask("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").await.is_empty() {}
        server.stop("fast");
    });
    let error = slept.unwrap_err();
    assert!(error.is_transient() && sqlstate(&error) == Some("57P01"), "{error:?}");
    let error = Connection::connect(&server.options(), Mode::Query).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    server.run().await;
    let mut connection = Connection::connect(&server.options(), Mode::Query).await.unwrap();
    let never = async {
        let mut copy = connection.copy_out("COPY (SELECT pg_sleep(60)) TO STDOUT").await?;
        while copy.next().await?.is_some() {}
        Ok::<_, logweir_core::Error>(())
    };
    let (copied, ()) = tokio::join!(never, async {
        while server.ask("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").await.is_empty() {}
        server.stop("immediate");
    });
    assert!(copied.unwrap_err().is_transient());
}
