//! Encryption: how it is agreed on, and whom we believe.
//!
//! The modes are libpq's. Chains are verified by webpki, which is stricter than OpenSSL: names are looked for in
//! subjectAltName only, and a server's certificate must not be an authority's. One way of OpenSSL's is kept because many
//! servers are set up like that: a certificate that is itself in the `ca` file is believed, whatever it looks like.

use std::path::Path;
use std::sync::Arc;

use logweir_core::{Error, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate::Certificate;
use super::channel::lost;
use super::frame::READ_BYTES;
use super::socket::Plain;
use crate::options::{PostgresOptions, TlsMode, TlsOptions};

/// What a request for encryption looks like: length and the number 1234.5679.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// What we speak inside, for servers and proxies that look (17 and later).
const PROTOCOL: &[u8] = b"postgresql";

/// TLS over TCP. Records are at most 16 KiB, so the socket is read in larger pieces before they are taken apart.
pub(super) type Encrypted = TlsStream<BufReader<Plain>>;

/// Asks a server for encryption; false if it has none.
pub(super) async fn is_offered(stream: &mut TcpStream) -> Result<bool> {
    stream.write_all(&SSL_REQUEST).await.map_err(lost)?;
    // Exactly one byte: whatever follows it without encryption was not sent by the server, and is left to fail the handshake.
    let mut answer = [0];
    stream.read_exact(&mut answer).await.map_err(lost)?;
    match answer[0] {
        b'S' => Ok(true),
        b'N' => Ok(false),
        // The text of an error may come from anyone at this point and is not shown.
        b'E' => Err(Error::transient("the server refused the connection before encryption was agreed on")),
        _ => Err(Error::config("what answers is no PostgreSQL server").remedy("check host and port")),
    }
}

/// The refusal of a server without encryption.
pub(super) fn not_offered() -> Error {
    Error::config("the server does not encrypt").remedy("set ssl = on on the server, or tls: { mode: disable }")
}

/// Shakes hands.
pub(super) async fn encrypt(stream: TcpStream, options: &PostgresOptions) -> Result<Encrypted> {
    let config = client(&options.tls)?;
    let name =
        ServerName::try_from(options.host.clone()).map_err(|error| Error::config("host is neither a name nor an address").source(error))?;
    let stream = BufReader::with_capacity(READ_BYTES, Plain::Tcp(stream));
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| explained(lost(error)))
}

/// What a session over this connection can be bound to: the hash of the server's certificate.
pub(super) fn end_point(stream: &Encrypted) -> Option<Vec<u8>> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    Certificate::parse(certificate)?.end_point()
}

/// If an I/O error is about encryption, who must change what; as it is otherwise.
pub(super) fn explained(error: Error) -> Error {
    let io = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let Some(tls) = io.and_then(std::io::Error::get_ref).and_then(|cause| cause.downcast_ref::<rustls::Error>()) else {
        return error;
    };
    Error::config("could not agree with the server on encryption").remedy(remedy(tls)).source(tls.clone())
}

fn remedy(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::InvalidCertificate(error) => match error {
            // Of an authority of the same name, but not the same.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "name the file with the certificate of the authority that signed the server's: tls: { ca: … }"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "connect by a name that the server's certificate bears in subjectAltName (the common name is not looked at), \
                 or set tls: { mode: verify_ca }"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "renew the server's certificate",
            CertificateError::Other(error) if error.to_string().contains("UnsupportedCertVersion") => {
                "make the server's certificate anew with extensions (X.509 version 3): openssl x509 -req … -extfile …"
            }
            CertificateError::Other(error) if error.to_string().contains("CaUsedAsEndEntity") => {
                "name the server's own certificate as tls: { ca: … }, or give it one that is not an authority's (CA:FALSE)"
            }
            _ => "check tls: that ca signed the server's certificate, and for verify_full that it names this host",
        },
        rustls::Error::AlertReceived(_) => "see the server's log, and check tls: cert and key, if it asks for a certificate",
        _ => "check tls, and that the server speaks TLS 1.2 or later",
    }
}

fn client(options: &TlsOptions) -> Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let trust = Arc::new(Trust::new(options, &provider)?);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal("TLS could not be set up").source(error))?
        .dangerous()
        .with_custom_certificate_verifier(trust);
    let mut client = match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| Error::config("could not read the private key").context("file", key.display()).source(error))?;
            builder.with_client_cert_resolver(Arc::new(own_certificate(chain, key, &provider, cert)?))
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(Error::config("tls needs cert and key together").remedy("give both files, or neither")),
    };
    client.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(client)
}

/// What we show of ourselves. Certificates of X.509 version 1, which PostgreSQL's manual has people make, are among them: servers
/// take them, and webpki, which rustls compares them with their keys by, does not.
fn own_certificate(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
    file: &Path,
) -> Result<SingleCertAndKey> {
    let named = |error: Error| error.context("file", file.display());
    let own = chain.first().and_then(|own| Certificate::parse(own));
    let own = own.ok_or_else(|| named(Error::config("the certificate cannot be read").remedy("give an X.509 certificate as PEM")))?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| named(Error::config("the private key cannot be used").source(error)))?;
    if key.public_key().is_some_and(|public| public.as_ref() != own.public_key()) {
        return Err(named(Error::config("certificate and key do not go together").remedy("check tls: cert and key: one is of the other")));
    }
    Ok(CertifiedKey::new(chain, key).into())
}

/// The certificates of a PEM file, of which there must be one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| Error::config("could not read certificates").context("file", file.display()).source(error))?;
    if certificates.is_empty() {
        return Err(Error::config("there is no certificate in the file").context("file", file.display()).remedy("give a PEM file"));
    }
    Ok(certificates)
}

/// Whom we believe.
#[derive(Debug)]
struct Trust {
    mode: TlsMode,
    roots: RootCertStore,
    /// What was named as trusted, to be believed also as the server's own certificate.
    named: Vec<CertificateDer<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Trust {
    fn new(options: &TlsOptions, provider: &CryptoProvider) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        let mut named = Vec::new();
        match &options.ca {
            Some(file) => {
                named = certificates(file)?;
                for certificate in &named {
                    roots
                        .add(certificate.clone())
                        .map_err(|error| Error::config("a certificate cannot be trusted").context("file", file.display()).source(error))?;
                }
            }
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        }
        Ok(Trust { mode: options.mode, roots, named, algorithms: provider.signature_verification_algorithms })
    }

    fn verify_chain(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> std::result::Result<(), rustls::Error> {
        if self.named.iter().any(|named| named == end_entity) {
            let valid = Certificate::parse(end_entity).is_some_and(|certificate| certificate.is_valid_at(now.as_secs()));
            return if valid { Ok(()) } else { Err(CertificateError::Expired.into()) };
        }
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, self.algorithms.all)
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if matches!(self.mode, TlsMode::VerifyCa | TlsMode::VerifyFull) {
            self.verify_chain(end_entity, intermediates, now)?;
        }
        if self.mode == TlsMode::VerifyFull {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    // Verified in every mode: without it, a stranger could show the true server's certificate, and channel binding would
    // bind the session to a stranger.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        // Of X.509 version 1, which PostgreSQL's manual has people make, webpki reads nothing; the key is all that it takes.
        match (ParsedCertificate::try_from(cert), Certificate::parse(cert)) {
            (Err(_), Some(parsed)) => {
                let key = SubjectPublicKeyInfoDer::from(parsed.public_key());
                verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
            }
            _ => verify_tls13_signature(message, cert, signature, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_when_they_are_no_good() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("empty.pem");
        std::fs::write(&file, "").unwrap();
        let empty = TlsOptions { mode: TlsMode::VerifyCa, ca: Some(file), ..TlsOptions::default() };
        assert!(client(&empty).unwrap_err().to_string().contains("empty.pem"));
        let missing = TlsOptions { ca: Some("/nowhere.pem".into()), ..TlsOptions::default() };
        assert!(client(&missing).unwrap_err().to_string().contains("/nowhere.pem"));
        let half = TlsOptions { cert: Some("c.pem".into()), ..TlsOptions::default() };
        assert!(client(&half).is_err());
        assert!(client(&TlsOptions::default()).is_ok());
    }

    #[test]
    fn only_errors_of_encryption_are_explained() {
        let tls = std::io::Error::new(std::io::ErrorKind::InvalidData, rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
        let error = explained(lost(tls));
        assert_eq!(error.kind(), logweir_core::ErrorKind::Config);
        assert!(error.get_remedy().unwrap().contains("ca: …"));
        assert!(explained(lost(std::io::ErrorKind::ConnectionReset.into())).is_transient());
    }
}
