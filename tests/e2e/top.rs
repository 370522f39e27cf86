//! `kubectl top`: what pods and nodes use, as any machine of a cluster tells it.

use serde_json::json;

use crate::containers;
use crate::harness::{Cluster, Docker, Options, eventually, machines};

/// A program that does nothing but compute.
const SPIN: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $for_ever br $for_ever)))"#;

/// The processor and memory of the line of this name, in thousandths of a core and in MiB.
fn used(cluster: &Cluster, what: &str, name: &str) -> Result<(u64, u64), String> {
    let ran = cluster.run(&["top", what, "--no-headers"]);
    let line = ran.stdout.lines().find(|line| line.split_whitespace().next() == Some(name));
    let cells: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
    let amount = |unit: &str| cells.iter().find_map(|cell| cell.strip_suffix(unit)?.parse().ok());
    amount("m").zip(amount("Mi")).ok_or_else(|| format!("{ran:?}"))
}

/// Waits until a pod uses what it is limited to, 300 thousandths of a core.
#[track_caller]
fn at_its_limit(cluster: &Cluster, pod: &str) -> u64 {
    // Over a window in which it began it used less; how exact the limit is, is measured elsewhere.
    let (_, memory) = eventually(&format!("{pod} uses what it may"), || match used(cluster, "pod", pod) {
        Ok((cpu @ 240..=360, memory)) => Ok((cpu, memory)),
        other => Err(other),
    });
    memory
}

#[test]
fn any_machine_tells_what_the_pods_and_nodes_of_all_use() {
    let named = |name: &'static str| ["--docker", "off", "--name", name];
    let Some(members) = machines::three([&named("first"), &named("second"), &named("third")]) else { return };
    members[1].import("spin:1", SPIN);
    let limits = json!({"limits": {"cpu": "300m", "memory": "32Mi"}});
    let spin = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "spin"},
        "spec": {"nodeName": "second", "containers": [{"name": "main", "image": "spin:1", "resources": limits}]},
    });
    containers::create(&members[0], &spin);
    for asked in [&members[0], &members[2], &members[1]] {
        let memory = at_its_limit(asked, "spin");
        assert!(memory <= 32, "it has one page: {memory} MiB");
        for node in ["first", "second", "third"] {
            let (cpu, memory) = eventually("the node is measured", || used(asked, "node", node));
            assert!(cpu > 0 && memory > 0, "a node is the machine that it is on");
        }
    }
    let containers = members[0].kubectl("top pod spin --containers --no-headers");
    assert_eq!(containers.split_whitespace().take(2).collect::<Vec<_>>(), ["spin", "main"]);
    let error = members[0].kubectl_fails("top pod nobody");
    assert!(error.contains("podmetrics.metrics.k8s.io \"default/nobody\" not found"), "{error}");
}

#[test]
fn what_a_container_uses_is_told_like_what_webassembly_uses() {
    let Some(docker) = Docker::new() else { return };
    let arguments = ["--name", &docker.node, "--docker", "/var/run/docker.sock"];
    let Some(cluster) = Cluster::with(&Options { arguments: &arguments, ..Options::default() }) else { return };
    let limits = json!({"resources": {"limits": {"cpu": "300m", "memory": "32Mi"}}});
    containers::create(&cluster, &containers::pod("spin", "while :; do :; done", &json!({}), &limits));
    let memory = at_its_limit(&cluster, "spin");
    assert!(memory <= 32, "{memory} MiB");
}
