//! Much or little is deleted.

use coracle::Cluster;
use coracle::api::{Method, Request, UserInfo};
use serde_json::json;

use crate::objects::{PODS, create_pods, post, send, until_count, until_gone};
use crate::report::{median, timed};
use crate::{Report, Target};

const COUNT: usize = 5_000;
const RUNS: usize = 7;
const NAMESPACES: &str = "/api/v1/namespaces";

/// 5,000 pods as a collection, and namespaces that hold nothing but what every namespace has; with fsync.
pub async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::builder().nodes(0).data_dir(directory.path()).start().await?;
    create_pods(&cluster, COUNT, &json!({"schedulerName": "nobody"})).await?;
    let gone = async {
        send(&cluster, Request::new(Method::Delete, PODS, UserInfo::default())).await?;
        until_count(&cluster, PODS, ("", ""), 0).await
    };
    let (time, result) = timed(gone).await;
    result?;
    report.time("5,000 pods deleted as a collection, fsync", time, Target::AtMost(2000.0));

    let mut times = Vec::new();
    for number in 0..RUNS {
        let path = format!("{NAMESPACES}/bench-{number}");
        let namespace = json!({"metadata": {"name": format!("bench-{number}")}});
        send(&cluster, post(NAMESPACES, namespace)).await?;
        until_count(&cluster, &format!("{path}/serviceaccounts"), ("", ""), 1).await?;
        until_count(&cluster, &format!("{path}/configmaps"), ("", ""), 1).await?;
        let gone = async {
            send(&cluster, Request::new(Method::Delete, path.clone(), UserInfo::default())).await?;
            until_gone(&cluster, &path).await
        };
        let (time, result) = timed(gone).await;
        result?;
        times.push(time);
    }
    report.time("an empty namespace gone, fsync", median(times), Target::AtMost(50.0));
    cluster.shutdown().await;
    Ok(())
}
