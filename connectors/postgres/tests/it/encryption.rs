//! Every mode of encryption against certificates of every kind, and those who sit between.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use logweir_core::{Error, ErrorKind, TimestampMicros};
use logweir_postgres::Lsn;
use logweir_postgres::options::{PostgresOptions, TlsMode};
use logweir_postgres::wire::{Connection, Mode};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::certificates::{Authority, Key};
use crate::server::Server;

const NAMES: &str = "subjectAltName=DNS:localhost";

/// A server that encrypts with a certificate, to which `weir` may come with SCRAM over TLS only.
async fn encrypting(authority: &Authority, certificate: &str) -> Server {
    let server = Server::start(15, &[]).await;
    server.ask("CREATE ROLE weir LOGIN REPLICATION PASSWORD 'pass-w0rd'").await;
    set_certificate(&server, authority, certificate, NAMES).await;
    server.hba("hostssl all weir 127.0.0.1/32 scram-sha-256").await;
    server
}

async fn set_certificate(server: &Server, authority: &Authority, name: &str, extensions: &str) {
    let (certificate, key) = authority.issue(name, "localhost", extensions);
    let (certificate, key, ca) = (server.install(&certificate), server.install(&key), server.install(&authority.ca()));
    for (setting, file) in [("ssl_cert_file", certificate), ("ssl_key_file", key), ("ssl_ca_file", ca)] {
        server.ask(&format!("ALTER SYSTEM SET {setting} = '{}'", file.display())).await;
    }
    server.ask("ALTER SYSTEM SET ssl = on").await;
    server.reload().await;
}

fn weir(server: &Server, mode: TlsMode) -> PostgresOptions {
    let mut options = server.options();
    options.host = "localhost".to_owned();
    options.user = "weir".to_owned();
    options.password = Some(SecretString::from("pass-w0rd"));
    options.tls.mode = mode;
    options
}

/// The version of TLS in use, `None` without.
async fn tls_version(options: &PostgresOptions) -> logweir_core::Result<Option<String>> {
    let mut connection = Connection::connect(options, Mode::Query).await?;
    let rows = connection.query("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await?;
    connection.close().await;
    Ok(rows.first().map(str::to_owned))
}

async fn refused(options: &PostgresOptions) -> Error {
    tls_version(options).await.expect_err("one side should have refused the other")
}

#[tokio::test]
async fn modes_and_certificates() {
    for key in [Key::Rsa, Key::RsaPss, Key::Ecdsa] {
        let authority = Authority::new(key);
        let server = encrypting(&authority, "server").await;
        for mode in [TlsMode::Prefer, TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
            let mut options = weir(&server, mode);
            options.tls.ca = Some(authority.ca());
            assert_eq!(tls_version(&options).await.unwrap().as_deref(), Some("TLSv1.3"), "{key:?} {mode:?}");

            let mut walsender = Connection::connect(&options, Mode::Replication).await.unwrap();
            assert_eq!(walsender.query("IDENTIFY_SYSTEM").await.unwrap().columns[0], "systemid");
            walsender.close().await;

            // By a name that the certificate does not bear.
            options.host = "127.0.0.1".to_owned();
            match mode {
                TlsMode::VerifyFull => {
                    let error = refused(&options).await;
                    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("subjectAltName"), "{error:?}");
                }
                _ => assert!(tls_version(&options).await.unwrap().is_some()),
            }
        }
        // Not encrypted, where only encrypted connections may be.
        let error = refused(&weir(&server, TlsMode::Disable)).await;
        assert!(error.kind() == ErrorKind::Denied && error.to_string().contains("mode: require"), "{error:?}");
        // Signed by another than the one whom we trust, and by none of those whom browsers trust.
        let stranger = Authority::new(key);
        for ca in [Some(stranger.ca()), None] {
            let mut options = weir(&server, TlsMode::VerifyCa);
            options.tls.ca = ca;
            let error = refused(&options).await;
            assert!(error.kind() == ErrorKind::Config && error.to_string().contains("ca: …"), "{error:?}");
        }
    }
}

#[tokio::test]
async fn certificates_that_are_made_as_the_manual_says() {
    let authority = Authority::new(Key::Rsa);
    let server = encrypting(&authority, "server").await;
    // Signed by an authority, without extensions: version 1.
    set_certificate(&server, &authority, "plain", "").await;
    assert!(tls_version(&weir(&server, TlsMode::Require)).await.unwrap().is_some());
    let mut options = weir(&server, TlsMode::VerifyCa);
    options.tls.ca = Some(authority.ca());
    let error = refused(&options).await;
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("X.509 version 3"), "{error:?}");

    // Self-signed, which makes it an authority's; believed if it is itself named.
    let (own, key) = authority.issue("own", "localhost", &format!("basicConstraints=CA:TRUE\n{NAMES}"));
    for (setting, file) in [("ssl_cert_file", &own), ("ssl_key_file", &key)] {
        let file = server.install(file);
        server.ask(&format!("ALTER SYSTEM SET {setting} = '{}'", file.display())).await;
    }
    server.reload().await;
    for mode in [TlsMode::VerifyCa, TlsMode::VerifyFull] {
        let mut options = weir(&server, mode);
        options.tls.ca = Some(authority.ca());
        let error = refused(&options).await;
        assert!(error.to_string().contains("name the server's own certificate"), "{error:?}");
        options.tls.ca = Some(own.clone());
        assert!(tls_version(&options).await.unwrap().is_some());
        options.host = "127.0.0.1".to_owned();
        assert_eq!(tls_version(&options).await.is_ok(), mode == TlsMode::VerifyCa);
    }
}

#[tokio::test]
async fn a_certificate_without_a_hash_is_bound_to_only_if_it_is_believed() {
    let authority = Authority::new(Key::Ed25519);
    let server = encrypting(&authority, "server").await;
    let error = refused(&weir(&server, TlsMode::Require)).await;
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("verify_full"), "{error:?}");
    let mut options = weir(&server, TlsMode::VerifyFull);
    options.tls.ca = Some(authority.ca());
    assert!(tls_version(&options).await.unwrap().is_some());
}

#[tokio::test]
async fn a_server_that_does_not_encrypt() {
    let server = Server::start(15, &[]).await;
    let mut options = server.options();
    for mode in [TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
        options.tls.mode = mode;
        let error = refused(&options).await;
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains("ssl = on"), "{error:?}");
    }
    options.tls.mode = TlsMode::Prefer;
    assert_eq!(tls_version(&options).await.unwrap(), None);
    // Nothing to protect on a socket of this machine.
    let mut options = server.socket_options();
    options.tls.mode = TlsMode::VerifyFull;
    assert_eq!(tls_version(&options).await.unwrap(), None);
}

#[tokio::test]
async fn preferred_encryption_is_given_up_where_it_is_not_welcome() {
    let authority = Authority::new(Key::Rsa);
    let server = encrypting(&authority, "server").await;
    server.hba("hostnossl all weir 127.0.0.1/32 scram-sha-256").await;
    assert_eq!(tls_version(&weir(&server, TlsMode::Prefer)).await.unwrap(), None);
    let error = refused(&weir(&server, TlsMode::Require)).await;
    assert!(error.kind() == ErrorKind::Denied && error.to_string().contains("pg_hba.conf"), "{error:?}");
    // Nothing is welcome: told is what was said to the encrypted one.
    server.hba("").await;
    let error = refused(&weir(&server, TlsMode::Prefer)).await;
    assert!(error.report().contains("SSL encryption"), "{error:?}");
}

#[tokio::test]
async fn our_own_certificate() {
    let authority = Authority::new(Key::Ecdsa);
    let server = encrypting(&authority, "server").await;
    server.hba("hostssl all weir 127.0.0.1/32 cert").await;
    let error = refused(&weir(&server, TlsMode::Require)).await;
    assert!(error.kind() == ErrorKind::Denied && error.to_string().contains("cert: …"), "{error:?}");

    let (certificate, key) = authority.issue("client", "weir", "keyUsage=digitalSignature");
    let mut options = weir(&server, TlsMode::VerifyFull);
    options.tls.ca = Some(authority.ca());
    (options.tls.cert, options.tls.key) = (Some(certificate.clone()), Some(key));
    assert!(tls_version(&options).await.unwrap().is_some());

    // Of somebody else, signed by an authority that the server does not know.
    let stranger = Authority::new(Key::Ecdsa);
    let (theirs, their_key) = stranger.issue("client", "weir", "keyUsage=digitalSignature");
    (options.tls.cert, options.tls.key) = (Some(theirs), Some(their_key.clone()));
    let error = refused(&options).await;
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("cert and key"), "{error:?}");
    // Of X.509 version 1.
    let (old, old_key) = authority.issue("old", "weir", "");
    (options.tls.cert, options.tls.key) = (Some(old.clone()), Some(old_key));
    assert!(tls_version(&options).await.unwrap().is_some());
    (options.tls.cert, options.tls.key) = (Some(old), Some(their_key.clone()));
    assert!(refused(&options).await.message().contains("do not go together"));
    // A key that is not the certificate's.
    (options.tls.cert, options.tls.key) = (Some(certificate), Some(their_key));
    let error = refused(&options).await;
    assert!(error.kind() == ErrorKind::Config && error.message().contains("do not go together"), "{error:?}");
}

#[tokio::test]
async fn a_cancel_request_is_encrypted_too() {
    let authority = Authority::new(Key::Rsa);
    let server = encrypting(&authority, "server").await;
    let mut connection = Connection::connect(&weir(&server, TlsMode::Require), Mode::Query).await.unwrap();
    let key = connection.cancel_key().unwrap();
    let (slept, cancelled) = tokio::join!(connection.query("SELECT pg_sleep(60)"), async {
        while server.ask("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").await.is_empty() {}
        key.cancel().await
    });
    cancelled.unwrap();
    let error = slept.unwrap_err();
    assert_eq!(logweir_postgres::wire::sqlstate(&error), Some("57014"), "{error:?}");
    assert_eq!(connection.query("SELECT 1").await.unwrap().first(), Some("1"));
}

#[tokio::test]
async fn copies_and_the_log_come_whole_through_encryption() {
    let authority = Authority::new(Key::Ecdsa);
    let server = encrypting(&authority, "server").await;
    server.ask("CREATE TABLE public.t (id int PRIMARY KEY, name text); CREATE PUBLICATION p FOR TABLE public.t").await;
    server.ask("SELECT pg_create_logical_replication_slot('s', 'pgoutput'); GRANT SELECT ON public.t TO weir").await;
    server.ask("INSERT INTO public.t SELECT i, 'name ' || i FROM generate_series(1, 50000) i").await;
    server.ask("INSERT INTO public.t VALUES (0, repeat('x', 20000000))").await;

    let options = weir(&server, TlsMode::Require);
    let mut connection = Connection::connect(&options, Mode::Query).await.unwrap();
    let mut copy = connection.copy_out("COPY (SELECT id FROM public.t) TO STDOUT (FORMAT BINARY)").await.unwrap();
    let mut total = 0;
    while let Some(message) = copy.next().await.unwrap() {
        total += message.len();
    }
    assert_eq!(total, 19 + 50_001 * 10 + 2);

    let walsender = Connection::connect(&options, Mode::Replication).await.unwrap();
    let start = "START_REPLICATION SLOT s LOGICAL 0/0 (proto_version '1', publication_names 'p')";
    let mut stream = walsender.copy_both(start).await.unwrap();
    let mut rows = 0;
    while rows < 50_001 {
        // As a session under load has it: nobody is woken for a while.
        stream.watch(false).unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
        let _ = stream.poll_fill(&mut Context::from_waker(Waker::noop())).map(Result::unwrap);
        stream.watch(true).unwrap();
        let filled = tokio::time::timeout(Duration::from_secs(30), poll_fn(|cx| stream.poll_fill(cx))).await;
        filled.expect("the server should have said something").unwrap();
        while let Some(payload) = stream.next_payload() {
            rows += usize::from(payload[0] == b'w' && payload[25] == b'I');
        }
        stream.send_status(Lsn(1), Lsn(1), Lsn(1), TimestampMicros(0));
    }
    stream.finish(Duration::from_secs(30)).await.unwrap();
}

/// What one who sits between does with the list of ways to authenticate.
#[derive(Debug, Clone, Copy)]
enum Meddling {
    None,
    /// Leaves out what binds the session to the channel.
    HidesBinding,
}

/// Sits between a server and us with a certificate of its own, and reads everything.
async fn between(server: &Server, authority: &Authority, meddling: Meddling) -> PostgresOptions {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = weir(server, TlsMode::Require);
    options.port = listener.local_addr().unwrap().port();
    let (certificate, key) = authority.issue("between", "localhost", NAMES);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from_pem_file(certificate).unwrap()], PrivateKeyDer::from_pem_file(key).unwrap())
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.ca()).unwrap()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let port = server.port;
    tokio::spawn(async move {
        let mut request = [0; 8];
        let (mut ours, _) = listener.accept().await.unwrap();
        ours.read_exact(&mut request).await.unwrap();
        ours.write_all(b"S").await.unwrap();
        let mut ours = TlsAcceptor::from(Arc::new(config)).accept(ours).await.unwrap();
        let mut theirs = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        theirs.write_all(&request).await.unwrap();
        theirs.read_exact(&mut [0]).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut theirs = TlsConnector::from(Arc::new(client)).connect(name, theirs).await.unwrap();
        // The hello, and the list in answer to it.
        let mut bytes = vec![0; 4096];
        let read = ours.read(&mut bytes).await.unwrap();
        theirs.write_all(&bytes[..read]).await.unwrap();
        let read = theirs.read(&mut bytes).await.unwrap();
        assert!(bytes[..read].windows(18).any(|part| part == b"SCRAM-SHA-256-PLUS"));
        match meddling {
            Meddling::None => ours.write_all(&bytes[..read]).await.unwrap(),
            Meddling::HidesBinding => ours.write_all(b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0").await.unwrap(),
        }
        let _ = tokio::io::copy_bidirectional(&mut ours, &mut theirs).await;
    });
    options
}

#[tokio::test]
async fn one_who_sits_between_is_found_out_even_where_the_certificate_is_not_looked_at() {
    let authority = Authority::new(Key::Rsa);
    let server = encrypting(&authority, "server").await;
    for (meddling, said) in [(Meddling::None, "channel binding"), (Meddling::HidesBinding, "channel binding")] {
        let options = between(&server, &authority, meddling).await;
        let error = refused(&options).await;
        assert!(error.report().contains(said), "{meddling:?}: {error:?}");
    }
}

#[tokio::test]
async fn what_follows_the_consent_unencrypted_is_not_taken_for_the_servers() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = PostgresOptions::new("127.0.0.1", "weir", "shop");
    options.port = listener.local_addr().unwrap().port();
    options.tls.mode = TlsMode::Require;
    options.connect_timeout = Duration::from_secs(5);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.read_exact(&mut [0; 8]).await.unwrap();
            // Consent, and in the same breath all that makes a session.
            stream.write_all(b"SR\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
        }
    });
    let error = refused(&options).await;
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("encryption"), "{error:?}");
}
