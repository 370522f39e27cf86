//! Lists of 5,000 pods.

use std::time::Duration;

use anyhow::ensure;
use coracle::Cluster;
use coracle::api::Request;
use serde_json::json;

use crate::client::{self, Reads, Version, Work};
use crate::objects::{PODS, create_pods, get, send};
use crate::report::{cpu_time, median, timed};
use crate::{Report, Target};

const COUNT: usize = 5_000;
const RUNS: usize = 15;
const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// As JSON, as a Table, and with a label selector that selects nothing.
pub async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let cluster = Cluster::builder().nodes(0).listen(([127, 0, 0, 1], 0).into()).start().await?;
    create_pods(&cluster, COUNT, &json!({"schedulerName": "nobody"})).await?;

    let (time, size) = list(&cluster, get(PODS)).await?;
    ensure!(size > 5_000_000, "a list of {COUNT} pods has {size} bytes only");
    report.figure("LIST of 5,000 pods as JSON: size", size as f64 / 1e6, "MB", Target::None);
    report.time("LIST of 5,000 pods as JSON", time, Target::AtMost(20.0));

    let mut table = get(PODS);
    table.accept = Some(TABLE.into());
    let (time, _) = list(&cluster, table).await?;
    report.time("LIST of 5,000 pods as a Table", time, Target::AtMost(60.0));

    let (time, size) = list(&cluster, get(PODS).query("labelSelector", "app=other")).await?;
    ensure!(size < 1000, "a selector of nothing gave {size} bytes");
    report.time("LIST of 5,000 pods, label-selected to nothing", time, Target::AtMost(5.0));

    for (form, accept, target) in [("JSON", JSON, 20.0), ("a Table", TABLE, 60.0)] {
        for version in [Version::Http1, Version::Http2] {
            let what = format!("LIST of 5,000 pods as {form} from outside, TLS, {version:?}");
            outside(&cluster, report, &what, version, accept, target)?;
        }
    }
    cluster.shutdown().await;
    Ok(())
}

async fn list(cluster: &Cluster, request: Request) -> anyhow::Result<(Duration, usize)> {
    let (mut times, mut size) = (Vec::new(), 0);
    for _ in 0..RUNS {
        let (time, response) = timed(send(cluster, request.clone())).await;
        size = response?.body.iter().map(bytes::Bytes::len).sum();
        times.push(time);
    }
    Ok((median(times), size))
}

/// A list as another program gets it, with the server's processor time for one.
fn outside(
    cluster: &Cluster,
    report: &mut Report,
    what: &str,
    version: Version,
    accept: &str,
    target: f64,
) -> anyhow::Result<()> {
    let reads = Reads { version, times: RUNS, path: PODS.to_owned(), accept: accept.to_owned() };
    let before = cpu_time()?;
    let (times, size): (Vec<Duration>, usize) =
        tokio::task::block_in_place(|| client::run(cluster, Work::Reads(reads)))?;
    let cpu = cpu_time()?.saturating_sub(before) / u32::try_from(RUNS)?;
    ensure!(size > 2_000_000, "the list has {size} bytes only");
    report.time(what, median(times), Target::AtMost(target));
    report.time("  the server's processor time for each", cpu, Target::None);
    Ok(())
}
