//! How fast a cluster starts.

use std::time::Duration;

use coracle::{Cluster, ClusterBuilder};

use crate::report::{median, timed};
use crate::{Report, Target};

const RUNS: usize = 11;

/// In memory: without nodes, with a fake one, and with one that runs WebAssembly; and with a log on disk.
pub async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let alone = starts(|| Cluster::builder().nodes(0)).await?;
    report.time("start in memory, without nodes", alone, Target::AtMost(5.0));
    let fake = starts(|| Cluster::builder().nodes(0).fake_nodes(1)).await?;
    report.time("start in memory, a fake node", fake, Target::None);
    let wasm = starts(Cluster::builder).await?;
    report.time("start in memory, a Wasm node", wasm, Target::AtMost(5.0));
    let directory = tempfile::tempdir()?;
    let kept = starts(|| Cluster::builder().nodes(0).data_dir(directory.path())).await?;
    report.time("start from a data directory, without nodes", kept, Target::None);
    Ok(())
}

async fn starts(builder: impl Fn() -> ClusterBuilder) -> anyhow::Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let (time, cluster) = timed(builder().start()).await;
        cluster?.shutdown().await;
        times.push(time);
    }
    Ok(median(times))
}
