//! The peer: three members of etcd on this machine, with its defaults.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::load::Etcd;
use crate::members::free_address;

const PATIENCE: Duration = Duration::from_secs(20);

/// The members; they are gone with the value.
pub(crate) struct Peer {
    members: Vec<Child>,
    pub(crate) leader: Etcd,
}

impl Drop for Peer {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

/// Starts three members, and finds their leader.
pub(crate) async fn three(directory: &Path) -> anyhow::Result<Peer> {
    let mut addresses = Vec::new();
    for _ in 0..3 {
        addresses.push((free_address()?, free_address()?));
    }
    let all: Vec<String> =
        addresses.iter().enumerate().map(|(place, (_, peers))| format!("etcd-{place}=http://{peers}")).collect();
    let mut members = Vec::new();
    for (place, (clients, peers)) in addresses.iter().enumerate() {
        let child = Command::new("etcd")
            .args(["--name", &format!("etcd-{place}"), "--initial-cluster", &all.join(",")])
            .arg("--data-dir")
            .arg(directory.join(format!("etcd-{place}")))
            .args(["--listen-client-urls", &format!("http://{clients}")])
            .args(["--advertise-client-urls", &format!("http://{clients}")])
            .args(["--listen-peer-urls", &format!("http://{peers}")])
            .args(["--initial-advertise-peer-urls", &format!("http://{peers}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("etcd cannot be started; Debian has it in etcd-server")?;
        members.push(child);
    }
    let mut peer = Peer { members, leader: Etcd { address: addresses[0].0 } };
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for (clients, _) in &addresses {
            if let Ok(status) = status(*clients).await
                && status["leader"].is_string()
                && status["leader"] == status["header"]["member_id"]
            {
                peer.leader = Etcd { address: *clients };
                return Ok(peer);
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("etcd has no leader")
}

/// What a member says of itself.
async fn status(address: SocketAddr) -> anyhow::Result<Value> {
    let stream = TokioIo::new(TcpStream::connect(address).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    tokio::spawn(connection);
    let request = http::Request::post("/v3/maintenance/status")
        .header("host", "localhost")
        .body(Full::new(Bytes::from_static(b"{}")))?;
    let body = sender.send_request(request).await?.into_body().collect().await?.to_bytes();
    Ok(serde_json::from_slice(&body)?)
}
