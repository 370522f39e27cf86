//! What sockets of guests ask beside connections: ways for datagrams, and addresses of names.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use coracle_api::Uid;
use coracle_node::runtime::{ByteStream, OpenError};

use super::datagrams::dial_datagrams;
use super::endpoints;
use super::names::Name;
use super::{End, Meant, Protocol, ServicePort, Via, meaning, no_such_host, node_of, own_address};
use crate::process::Process;

/// A way for datagrams that a guest sends from a port of its pod.
pub(crate) async fn datagrams_from_pod(
    process: &Arc<Process>,
    from: &Uid,
    port: u16,
    to: SocketAddr,
) -> Result<ByteStream, OpenError> {
    let view = process.view();
    let end = End::Pod(from.clone());
    let service = |service, via| {
        let (from, peer) = (end.clone(), from.to_string());
        Meant::Service(ServicePort { service, port: to.port(), protocol: Protocol::Udp, peer, via, from })
    };
    let meant = match endpoints::service_at(&view, to.ip()) {
        Some(key) => service(key, Via::Inside(node_of(&view, from))),
        None => match endpoints::service_outside(&view, to.ip(), to.port(), Protocol::Udp) {
            Some(key) => service(key, Via::Anyhow),
            None => Meant::Address(to, end.clone()),
        },
    };
    let source = own_address(&view, from).map(|address| SocketAddr::new(address, port));
    drop(view);
    Ok(dial_datagrams(process, &meant, source).await?.0)
}

/// The addresses of a name as a guest's resolver sees it: a service's own, those of a headless one's ready pods, and those of a name
/// outside, except for the machine's own loopback.
pub(crate) async fn resolve(process: &Process, from: &Uid, name: &str) -> Result<Vec<IpAddr>, OpenError> {
    let view = process.view();
    let mut found = match meaning(&view, from, name) {
        Name::Address(address) => vec![address],
        Name::Service(key) => match endpoints::cluster_ip(&view, &key) {
            Some(address) => vec![address],
            None => endpoints::addresses(&view, &key),
        },
        Name::Endpoint(key, label) => {
            endpoints::of_label(&view, &key, &label, 0).into_iter().map(|endpoint| endpoint.address).collect()
        }
        Name::Outside(outside) => {
            drop(view);
            let addresses = tokio::net::lookup_host((outside.as_str(), 0)).await.map_err(|_| no_such_host(name))?;
            addresses.map(|address| address.ip()).filter(|address| !address.is_loopback()).collect()
        }
        Name::Unknown => Vec::new(),
    };
    found.dedup();
    if found.is_empty() { Err(no_such_host(name)) } else { Ok(found) }
}
