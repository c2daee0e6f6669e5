//! Saying who we are, and being told that the server knew it before.

use std::sync::Arc;

use logweir_core::{Error, Result};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::frontend;
use secrecy::{ExposeSecret, SecretString};
use tracing::debug;

use super::connection::Connection;
use super::message::{self, Fields};
use super::passfile;
use super::startup::refusal;
use crate::options::{PostgresOptions, TlsMode};

/// What the server asks for.
enum Request {
    Ok,
    Cleartext,
    Md5([u8; 4]),
    Sasl(Vec<String>),
    SaslContinue(Vec<u8>),
    SaslFinal(Vec<u8>),
    Other(i32),
}

/// Answers what the server asks until it is content.
pub(super) async fn authenticate(connection: &mut Connection) -> Result<()> {
    let options = Arc::clone(&connection.options);
    let mut scram: Option<ScramSha256> = None;
    // True while a server that was given a proof has not given its own.
    let mut server_unproven = false;
    loop {
        match request(connection).await? {
            Request::Ok if server_unproven => {
                return Err(
                    Error::denied("the server did not prove that it knows the password").remedy("make sure that this is your server")
                );
            }
            Request::Ok => return Ok(()),
            Request::Cleartext => {
                if !connection.channel.socket.is_private() {
                    return Err(Error::config("the server asks for the password in clear, and the connection is not encrypted")
                        .remedy("set tls: { mode: verify_full }, or scram-sha-256 in pg_hba.conf"));
                }
                let password = password(&options)?;
                send(connection, |out| frontend::password_message(password.expose_secret().as_bytes(), out)).await?;
            }
            Request::Md5(salt) => {
                let password = password(&options)?;
                let hash = md5_hash(options.user.as_bytes(), password.expose_secret().as_bytes(), salt);
                send(connection, |out| frontend::password_message(hash.as_bytes(), out)).await?;
            }
            Request::Sasl(mechanisms) => {
                let (mechanism, binding) = mechanism(connection, &mechanisms)?;
                let password = password(&options)?;
                let client = ScramSha256::new(password.expose_secret().as_bytes(), binding);
                send(connection, |out| frontend::sasl_initial_response(mechanism, client.message(), out)).await?;
                debug!(mechanism, "authenticating");
                scram = Some(client);
                server_unproven = true;
            }
            Request::SaslContinue(body) => {
                let client = scram.as_mut().ok_or_else(|| message::malformed(message::AUTHENTICATION))?;
                client.update(&body).map_err(bad_sasl)?;
                send(connection, |out| frontend::sasl_response(client.message(), out)).await?;
            }
            Request::SaslFinal(body) => {
                let mut client = scram.take().ok_or_else(|| message::malformed(message::AUTHENTICATION))?;
                client.finish(&body).map_err(bad_sasl)?;
                server_unproven = false;
            }
            Request::Other(method) => {
                return Err(Error::config("the server asks for a way to authenticate that is not supported")
                    .context("method", name(method))
                    .remedy("set scram-sha-256 in pg_hba.conf for this user"));
            }
        }
    }
}

/// Waits for the server's next request.
async fn request(connection: &mut Connection) -> Result<Request> {
    let frame = connection.next().await?;
    match frame.tag {
        message::AUTHENTICATION => {}
        message::ERROR_RESPONSE => return Err(refusal(frame)),
        tag => return Err(message::unexpected(tag, "authentication")),
    }
    let mut fields = Fields::new(frame);
    Ok(match fields.i32()? {
        0 => Request::Ok,
        3 => Request::Cleartext,
        5 => Request::Md5(fields.array()?),
        10 => {
            let mut mechanisms = Vec::new();
            loop {
                let mechanism = fields.text()?;
                if mechanism.is_empty() {
                    break Request::Sasl(mechanisms);
                }
                mechanisms.push(mechanism);
            }
        }
        11 => Request::SaslContinue(fields.rest().to_vec()),
        12 => Request::SaslFinal(fields.rest().to_vec()),
        other => Request::Other(other),
    })
}

async fn send(connection: &mut Connection, put: impl FnOnce(&mut bytes::BytesMut) -> std::io::Result<()>) -> Result<()> {
    put(&mut connection.channel.outbox).map_err(|error| Error::config("the password cannot be sent to a server").source(error))?;
    connection.channel.send().await
}

/// The way to authenticate, bound to the encrypted channel where it can be: then nobody sits between, not even one whose
/// certificate we would believe.
fn mechanism(connection: &Connection, offered: &[String]) -> Result<(&'static str, ChannelBinding)> {
    let offers = |mechanism| offered.iter().any(|offered| offered == mechanism);
    let socket = &connection.channel.socket;
    if socket.is_encrypted() {
        match socket.end_point() {
            Some(hash) if offers(SCRAM_SHA_256_PLUS) => return Ok((SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash))),
            // Said to the server, which fails if it did offer it: someone between us left it out.
            _ if !offers(SCRAM_SHA_256_PLUS) && offers(SCRAM_SHA_256) => return Ok((SCRAM_SHA_256, ChannelBinding::unrequested())),
            // To a stranger this would be the way around the binding: a certificate that cannot be bound to.
            _ if matches!(connection.options.tls.mode, TlsMode::Prefer | TlsMode::Require) => {
                return Err(Error::config("the server's certificate has a signature that a session cannot be bound to")
                    .remedy("set tls: { mode: verify_full, ca: … } (or verify_ca), or give the server an RSA or ECDSA certificate"));
            }
            _ => {}
        }
    }
    if offers(SCRAM_SHA_256) {
        return Ok((SCRAM_SHA_256, ChannelBinding::unsupported()));
    }
    Err(Error::config("the server offers no way to authenticate that is known here")
        .context("offered", offered.join(" "))
        .remedy("set scram-sha-256 in pg_hba.conf for this user"))
}

/// The password that was configured, or what the password file has.
fn password(options: &PostgresOptions) -> Result<SecretString> {
    let found = options.password.clone().or_else(|| passfile::lookup(&passfile::file()?, options));
    found.ok_or_else(|| {
        Error::denied("the server asks for a password").remedy("set password, or add a line to ~/.pgpass (PGPASSFILE names another file)")
    })
}

/// The server does not keep to the exchange, or does not know the password.
fn bad_sasl(error: std::io::Error) -> Error {
    Error::denied("could not authenticate with the server").source(error).remedy("make sure that this is your server")
}

fn name(method: i32) -> String {
    match method {
        2 => "Kerberos V5".to_owned(),
        6 => "SCM credentials".to_owned(),
        7 | 8 => "GSSAPI".to_owned(),
        9 => "SSPI".to_owned(),
        other => other.to_string(),
    }
}
