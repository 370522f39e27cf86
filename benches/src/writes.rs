//! Writes over TLS, durable before they are answered.

use std::time::Duration;

use anyhow::ensure;
use coracle::Cluster;
use serde_json::{Value, json};

use crate::client::{self, Creates, Work};
use crate::objects::{PODS, count, pod};
use crate::report::cpu_time;
use crate::{Report, Target};

const CONNECTIONS: usize = 32;
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// ConfigMaps of a kilobyte, and pods, from 32 connections.
pub async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "NAME"}, "data": {"value": "x".repeat(900)},
    });
    let (rate, cpu) = creates(CONFIG_MAPS, &map, 20_000).await?;
    report.figure("creates of 1 KiB ConfigMaps, TLS, 32 clients, fsync", rate, "/s", Target::AtLeast(5000.0));
    report.figure("  the server's processor time for each", cpu.as_secs_f64() * 1e3, "ms", Target::AtMost(0.15));
    // Of a scheduler that nobody is: what placing them costs is another figure.
    let mut pod = pod(0, &json!({"schedulerName": "nobody"}));
    pod["metadata"]["name"] = "NAME".into();
    let (rate, cpu) = creates(PODS, &pod, 5_000).await?;
    report.figure("creates of pods, TLS, 32 clients, fsync", rate, "/s", Target::None);
    report.figure("  the server's processor time for each", cpu.as_secs_f64() * 1e3, "ms", Target::AtMost(0.4));
    Ok(())
}

async fn creates(path: &str, object: &Value, requests: usize) -> anyhow::Result<(f64, Duration)> {
    let directory = tempfile::tempdir()?;
    let cluster =
        Cluster::builder().nodes(0).data_dir(directory.path()).listen(([127, 0, 0, 1], 0).into()).start().await?;
    let there = count(&cluster, path, ("", "")).await?;
    let work = Work::Creates(Creates {
        connections: CONNECTIONS,
        requests,
        path: path.to_owned(),
        object: object.to_string(),
    });
    let before = cpu_time()?;
    let seconds: f64 = tokio::task::block_in_place(|| client::run(&cluster, work))?;
    let cpu = cpu_time()?.saturating_sub(before) / u32::try_from(requests)?;
    let found = count(&cluster, path, ("", "")).await?;
    ensure!(found == there + requests, "{found} objects where {} should be", there + requests);
    cluster.shutdown().await;
    let cluster = Cluster::builder().nodes(0).data_dir(directory.path()).start().await?;
    let kept = count(&cluster, path, ("", "")).await?;
    ensure!(kept == found, "{kept} objects of {found} are there after a restart");
    cluster.shutdown().await;
    Ok((requests as f64 / seconds, cpu))
}
