//! Probes over a pod's network: HTTP, HTTPS, TCP and gRPC, the same for every runtime. Texts are the kubelet's.
//!
//! How a connection is opened is the runtime's: this crate is given a way to, and knows neither sockets nor pods. When and how often
//! something is probed, and what follows, is decided in `coracle-node`.

mod grpc;
mod http;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use coracle_node::runtime::{ByteStream, Connecting, ProbeAction, ProbeResult};

/// Opens a connection to a port: of the pod, or of another host where one is named.
pub trait Connect: Send + Sync {
    /// Opens it.
    fn connect(&self, host: Option<&str>, port: u16) -> Connecting;
}

impl<F: Fn(Option<&str>, u16) -> Connecting + Send + Sync> Connect for F {
    fn connect(&self, host: Option<&str>, port: u16) -> Connecting {
        self(host, port)
    }
}

/// Makes a probe of the pod with this address. One that runs a command is the runtime's own matter, and an error here.
pub async fn probe(connect: &impl Connect, address: IpAddr, action: ProbeAction, timeout: Duration) -> ProbeResult {
    match action {
        ProbeAction::Http { host, port, path, https, headers } => {
            let get = http::Get { host: host.as_deref(), port, path: &path, https, headers: &headers };
            http::probe(connect, address, &get, timeout).await
        }
        ProbeAction::Tcp { host, port } => {
            match tokio::time::timeout(timeout, connect.connect(host.as_deref(), port)).await {
                Ok(Ok(_)) => ProbeResult::Success,
                Ok(Err(error)) => ProbeResult::Failure(error.0),
                Err(_) => {
                    let at = authority(address, host.as_deref(), port);
                    ProbeResult::Failure(format!("dial tcp {at}: i/o timeout"))
                }
            }
        }
        ProbeAction::Grpc { port, service } => grpc::probe(connect, address, port, &service, timeout).await,
        ProbeAction::Exec { .. } => ProbeResult::Error("a command is not run over the network".into()),
    }
}

/// Where a probe goes, as texts and the `host` header have it.
pub fn authority(address: IpAddr, host: Option<&str>, port: u16) -> String {
    match host {
        Some(host) => format!("{host}:{port}"),
        None => SocketAddr::new(address, port).to_string(),
    }
}

/// A path as requests have it.
pub fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

async fn open(connect: &impl Connect, host: Option<&str>, port: u16) -> Result<ByteStream, String> {
    connect.connect(host, port).await.map_err(|error| error.0)
}
