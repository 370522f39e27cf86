//! What a cluster's user may set for all of it: one object of a resource of Coracle's own, replicated like everything else.
//!
//! kube-apiserver and kube-controller-manager have flags for these; here every member goes by the same, whoever leads.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{GroupResource, ObjectKey};

/// The resource.
pub const SETTINGS: GroupResource = GroupResource::builtin("coracle.dev", "settings");
/// Its only object.
const NAME: &str = "cluster";
/// How often a node is heard of within its grace.
const HEARTBEATS_PER_GRACE: u32 = 4;
/// How often a node is heard of where the grace allows it: kubelets renew their Lease as often.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(10);

/// A cluster's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterSettings {
    /// How many seconds a node may be silent before it counts as gone, 2 to 3,600
    /// (`--node-monitor-grace-period` of kube-controller-manager; 50 since Kubernetes 1.32).
    pub node_grace_seconds: u64,
    /// How many seconds a pod that says nothing of it stays bound to a node that is gone or not ready, 0 to 86,400
    /// (`--default-not-ready-toleration-seconds` and `--default-unreachable-toleration-seconds` of kube-apiserver; 300).
    /// It goes into new pods.
    pub pod_toleration_seconds: u64,
    /// How many seconds a voter may be silent before a member without a vote takes its place, 5 to 2,592,000 (30 days); a day, because
    /// laptops sleep. It stays a member, and votes again when it is needed.
    pub voter_silence_seconds: u64,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self { node_grace_seconds: 50, pod_toleration_seconds: 300, voter_silence_seconds: 86_400 }
    }
}

/// The object, as it is stored.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SettingsObject {
    /// The settings.
    pub spec: ClusterSettings,
}

impl ClusterSettings {
    /// Where the object is.
    pub fn key() -> ObjectKey {
        ObjectKey::new(SETTINGS, "", NAME)
    }

    /// What is stored.
    pub fn body(&self) -> Value {
        json!({"metadata": {"name": NAME}, "spec": self})
    }

    /// How long a node may be silent.
    pub fn node_grace(&self) -> Duration {
        Duration::from_secs(self.node_grace_seconds)
    }

    /// How often a node has to be heard of.
    pub fn heartbeat_interval(&self) -> Duration {
        HEARTBEAT_INTERVAL.min(self.node_grace() / HEARTBEATS_PER_GRACE)
    }

    /// Whether the values are within their ranges.
    ///
    /// # Errors
    ///
    /// What is out of its range, as a sentence.
    pub fn check(&self) -> Result<(), String> {
        if !(2..=3_600).contains(&self.node_grace_seconds) {
            return Err("a node's grace is 2 seconds to an hour".into());
        }
        if self.pod_toleration_seconds > 86_400 {
            return Err("pods tolerate the loss of their node for a day at most".into());
        }
        if !(5..=2_592_000).contains(&self.voter_silence_seconds) {
            return Err("a voter is replaced after 5 seconds to 30 days of silence".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_kubernetes_own_and_what_is_not_said_keeps_them() {
        let object: SettingsObject = serde_json::from_value(json!({"spec": {"nodeGraceSeconds": 8}})).unwrap();
        assert_eq!(object.spec, ClusterSettings { node_grace_seconds: 8, ..ClusterSettings::default() });
        assert_eq!(object.spec.heartbeat_interval(), Duration::from_secs(2));
        assert_eq!(ClusterSettings::default().heartbeat_interval(), Duration::from_secs(10));
        assert_eq!(serde_json::from_value::<SettingsObject>(object.spec.body()).unwrap().spec, object.spec);
        object.spec.check().unwrap();
        for wrong in [
            ClusterSettings { node_grace_seconds: 1, ..ClusterSettings::default() },
            ClusterSettings { pod_toleration_seconds: 86_401, ..ClusterSettings::default() },
            ClusterSettings { voter_silence_seconds: 4, ..ClusterSettings::default() },
        ] {
            wrong.check().unwrap_err();
        }
    }
}
