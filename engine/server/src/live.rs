//! What a running process says about itself, and how `status` asks it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use logweir_core::{Clock as _, OpenTransaction, SystemClock};
use logweir_runtime::{Lag, StreamProgress};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The process may be busy, but not for longer than this.
const TIMEOUT: Duration = Duration::from_secs(3);

/// An answer longer than this is not ours.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// The answer of /status.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) version: String,
    pub(crate) pid: u32,
    /// A snapshot each, in the runtime's own form; `status` reads the few keys it needs.
    pub(crate) streams: Vec<serde_json::Value>,
}

impl Process {
    /// This process.
    pub(crate) fn observe(streams: &[Arc<StreamProgress>]) -> Self {
        Process {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            streams: streams.iter().filter_map(|stream| described(stream)).collect(),
        }
    }

    /// The process that listens at `address`; `None` if none answers there as ours does.
    pub(crate) async fn ask(address: SocketAddr) -> Option<Self> {
        tokio::time::timeout(TIMEOUT, request(reachable(address))).await.ok()?.ok().flatten()
    }

    /// What it says of a stream.
    pub(crate) fn stream(&self, name: &str) -> Option<&serde_json::Value> {
        self.streams.iter().find(|stream| stream["stream"] == name)
    }
}

/// What a running process says of the destination `name` in its answer for a stream.
pub(crate) fn consumer<'a>(stream: &'a serde_json::Value, name: &str) -> Option<&'a serde_json::Value> {
    stream["consumers"].as_array()?.iter().find(|consumer| consumer["destination"] == name)
}

/// The freshness of a destination by steps, in seconds, in the answer for it.
pub(crate) fn lag_seconds(consumer: &serde_json::Value) -> Option<BTreeMap<String, f64>> {
    serde_json::from_value(consumer[LAG_SECONDS].clone()).ok()
}

/// The transactions that are not decided, in the answer for a stream.
pub(crate) fn open_transactions(stream: &serde_json::Value) -> Vec<OpenTransaction> {
    serde_json::from_value(stream["open_transactions"].clone()).unwrap_or_default()
}

const LAG_SECONDS: &str = "lag_seconds";

/// A snapshot, and what is only known with the time. A snapshot is plain data, so it always has a JSON form.
fn described(stream: &StreamProgress) -> Option<serde_json::Value> {
    let (snapshot, now) = (stream.snapshot(), SystemClock.now());
    let mut described = serde_json::to_value(&snapshot).ok()?;
    for (index, consumer) in snapshot.consumers.iter().enumerate() {
        let steps = snapshot.lag(consumer, now).as_ref().map(Lag::steps);
        let seconds = steps.map(|steps| steps.map(|(step, lag)| (step, lag.as_secs_f64())).into_iter().collect::<BTreeMap<_, _>>());
        described["consumers"][index][LAG_SECONDS] = serde_json::to_value(seconds).ok()?;
    }
    Some(described)
}

/// Who listens everywhere is reached at home.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) });
    }
    address
}

/// One request of HTTP/1.0, whose answer ends where the connection does: too little to bring a client in for.
async fn request(address: SocketAddr) -> std::io::Result<Option<Process>> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(format!("GET /status HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    connection.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    Ok(serde_json::from_slice(&answer[end + 4..]).ok())
}
