//! Where connections come from, and how many there may be.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use futures::future::BoxFuture;
use logweir_core::Result;
use logweir_pgwire::{Database, Endpoint, Places, Post, User, draining};
use rustls::ServerConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::Server;

use crate::connection::{Peer, STARTUP, Seated, Socket};
use crate::identity::Users;
use crate::prepared::Statements;
use crate::service::FlightSql;

/// Requests of one connection at a time.
const REQUESTS_MAX: u32 = 32;

/// What the names and values of a request's headers take.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// How often somebody who says nothing is asked whether they are there, and how long for an answer is waited.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));

/// How long queries may go on when the process ends.
const GRACE: Duration = Duration::from_secs(5);

/// How long accepting waits after it failed, for instance because there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

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
    /// Connections at a time.
    pub connections: usize,
    /// Queries at a time.
    pub places: Places,
}

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) database: Box<dyn Database>,
    pub(crate) users: Users,
    pub(crate) statement_timeout: Duration,
    pub(crate) places: Places,
    pub(crate) statements: Statements,
    /// True once the end was asked for.
    pub(crate) stop: watch::Receiver<bool>,
}

/// Answers Flight SQL's clients from then on.
pub fn start(options: Options, database: Box<dyn Database>) -> Result<Endpoint> {
    let tls = options.tls.map(|config| {
        let mut config = config.as_ref().clone();
        // gRPC is HTTP/2, and clients want to hear so.
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    });
    let seats = Arc::new(Semaphore::new(options.connections.clamp(1, Semaphore::MAX_PERMITS)));
    let places = options.places.clone();
    let post = Post { speaks: "Flight SQL", key: "sql.flight.listen", listen: options.listen, encrypted: tls.is_some() };
    Endpoint::start(post, &places, move |listener, stop| {
        let shared = Shared {
            database,
            users: Users::new(options.users),
            statement_timeout: options.statement_timeout,
            places: options.places,
            statements: Statements::default(),
            stop,
        };
        serve(listener, tls, seats, Arc::new(shared))
    })
}

/// Serves until the end is asked for, then waits for what still runs.
async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, seats: Arc<Semaphore>, shared: Arc<Shared>) -> io::Result<()> {
    let (sender, connections) = mpsc::channel(1);
    let accepting = tokio::spawn(accept(listener, tls, seats, sender));
    let gate = Gate { shared: Arc::clone(&shared), inner: FlightServiceServer::new(FlightSql::new(&shared)) };
    let mut stop = shared.stop.clone();
    let serving = Server::builder()
        .max_concurrent_streams(REQUESTS_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .add_service(gate)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), async move { draining(&mut stop).await });
    let mut serving = Box::pin(serving);
    let mut stop = shared.stop.clone();
    let served = tokio::select! {
        served = &mut serving => Some(served),
        () = draining(&mut stop) => None,
    };
    accepting.abort();
    let served = match served {
        Some(served) => served,
        None => timeout(GRACE, serving).await.unwrap_or(Ok(())),
    };
    served.map_err(io::Error::other)
}

/// Accepts connections and gives each a seat; one more than there are seats is closed.
async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, seats: Arc<Semaphore>, connections: mpsc::Sender<io::Result<Seated>>) {
    loop {
        let (socket, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection for Flight SQL");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let since = Instant::now();
        let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else {
            tracing::warn!(peer = %address, "a connection for Flight SQL was closed: `sql.connections` are there already");
            continue;
        };
        let _ = socket.set_nodelay(true);
        // Whoever is gone without a word is found out.
        let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10));
        let _ = SockRef::from(&socket).set_tcp_keepalive(&keepalive);
        tokio::spawn(seat_one(socket, address, since, tls.clone(), seat, connections.clone()));
    }
}

async fn seat_one(
    socket: TcpStream,
    address: SocketAddr,
    since: Instant,
    tls: Option<TlsAcceptor>,
    seat: OwnedSemaphorePermit,
    connections: mpsc::Sender<io::Result<Seated>>,
) {
    let socket = match tls {
        None => Socket::Plain(socket),
        Some(tls) => match timeout_at(since + STARTUP, tls.accept(socket)).await {
            Ok(Ok(socket)) => Socket::Encrypted(Box::new(socket)),
            _ => return,
        },
    };
    let _ = connections.send(Ok(Seated::new(socket, address, since, seat))).await;
}

/// Lets in who is known, whatever they ask.
#[derive(Clone)]
struct Gate {
    shared: Arc<Shared>,
    inner: FlightServiceServer<FlightSql>,
}

impl NamedService for Gate {
    const NAME: &'static str = <FlightServiceServer<FlightSql> as NamedService>::NAME;
}

impl Service<http::Request<Body>> for Gate {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let (shared, mut inner) = (Arc::clone(&self.shared), self.inner.clone());
        Box::pin(async move {
            let Some(peer) = request.extensions().get::<Peer>().cloned() else {
                return Ok(Status::internal("the connection is not known").into_http());
            };
            match shared.users.identify(request.headers(), &peer).await {
                Ok(identity) => {
                    request.extensions_mut().insert(identity);
                    inner.call(request).await
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}
