//! What a node agent is told.

use std::net::IpAddr;
use std::time::Duration;

use coracle_api::{GroupResource, Response, WatchEvent};
use serde::{Deserialize, Serialize};

use crate::runtime::RuntimeEvent;

/// Which of the agent's requests an answer belongs to; never used twice by one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// One input of [`crate::NodeAgent::step`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Input {
    /// A change of an object that the node watches: its pods (`spec.nodeName`), its own Node,
    /// and the ConfigMaps, Secrets and Services of the cluster.
    Watch {
        /// The resource.
        resource: GroupResource,
        /// The change.
        event: WatchEvent,
    },
    /// From here to [`Input::Synced`] comes everything that the API server has (with [`Input::Watch`]), because changes may have been
    /// missed. It must not be older than what was told before. An agent that was just made takes it for given.
    Listing,
    /// This was everything. Pods that were not among it are gone: those of the checkpoint are cleaned up before the node reports
    /// Ready.
    Synced,
    /// Something happened in the runtime.
    Runtime(RuntimeEvent),
    /// The answer to [`crate::Output::Request`]. Every request must be answered, with a failure where nobody could be reached.
    Answer(RequestId, Response),
    /// How often the node is to give a sign of life from now on; every ten seconds where nobody says otherwise.
    HeartbeatEvery(Duration),
    /// The node is reached at another address.
    AddressChanged(IpAddr),
    /// Time has passed: give it at [`crate::NodeAgent::next_wakeup`] and once right after the agent was made.
    Tick,
}
