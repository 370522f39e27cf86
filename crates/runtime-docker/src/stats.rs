//! What containers use, as Docker measures it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bollard::Docker;
use bollard::models::ContainerStatsResponse;
use bollard::query_parameters::{InspectContainerOptions, StatsOptions};
use coracle_api::Uid;
use coracle_node::runtime::Usage;
use futures_util::stream::{self, StreamExt as _};

use crate::shared::{Shared, State};

/// How many containers are measured at one time.
const MEASURED_AT_ONCE: usize = 8;

/// The use of all running containers, by the text of their ids; what cannot be measured is left out.
pub(crate) async fn usage(shared: &Arc<Shared>) -> BTreeMap<String, Usage> {
    let Ok(docker) = shared.engine.client() else { return BTreeMap::new() };
    let running = shared.all().into_iter().filter(|(_, tracked)| tracked.state == State::Running);
    let measured = stream::iter(running).map(|(id, tracked)| {
        let docker = docker.clone();
        async move { Some((id.to_string(), measure(&docker, &tracked.docker).await?)) }
    });
    measured.buffer_unordered(MEASURED_AT_ONCE).filter_map(|found| async { found }).collect().await
}

/// What the containers of a pod that run have written outside of volumes, in bytes, by their names. The Engine looks through all of it.
pub(crate) async fn written(shared: &Shared, pod: &Uid) -> BTreeMap<String, u64> {
    let Ok(docker) = shared.engine.client() else { return BTreeMap::new() };
    let running = shared.of_pod(pod).into_iter().filter(|(_, tracked)| tracked.state == State::Running);
    let sized = stream::iter(running).map(|(id, tracked)| {
        let docker = docker.clone();
        async move {
            let options = InspectContainerOptions { size: true };
            let found = docker.inspect_container(&tracked.docker, Some(options)).await.ok()?;
            Some((id.container, u64::try_from(found.size_rw?).ok()?))
        }
    });
    sized.buffer_unordered(MEASURED_AT_ONCE).filter_map(|found| async { found }).collect().await
}

async fn measure(docker: &Docker, id: &str) -> Option<Usage> {
    let options = StatsOptions { stream: false, one_shot: true };
    let mut stats = std::pin::pin!(docker.stats(id, Some(options)));
    stats.next().await?.ok().map(|stats| usage_of(&stats))
}

/// The working set: what could be written back at once does not count.
fn usage_of(stats: &ContainerStatsResponse) -> Usage {
    let memory = stats.memory_stats.clone().unwrap_or_default();
    let parts = memory.stats.unwrap_or_default();
    let idle = parts.get("total_inactive_file").or_else(|| parts.get("inactive_file")).copied().unwrap_or_default();
    let cpu = stats.cpu_stats.as_ref().and_then(|stats| stats.cpu_usage.as_ref()?.total_usage);
    Usage {
        cpu_nanos: cpu.unwrap_or_default(),
        memory_bytes: memory.usage.unwrap_or_default().saturating_sub(idle),
        fuel: None,
    }
}
