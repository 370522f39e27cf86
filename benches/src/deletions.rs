//! Much or little is deleted.

use std::time::Duration;

use coracle::Cluster;
use coracle::api::{Method, Request, UserInfo};
use serde_json::json;

use crate::objects::{PODS, create_pods, post, send, until_count, until_gone};
use crate::report::{median, timed};
use crate::{Report, Target};

const COUNT: usize = 5_000;
const RUNS: usize = 7;
/// Enough for all of the pods, at 110 a node.
const NODES: usize = 50;
const NAMESPACES: &str = "/api/v1/namespaces";

/// 5,000 pods as a collection: that no node has, and that run on fake nodes, without grace and with it (then each is gone when its
/// node says so); and namespaces that hold nothing but what every namespace has. With fsync.
pub async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::builder().nodes(0).data_dir(directory.path()).start().await?;
    create_pods(&cluster, COUNT, &json!({"schedulerName": "nobody"})).await?;
    let time = deleted(&cluster, None).await?;
    report.time("5,000 pods deleted as a collection, unscheduled, fsync", time, Target::AtMost(2000.0));
    empty_namespaces(&cluster, report).await?;
    cluster.shutdown().await;

    let directory = tempfile::tempdir()?;
    let cluster = Cluster::builder().nodes(0).fake_nodes(NODES).data_dir(directory.path()).start().await?;
    for (grace, what, target) in [
        (Some(0), "5,000 running pods deleted as a collection, grace 0, fsync", Target::AtMost(2000.0)),
        (None, "5,000 running pods deleted as a collection, their nodes confirm, fsync", Target::None),
    ] {
        create_pods(&cluster, COUNT, &json!({})).await?;
        until_count(&cluster, PODS, ("fieldSelector", "status.phase!=Running"), 0).await?;
        // The Events of their start are written behind them.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let time = deleted(&cluster, grace).await?;
        report.time(what, time, target);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    cluster.shutdown().await;
    Ok(())
}

async fn deleted(cluster: &Cluster, grace: Option<u32>) -> anyhow::Result<Duration> {
    let mut request = Request::new(Method::Delete, PODS, UserInfo::default());
    if let Some(seconds) = grace {
        request = request.query("gracePeriodSeconds", seconds.to_string());
    }
    let gone = async {
        send(cluster, request).await?;
        until_count(cluster, PODS, ("", ""), 0).await
    };
    let (time, result) = timed(gone).await;
    result?;
    Ok(time)
}

async fn empty_namespaces(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    let mut times = Vec::new();
    for number in 0..RUNS {
        let path = format!("{NAMESPACES}/bench-{number}");
        let namespace = json!({"metadata": {"name": format!("bench-{number}")}});
        send(cluster, post(NAMESPACES, namespace)).await?;
        until_count(cluster, &format!("{path}/serviceaccounts"), ("", ""), 1).await?;
        until_count(cluster, &format!("{path}/configmaps"), ("", ""), 1).await?;
        let gone = async {
            send(cluster, Request::new(Method::Delete, path.clone(), UserInfo::default())).await?;
            until_gone(cluster, &path).await
        };
        let (time, result) = timed(gone).await;
        result?;
        times.push(time);
    }
    report.time("an empty namespace gone, fsync", median(times), Target::AtMost(50.0));
    Ok(())
}
