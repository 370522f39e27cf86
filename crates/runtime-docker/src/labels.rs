//! Labels and names: how what is ours is told from everything else that the Engine has. Nothing without our labels is ever touched.

use std::collections::HashMap;

use coracle_api::Uid;
use coracle_node::runtime::{ContainerId, Sandbox};

use crate::options::DockerOptions;

/// The cluster; containers of other clusters on the same Engine have another.
pub(crate) const CLUSTER: &str = "coracle.dev/cluster";
/// The node.
pub(crate) const NODE: &str = "coracle.dev/node";
/// The process that alone has a use for it (`owner.rs`); on what a cluster that keeps nothing has made.
pub(crate) const OWNER: &str = "coracle.dev/owner";
/// The pod's uid.
pub(crate) const POD_UID: &str = "coracle.dev/pod-uid";
const NAMESPACE: &str = "coracle.dev/namespace";
const POD: &str = "coracle.dev/pod";
const CONTAINER: &str = "coracle.dev/container";
const INSTANCE: &str = "coracle.dev/instance";
/// What the sandbox was made from: another text means that it has to be made again.
pub(crate) const SANDBOX: &str = "coracle.dev/sandbox";

/// Docker's maps of labels are hash maps; nothing here depends on their order.
pub(crate) type Labels = HashMap<String, String>;

fn of_node(options: &DockerOptions) -> Labels {
    Labels::from([(CLUSTER.into(), options.cluster.clone()), (NODE.into(), options.node.clone())])
}

/// The labels of the node's network.
pub(crate) fn of_network(options: &DockerOptions) -> Labels {
    let mut labels = of_node(options);
    labels.extend(options.owner().map(|owner| (OWNER.into(), owner.to_string())));
    labels
}

/// The labels of what belongs to a pod.
pub(crate) fn of_pod(options: &DockerOptions, pod: &Uid) -> Labels {
    let mut labels = of_network(options);
    labels.insert(POD_UID.into(), pod.to_string());
    labels
}

/// The labels of a pod's sandbox, made from what `fingerprint` stands for.
pub(crate) fn of_sandbox(options: &DockerOptions, sandbox: &Sandbox, fingerprint: String) -> Labels {
    let mut labels = of_pod(options, &sandbox.pod);
    labels.insert(NAMESPACE.into(), sandbox.namespace.clone());
    labels.insert(POD.into(), sandbox.name.clone());
    labels.insert(SANDBOX.into(), fingerprint);
    labels
}

/// The labels of a container.
pub(crate) fn of_container(options: &DockerOptions, sandbox: &Sandbox, id: &ContainerId) -> Labels {
    let mut labels = of_pod(options, &id.pod);
    labels.insert(NAMESPACE.into(), sandbox.namespace.clone());
    labels.insert(POD.into(), sandbox.name.clone());
    labels.insert(CONTAINER.into(), id.container.clone());
    labels.insert(INSTANCE.into(), id.instance.to_string());
    labels
}

/// The filter for everything of the node, or of one of its pods.
pub(crate) fn filter(options: &DockerOptions, pod: Option<&Uid>) -> HashMap<String, Vec<String>> {
    let mut labels = of_node(options);
    labels.extend(pod.map(|pod| (POD_UID.to_owned(), pod.to_string())));
    let wanted = labels.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    HashMap::from([("label".to_owned(), wanted)])
}

/// Whether labels are those of something of the node.
pub(crate) fn are_ours(options: &DockerOptions, labels: &Labels) -> bool {
    labels.get(CLUSTER) == Some(&options.cluster) && labels.get(NODE) == Some(&options.node)
}

/// The container that labels are of; `None`: a sandbox, or nothing of ours.
pub(crate) fn container(labels: &Labels) -> Option<ContainerId> {
    Some(ContainerId {
        pod: pod(labels)?,
        container: labels.get(CONTAINER)?.clone(),
        instance: labels.get(INSTANCE)?.parse().ok()?,
    })
}

/// The pod that labels are of.
pub(crate) fn pod(labels: &Labels) -> Option<Uid> {
    labels.get(POD_UID).map(|uid| Uid::from(uid.as_str()))
}

/// The name of a pod's sandbox; `docker ps` shows it.
pub(crate) fn sandbox_name(sandbox: &Sandbox) -> String {
    format!("coracle_POD_{}_{}_{}", sandbox.name, sandbox.namespace, sandbox.pod)
}

/// The name of a container.
pub(crate) fn container_name(sandbox: &Sandbox, id: &ContainerId) -> String {
    format!("coracle_{}_{}_{}_{}_{}", id.container, sandbox.name, sandbox.namespace, id.pod, id.instance)
}

/// The name of the container that keeps a pod's volumes in memory; it is a sandbox in all else.
pub(crate) fn keeper_name(sandbox: &Sandbox) -> String {
    format!("coracle_MEMORY_{}_{}_{}", sandbox.name, sandbox.namespace, sandbox.pod)
}

/// The name of a volume in memory.
pub(crate) fn volume_name(pod: &Uid, volume: &str) -> String {
    format!("coracle_{pod}_{volume}")
}

#[cfg(test)]
mod tests {
    use coracle_node::runtime::RuntimeKind;

    use super::*;

    #[test]
    fn a_containers_labels_say_which_it_is_and_a_sandboxs_that_it_is_none() {
        let options = DockerOptions::new("c1", "n1", ([10, 42, 0, 0].into(), 24));
        let sandbox = Sandbox::new(RuntimeKind::Container, "uid".into(), [10, 42, 0, 2].into());
        let id = ContainerId { pod: "uid".into(), container: "web".into(), instance: 3 };
        let labels = of_container(&options, &sandbox, &id);
        assert_eq!(container(&labels), Some(id));
        assert!(are_ours(&options, &labels));
        let labels = of_sandbox(&options, &sandbox, "f".into());
        assert_eq!((container(&labels), pod(&labels)), (None, Some("uid".into())));
        let other = DockerOptions::new("c2", "n1", ([10, 42, 0, 0].into(), 24));
        assert!(!are_ours(&other, &labels));
    }

    #[test]
    fn what_is_of_use_to_this_process_alone_says_so() {
        let mut options = DockerOptions::new("c1", "n1", ([10, 42, 0, 0].into(), 24));
        let owner = crate::owner::Owner::of_this_process().map(|owner| owner.to_string());
        assert_eq!(of_network(&options).remove(OWNER), owner);
        assert_eq!(of_pod(&options, &"uid".into()).remove(OWNER), owner);
        options.state_dir = Some("/kept".into());
        assert_eq!(of_pod(&options, &"uid".into()).remove(OWNER), None, "the next process takes it over");
    }
}
