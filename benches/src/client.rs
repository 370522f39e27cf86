//! The client of the benches that come from outside: a process of its own, so that the server's processor time is the
//! server's alone.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use coracle::Cluster;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// The argument that makes the bench's program this client.
pub const ARGUMENT: &str = "client";

/// What the client is to do, and with whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    pub(crate) ca_certificate: String,
    pub(crate) work: Work,
}

/// What the client is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Creates objects over many connections; answers with the seconds that they took together.
    Creates(Creates),
    /// Reads a path again and again over one connection; answers with the seconds of each time and the bytes of the last.
    Reads(Reads),
}

/// Objects to create.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Creates {
    pub(crate) connections: usize,
    pub(crate) requests: usize,
    /// Where objects are created.
    pub(crate) path: String,
    /// An object; `NAME` in it becomes each one's own.
    pub(crate) object: String,
}

/// A path to read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Reads {
    pub(crate) version: Version,
    pub(crate) times: usize,
    pub(crate) path: String,
    pub(crate) accept: String,
}

/// The version of HTTP that a connection speaks.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// Runs the client in a process of its own; returns its answer.
pub(crate) fn run<T: DeserializeOwned>(cluster: &Cluster, work: Work) -> anyhow::Result<T> {
    let order = Order {
        address: cluster.address().context("the cluster listens")?,
        token: cluster.token().to_owned(),
        ca_certificate: cluster.ca_certificate().to_owned(),
        work,
    };
    let mut child = Command::new(std::env::current_exe()?)
        .arg(ARGUMENT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the client")?;
    child.stdin.take().context("the client has an input")?.write_all(&serde_json::to_vec(&order)?)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the client failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The client's program: its order on standard input, its answer on standard output.
#[expect(clippy::print_stdout, reason = "its answer to the process that started it")]
pub fn main() -> anyhow::Result<()> {
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text)?;
    let order: Order = serde_json::from_slice(&text)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let answer = runtime.block_on(async {
        anyhow::Ok(match order.work.clone() {
            Work::Creates(creates) => serde_json::to_string(&create(&order, creates).await?)?,
            Work::Reads(reads) => serde_json::to_string(&read(&order, &reads).await?)?,
        })
    })?;
    println!("{answer}");
    Ok(())
}

/// A connection that offers one version of HTTP, and speaks it.
pub(crate) async fn connect(order: &Order, version: Version) -> anyhow::Result<TokioIo<TlsStream<TcpStream>>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(order.ca_certificate.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = match version {
        Version::Http1 => vec![b"http/1.1".to_vec()],
        Version::Http2 => vec![b"h2".to_vec()],
    };
    let stream = TcpStream::connect(order.address).await?;
    stream.set_nodelay(true)?;
    let tls = tokio_rustls::TlsConnector::from(Arc::new(tls));
    Ok(TokioIo::new(tls.connect(ServerName::from(order.address.ip()), stream).await?))
}

/// The head of a request, in the form that the version wants.
pub(crate) fn request(order: &Order, version: Version, method: &str, path: &str) -> http::request::Builder {
    let builder = http::Request::builder().method(method).header("authorization", format!("Bearer {}", order.token));
    match version {
        Version::Http1 => builder.uri(path).header("host", "localhost"),
        Version::Http2 => builder.version(http::Version::HTTP_2).uri(format!("https://{}{path}", order.address)),
    }
}

/// The sending half of a connection.
enum Sender {
    Http1(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Http2(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    /// Sends a request once the connection is done with the one before.
    async fn send(&mut self, request: http::Request<Full<Bytes>>) -> hyper::Result<http::Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }
}

async fn read(order: &Order, reads: &Reads) -> anyhow::Result<(Vec<Duration>, usize)> {
    /// As large a window as Go's client gives a stream.
    const WINDOW: u32 = 4 << 20;
    let io = connect(order, reads.version).await?;
    let mut sender = match reads.version {
        Version::Http1 => {
            let (sender, connection) = hyper::client::conn::http1::handshake(io).await?;
            tokio::spawn(connection);
            Sender::Http1(sender)
        }
        Version::Http2 => {
            let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            builder.initial_stream_window_size(WINDOW).initial_connection_window_size(1 << 30);
            let (sender, connection) = builder.handshake(io).await?;
            tokio::spawn(connection);
            Sender::Http2(sender)
        }
    };
    let (mut times, mut size) = (Vec::new(), 0);
    for _ in 0..reads.times {
        let request =
            request(order, reads.version, "GET", &reads.path).header("accept", &reads.accept).body(Full::default())?;
        let started = Instant::now();
        let response = sender.send(request).await?;
        ensure!(response.status() == http::StatusCode::OK, "{}", response.status());
        let mut body = response.into_body();
        size = 0;
        while let Some(frame) = body.frame().await {
            size += frame?.data_ref().map_or(0, Bytes::len);
        }
        times.push(started.elapsed());
    }
    Ok((times, size))
}

async fn create(order: &Order, creates: Creates) -> anyhow::Result<f64> {
    let (creates, next) = (Arc::new(creates), Arc::new(AtomicUsize::new(0)));
    let mut senders = Vec::new();
    for _ in 0..creates.connections {
        let io = connect(order, Version::Http1).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        senders.push(sender);
    }
    let order = Arc::new(order.clone());
    let started = Instant::now();
    let start = |sender| tokio::spawn(work(sender, Arc::clone(&order), Arc::clone(&creates), Arc::clone(&next)));
    let workers: Vec<_> = senders.into_iter().map(start).collect();
    for worker in workers {
        worker.await??;
    }
    Ok(started.elapsed().as_secs_f64())
}

async fn work(
    mut sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    order: Arc<Order>,
    creates: Arc<Creates>,
    next: Arc<AtomicUsize>,
) -> anyhow::Result<()> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= creates.requests {
            return Ok(());
        }
        let body = creates.object.replace("NAME", &format!("bench-{number:06}"));
        let request = request(&order, Version::Http1, "POST", &creates.path)
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(status == http::StatusCode::CREATED, "{status}: {}", String::from_utf8_lossy(&body));
    }
}
