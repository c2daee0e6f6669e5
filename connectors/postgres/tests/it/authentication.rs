//! Every way to say who we are that PostgreSQL has without a third party, and every way to be refused.

use logweir_core::ErrorKind;
use logweir_postgres::options::{PostgresOptions, TlsMode};
use logweir_postgres::wire::{Connection, Mode, sqlstate};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::server::Server;

fn weir(server: &Server, password: Option<&str>) -> PostgresOptions {
    let mut options = server.options();
    options.user = "weir".to_owned();
    options.password = password.map(SecretString::from);
    options
}

async fn refused(options: &PostgresOptions, mode: Mode) -> logweir_core::Error {
    Connection::connect(options, mode).await.expect_err("the server should have refused us")
}

#[tokio::test]
async fn passwords_in_every_form() {
    let server = Server::start(15, &[]).await;
    server.ask("SET password_encryption = 'md5'; CREATE ROLE weir LOGIN REPLICATION PASSWORD 'pass-w0rd'").await;
    for method in ["trust", "password", "md5", "scram-sha-256"] {
        if method == "scram-sha-256" {
            server.ask("SET password_encryption = 'scram-sha-256'; ALTER ROLE weir PASSWORD 'pass-w0rd'").await;
        }
        server.hba(&format!("host all weir 127.0.0.1/32 {method}")).await;
        for mode in [Mode::Query, Mode::Replication] {
            let mut connection = Connection::connect(&weir(&server, Some("pass-w0rd")), mode).await.unwrap();
            assert_eq!(connection.query("SELECT current_user").await.unwrap().first(), Some("weir"), "{method}");
            connection.close().await;
            if method == "trust" {
                continue;
            }
            let error = refused(&weir(&server, Some("wrong")), mode).await;
            assert_eq!((error.kind(), sqlstate(&error)), (ErrorKind::Denied, Some("28P01")), "{method}: {error:?}");
            assert!(!error.report().contains("wrong"), "{error:?}");
        }
    }
    // A password beyond ASCII, with what SASLprep maps to a space.
    server.ask("ALTER ROLE weir PASSWORD 'p\u{e4}ss\u{a0}w\u{f6}rd'").await;
    Connection::connect(&weir(&server, Some("p\u{e4}ss w\u{f6}rd")), Mode::Query).await.unwrap().close().await;
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let server = Server::start(15, &["max_connections=5", "superuser_reserved_connections=0", "max_wal_senders=1"]).await;
    server.ask("CREATE ROLE weir LOGIN PASSWORD 'x'; CREATE ROLE nologin").await;

    let mut options = server.options();
    options.database = "nowhere".to_owned();
    let error = refused(&options, Mode::Query).await;
    assert_eq!((error.kind(), sqlstate(&error)), (ErrorKind::Config, Some("3D000")), "{error:?}");

    let mut options = server.options();
    options.user = "nologin".to_owned();
    let error = refused(&options, Mode::Query).await;
    assert!(error.kind() == ErrorKind::Denied && error.to_string().contains("ALTER ROLE"), "{error:?}");

    let error = refused(&weir(&server, None), Mode::Replication).await;
    assert!(error.kind() == ErrorKind::Denied && error.to_string().contains("REPLICATION"), "{error:?}");

    server.hba("host all weir 127.0.0.1/32 scram-sha-256").await;
    let error = refused(&server.options(), Mode::Query).await;
    assert!(error.kind() == ErrorKind::Denied && error.to_string().contains("pg_hba.conf"), "{error:?}");
    let error = refused(&weir(&server, None), Mode::Query).await;
    assert!(error.kind() == ErrorKind::Denied && error.to_string().contains("set password"), "{error:?}");

    let (mut open, mut full) = (Vec::new(), None);
    while full.is_none() && open.len() < 20 {
        match Connection::connect(&server.socket_options(), Mode::Query).await {
            Ok(connection) => open.push(connection),
            Err(error) => full = Some(error),
        }
    }
    let full = full.unwrap();
    assert!(full.is_transient() && sqlstate(&full) == Some("53300"), "{full:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_or_says_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = PostgresOptions::new("127.0.0.1", "weir", "shop");
    options.port = listener.local_addr().unwrap().port();
    options.connect_timeout = std::time::Duration::from_millis(300);
    for mode in [TlsMode::Disable, TlsMode::Require] {
        options.tls.mode = mode;
        let error = refused(&options, Mode::Query).await;
        assert!(error.is_transient() && error.to_string().contains("in time"), "{error:?}");
    }
    drop(listener);
    let error = refused(&options, Mode::Query).await;
    assert!(error.is_transient() && error.report().contains("refused"), "{error:?}");
    options.host = "nowhere.invalid".to_owned();
    assert!(refused(&options, Mode::Query).await.is_transient());
    options.host = "/nowhere".to_owned();
    let error = refused(&options, Mode::Query).await;
    assert!(error.is_transient() && error.to_string().contains("/nowhere/.s.PGSQL."), "{error:?}");
}

/// A stranger in the server's place, who answers each message of ours with one of these.
async fn stranger(answers: &'static [&'static [u8]]) -> PostgresOptions {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = PostgresOptions::new("127.0.0.1", "weir", "shop");
    options.port = listener.local_addr().unwrap().port();
    options.password = Some(SecretString::from("pass-w0rd"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            for answer in answers {
                let mut message = [0; 1024];
                if !matches!(stream.read(&mut message).await, Ok(1..)) || stream.write_all(answer).await.is_err() {
                    break;
                }
            }
        }
    });
    options
}

#[tokio::test]
async fn strangers_are_not_believed() {
    const SASL: &[u8] = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";
    const OK: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
    const NOT_OURS: &[u8] = b"R\0\0\0\x29\0\0\0\x0br=somebodyelses,s=c2FsdA==,i=4096";
    // Content with a proof, without giving its own.
    let error = refused(&stranger(&[SASL, OK]).await, Mode::Query).await;
    assert!(error.kind() == ErrorKind::Denied && error.message().contains("did not prove"), "{error:?}");
    for answers in [
        // An answer that is not to our question.
        &[SASL, NOT_OURS] as &'static [&'static [u8]],
        // A proof before the question.
        &[b"R\0\0\0\x0c\0\0\0\x0cv=AA"],
        &[b"R\0\0\0\x0c\0\0\0\x0bv=AA"],
        &[b"R\0\0\0\x08\0\0\0\x05"],
        &[b"R\0\0\0\x04"],
        &[b"R\0\0\0\x03"],
        &[b"R\xff\xff\xff\xff"],
        &[b"Z\0\0\0\x05I"],
        &[b"E\0\0\0\x08MMMM"],
        &[b"HTTP/1.1 400 Bad Request\r\n\r\n"],
    ] {
        let mut options = stranger(answers).await;
        options.connect_timeout = std::time::Duration::from_secs(2);
        let error = refused(&options, Mode::Query).await;
        assert!(!error.is_transient(), "{answers:?}: {error:?}");
    }
    for method in [2, 7, 9] {
        let answer: &'static [u8] = Box::leak(Box::new([b'R', 0, 0, 0, 8, 0, 0, 0, method]));
        let error = refused(&stranger(Box::leak(Box::new([answer]))).await, Mode::Query).await;
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains("scram-sha-256"), "{error:?}");
    }
}
