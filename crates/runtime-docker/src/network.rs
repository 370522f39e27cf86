//! The node's bridge: one Docker network a node, with the lower half of the node's range.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{Ipam, IpamConfig, Network, NetworkCreateRequest};
use bollard::query_parameters::{InspectNetworkOptions, ListNetworksOptions};

use crate::engine::{Engine, is_missing, sentence};
use crate::options::DockerOptions;
use crate::owner::Life;
use crate::{labels, sweep};

/// How long a start waits for an Engine to reserve a range.
const RESERVE_WAIT: Duration = Duration::from_secs(5);
/// How many ranges are tried.
const RANGES_MAX: usize = 32;

/// Makes the node's network unless it is there as it should be.
///
/// # Errors
///
/// Docker's sentence, as when another network has the range.
pub(crate) async fn ensure(docker: &Docker, options: &DockerOptions) -> Result<(), String> {
    let name = options.network();
    match docker.inspect_network(&name, None::<InspectNetworkOptions>).await {
        Ok(found) => {
            let subnet = found.ipam.and_then(|ipam| ipam.config?.into_iter().next()?.subnet);
            if subnet.as_deref() == Some(options.subnet().0.as_str()) {
                return Ok(());
            }
            // The node was given another range since.
            docker.remove_network(&name).await.map_err(|error| sentence(&error))?;
        }
        Err(error) if is_missing(&error) => {}
        Err(error) => return Err(sentence(&error)),
    }
    match docker.create_network(request(options)).await {
        Ok(_) => Ok(()),
        Err(Error::DockerResponseServerError { message, .. }) if message.contains("overlaps") => {
            if !give_way(docker, options).await {
                let (range, node) = (options.subnet().0, &options.node);
                return Err(match holder(docker, &range).await {
                    Some(holder) => format!(
                        "the range {range} of the node's pods is in use on this Engine by {holder}: stop that one, or delete the Node \
                         {node:?} and start it again, for another range"
                    ),
                    None => format!("the range {range} of the node's pods is in use: {message}"),
                });
            }
            docker.create_network(request(options)).await.map(drop).map_err(|error| sentence(&error))
        }
        Err(error) => Err(sentence(&error)),
    }
}

/// The cluster that has a network with this range, in words.
async fn holder(docker: &Docker, range: &str) -> Option<String> {
    let networks = of_clusters(docker).await.into_iter();
    let mut networks = networks.filter(|network| subnet(network).as_deref() == Some(range));
    let labels = networks.next()?.labels?;
    Some(format!(
        "the node {:?} of another Coracle cluster ({})",
        labels.get(labels::NODE)?,
        labels.get(labels::CLUSTER)?
    ))
}

/// Makes the node's network with the first of these ranges that the Engine has free, so that clusters which use the same Engine do not get
/// in each other's way; `None` where the Engine is not there, or has none of them free. The network is the node's from then on.
pub async fn reserve(
    mut options: DockerOptions,
    ranges: impl IntoIterator<Item = (Ipv4Addr, u8)>,
) -> Option<(Ipv4Addr, u8)> {
    let engine = Engine::new(options.socket.clone());
    let (docker, _) = tokio::time::timeout(RESERVE_WAIT, engine.connect()).await.ok()?.ok()?;
    for range in ranges.into_iter().take(RANGES_MAX) {
        options.pod_range = range;
        let made = tokio::time::timeout(RESERVE_WAIT, docker.create_network(request(&options))).await.ok()?;
        match made {
            Ok(_) => return Some(range),
            Err(Error::DockerResponseServerError { message, .. }) if message.contains("overlap") => {}
            Err(error) => {
                tracing::debug!(error = sentence(&error), "no range is reserved");
                return None;
            }
        }
    }
    None
}

fn request(options: &DockerOptions) -> NetworkCreateRequest {
    let (subnet, gateway) = options.subnet();
    let ipam = IpamConfig { subnet: Some(subnet), gateway: Some(gateway.to_string()), ..IpamConfig::default() };
    // Linux allows interfaces names of 15 bytes.
    let range = u32::from(options.pod_range.0);
    let bridge = format!("coracle{range:08x}");
    NetworkCreateRequest {
        name: options.network(),
        driver: Some("bridge".into()),
        ipam: Some(Ipam { config: Some(vec![ipam]), ..Ipam::default() }),
        options: Some(HashMap::from([("com.docker.network.bridge.name".to_owned(), bridge)])),
        labels: Some(labels::of_network(options)),
        ..NetworkCreateRequest::default()
    }
}

/// Removes a network that a cluster of before has left with the node's range, if no container is on it. Its cluster, if it is there,
/// makes it again when it needs it.
async fn give_way(docker: &Docker, options: &DockerOptions) -> bool {
    let (range, _) = options.subnet();
    let mut gave = false;
    for network in of_clusters(docker).await {
        let lives = sweep::owner_of(network.labels.as_ref()).is_some_and(|owner| owner.life() == Life::Living);
        if subnet(&network).as_deref() == Some(range.as_str())
            && !lives
            && let Some(name) = network.name
        {
            // Docker refuses where containers are on it.
            gave |= docker.remove_network(&name).await.is_ok();
        }
    }
    gave
}

/// The networks of all clusters.
async fn of_clusters(docker: &Docker) -> Vec<Network> {
    let filters = HashMap::from([("label".to_owned(), vec![labels::CLUSTER.to_owned()])]);
    docker.list_networks(Some(ListNetworksOptions { filters: Some(filters) })).await.unwrap_or_default()
}

fn subnet(network: &Network) -> Option<String> {
    network.ipam.as_ref()?.config.as_ref()?.first()?.subnet.clone()
}

/// Removes the node's network, which nothing is on any more.
pub(crate) async fn remove(docker: &Docker, options: &DockerOptions) {
    match docker.remove_network(&options.network()).await {
        Ok(()) => {}
        Err(error) if is_missing(&error) => {}
        Err(error) => tracing::warn!(network = options.network(), error = sentence(&error), "the bridge stays"),
    }
}
