//! Who may come in, and how many.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BufMut as _;
use logweir_core::{Error, Pattern, Result};
use logweir_sql::QueryEngine;
use rand::Rng as _;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret as _, SecretString};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::frame::{Broken, Connection, Opening, STARTUP_BYTES_MAX};
use crate::host::{Endpoint, Post, draining};
use crate::places::Places;
use crate::reply::{Failure, Outcome, Refusal, Reply as _, put_text};
use crate::running::stopping;
use crate::scram::{Exchange, MECHANISM, PasswordVerifier};
use crate::session::Session;
use crate::stranger::{Stranger, Strangers};

/// How long somebody may take to be known.
const STARTUP: Duration = Duration::from_secs(15);

/// How long a wrong password waits for its answer. With [`STRANGERS_MAX`](crate::stranger::STRANGERS_MAX) this bounds how many can be tried.
const WRONG_PASSWORD_DELAY: Duration = Duration::from_secs(1);

/// How long queries may go on when the process ends.
const GRACE: Duration = Duration::from_secs(5);

/// How long accepting waits after it failed, for instance because there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Where the tables come from.
#[async_trait]
pub trait Database: Send + Sync + 'static {
    /// The names a client may connect to, the first of them first.
    fn names(&self) -> Vec<String>;

    /// An engine over what there is now, of the schemas that fit one of the patterns. Asked for every query.
    async fn engine(&self, schemas: &[Pattern]) -> Result<QueryEngine>;
}

/// Somebody who may ask.
pub struct User {
    /// The name.
    pub name: String,
    /// The password; only what it is verified by is kept.
    pub password: SecretString,
    /// The schemas that are to be seen.
    pub schemas: Vec<Pattern>,
}

/// How an endpoint serves.
pub struct Options {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The certificate. Without one it must be an address of this machine alone.
    pub tls: Option<Arc<ServerConfig>>,
    /// Who may ask.
    pub users: Vec<User>,
    /// How long a statement may take.
    pub statement_timeout: Duration,
    /// Sessions at a time.
    pub connections: usize,
    /// Queries at a time, and those that wait, with rows left, for the next statement of their session.
    pub places: Places,
}

/// The certificate and key of PEM files.
pub fn tls(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let unreadable = |what: &'static str, path: &Path| Error::config(what).context("file", path.display());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable("could not read the certificate of the SQL endpoint", certificate).source(error))?;
    let key_der = PrivateKeyDer::from_pem_file(key)
        // Without its cause, which may quote what stands in the file.
        .map_err(|_| unreadable("could not read the key of the SQL endpoint", key).remedy("it must be a PEM file with one private key"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key_der))
        .map_err(|error| unreadable("the certificate and the key of the SQL endpoint cannot be used", certificate).source(error))?;
    Ok(Arc::new(config))
}

/// How urgent an end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StopLevel {
    /// There is none.
    Serve,
    /// Nobody new, and whoever waits is sent away.
    Drain,
    /// Queries too.
    Now,
}

/// Waits for an end of that urgency.
pub(crate) async fn reached(stop: &mut watch::Receiver<StopLevel>, level: StopLevel) {
    // Whoever could say so is gone: that is an end too.
    let _ = stop.wait_for(|found| *found >= level).await;
}

/// Somebody who may ask, as it is kept.
pub(crate) struct Known {
    name: String,
    verifier: PasswordVerifier,
    pub(crate) schemas: Vec<Pattern>,
}

/// What all sessions share.
pub(crate) struct Shared {
    pub(crate) database: Box<dyn Database>,
    pub(crate) users: Vec<Known>,
    pub(crate) statement_timeout: Duration,
    /// Places for queries.
    pub(crate) places: Arc<Semaphore>,
    /// Places for queries that wait for their sessions.
    pub(crate) cursors: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    tls: Option<TlsAcceptor>,
    tls_required: bool,
    /// What the salts of names that are not known are made of.
    secret: [u8; 32],
    /// The sessions by number: their secrets, and how their queries are cancelled.
    sessions: Mutex<HashMap<i32, (i32, watch::Sender<u64>)>>,
    next_process: AtomicI32,
    stop: watch::Receiver<bool>,
}

impl Shared {
    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<i32, (i32, watch::Sender<u64>)>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cancels what a session does, if the secret is its own.
    fn cancel(&self, process: i32, secret: i32) {
        if let Some((known, cancel)) = self.sessions().get(&process)
            && *known == secret
        {
            cancel.send_modify(|times| *times += 1);
        }
    }
}

/// A session's entry among the sessions, as long as it lasts.
pub(crate) struct Registered {
    shared: Arc<Shared>,
    pub(crate) process: i32,
    secret: i32,
    pub(crate) cancelled: watch::Receiver<u64>,
}

impl Registered {
    fn new(shared: &Arc<Shared>) -> Self {
        let secret = rand::rng().random();
        let (sender, cancelled) = watch::channel(0);
        loop {
            let process = shared.next_process.fetch_add(1, Ordering::Relaxed) & i32::MAX;
            let mut sessions = shared.sessions();
            if let std::collections::hash_map::Entry::Vacant(entry) = sessions.entry(process) {
                entry.insert((secret, sender));
                drop(sessions);
                return Registered { shared: Arc::clone(shared), process, secret, cancelled };
            }
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.shared.sessions().remove(&self.process);
    }
}

/// Answers PostgreSQL's clients from then on.
pub fn start(options: Options, database: Box<dyn Database>) -> Result<Endpoint> {
    let mut secret = [0; 32];
    rand::rng().fill(&mut secret);
    let users = options.users.into_iter().map(|user| Known {
        verifier: PasswordVerifier::new(user.password.expose_secret()),
        name: user.name,
        schemas: user.schemas,
    });
    let users = users.collect();
    let (places, cursors) = (options.places.queries(), options.places.cursors());
    let post = Post { speaks: "SQL", key: "sql.listen", listen: options.listen, encrypted: options.tls.is_some() };
    Endpoint::start(post, &options.places, move |listener, stop| {
        let shared = Shared {
            database,
            users,
            statement_timeout: options.statement_timeout,
            places,
            cursors,
            connections: Arc::new(Semaphore::new(options.connections.clamp(1, Semaphore::MAX_PERMITS))),
            tls_required: !options.listen.ip().is_loopback(),
            tls: options.tls.map(TlsAcceptor::from),
            secret,
            sessions: Mutex::new(HashMap::new()),
            next_process: AtomicI32::new(1),
            stop,
        };
        serve(listener, Arc::new(shared))
    })
}

/// Accepts until the end is asked for, then waits for those that are in.
async fn serve(listener: TcpListener, shared: Arc<Shared>) -> std::io::Result<()> {
    let strangers = Arc::new(Strangers::default());
    let mut sessions = JoinSet::new();
    let mut stop = shared.stop.clone();
    // Levels of the sessions themselves: those that run get some time.
    let (level, levels) = watch::channel(StopLevel::Serve);
    loop {
        tokio::select! {
            () = draining(&mut stop) => break,
            Some(_) = sessions.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    let (shared, levels) = (Arc::clone(&shared), levels.clone());
                    let refused = strangers.meet(socket, peer.ip(), |socket, stranger| {
                        sessions.spawn(async move {
                            let welcomed = tokio::time::timeout(STARTUP, welcome(socket, &shared, peer, &stranger)).await;
                            // From here on it is one of the sessions.
                            drop(stranger);
                            if let Ok(Some(welcomed)) = welcomed {
                                Box::pin(welcomed.serve(levels)).await;
                            }
                        })
                    });
                    if let Err(socket) = refused {
                        let mut refusal = bytes::BytesMut::new();
                        refusal.error("FATAL", &too_many());
                        // As much as the socket takes at once.
                        let _ = socket.try_write(&refusal);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection for SQL");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    level.send_replace(StopLevel::Drain);
    let all_ended = |mut sessions: JoinSet<()>| async move {
        while sessions.join_next().await.is_some() {}
        sessions
    };
    let mut waiting = Box::pin(all_ended(sessions));
    if tokio::time::timeout(GRACE, &mut waiting).await.is_err() {
        level.send_replace(StopLevel::Now);
        let _ = tokio::time::timeout(Duration::from_secs(1), waiting).await;
    }
    Ok(())
}

fn too_many() -> Refusal {
    Refusal::new("53300", "there are too many connections already")
        .hint("`sql.connections` of the configuration says how many there may be")
}

/// A session that may begin.
pub(crate) struct Welcomed {
    pub(crate) connection: Connection,
    pub(crate) shared: Arc<Shared>,
    pub(crate) user: usize,
    pub(crate) name: String,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) database: Option<String>,
    pub(crate) registered: Registered,
    pub(crate) seat: OwnedSemaphorePermit,
}

impl Welcomed {
    async fn serve(self, stop: watch::Receiver<StopLevel>) {
        let process = self.registered.process;
        tracing::debug!(user = self.name, process, "a session of SQL has begun");
        Session::new(self, stop).run().await;
        tracing::debug!(process, "a session of SQL has ended");
    }
}

/// Everything until somebody is known. `None` if it ends here, whatever the reason.
async fn welcome(socket: TcpStream, shared: &Arc<Shared>, peer: SocketAddr, stranger: &Stranger) -> Option<Welcomed> {
    let _ = socket.set_nodelay(true);
    // Whoever is gone without a word is found out.
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10));
    let _ = SockRef::from(&socket).set_tcp_keepalive(&keepalive);
    let mut connection = Connection::new(Box::new(socket));
    let mut encrypted = false;
    let (minor, parameters) = loop {
        match connection.opening().await {
            Ok(Opening::Tls) if !encrypted => match &shared.tls {
                Some(acceptor) => {
                    connection.output.put_u8(b'S');
                    connection.flush().await.ok()?;
                    let socket = acceptor.accept(connection.into_socket()?).await.ok()?;
                    connection = Connection::new(Box::new(socket));
                    encrypted = true;
                }
                None => {
                    connection.output.put_u8(b'N');
                    connection.flush().await.ok()?;
                }
            },
            Ok(Opening::Gss) => {
                connection.output.put_u8(b'N');
                connection.flush().await.ok()?;
            }
            Ok(Opening::Cancel { process, secret }) => {
                shared.cancel(process, secret);
                return None;
            }
            Ok(Opening::Start { minor, parameters }) => break (minor, parameters),
            Ok(Opening::Tls) | Err(_) => return None,
        }
    };
    match introduce(&mut connection, shared, encrypted, minor, &parameters, peer, stranger).await {
        Ok((user, name, database, seat)) => {
            let registered = Registered::new(shared);
            let (process, secret) = (registered.process, registered.secret);
            connection.output.message(b'K', |body| {
                body.put_i32(process);
                body.put_i32(secret);
            });
            Some(Welcomed { connection, shared: Arc::clone(shared), user, name, parameters, database, registered, seat })
        }
        Err(Failure::Refused(refusal) | Failure::Ended(Some(refusal))) => {
            connection.output.error("FATAL", &refusal);
            connection.close().await;
            None
        }
        Err(Failure::Ended(None)) => None,
    }
}

type Introduced = (usize, String, Option<String>, OwnedSemaphorePermit);

/// Who it is, and whether there is a seat.
async fn introduce(
    connection: &mut Connection,
    shared: &Arc<Shared>,
    encrypted: bool,
    minor: u16,
    parameters: &BTreeMap<String, String>,
    peer: SocketAddr,
    stranger: &Stranger,
) -> Outcome<Introduced> {
    if shared.tls_required && !encrypted {
        return Err(Refusal::new("28000", "the connection must be encrypted")
            .hint("connect with sslmode=require, or better verify-full")
            .into());
    }
    let unknown: Vec<&String> = parameters.keys().filter(|name| name.starts_with("_pq_.")).collect();
    if minor > 0 || !unknown.is_empty() {
        connection.output.message(b'v', |body| {
            body.put_i32(3 << 16);
            body.put_i32(i32::try_from(unknown.len()).unwrap_or(0));
            unknown.iter().for_each(|name| put_text(body, name));
        });
    }
    if parameters.get("replication").is_some_and(|value| !["false", "off", "no", "0"].contains(&value.as_str())) {
        return Err(Refusal::new("0A000", "there is no replication from here").into());
    }
    let name = parameters.get("user").filter(|name| !name.is_empty()).ok_or_else(|| Refusal::new("28000", "no user was named"))?;
    let user = authenticate(connection, shared, name, peer, stranger).await?;
    let databases = shared.database.names();
    let database = match parameters.get("database").filter(|database| !database.is_empty()) {
        Some(database) if databases.contains(database) => Some(database.clone()),
        // What a client takes where nobody named one.
        Some(database) if database != name && database != "postgres" => {
            let refusal = Refusal::new("3D000", format!("database \"{database}\" does not exist"));
            return Err(refusal.hint(format!("a database is a stream; there is {}", databases.join(", "))).into());
        }
        _ => databases.first().cloned(),
    };
    if *shared.stop.borrow() {
        return Err(stopping().into());
    }
    let seat = Arc::clone(&shared.connections).try_acquire_owned().map_err(|_| too_many())?;
    connection.output.authentication(0, &[]);
    Ok((user, name.clone(), database, seat))
}

/// Has somebody prove a password.
async fn authenticate(connection: &mut Connection, shared: &Shared, name: &str, peer: SocketAddr, stranger: &Stranger) -> Outcome<usize> {
    let known = shared.users.iter().position(|user| user.name == name);
    let verifier = known.map_or_else(|| PasswordVerifier::of_nobody(name, &shared.secret), |user| shared.users[user].verifier.clone());
    connection.output.authentication(10, format!("{MECHANISM}\0\0").as_bytes());
    connection.flush().await?;
    let (kind, mut body) = connection.message(STARTUP_BYTES_MAX).await?;
    if kind != b'p' || body.text()? != MECHANISM {
        return Err(Broken::Malformed.into());
    }
    let first = body.value()?.ok_or(Broken::Malformed)?;
    let first = std::str::from_utf8(&first).map_err(|_| Broken::Malformed)?;
    let (exchange, answer) = Exchange::begin(verifier, first).ok_or(Broken::Malformed)?;
    connection.output.authentication(11, answer.as_bytes());
    connection.flush().await?;
    let (kind, body) = connection.message(STARTUP_BYTES_MAX).await?;
    let last = std::str::from_utf8(&body.0).map_err(|_| Broken::Malformed)?;
    match (kind, known, exchange.end(last)) {
        (b'p', Some(user), Some(proof)) => {
            connection.output.authentication(12, proof.as_bytes());
            Ok(user)
        }
        _ => {
            tracing::warn!(%peer, "a password for SQL was wrong");
            stranger.stays();
            tokio::time::sleep(WRONG_PASSWORD_DELAY).await;
            Err(Refusal::new("28P01", format!("password authentication failed for user \"{name}\"")).into())
        }
    }
}
