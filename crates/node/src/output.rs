//! What a node agent wants done.

use std::collections::BTreeMap;
use std::net::IpAddr;

use coracle_api::{ObjectKey, Request, Uid};

use crate::runtime::{RuntimeCommand, Usage};
use crate::{Checkpoint, RequestId};

/// The type of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// Something happened as it should.
    Normal,
    /// Something needs attention.
    Warning,
}

/// An Event to record, with component `kubelet` and the node as its host. Whoever records it counts equal ones together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// What it is about.
    pub regarding: ObjectKey,
    /// The uid of what it is about; a node's Events carry its name, as kubelets' do.
    pub uid: Option<Uid>,
    /// The part of the object that it is about, as in `spec.containers{web}`.
    pub field_path: Option<String>,
    /// Normal or warning.
    pub event_type: EventType,
    /// One CamelCase word.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

/// The sign of life of a node, every ten seconds. It is never stored: Leases are made from it on read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// What the node's containers used when last measured, by [`crate::runtime::ContainerId`]'s text.
    pub usage: BTreeMap<String, Usage>,
}

/// One output of [`crate::NodeAgent::step`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// A request to the API server, to be answered with [`crate::Input::Answer`].
    Request(RequestId, Request),
    /// A command for the runtime.
    Runtime(RuntimeCommand),
    /// What to keep durably, instead of the one before. It holds Secrets: whoever keeps it seals it.
    Checkpoint(Checkpoint),
    /// An Event to record.
    Event(EventRecord),
    /// The node is alive.
    Heartbeat(Heartbeat),
    /// A pod has this address from now on, or (`None`) nobody has.
    RouteChanged {
        /// The address.
        address: IpAddr,
        /// The pod.
        pod: Option<Uid>,
    },
}
