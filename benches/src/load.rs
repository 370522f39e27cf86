//! Clients that write, each over a connection of its own, and how long they waited.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::client::{self, Order, Version, Work};

/// How many bytes a value has.
const VALUE: usize = 1 << 10;
/// How often, and how far apart, a write is tried where nobody leads.
const TRIES: u32 = 1000;
const RETRY: Duration = Duration::from_millis(5);

/// What writes took.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// Writes a second.
    pub(crate) rate: f64,
    times: Vec<Duration>,
}

impl Measured {
    pub(crate) fn new(rate: f64, mut times: Vec<Duration>) -> Self {
        times.sort();
        Self { rate, times }
    }

    /// The time within which this share of all was answered.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let at = (self.times.len() as f64 * share).ceil() as usize;
        self.times.get(at.saturating_sub(1)).copied().unwrap_or_default()
    }
}

/// Something that can be written to.
pub(crate) trait Load: Clone + Send + Sync + 'static {
    /// A connection to it.
    type Connection: Writes;

    /// Opens one.
    fn open(&self) -> impl Future<Output = anyhow::Result<Self::Connection>> + Send;
}

/// A connection that writes.
pub(crate) trait Writes: Send + 'static {
    /// Writes a value under a name, and waits until it is durable.
    fn write(&mut self, name: &str) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// So many writes by so many clients.
pub(crate) async fn run(target: &impl Load, name: &str, clients: usize, writes: usize) -> anyhow::Result<Measured> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(target.open().await?);
    }
    let started = Instant::now();
    let work = |mut connection: _| {
        let (next, name) = (Arc::clone(&next), name.to_owned());
        tokio::spawn(async move {
            let mut times = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= writes {
                    return anyhow::Ok(times);
                }
                let began = Instant::now();
                Writes::write(&mut connection, &format!("{name}-{number:06}")).await?;
                times.push(began.elapsed());
            }
        })
    };
    let workers: Vec<_> = connections.into_iter().map(work).collect();
    let mut times = Vec::with_capacity(writes);
    for worker in workers {
        times.extend(worker.await??);
    }
    Ok(Measured::new(writes as f64 / started.elapsed().as_secs_f64(), times))
}

/// A member's API server.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    pub(crate) ca_certificate: String,
}

/// A connection to it.
pub(crate) struct ApiConnection {
    order: Arc<Order>,
    sender: http1::SendRequest<Full<Bytes>>,
}

impl Api {
    pub(crate) async fn connect(&self) -> anyhow::Result<ApiConnection> {
        let Self { address, token, ca_certificate } = self.clone();
        // Only the address and the credentials of an order are looked at here.
        let reads = client::Reads { version: Version::Http1, times: 0, path: String::new(), accept: String::new() };
        let order = Arc::new(Order { address, token, ca_certificate, work: Work::Reads(reads) });
        let (sender, connection) = http1::handshake(client::connect(&order, Version::Http1).await?).await?;
        tokio::spawn(connection);
        Ok(ApiConnection { order, sender })
    }

    /// A request with a body of JSON, and its answer.
    pub(crate) async fn json(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.bytes(method, path, body).await?)?)
    }

    /// The same where the answer may be anything.
    pub(crate) async fn bytes(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Bytes> {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let (status, answer) = self.connect().await?.send(method, path, text).await?;
        ensure!(status.is_success(), "{method} {path}: {status}: {}", String::from_utf8_lossy(&answer));
        Ok(answer)
    }
}

impl ApiConnection {
    async fn send(&mut self, method: &str, path: &str, body: String) -> anyhow::Result<(http::StatusCode, Bytes)> {
        let request = client::request(&self.order, Version::Http1, method, path)
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    pub(crate) async fn create(&mut self, name: &str) -> anyhow::Result<()> {
        let value = "x".repeat(VALUE);
        let body = format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}},"data":{{"value":"{value}"}}}}"#
        );
        for _ in 0..TRIES {
            let (status, answer) = self.send("POST", "/api/v1/namespaces/default/configmaps", body.clone()).await?;
            if status == http::StatusCode::CREATED {
                return Ok(());
            }
            // Nobody leads for a moment, and nothing was written: as every client does, it asks again.
            ensure!(status == http::StatusCode::SERVICE_UNAVAILABLE, "{status}: {}", String::from_utf8_lossy(&answer));
            tokio::time::sleep(RETRY).await;
        }
        bail!("nobody leads")
    }
}

impl Load for Api {
    type Connection = ApiConnection;

    async fn open(&self) -> anyhow::Result<ApiConnection> {
        self.connect().await
    }
}

impl Writes for ApiConnection {
    async fn write(&mut self, name: &str) -> anyhow::Result<()> {
        self.create(name).await
    }
}

/// A member of etcd.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Etcd {
    pub(crate) address: SocketAddr,
}

impl Load for Etcd {
    type Connection = EtcdConnection;

    async fn open(&self) -> anyhow::Result<EtcdConnection> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(EtcdConnection { address: self.address, sender })
    }
}

/// A connection to it, which speaks gRPC.
pub(crate) struct EtcdConnection {
    address: SocketAddr,
    sender: http2::SendRequest<Full<Bytes>>,
}

impl Writes for EtcdConnection {
    async fn write(&mut self, name: &str) -> anyhow::Result<()> {
        // PutRequest { bytes key = 1; bytes value = 2; }
        let mut message = BytesMut::new();
        for (tag, bytes) in [(0x0a, name.as_bytes()), (0x12, &[b'x'; VALUE])] {
            message.put_u8(tag);
            put_length(&mut message, bytes.len());
            message.put_slice(bytes);
        }
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len())?);
        body.put_slice(&message);
        let request = http::Request::post(format!("http://{}/etcdserverpb.KV/Put", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(body.freeze()))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let collected = response.into_body().collect().await?;
        let status = collected.trailers().and_then(|trailers| trailers.get("grpc-status")).context("no grpc-status")?;
        ensure!(status == "0", "etcd answers {status:?}");
        Ok(())
    }
}

/// A number as protobuf writes it.
fn put_length(out: &mut BytesMut, mut length: usize) {
    while length >= 0x80 {
        out.put_u8((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
}
