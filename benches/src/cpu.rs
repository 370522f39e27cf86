//! How well CPU limits hold, and what guests that spin do to the API's answers.

use std::time::{Duration, Instant};

use anyhow::ensure;
use coracle::Cluster;
use coracle::api::{Method, Request, UserInfo};
use serde_json::{Value, json};

use crate::client::{self, Reads, Version, Work};
use crate::load::Measured;
use crate::objects::{PODS, post, send, until_gone};
use crate::report::{cpu_time, guests_time};
use crate::{Report, Target};

/// How long a loop is watched.
const WATCHED: Duration = Duration::from_secs(10);
/// How long it runs before.
const SETTLED: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_mins(1);
const IMAGE: &str = "example.com/spin:1";
const SPIN: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $again (br $again))))"#;
/// A limit that is small, whose use is measured in time, and those whose use is measured in parts of them; in thousandths of a core.
const SMALL: u32 = 10;
const LIMITS: [u32; 4] = [100, 300, 500, 900];
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const READS: usize = 5_000;

/// A busy loop limited to half a core, over ten seconds: the time of the whole process.
pub async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let cluster = Cluster::builder().image(IMAGE, SPIN.as_bytes()).start().await?;
    let used = used(&cluster, 500, cpu_time).await?;
    report.figure("a busy loop limited to 500m: off by", off(used, 500), "%", Target::AtMost(3.0));
    cluster.shutdown().await;
    Ok(())
}

/// Busy loops with limits from small to nearly a core, one after the other: the time of the threads that run guests. Then the answers of
/// the API while as many loops as there are cores have no limit at all.
pub(crate) async fn limits(report: &mut Report) -> anyhow::Result<()> {
    let address = ([127, 0, 0, 1], 0).into();
    let cluster = Cluster::builder().image(IMAGE, SPIN.as_bytes()).listen(address).start().await?;
    let small = used(&cluster, SMALL, guests_time).await?;
    let wanted = WATCHED.as_secs_f64() * f64::from(SMALL) / 1e3;
    let what = format!("a busy loop limited to {SMALL}m, over ten seconds: off by");
    report.figure(&what, (small * WATCHED.as_secs_f64() - wanted).abs() * 1e3, "ms", Target::AtMost(10.0));
    for limit in LIMITS {
        let used = used(&cluster, limit, guests_time).await?;
        let what = format!("a busy loop limited to {limit}m, over ten seconds: off by");
        report.figure(&what, off(used, limit), "%", Target::AtMost(5.0));
    }
    answers(report, &cluster).await?;
    cluster.shutdown().await;
    Ok(())
}

/// How far a share of a core is from a limit, in hundredths of the limit.
fn off(used: f64, limit: u32) -> f64 {
    let limit = f64::from(limit) / 1e3;
    (used - limit).abs() / limit * 100.0
}

fn pod(name: &str, resources: &Value) -> Value {
    let container = json!({"name": "main", "image": IMAGE, "resources": resources});
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    })
}

async fn spin(cluster: &Cluster, name: &str, resources: &Value) -> anyhow::Result<()> {
    send(cluster, post(PODS, pod(name, resources))).await?;
    Ok(cluster.wait_for(&format!("pod/{name}"), "Ready", PATIENCE).await?)
}

/// The share of a core that a loop has with this limit, by a clock of processor time.
async fn used(cluster: &Cluster, limit: u32, clock: fn() -> anyhow::Result<Duration>) -> anyhow::Result<f64> {
    spin(cluster, "spin", &json!({"limits": {"cpu": format!("{limit}m")}})).await?;
    tokio::time::sleep(SETTLED).await;
    let (before, started) = (clock()?, Instant::now());
    tokio::time::sleep(WATCHED).await;
    let used = clock()?.saturating_sub(before).as_secs_f64() / started.elapsed().as_secs_f64();
    let path = format!("{PODS}/spin");
    send(cluster, Request::new(Method::Delete, &*path, UserInfo::default())).await?;
    until_gone(cluster, &path).await?;
    Ok(used)
}

/// A small object, read again and again over one connection by another process: while nothing runs, and while every core spins.
async fn answers(report: &mut Report, cluster: &Cluster) -> anyhow::Result<()> {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "small"}, "data": {"a": "b"}});
    send(cluster, post(CONFIG_MAPS, object)).await?;
    let idle = reads(cluster)?;
    let cores = std::thread::available_parallelism()?.get();
    for number in 0..cores {
        spin(cluster, &format!("spin-{number}"), &json!({})).await?;
    }
    tokio::time::sleep(SETTLED).await;
    let (before, started) = (guests_time()?, Instant::now());
    let busy = reads(cluster)?;
    let spun = guests_time()?.saturating_sub(before).as_secs_f64() / started.elapsed().as_secs_f64();
    ensure!(spun > 0.0, "no guest spins");
    for (when, measured) in [("nothing runs", &idle), ("every core spins", &busy)] {
        let what = format!("a small object read over TLS while {when}: half within");
        report.time(&what, measured.quantile(0.5), Target::None);
        report.time("  99 % within", measured.quantile(0.99), Target::None);
    }
    report.figure(&format!("  cores of {cores} that the guests had meanwhile"), spun, "", Target::None);
    Ok(())
}

fn reads(cluster: &Cluster) -> anyhow::Result<Measured> {
    let reads = Reads {
        version: Version::Http1,
        times: READS,
        path: format!("{CONFIG_MAPS}/small"),
        accept: "application/json".to_owned(),
    };
    let (times, _): (Vec<Duration>, usize) = tokio::task::block_in_place(|| client::run(cluster, Work::Reads(reads)))?;
    Ok(Measured::new(0.0, times))
}
