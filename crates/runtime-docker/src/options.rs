//! What a Docker runtime is started with.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::owner::Owner;

/// Where Docker Engine listens on Linux.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Settings of a [`crate::DockerRuntime`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DockerOptions {
    /// The Engine's socket.
    pub socket: PathBuf,
    /// What tells this cluster from others that use the same Engine: letters and digits.
    pub cluster: String,
    /// The node's name.
    pub node: String,
    /// The node's pod range: its lower half is the subnet of the node's bridge.
    pub pod_range: (Ipv4Addr, u8),
    /// The folder of the pods' volumes and other files; it is made, with mode 0700. Containers see parts of it. `None`: a temporary one.
    pub state_dir: Option<PathBuf>,
}

impl DockerOptions {
    /// A node of a cluster, at the usual socket and with a temporary folder.
    pub fn new(cluster: impl Into<String>, node: impl Into<String>, pod_range: (Ipv4Addr, u8)) -> Self {
        let (cluster, node) = (cluster.into(), node.into());
        Self { socket: DEFAULT_SOCKET.into(), cluster, node, pod_range, state_dir: None }
    }

    /// The name of the node's bridge.
    pub fn network(&self) -> String {
        format!("coracle-{}-{}", self.cluster, self.node)
    }

    /// The process that what is made is of use to: this one, where nothing is kept that another could take it over by.
    pub(crate) fn owner(&self) -> Option<Owner> {
        if self.state_dir.is_some() { None } else { Owner::of_this_process() }
    }

    /// The subnet of the node's bridge, in CIDR notation, and the bridge's own address in it.
    pub fn subnet(&self) -> (String, Ipv4Addr) {
        let (network, prefix) = self.pod_range;
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let base = u32::from(network) & mask;
        (format!("{}/{}", Ipv4Addr::from(base), prefix + 1), Ipv4Addr::from(base + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bridge_has_the_lower_half_of_the_range_and_its_first_address() {
        let options = DockerOptions::new("c1", "laptop", (Ipv4Addr::new(10, 42, 3, 0), 24));
        assert_eq!(options.subnet(), ("10.42.3.0/25".to_owned(), Ipv4Addr::new(10, 42, 3, 1)));
        assert_eq!(options.network(), "coracle-c1-laptop");
    }
}
