//! Pods that run to their end, through the API.

use std::time::{Duration, Instant};

use anyhow::ensure;
use coracle::Cluster;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use super::port::ENDS;
use crate::objects::{PODS, count, post, send};
use crate::{Report, Target};

const RUNS: usize = 3_000;
/// Requests that are on their way at one time.
const CONCURRENCY: usize = 64;
/// How often it is looked whether all are done: each look goes over all pods.
const LOOK: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_mins(3);
const IMAGE: &str = "example.com/ends:1";

/// From the first request until the last one has Succeeded, with fsync.
pub(super) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::builder()
        .data_dir(directory.path())
        .image(IMAGE, ENDS.as_bytes())
        .node_capacity(64_000, 64 << 30, 5_000)
        .start()
        .await?;
    // The first one compiles.
    run(&cluster, "first", 1).await?;
    let began = Instant::now();
    run(&cluster, "run", RUNS).await?;
    let rate = RUNS as f64 / began.elapsed().as_secs_f64();
    let what = format!("{RUNS} pods created, run to their end and Succeeded through the API, fsync");
    report.figure(&what, rate, "/s", Target::AtLeast(200.0));
    cluster.shutdown().await;
    Ok(())
}

async fn run(cluster: &Cluster, name: &str, pods: usize) -> anyhow::Result<()> {
    let pod = |number: usize| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("{name}-{number}")},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": IMAGE}]},
        })
    };
    stream::iter(0..pods)
        .map(|number| send(cluster, post(PODS, pod(number))))
        .buffer_unordered(CONCURRENCY)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await?;
    let deadline = Instant::now() + PATIENCE;
    while count(cluster, PODS, ("fieldSelector", "status.phase!=Succeeded")).await? > 0 {
        ensure!(Instant::now() < deadline, "not all of {pods} pods have Succeeded");
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
