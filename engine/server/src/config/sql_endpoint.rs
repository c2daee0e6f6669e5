//! The section `sql`: where SQL is answered, and to whom.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::problem::Problem;
use super::secret::Secret;
use super::tree::Node;
use super::units::{Size, Span};

/// Less does not hold the batches of a plan.
const MEMORY_MIN: u64 = 16 << 20;

/// The SQL endpoint, which speaks PostgreSQL's protocol.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SqlEndpoint {
    /// Address and port. An address that other machines reach needs `tls`.
    #[schemars(with = "String", extend("format" = "socket"))]
    pub(crate) listen: SocketAddr,
    /// Encryption of the connections. With it a client may encrypt; where other machines reach the address, it must.
    pub(crate) tls: Option<EndpointTls>,
    /// Arrow Flight SQL beside it, on a port of its own, with the same `tls`, users and bounds.
    #[cfg_attr(not(feature = "flight"), allow(dead_code))]
    pub(crate) flight: Option<FlightEndpoint>,
    /// Who may ask.
    #[schemars(length(min = 1))]
    pub(crate) users: Vec<SqlUser>,
    /// How long a statement may take; a client can ask for less.
    #[serde(default = "default_statement_timeout")]
    pub(crate) statement_timeout: Span,
    /// What a query may hold in memory, apart from `memory`; beyond that it spills to disk or is refused.
    #[serde(default = "default_memory")]
    pub(crate) memory: Size,
    /// How many sessions there may be at a time, of each protocol.
    #[serde(default = "default_connections")]
    #[schemars(range(min = 1, max = 10000))]
    pub(crate) connections: u32,
    /// How many queries may run at a time; others wait.
    #[serde(default = "default_concurrent_queries")]
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) concurrent_queries: u32,
    /// How many cursors of all sessions may be open between two of their statements; each may hold `memory`.
    #[serde(default = "default_open_cursors")]
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) open_cursors: u32,
}

/// Arrow Flight SQL. A program without it refuses the section.
#[derive(Debug, Deserialize, JsonSchema)]
#[cfg_attr(not(feature = "flight"), allow(dead_code))]
#[serde(deny_unknown_fields)]
pub(crate) struct FlightEndpoint {
    /// Address and port. An address that other machines reach needs `tls` of `sql`.
    #[schemars(with = "String", extend("format" = "socket"))]
    pub(crate) listen: SocketAddr,
}

/// The certificate that the endpoint shows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndpointTls {
    /// A PEM file with the certificate, and those that vouch for it behind it. A relative path begins at the configuration file's directory.
    pub(crate) certificate: PathBuf,
    /// A PEM file with its private key.
    pub(crate) key: PathBuf,
}

/// Somebody who may ask.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SqlUser {
    /// The name.
    pub(crate) name: String,
    /// The password.
    pub(crate) password: Secret,
    /// Patterns over the schemas that are to be seen, as in "shop*"; a schema comes with its changes.
    #[schemars(length(min = 1))]
    pub(crate) schemas: Vec<String>,
}

fn default_statement_timeout() -> Span {
    Span(Duration::from_secs(60))
}

fn default_memory() -> Size {
    Size(256 << 20)
}

fn default_connections() -> u32 {
    32
}

fn default_concurrent_queries() -> u32 {
    4
}

fn default_open_cursors() -> u32 {
    8
}

/// All mistakes of the kind.
pub(super) fn check(root: &Node, directory: &Path) -> Vec<Problem> {
    let mut problems = Vec::new();
    let Some(sql) = root.get("sql") else { return problems };
    let tls = sql.get("tls");
    let flight = sql.get("flight");
    for (listen, help) in [
        (sql.get("listen"), "add tls: { certificate: …, key: … } beside it, or listen on 127.0.0.1"),
        (flight.and_then(|flight| flight.get("listen")), "add tls: { certificate: …, key: … } to `sql`, or listen on 127.0.0.1"),
    ] {
        if let Some(listen) = listen
            && let Some(address) = listen.text().and_then(|text| text.parse::<SocketAddr>().ok())
            && !address.ip().is_loopback()
            && tls.is_none()
        {
            let problem = Problem::new(listen.place, "`listen` is an address that other machines reach, and there is no `tls`");
            problems.push(problem.help(help));
        }
    }
    if !cfg!(feature = "flight")
        && let Some(flight) = flight
    {
        problems.push(
            Problem::new(flight.place, "this program was built without Arrow Flight SQL")
                .help("build it with the feature `flight`, which is on by default"),
        );
    }
    if let Some(certificate) = tls.and_then(|tls| tls.get("certificate"))
        && let (Some(file), Some(key)) = (certificate.text(), tls.and_then(|tls| tls.get("key")).and_then(Node::text))
        && let Err(error) = logweir_pgwire::tls(&directory.join(file), &directory.join(key))
    {
        problems.push(Problem::new(certificate.place, error.report()));
    }
    let users = sql.get("users").map(Node::items).unwrap_or_default();
    for (index, user) in users.iter().enumerate() {
        let Some(name) = user.get("name") else { continue };
        if users[..index].iter().any(|other| other.get("name").is_some_and(|other| other.text() == name.text())) {
            problems.push(Problem::new(name.place, "there are two users of this name"));
        }
    }
    if let Some(memory) = sql.get("memory")
        && let Some(Ok(size)) = memory.text().map(Size::parse)
        && size.0 < MEMORY_MIN
    {
        problems.push(Problem::new(memory.place, "`memory` is too small").help("a query needs at least 16MiB"));
    }
    problems
}
