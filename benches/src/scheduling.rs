//! Many pods that wait are placed.

use std::time::Duration;

use coracle::Cluster;
use coracle::api::{Method, Request, UserInfo};
use futures_util::future::try_join_all;
use serde_json::json;

use crate::objects::{PODS, create_pods, send, until_count};
use crate::report::{cpu_time, timed};
use crate::{Report, Target};

const NODES: usize = 100;
const PENDING: usize = 3_000;
/// The scheduler's longest back-off: after it every pod waits for nothing but a node.
const RESTED: Duration = Duration::from_secs(11);

/// 3,000 pods select a label that no node has, until all hundred get it; Events and fsync included.
pub async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::builder().nodes(0).fake_nodes(NODES).data_dir(directory.path()).start().await?;
    create_pods(&cluster, PENDING, &json!({"nodeSelector": {"example.com/open": "yes"}})).await?;
    tokio::time::sleep(RESTED).await;
    let before = cpu_time()?;
    let opened = async {
        let labels = json!({"metadata": {"labels": {"example.com/open": "yes"}}});
        let patches = (0..NODES).map(|number| {
            let path = format!("/api/v1/nodes/fake-{number}");
            let request = Request::new(Method::Patch, path, UserInfo::default());
            send(&cluster, request.content_type("application/merge-patch+json").json(labels.clone()))
        });
        try_join_all(patches).await?;
        until_count(&cluster, PODS, ("fieldSelector", "spec.nodeName="), 0).await
    };
    let (time, result) = timed(opened).await;
    result?;
    report.time("3,000 pending pods bound to 100 fake nodes, fsync", time, Target::AtMost(1000.0));
    report.time("  the processor time of it", cpu_time()?.saturating_sub(before), Target::None);
    let (time, result) = timed(until_count(&cluster, PODS, ("fieldSelector", "status.phase!=Running"), 0)).await;
    result?;
    report.time("  and all of them Running, after that", time, Target::None);
    cluster.shutdown().await;
    Ok(())
}
