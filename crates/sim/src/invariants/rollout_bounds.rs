//! While nothing fails, a Deployment that rolls has at most its surge more pods than it was asked for, and at most so many fewer
//! available ones as it may.

use coracle_api::Object;
use coracle_api::resources::{DEPLOYMENTS, PODS, REPLICA_SETS};
use coracle_store::{Change, View};
use serde_json::Value;

use super::replica_bounds::is_active;
use super::{Broken, Checked};

/// Looks at every Deployment when a pod or one of its owners changed.
pub(super) fn check(view: &View, changes: &[Change]) -> Checked {
    let matters = |change: &Change| {
        let resource = change.object().map(|object| &object.key().resource);
        resource.is_some_and(|resource| [PODS, REPLICA_SETS, DEPLOYMENTS].contains(resource))
    };
    if !changes.iter().any(matters) {
        return Ok(());
    }
    view.list(&DEPLOYMENTS, None).try_for_each(|deployment| one(view, deployment))
}

fn one(view: &View, deployment: &Object) -> Checked {
    let spec = &deployment.value(None)["spec"];
    let Some(uid) = &deployment.metadata().uid else { return Ok(()) };
    let rolling = &spec["strategy"]["rollingUpdate"];
    if rolling.is_null() {
        return Ok(());
    }
    let replicas = spec["replicas"].as_u64().unwrap_or(1);
    let surge = share(&rolling["maxSurge"], replicas, u64::div_ceil);
    let unavailable = share(&rolling["maxUnavailable"], replicas, |a, b| a / b);
    // Both cannot be nothing, or it would never roll.
    let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
    let sets = view.owned_by(uid).filter_map(|set| set.metadata().uid.as_ref());
    let pods: Vec<&Object> = sets.flat_map(|set| view.owned_by(set)).map(|pod| &**pod).collect();
    let active = pods.iter().filter(|pod| is_active(pod)).count() as u64;
    let available = pods.iter().filter(|pod| is_active(pod) && is_ready(pod)).count() as u64;
    if active > replicas + surge || available + unavailable < replicas {
        let name = &deployment.key().name;
        let why = format!(
            "Deployment {name} has {active} pods, {available} of them available, and is to have {replicas} + {surge} - {unavailable}"
        );
        return Err(Broken { property: "rollout bounds", why });
    }
    Ok(())
}

/// A number, or so many percent.
fn share(value: &Value, of: u64, divide: impl Fn(u64, u64) -> u64) -> u64 {
    let percent = value.as_str().and_then(|text| text.strip_suffix('%')?.parse::<u64>().ok());
    percent.map_or_else(|| value.as_u64().unwrap_or(0), |percent| divide(percent * of, 100))
}

fn is_ready(pod: &Object) -> bool {
    let conditions = &pod.value(None)["status"]["conditions"];
    let mut conditions = conditions.as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}
