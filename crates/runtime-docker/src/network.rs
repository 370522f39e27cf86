//! The node's bridge: one Docker network a node, with the lower half of the node's range.

use std::collections::HashMap;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use bollard::query_parameters::{InspectNetworkOptions, ListNetworksOptions};

use crate::engine::{is_missing, sentence};
use crate::labels;
use crate::options::DockerOptions;

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
                return Err(format!("the range {} of the node's pods is in use: {message}", options.subnet().0));
            }
            docker.create_network(request(options)).await.map(drop).map_err(|error| sentence(&error))
        }
        Err(error) => Err(sentence(&error)),
    }
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
    let (subnet, _) = options.subnet();
    let filters = HashMap::from([("label".to_owned(), vec![labels::CLUSTER.to_owned()])]);
    let networks = docker.list_networks(Some(ListNetworksOptions { filters: Some(filters) })).await.unwrap_or_default();
    let mut gave = false;
    for network in networks {
        let theirs = network.ipam.and_then(|ipam| ipam.config?.into_iter().next()?.subnet);
        if theirs.as_deref() == Some(subnet.as_str())
            && let Some(name) = network.name
        {
            // Docker refuses where containers are on it.
            gave |= docker.remove_network(&name).await.is_ok();
        }
    }
    gave
}

/// Removes the node's network, which nothing is on any more.
pub(crate) async fn remove(docker: &Docker, options: &DockerOptions) {
    match docker.remove_network(&options.network()).await {
        Ok(()) => {}
        Err(error) if is_missing(&error) => {}
        Err(error) => tracing::warn!(network = options.network(), error = sentence(&error), "the bridge stays"),
    }
}
