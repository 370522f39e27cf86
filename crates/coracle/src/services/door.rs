//! An open TCP port of a service.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::compat::FuturesAsyncReadCompatExt as _;
use tokio_util::sync::CancellationToken;

use super::Behind;
use crate::dialer::{self, Protocol, ServicePort, Via};
use crate::process::Process;

/// How many connections one port has at a time; more wait in the operating system's queue. Each holds a socket and the
/// buffers of both its ways.
const CONNECTIONS_MAX: usize = 1024;
/// How long a port that has no file descriptor left waits for others to close theirs.
const EXHAUSTED_WAIT: Duration = Duration::from_millis(50);

/// The port that a client of an open port means.
pub(super) fn target(process: &Process, behind: &Behind, protocol: Protocol, client: IpAddr) -> ServicePort {
    ServicePort {
        service: behind.service.clone(),
        port: behind.port,
        protocol,
        peer: client.to_string(),
        via: Via::Outside(process.node.clone()),
        from: dialer::end_at(process, &process.view(), client),
    }
}

/// Whether a client may come in.
pub(super) fn admits(behind: &Behind, client: IpAddr) -> bool {
    behind.sources.is_empty() || behind.sources.iter().any(|range| dialer::is_within(range.trim(), client))
}

/// Takes connections until it is closed.
pub(super) async fn accept(process: Arc<Process>, listener: TcpListener, behind: Behind, closed: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closed.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) if admits(&behind, peer.ip()) => {
                let to = target(&process, &behind, Protocol::Tcp, peer.ip());
                let (process, closed) = (Arc::clone(&process), closed.clone());
                tokio::spawn(async move {
                    closed.run_until_cancelled(join(&process, stream, to)).await;
                    drop(permit);
                });
            }
            Ok((_, peer)) => {
                tracing::debug!(service = %behind.service, %peer, "a client from outside the source ranges is refused");
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to a service's port");
                tokio::time::sleep(EXHAUSTED_WAIT).await;
            }
        }
    }
}

/// Joins a client to an endpoint until both have ended; each way ends by itself.
pub(crate) async fn join(process: &Arc<Process>, mut client: TcpStream, to: ServicePort) {
    let _ = client.set_nodelay(true);
    let service = to.service.clone();
    let mut endpoint = match dialer::dial_service(process, to).await {
        Ok(stream) => stream.compat(),
        Err(error) => return tracing::debug!(%service, %error, "a connection to a service has no endpoint"),
    };
    if let Err(error) = copy_bidirectional(&mut client, &mut endpoint).await {
        tracing::debug!(%service, %error, "a connection to a service broke");
    }
}
