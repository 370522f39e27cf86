//! The client of the write bench: a process of its own, so that the server's processor time is the server's alone.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

/// The argument that makes the bench's program this client.
pub const ARGUMENT: &str = "client";

/// What the client is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    pub(crate) ca_certificate: String,
    pub(crate) connections: usize,
    pub(crate) requests: usize,
    /// Where objects are created.
    pub(crate) path: String,
    /// An object; `NAME` in it becomes each one's own.
    pub(crate) object: String,
}

/// Runs the client in a process of its own; returns the seconds that its requests took together.
pub(crate) fn run(order: &Order) -> anyhow::Result<f64> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(ARGUMENT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the client")?;
    child.stdin.take().context("the client has an input")?.write_all(&serde_json::to_vec(order)?)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the client failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The client's program: its order on standard input, the seconds on standard output.
#[expect(clippy::print_stdout, reason = "its answer to the process that started it")]
pub fn main() -> anyhow::Result<()> {
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text)?;
    let order: Order = serde_json::from_slice(&text)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    println!("{}", runtime.block_on(carry_out(order))?);
    Ok(())
}

async fn carry_out(order: Order) -> anyhow::Result<f64> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(order.ca_certificate.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let (order, next) = (Arc::new(order), Arc::new(AtomicUsize::new(0)));
    let mut senders = Vec::new();
    for _ in 0..order.connections {
        let stream = TcpStream::connect(order.address).await?;
        stream.set_nodelay(true)?;
        let stream = tls.connect(ServerName::from(order.address.ip()), stream).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        senders.push(sender);
    }
    let started = Instant::now();
    let workers: Vec<_> =
        senders.into_iter().map(|sender| tokio::spawn(work(sender, Arc::clone(&order), Arc::clone(&next)))).collect();
    for worker in workers {
        worker.await??;
    }
    Ok(started.elapsed().as_secs_f64())
}

async fn work(
    mut sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    order: Arc<Order>,
    next: Arc<AtomicUsize>,
) -> anyhow::Result<()> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= order.requests {
            return Ok(());
        }
        let body = order.object.replace("NAME", &format!("bench-{number:06}"));
        let request = http::Request::post(&order.path)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {}", order.token))
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
