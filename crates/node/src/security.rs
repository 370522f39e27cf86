//! With which rights a container's processes run: its `securityContext` before its pod's, and what forbids it to run at all.
//!
//! Source of the sentences: the kubelet's `verifyRunAsNonRoot`; of the scores: its `qos` policy.

use serde_json::Value;

use crate::pod_spec::PodView;
use crate::runtime::{Profile, Security};

/// The rights of a container of a pod, both as JSON; `image_user` is who its image runs as (empty: root).
///
/// # Errors
///
/// The message of `CreateContainerConfigError`, when it would run as root and must not.
pub(crate) fn of(pod: &PodView, container: &Value, image_user: &str) -> Result<Security, String> {
    let (of_pod, own) = (&pod.value["spec"]["securityContext"], &container["securityContext"]);
    let either = |name: &str| if own[name].is_null() { &of_pod[name] } else { &own[name] };
    let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
    let user = number(either("runAsUser"));
    if either("runAsNonRoot") == true {
        must_not_be_root(pod, container, user, image_user)?;
    }
    let mut groups: Vec<u32> =
        of_pod["supplementalGroups"].as_array().into_iter().flatten().filter_map(number).collect();
    groups.extend(number(&of_pod["fsGroup"]));
    Ok(Security {
        user,
        group: number(either("runAsGroup")),
        groups,
        privileged: own["privileged"] == true,
        added_capabilities: texts(&own["capabilities"]["add"]),
        dropped_capabilities: texts(&own["capabilities"]["drop"]),
        no_new_privileges: own["allowPrivilegeEscalation"] == false,
        read_only_root: own["readOnlyRootFilesystem"] == true,
        seccomp: profile(either("seccompProfile")),
        app_armor: profile(either("appArmorProfile")),
        se_linux: labels(either("seLinuxOptions")),
        unmasked: own["procMount"] == "Unmasked",
    })
}

fn must_not_be_root(pod: &PodView, container: &Value, user: Option<u32>, image_user: &str) -> Result<(), String> {
    let name = container["name"].as_str().unwrap_or_default();
    let place = format!("(pod: {:?}, container: {name})", pod.full_name());
    if let Some(user) = user {
        return if user == 0 { Err(format!("container's runAsUser breaks non-root policy {place}")) } else { Ok(()) };
    }
    let image_user = image_user.split(':').next().unwrap_or_default();
    match image_user.parse::<u32>() {
        Ok(0) => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        Ok(_) => Ok(()),
        Err(_) if image_user.is_empty() => {
            Err(format!("container has runAsNonRoot and image will run as root {place}"))
        }
        Err(_) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify user is non-root {place}"
        )),
    }
}

fn profile(value: &Value) -> Profile {
    match value["type"].as_str() {
        Some("Unconfined") => Profile::Unconfined,
        Some("Localhost") => Profile::Localhost(value["localhostProfile"].as_str().unwrap_or_default().to_owned()),
        _ => Profile::RuntimeDefault,
    }
}

fn labels(options: &Value) -> Vec<String> {
    let given = ["user", "role", "type", "level"].into_iter().filter_map(|name| Some((name, options[name].as_str()?)));
    given.filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("{name}:{value}")).collect()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// `oom_score_adj` of a container: who promised nothing goes first, who asked for all that it may use goes last.
pub(crate) fn oom_score_adjust(pod: &PodView, memory_request: u64, node_memory: u64) -> i16 {
    match pod.qos_class() {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let share = memory_request.saturating_mul(1000).checked_div(node_memory).unwrap_or(0);
            i16::try_from(1000_u64.saturating_sub(share)).unwrap_or(999).clamp(3, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn resolved(pod: Value, container: Value, image_user: &str) -> Result<Security, String> {
        let value = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": pod, "containers": []}});
        let pod = PodView::new(Arc::new(value), None).unwrap();
        of(&pod, &json!({"name": "c", "securityContext": container}), image_user)
    }

    #[test]
    fn a_containers_own_word_comes_before_its_pods() {
        let pod = json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4]});
        let found = resolved(pod, json!({"runAsUser": 9}), "").unwrap();
        assert_eq!((found.user, found.group, found.groups), (Some(9), Some(2), vec![4, 3]));
    }

    #[test]
    fn who_must_not_be_root_is_refused_where_it_would_be() {
        let must = || json!({"runAsNonRoot": true});
        let place = "(pod: \"p_n(u)\", container: c)";
        for (user, why) in [
            ("", "container has runAsNonRoot and image will run as root"),
            ("0:5", "container has runAsNonRoot and image will run as root"),
            ("web", "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root"),
        ] {
            assert_eq!(resolved(must(), json!({}), user).unwrap_err(), format!("{why} {place}"));
        }
        assert!(resolved(must(), json!({}), "1000").is_ok());
        assert!(resolved(must(), json!({"runAsUser": 7}), "").is_ok());
        assert!(resolved(must(), json!({"runAsUser": 0}), "1000").is_err());
    }
}
