//! The addresses of a new node's pods, where containers are among them: a range that nobody else on this machine's Engine has.
//!
//! Ranges are the cluster's to give, but clusters know nothing of each other, and two of them on one Engine would both begin with the
//! first. So a node asks for one that the Engine has free. What other nodes of its own cluster have is never asked for.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use coracle_api::resources::NODES;
use coracle_apiserver::ServerOptions;
use coracle_runtime_docker::DockerOptions;
use coracle_store::View;
use sha2::{Digest as _, Sha256};

/// The length of a node's prefix, as the cluster gives them.
const PREFIX: u8 = 24;

/// Reserves a range on the Engine for a node that is not there yet.
pub(super) async fn reserve(view: &View, server: &ServerOptions, docker: DockerOptions) -> Option<(Ipv4Addr, u8)> {
    let taken: BTreeSet<String> = view
        .list(&NODES, None)
        .filter_map(|node| node.value(None)["spec"]["podCIDR"].as_str().map(str::to_owned))
        .collect();
    let seed = format!("{} {}", docker.cluster, docker.node);
    let ranges = ranges(server, &seed).filter(|(network, prefix)| !taken.contains(&format!("{network}/{prefix}")));
    coracle_runtime_docker::reserve(docker, ranges.collect::<Vec<_>>()).await
}

/// All ranges that the cluster may give, beginning somewhere that the seed says: a cluster that is stopped has nothing on the Engine, and
/// should find its range free when it comes back.
fn ranges(server: &ServerOptions, seed: &str) -> impl Iterator<Item = (Ipv4Addr, u8)> + use<> {
    let count = 1_u32 << PREFIX.saturating_sub(server.pod_prefix);
    let digest = Sha256::digest(seed.as_bytes());
    let first = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) % count;
    let network = u32::from(server.pod_network);
    let step = 1_u32 << (32 - PREFIX);
    (0..count).map(move |index| (Ipv4Addr::from(network + ((first + index) % count) * step), PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_is_tried_once_and_two_clusters_begin_with_different_ones() {
        let server = ServerOptions::default();
        let all: Vec<_> = ranges(&server, "c1 laptop").collect();
        assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (256, 256));
        assert!(all.iter().all(|(network, prefix)| network.octets()[..2] == [10, 42] && *prefix == 24));
        assert_eq!(ranges(&server, "c1 laptop").next(), all.first().copied());
        assert_ne!(ranges(&server, "c2 laptop").next(), all.first().copied());
    }
}
