//! A node of this process makes itself known to its cluster.

use std::net::Ipv4Addr;

use coracle_api::resources::NODES;
use coracle_api::{Method, ObjectKey, Request, UserInfo};
use coracle_apiserver::ServerOptions;
use coracle_node::NodeConfig;
use coracle_store::View;
use serde_json::json;

use crate::Error;
use crate::process::Process;

/// The prefix of the ranges that the cluster gives to nodes that ask for none.
const PREFIX: u8 = 24;

/// Makes the Node object unless it is there, and takes over the pod range that it was given.
///
/// A new one asks for `range`, or for one that has room for its pods where those that the cluster gives have not; where that is another
/// node's since, for any.
pub(super) async fn register(
    process: &Process,
    config: &mut NodeConfig,
    range: Option<(Ipv4Addr, u8)>,
) -> Result<(), Error> {
    let key = ObjectKey::new(NODES, "", &config.name);
    if process.view().object(&key).is_none() {
        let mut node = json!({
            "kind": "Node", "apiVersion": "v1",
            "metadata": {"name": config.name, "labels": config.labels, "annotations": config.annotations},
            "status": {"capacity": {
                "cpu": format!("{}m", config.capacity.cpu_millis),
                "memory": config.capacity.memory.to_string(),
                "pods": config.capacity.pods.to_string(),
            }},
        });
        let user = UserInfo::node(&config.name);
        let create = |node| process.respond(Request::new(Method::Post, "/api/v1/nodes", user.clone()).json(node));
        let range = range.or_else(|| wide_range(&process.view(), &process.options, config.capacity.pods));
        let mut refused = true;
        if let Some((network, prefix)) = range {
            let mut asking = node.clone();
            asking["spec"] = json!({"podCIDR": format!("{network}/{prefix}")});
            refused = create(asking).await.failure().is_some();
        }
        if refused && let Some(status) = create(node.take()).await.failure().filter(|status| status.code != 409) {
            return Err(Error::api(&status));
        }
    }
    let range = process.view().object(&key).map(|node| node.value(None)["spec"]["podCIDR"].clone());
    let range = range.as_ref().and_then(|range| range.as_str()).and_then(|text| text.split_once('/'));
    if let Some((network, prefix)) = range
        && let (Ok(network), Ok(prefix)) = (network.parse(), prefix.parse())
    {
        config.pod_range = (network, prefix);
    }
    Ok(())
}

/// A range with an address for each of so many pods of WebAssembly, which have its upper half, that no node has; `None`: what the cluster
/// gives has room for them, or there is none.
fn wide_range(view: &View, server: &ServerOptions, pods: u32) -> Option<(Ipv4Addr, u8)> {
    let nodes = view.list(&NODES, None);
    let taken: Vec<(u32, u8)> = nodes.filter_map(|node| parse(node.value(None)["spec"]["podCIDR"].as_str()?)).collect();
    free_range((server.pod_network.into(), server.pod_prefix), &taken, pods)
}

fn parse(range: &str) -> Option<(u32, u8)> {
    let (network, prefix) = range.split_once('/')?;
    Some((network.parse::<Ipv4Addr>().ok()?.into(), prefix.parse().ok().filter(|prefix| (1..=32).contains(prefix))?))
}

/// The last one of the cluster's ranges that is large enough and free: those that the cluster gives begin at the first.
fn free_range((network, prefix): (u32, u8), taken: &[(u32, u8)], pods: u32) -> Option<(Ipv4Addr, u8)> {
    // The upper half, whose last address is for broadcasts.
    let wanted = (prefix..=PREFIX).rev().find(|prefix| (1_u32 << (31 - prefix)) > pods)?;
    if wanted == PREFIX {
        return None;
    }
    let overlaps = |first: u32| {
        let prefix = |other: u8| u32::MAX << (32 - wanted.min(other));
        taken.iter().any(|(network, other)| first & prefix(*other) == network & prefix(*other))
    };
    let mut ranges = (0..1_u32 << (wanted - prefix)).rev().map(|index| network + (index << (32 - wanted)));
    ranges.find(|first| !overlaps(*first)).map(|first| (first.into(), wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: (u32, u8) = (0x0a2a_0000, 16);

    fn free(taken: &[&str], pods: u32) -> Option<String> {
        let taken: Vec<_> = taken.iter().map(|range| parse(range).unwrap()).collect();
        free_range(CLUSTER, &taken, pods).map(|(network, prefix)| format!("{network}/{prefix}"))
    }

    #[test]
    fn a_node_of_many_pods_asks_for_addresses_for_all_of_them() {
        assert_eq!(free(&[], 110), None);
        assert_eq!(free(&[], 127), None);
        assert_eq!(free(&[], 128).as_deref(), Some("10.42.254.0/23"));
        assert_eq!(free(&[], 10_000).as_deref(), Some("10.42.128.0/17"));
        assert_eq!(free(&[], 40_000), None, "the cluster has not so many");
    }

    #[test]
    fn what_another_node_has_is_never_asked_for() {
        assert_eq!(free(&["10.42.200.0/24"], 10_000).as_deref(), Some("10.42.0.0/17"));
        assert_eq!(free(&["10.42.200.0/24", "10.42.0.0/24"], 10_000), None);
        assert_eq!(free(&["10.42.128.0/17"], 128).as_deref(), Some("10.42.126.0/23"));
        assert_eq!(free(&["192.0.2.0/24"], 10_000).as_deref(), Some("10.42.128.0/17"));
    }
}
