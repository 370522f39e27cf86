//! What a controller is: the resources that wake it, and a function from a view and a key to actions.

use std::fmt;
use std::time::Duration;

use coracle_api::{GroupResource, Object, ObjectKey, Revision, Uid};
use coracle_base::Now;
use coracle_store::View;
use serde_json::Value;

/// Which change of which resource wakes a controller, and for which keys.
#[derive(Clone)]
pub struct Watch {
    /// The resource.
    pub resource: GroupResource,
    /// From an object that changed (its new state, or the last one when it was deleted; called for both when they differ)
    /// to the keys to reconcile.
    pub keys: fn(&View, &Object) -> Vec<ObjectKey>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("resource", &self.resource).finish_non_exhaustive()
    }
}

/// A patch, as the API server takes it.
#[derive(Clone, Debug, PartialEq)]
pub enum Patch {
    /// RFC 7386.
    Merge(Value),
    /// RFC 6902.
    Json(Value),
    /// Kubernetes' strategic merge patch.
    Strategic(Value),
}

/// The type of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// Something happened as it should.
    Normal,
    /// Something needs attention.
    Warning,
}

/// An Event to record: the recorder counts equal ones together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// What it is about.
    pub regarding: ObjectKey,
    /// The uid of what it is about (a node's own name for a node's events, as kubelets do).
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

/// What a controller wants done. The engine turns each into a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// POST an object; `key.name` is empty where the value has a `generateName`.
    Create {
        /// Resource and namespace.
        key: ObjectKey,
        /// The object, with `kind` and `apiVersion`.
        object: Value,
    },
    /// PUT an object with the `resourceVersion` it was read at.
    Update {
        /// The object's key.
        key: ObjectKey,
        /// `status`, `finalize`, `scale`, or none.
        subresource: Option<&'static str>,
        /// The whole object.
        object: Value,
    },
    /// PATCH an object.
    Patch {
        /// The object's key.
        key: ObjectKey,
        /// `status`, `scale`, or none.
        subresource: Option<&'static str>,
        /// The patch; with `metadata.uid` or `metadata.resourceVersion` in a merge patch as preconditions.
        patch: Patch,
    },
    /// DELETE an object.
    Delete {
        /// The object's key.
        key: ObjectKey,
        /// The uid it must have.
        uid: Option<Uid>,
        /// The revision it must be at.
        revision: Option<Revision>,
        /// `Background`, `Foreground` or `Orphan`.
        propagation: Option<&'static str>,
        /// `gracePeriodSeconds`; `None` for the object's own.
        grace_period: Option<i64>,
    },
    /// POST a Binding of a pod to a node.
    Bind {
        /// The pod's key.
        pod: ObjectKey,
        /// The pod's uid.
        uid: Uid,
        /// The node.
        node: String,
    },
    /// Record an Event.
    Event(EventRecord),
}

/// What came of one reconcile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// What to do, in order. A key is not reconciled again until all of them are settled; at most 100 are taken at a time.
    pub actions: Vec<Action>,
    /// Reconcile again after this time even if nothing changes.
    pub requeue_after: Option<Duration>,
}

/// What a reconcile reads.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The state.
    pub view: &'a View,
    /// The time.
    pub now: Now,
}

/// A controller: a name, what wakes it, and a pure function.
pub trait Controller: fmt::Debug + Send {
    /// The name, as in `deployment-controller`: the user is `system:controller:<name>`, and events name it as their source.
    fn name(&self) -> &'static str;

    /// What wakes it. The first watch is of its own kind.
    fn watches(&self) -> Vec<Watch>;

    /// Decides for one key; the object may be gone. `&mut self` is for state that may be lost with the leader.
    fn reconcile(&mut self, context: Context<'_>, key: &ObjectKey) -> Outcome;
}
