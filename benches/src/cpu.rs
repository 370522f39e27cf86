//! How well a CPU limit holds.

use std::time::{Duration, Instant};

use coracle::Cluster;
use serde_json::json;

use crate::objects::{PODS, post, send};
use crate::report::cpu_time;
use crate::{Report, Target};

/// How long the loop is watched.
const WATCHED: Duration = Duration::from_secs(10);
const SPIN: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $again (br $again))))"#;

/// A busy loop limited to half a core, over ten seconds.
pub async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let cluster = Cluster::builder().image("example.com/spin:1", SPIN.as_bytes()).start().await?;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "spin"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "example.com/spin:1", "resources": {"limits": {"cpu": "500m"}}}],
        },
    });
    send(&cluster, post(PODS, pod)).await?;
    cluster.wait_for("pod/spin", "Ready", Duration::from_mins(1)).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, started) = (cpu_time()?, Instant::now());
    tokio::time::sleep(WATCHED).await;
    let used = cpu_time()?.saturating_sub(before).as_secs_f64() / started.elapsed().as_secs_f64();
    report.figure("a busy loop limited to 500m: off by", (used - 0.5).abs() / 0.5 * 100.0, "%", Target::AtMost(3.0));
    cluster.shutdown().await;
    Ok(())
}
