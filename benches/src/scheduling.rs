//! Many pods that wait are placed.

use std::time::Duration;

use coracle::Cluster;
use coracle::api::{Method, Request, UserInfo};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use crate::objects::{PODS, create_pods, send, until_count};
use crate::report::{cpu_time, timed};
use crate::{Report, Target};

const NODES: usize = 100;
const PENDING: usize = 3_000;
/// The scheduler's longest back-off: after it every pod waits for nothing but a node.
const RESTED: Duration = Duration::from_secs(11);

/// 3,000 pods select a label that no node has, until all hundred get it; Events and fsync included.
///
/// Once with nodes that are objects alone and have room for all, so that the time is the scheduler's and that of what it writes; and
/// once with fake nodes of this process, which run the pods meanwhile and turn away what is beyond 110: such a pod waits for its
/// back-off, as in Kubernetes.
pub async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::builder().nodes(0).data_dir(directory.path()).start().await?;
    try_join_all((0..NODES).map(|number| make_node(&cluster, number))).await?;
    place(&cluster, report, "3,000 pending pods bound to 100 fake nodes, fsync", Target::AtMost(1000.0)).await?;
    cluster.shutdown().await;
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::builder().nodes(0).fake_nodes(NODES).data_dir(directory.path()).start().await?;
    place(&cluster, report, "  the same, and the nodes run them meanwhile", Target::None).await?;
    let (time, result) = timed(until_count(&cluster, PODS, ("fieldSelector", "status.phase!=Running"), 0)).await;
    result?;
    report.time("  and all of them Running, after that", time, Target::None);
    cluster.shutdown().await;
    Ok(())
}

async fn place(cluster: &Cluster, report: &mut Report, title: &str, target: Target) -> anyhow::Result<()> {
    create_pods(cluster, PENDING, &json!({"nodeSelector": {"example.com/open": "yes"}})).await?;
    tokio::time::sleep(RESTED).await;
    let before = cpu_time()?;
    let opened = async {
        let labels = json!({"metadata": {"labels": {"example.com/open": "yes"}}});
        try_join_all((0..NODES).map(|number| patch(cluster, format!("/api/v1/nodes/fake-{number}"), &labels))).await?;
        until_count(cluster, PODS, ("fieldSelector", "spec.nodeName="), 0).await
    };
    let (time, result) = timed(opened).await;
    result?;
    report.time(title, time, target);
    report.time("  the processor time of it", cpu_time()?.saturating_sub(before), Target::None);
    Ok(())
}

/// A node without anybody behind it, Ready for as long as nobody misses its heartbeat.
async fn make_node(cluster: &Cluster, number: usize) -> anyhow::Result<()> {
    let name = format!("fake-{number}");
    let room = json!({"cpu": "1000", "memory": "4Ti", "pods": "5000"});
    let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady"});
    let node = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": name}});
    send(cluster, Request::new(Method::Post, "/api/v1/nodes", UserInfo::default()).json(node)).await?;
    let status = json!({"status": {"capacity": room, "allocatable": room, "conditions": [ready]}});
    patch(cluster, format!("/api/v1/nodes/{name}/status"), &status).await
}

async fn patch(cluster: &Cluster, path: String, change: &Value) -> anyhow::Result<()> {
    let request = Request::new(Method::Patch, path, UserInfo::default());
    send(cluster, request.content_type("application/merge-patch+json").json(change.clone())).await.map(drop)
}
