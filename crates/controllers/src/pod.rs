//! What controllers read of a Pod: a narrow view, because a thousand pods are read at each change of their owner.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_api::{Object, Uid};
use coracle_base::Timestamp;
use coracle_store::View;
use serde::{Deserialize, Deserializer};

/// The annotation that says how much it costs to delete a pod, compared to others of its set.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Pod {
    metadata: PodMetadata,
    pub(crate) spec: PodSpec,
    pub(crate) status: PodStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodMetadata {
    #[serde(deserialize_with = "nullable")]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodSpec {
    pub(crate) node_name: String,
    pub(crate) hostname: String,
    pub(crate) subdomain: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) containers: Vec<Container>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) init_containers: Vec<Container>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) tolerations: Vec<Toleration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Container {
    pub(crate) restart_policy: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) ports: Vec<ContainerPort>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ContainerPort {
    pub(crate) name: String,
    #[serde(rename = "containerPort")]
    pub(crate) number: i64,
    pub(crate) protocol: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Toleration {
    pub(crate) key: String,
    pub(crate) operator: String,
    pub(crate) value: String,
    pub(crate) effect: String,
    #[serde(rename = "tolerationSeconds")]
    pub(crate) seconds: Option<i64>,
}

impl Toleration {
    /// Whether it tolerates a taint with this key, value and effect.
    pub(crate) fn tolerates(&self, key: &str, value: &str, effect: &str) -> bool {
        (self.effect.is_empty() || self.effect == effect)
            && (self.key.is_empty() || self.key == key)
            && match self.operator.as_str() {
                "Exists" => true,
                "" | "Equal" => !self.key.is_empty() && self.value == value,
                _ => false,
            }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodStatus {
    pub(crate) phase: String,
    #[serde(rename = "podIP")]
    pub(crate) pod_ip: String,
    #[serde(deserialize_with = "nullable")]
    conditions: Vec<Condition>,
    #[serde(deserialize_with = "nullable")]
    container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Condition {
    r#type: String,
    status: String,
    last_transition_time: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContainerStatus {
    restart_count: i64,
}

/// Null counts as absent, as everywhere in Kubernetes.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Pod {
    /// Whether it has ended for good.
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Whether the condition `Ready` is true.
    pub(crate) fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(|condition| condition.status == "True")
    }

    /// Since when it is ready.
    pub(crate) fn ready_since(&self) -> Option<Timestamp> {
        let condition = self.condition("Ready").filter(|condition| condition.status == "True")?;
        Timestamp::parse(condition.last_transition_time.as_deref()?).ok()
    }

    /// When it counts as available: ready for `min_ready` without a break. `None` while it is not ready.
    pub(crate) fn available_at(&self, min_ready: Duration) -> Option<Timestamp> {
        match self.ready_since() {
            Some(since) => Some(since + min_ready),
            None if self.is_ready() && min_ready.is_zero() => Some(Timestamp::EPOCH),
            None => None,
        }
    }

    /// How often its containers were restarted, at most.
    pub(crate) fn restarts(&self) -> i64 {
        self.status.container_statuses.iter().map(|status| status.restart_count).max().unwrap_or(0)
    }

    /// The cost of its deletion; zero where the annotation is absent or no number.
    pub(crate) fn deletion_cost(&self) -> i64 {
        self.metadata.annotations.get(DELETION_COST).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn condition(&self, r#type: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|condition| condition.r#type == r#type)
    }
}

/// A pod: its object and what was read out of it.
#[derive(Clone, Debug)]
pub(crate) struct PodEntry {
    pub(crate) object: Arc<Object>,
    pub(crate) pod: Arc<Pod>,
}

impl PodEntry {
    pub(crate) fn of(view: &View, object: &Arc<Object>) -> Option<Self> {
        Some(Self { object: Arc::clone(object), pod: view.decode::<Pod>(object)? })
    }

    /// Neither ended nor going away.
    pub(crate) fn is_active(&self) -> bool {
        !self.is_going() && !self.pod.is_terminal()
    }

    /// Whether it is being deleted.
    pub(crate) fn is_going(&self) -> bool {
        self.object.metadata().deletion_timestamp.is_some()
    }

    pub(crate) fn uid(&self) -> Option<&Uid> {
        self.object.metadata().uid.as_ref()
    }
}
