//! How long an object that is deleted stays: pods stop gracefully, namespaces are emptied first, everything else goes at once.

use std::time::Duration;

use coracle_base::{Now, Timestamp};
use serde_json::Value;

use crate::request::options::DeleteOptions;
use crate::verb::create::metadata_of;

/// `spec.terminationGracePeriodSeconds` where nothing says otherwise.
const DEFAULT_PERIOD: i64 = 30;

/// What a deletion means for an object's grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grace {
    /// Nothing keeps it.
    None,
    /// Its grace is over or was none: it is marked and goes now.
    Over,
    /// Its grace runs.
    Running,
    /// Its grace runs already, and this deletion does not shorten it.
    Pending,
    /// It is a Namespace, which stays until its `spec.finalizers` are empty.
    Namespace,
}

/// Begins a deletion, or shortens one that has begun; `graceful` for pods.
pub(super) fn begin(now: Now, value: &mut Value, options: &DeleteOptions, graceful: bool) -> Grace {
    let metadata = &value["metadata"];
    if let Some(deadline) = metadata["deletionTimestamp"].as_str() {
        let period = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
        if period == 0 {
            return Grace::None;
        }
        let Some(asked) = options.grace_period.map(|asked| if asked < 0 { 1 } else { asked }) else {
            return Grace::Pending;
        };
        if asked >= period {
            return Grace::Pending;
        }
        let deadline = Timestamp::parse(deadline).unwrap_or(now.wall);
        let shorter = deadline - seconds(period) + seconds(asked);
        set(value, shorter, asked);
        return if asked == 0 { Grace::Over } else { Grace::Running };
    }
    if !graceful {
        return Grace::None;
    }
    let period = pod_period(value, options);
    mark(now, value, period);
    if period == 0 { Grace::Over } else { Grace::Running }
}

/// A pod that no node has, or that has ended, needs no grace.
fn pod_period(pod: &Value, options: &DeleteOptions) -> i64 {
    let scheduled = pod["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !scheduled || ended {
        return 0;
    }
    let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64();
    let period = options.grace_period.or(own).unwrap_or(DEFAULT_PERIOD);
    if period < 0 { 1 } else { period }
}

/// Begins a Namespace's end; when it has begun, nothing changes until its `spec.finalizers` are empty.
pub(super) fn of_namespace(now: Now, value: &mut Value) -> Grace {
    if value["metadata"]["deletionTimestamp"].is_null() {
        metadata_of(value).insert("deletionTimestamp".into(), now.wall.rfc3339().into());
        value["status"]["phase"] = "Terminating".into();
        return Grace::Namespace;
    }
    let held = value["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    if held { Grace::Pending } else { Grace::None }
}

/// Marks an object as going away; the first time its generation rises.
pub(super) fn mark(now: Now, value: &mut Value, period: i64) {
    let first = value["metadata"]["deletionTimestamp"].is_null();
    let generation = value["metadata"]["generation"].as_i64().unwrap_or(0);
    if !first {
        metadata_of(value).insert("deletionGracePeriodSeconds".into(), period.into());
        return;
    }
    set(value, now.wall + seconds(period), period);
    if generation > 0 {
        metadata_of(value).insert("generation".into(), (generation + 1).into());
    }
}

fn set(value: &mut Value, deadline: Timestamp, period: i64) {
    let metadata = metadata_of(value);
    metadata.insert("deletionTimestamp".into(), deadline.rfc3339().into());
    metadata.insert("deletionGracePeriodSeconds".into(), period.into());
}

fn seconds(period: i64) -> Duration {
    Duration::from_secs(period.max(0).cast_unsigned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(phase: &str, node: &str) -> Value {
        json!({"metadata": {"generation": 1}, "spec": {"nodeName": node, "terminationGracePeriodSeconds": 40}, "status": {"phase": phase}})
    }

    #[test]
    fn a_running_pod_gets_its_grace_and_a_second_delete_may_only_shorten_it() {
        let now = Now::default();
        let mut value = pod("Running", "n1");
        assert_eq!(begin(now, &mut value, &DeleteOptions::default(), true), Grace::Running);
        assert_eq!(value["metadata"]["deletionTimestamp"], "1970-01-01T00:00:40Z");
        assert_eq!(value["metadata"]["generation"], 2);
        let longer = DeleteOptions { grace_period: Some(60), ..DeleteOptions::default() };
        assert_eq!(begin(now, &mut value, &longer, true), Grace::Pending);
        let shorter = DeleteOptions { grace_period: Some(5), ..DeleteOptions::default() };
        assert_eq!(begin(now, &mut value, &shorter, true), Grace::Running);
        assert_eq!(value["metadata"]["deletionTimestamp"], "1970-01-01T00:00:05Z");
        let now_gone = DeleteOptions { grace_period: Some(0), ..DeleteOptions::default() };
        assert_eq!(begin(now, &mut value, &now_gone, true), Grace::Over);
    }

    #[test]
    fn a_pod_without_a_node_or_after_its_end_goes_at_once() {
        for mut value in [pod("Pending", ""), pod("Succeeded", "n1")] {
            assert_eq!(begin(Now::default(), &mut value, &DeleteOptions::default(), true), Grace::Over);
            assert_eq!(value["metadata"]["deletionGracePeriodSeconds"], 0);
        }
    }
}
