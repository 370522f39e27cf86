//! What a pod may keep on its node's disk: the limits of its empty volumes and of its containers' `ephemeral-storage`.
//!
//! Texts and order are those of the kubelet's eviction manager. Logs do not count: they have a bound of their own.

use coracle_api::Quantity;

use crate::pod_spec::{PodView, Role};
use crate::runtime::StorageUse;

const STORAGE: &str = "ephemeral-storage";

/// Whether there is anything to measure.
pub(crate) fn has_limits(pod: &PodView) -> bool {
    volume_limits(pod).next().is_some() || pod.containers().any(|(_, container)| limit(container).is_some())
}

/// A limit as Kubernetes writes it, and in bytes.
type Limit = (String, u64);

/// Why a pod that uses so much is to be evicted.
pub(crate) fn excess(pod: &PodView, used: &StorageUse) -> Option<String> {
    let beyond = |used: Option<&u64>, limit: u64| used.is_some_and(|used| *used > limit);
    let volume = volume_limits(pod).find(|(name, (_, limit))| beyond(used.volumes.get(*name), *limit));
    if let Some((name, (limit, _))) = volume {
        return Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit {limit:?}. "));
    }
    // The pod's own bound is the sum of its containers', where each has one.
    let mains = pod.containers().filter(|(role, _)| *role != Role::Init).map(|(_, container)| limit(container));
    if let Some(limits) = mains.collect::<Option<Vec<Limit>>>() {
        let total = limits.iter().map(|(_, limit)| *limit).fold(0, u64::saturating_add);
        let all = used.volumes.values().chain(used.containers.values()).fold(0, |all, used| used.saturating_add(all));
        if all > total {
            let total = if let [(only, _)] = limits.as_slice() { only.clone() } else { total.to_string() };
            return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {total}. "));
        }
    }
    let limits = pod.containers().filter_map(|(_, container)| Some((&container.name, limit(container)?)));
    let (name, (limit, _)) = { limits }.find(|(name, (_, limit))| beyond(used.containers.get(*name), *limit))?;
    Some(format!("Container {name} exceeded its local ephemeral storage limit {limit:?}. "))
}

fn volume_limits(pod: &PodView) -> impl Iterator<Item = (&str, Limit)> {
    pod.spec.volumes.iter().flatten().filter_map(|volume| {
        let limit = parse(&volume.empty_dir.as_ref()?.size_limit.as_ref()?.0)?;
        (limit.1 > 0).then_some((volume.name.as_str(), limit))
    })
}

fn limit(container: &k8s_openapi::api::core::v1::Container) -> Option<Limit> {
    parse(&container.resources.as_ref()?.limits.as_ref()?.get(STORAGE)?.0)
}

fn parse(text: &str) -> Option<Limit> {
    let quantity = text.parse::<Quantity>().ok()?;
    Some((Quantity::canonical(text).ok()?, u64::try_from(quantity.units()).unwrap_or(0)))
}
