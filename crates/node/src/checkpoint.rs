//! What an agent keeps across restarts: enough to run its pods again without an API server.
//!
//! It holds the contents of Secrets; whoever keeps it seals it.

use std::net::IpAddr;
use std::sync::Arc;

use coracle_api::{GroupResource, Uid};
use coracle_base::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::runtime::{ExistingContainer, RuntimeKind};
use crate::{Termination, TokenCheckpoint};

/// An object as the agent last saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectCheckpoint {
    /// The resource.
    pub resource: GroupResource,
    /// The object.
    pub object: Arc<Value>,
}

/// One container of a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerCheckpoint {
    /// The container's name.
    pub name: String,
    /// The latest instance; its number is the container's restart count.
    pub instance: Option<u32>,
    /// When the latest instance started, while it runs.
    pub running_since: Option<Timestamp>,
    /// How the latest instance ended, once it has.
    pub terminated: Option<Termination>,
    /// How the one before ended.
    pub last_termination: Option<Termination>,
    /// The image's id, where it was had.
    pub image_id: String,
    /// The crash loop's present wait, in milliseconds, and when it was last charged.
    pub backoff: Option<(u64, Timestamp)>,
}

impl ContainerCheckpoint {
    /// What is known of a container that only the runtime knows of.
    pub(crate) fn found(existing: &ExistingContainer) -> Self {
        Self {
            name: existing.id.container.clone(),
            instance: Some(existing.id.instance),
            running_since: existing.started_at,
            terminated: None,
            last_termination: None,
            image_id: String::new(),
            backoff: None,
        }
    }
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodCheckpoint {
    /// The pod's uid.
    pub uid: Uid,
    /// The pod as last seen.
    pub pod: Arc<Value>,
    /// Its address.
    pub address: Option<IpAddr>,
    /// What runs it, once that was decided.
    #[serde(default)]
    pub runtime: Option<RuntimeKind>,
    /// `status.startTime`.
    pub started_at: Timestamp,
    /// Its ServiceAccount tokens.
    #[serde(default)]
    pub tokens: Vec<TokenCheckpoint>,
    /// Its containers, init containers first.
    pub containers: Vec<ContainerCheckpoint>,
}

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The pods that run here.
    pub pods: Vec<PodCheckpoint>,
    /// The ConfigMaps, Secrets and Services that they read.
    pub objects: Vec<ObjectCheckpoint>,
}
