//! How fast a Deployment has its pods.

use std::time::{Duration, Instant};

use coracle::Cluster;
use coracle::api::{Method, Request, UserInfo};

use crate::objects::{PODS, deployment, post, send, until_count};
use crate::report::{cpu_time, median, timed};
use crate::{Report, Target};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const RUNS: usize = 7;
const WAIT: Duration = Duration::from_mins(1);
/// Sleeps for ever.
const SLEEP: &str = r#"(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 144) (i32.const 1))
    (i64.store (i32.const 152) (i64.const 3600000000000))
    (loop $again (drop (call $poll (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 320))) (br $again))))"#;

/// Four replicas to Ready, on a fake node and as WebAssembly that is compiled already; a thousand pods with fsync.
pub async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let cluster = Cluster::builder().nodes(0).fake_nodes(1).start().await?;
    report.time("Deployment to 4 Ready pods on a fake node", four(&cluster).await?, Target::None);
    cluster.shutdown().await;

    let cluster = Cluster::builder().image("example.com/sleep:1", SLEEP.as_bytes()).start().await?;
    let first = Instant::now();
    run(&cluster, "first", 1).await?;
    report.time("Deployment to 1 Ready Wasm pod, image not compiled", first.elapsed(), Target::None);
    remove(&cluster, "first").await?;
    report.time("Deployment to 4 Ready Wasm pods, image compiled", four(&cluster).await?, Target::AtMost(50.0));
    cluster.shutdown().await;

    let directory = tempfile::tempdir()?;
    let cluster = Cluster::builder().nodes(0).data_dir(directory.path()).start().await?;
    let thousand = async {
        send(&cluster, post(DEPLOYMENTS, deployment("thousand", "example.com/app:1", 1000))).await?;
        until_count(&cluster, PODS, ("", ""), 1000).await
    };
    let (time, result) = timed(thousand).await;
    result?;
    report.time("Deployment of 1,000 replicas has its 1,000 pods, fsync", time, Target::AtMost(500.0));
    cluster.shutdown().await;

    let directory = tempfile::tempdir()?;
    let cluster = Cluster::builder().nodes(0).fake_nodes(100).data_dir(directory.path()).start().await?;
    let (before, started) = (cpu_time()?, Instant::now());
    send(&cluster, post(DEPLOYMENTS, deployment("thousand", "example.com/app:1", 1000))).await?;
    until_count(&cluster, PODS, ("", ""), 1000).await?;
    report.time("  the same with 100 fake nodes that run them meanwhile", started.elapsed(), Target::AtMost(500.0));
    cluster.wait_for("deployment/thousand", "readyReplicas=1000", WAIT).await?;
    report.time("  all of them Ready", started.elapsed(), Target::None);
    report.time("  the processor time of it all", cpu_time()?.saturating_sub(before), Target::None);
    cluster.shutdown().await;
    Ok(())
}

async fn four(cluster: &Cluster) -> anyhow::Result<Duration> {
    let mut times = Vec::new();
    for number in 0..RUNS {
        let name = format!("run-{number}");
        let (time, result) = timed(run(cluster, &name, 4)).await;
        result?;
        times.push(time);
        remove(cluster, &name).await?;
    }
    Ok(median(times))
}

async fn run(cluster: &Cluster, name: &str, replicas: usize) -> anyhow::Result<()> {
    send(cluster, post(DEPLOYMENTS, deployment(name, "example.com/sleep:1", replicas))).await?;
    cluster.wait_for(&format!("deployment/{name}"), &format!("readyReplicas={replicas}"), WAIT).await?;
    Ok(())
}

async fn remove(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let path = format!("{DEPLOYMENTS}/{name}");
    let request = Request::new(Method::Delete, path, UserInfo::default()).query("propagationPolicy", "Background");
    send(cluster, request).await?;
    until_count(cluster, PODS, ("", ""), 0).await
}
