//! A node of this process makes itself known to its cluster.

use std::net::Ipv4Addr;

use coracle_api::resources::NODES;
use coracle_api::{Method, ObjectKey, Request, UserInfo};
use coracle_node::NodeConfig;
use serde_json::json;

use crate::Error;
use crate::process::Process;

/// Makes the Node object unless it is there, and takes over the pod range that it was given.
///
/// A new one asks for `range`; where that is another node's since, for any.
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
