//! Probes, made through the same ports and the same dialer as everything else.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_api::Uid;
use coracle_node::runtime::{Connecting, Destination, ProbeAction, ProbeResult, SessionKind, SessionSpec};
use coracle_probe::{authority, rooted};

use crate::network::Side;
use crate::session;
use crate::shared::Shared;

/// Whom to probe.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) pod: Uid,
    pub(crate) container: String,
    pub(crate) address: IpAddr,
}

impl Target {
    fn connect(&self, shared: &Arc<Shared>, host: Option<&str>, port: u16) -> Connecting {
        match host {
            Some(host) => shared.host.connect(&self.pod, Destination { host: host.to_owned(), port }),
            None => Box::pin(std::future::ready(shared.network.open(&self.pod, port, Side::Own, None))),
        }
    }
}

/// Makes a probe.
pub(crate) async fn probe(shared: Arc<Shared>, target: Target, action: ProbeAction, timeout: Duration) -> ProbeResult {
    if let ProbeAction::Exec { command } = action {
        let spec = SessionSpec {
            pod: target.pod,
            container: target.container,
            kind: SessionKind::Exec(command),
            stdin: false,
            stdout: true,
            stderr: true,
            tty: false,
        };
        return session::probe(shared, spec, timeout).await;
    }
    let connect = |host: Option<&str>, port| target.connect(&shared, host, port);
    coracle_probe::probe(&connect, target.address, action, timeout).await
}

/// What a probe is told that is a command, where commands are not simulated.
fn no_command() -> ProbeResult {
    let why = "commands in containers are not simulated: exec probes are not supported here";
    ProbeResult::Error(why.to_owned())
}

/// What comes of a probe where nobody listens.
pub(crate) fn unheard(address: IpAddr, action: &ProbeAction) -> ProbeResult {
    let refused = |port: u16| format!("dial tcp {}: connect: connection refused", authority(address, None, port));
    match action {
        ProbeAction::Http { host: Some(host), .. } | ProbeAction::Tcp { host: Some(host), .. } => {
            ProbeResult::Error(format!("probes of other hosts ({host}) are not simulated"))
        }
        ProbeAction::Http { port, path, https, .. } => {
            let scheme = if *https { "https" } else { "http" };
            let url = format!("{scheme}://{}{}", authority(address, None, *port), rooted(path));
            ProbeResult::Failure(format!("Get \"{url}\": {}", refused(*port)))
        }
        ProbeAction::Tcp { port, .. } => ProbeResult::Failure(refused(*port)),
        ProbeAction::Grpc { port, .. } => {
            let at = authority(address, None, *port);
            ProbeResult::Failure(format!("error: failed to connect to {at}: {}", refused(*port)))
        }
        ProbeAction::Exec { .. } => no_command(),
    }
}
