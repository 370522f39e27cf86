//! What a controller is: the resources that wake it, and a function from a view and a key to actions.

use std::fmt;
use std::time::Duration;

use coracle_api::events::{EventRecord, EventWrite};
use coracle_api::resources::EVENTS;
use coracle_api::{GroupResource, Object, ObjectKey, Revision, Status, Uid};
use coracle_base::Now;
use coracle_store::View;
use serde_json::Value;

/// What a [`Watch`] is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// One resource.
    Resource(GroupResource),
    /// Every resource there is, custom ones included: what the garbage collector and namespace deletion need.
    Every,
}

impl Watched {
    /// Whether a change of `resource` is meant.
    pub fn includes(&self, resource: &GroupResource) -> bool {
        match self {
            Self::Resource(own) => own == resource,
            Self::Every => true,
        }
    }
}

/// Which change of which resource wakes a controller, and for which keys.
#[derive(Clone)]
pub struct Watch {
    /// The resource.
    pub on: Watched,
    /// From an object that changed (its new state, or the last one when it was deleted; called for both when they differ)
    /// to the keys to reconcile.
    pub keys: fn(&View, &Object) -> Vec<ObjectKey>,
}

impl Watch {
    /// A watch of one resource.
    pub fn of(resource: GroupResource, keys: fn(&View, &Object) -> Vec<ObjectKey>) -> Self {
        Self { on: Watched::Resource(resource), keys }
    }

    /// A watch of every resource.
    pub fn every(keys: fn(&View, &Object) -> Vec<ObjectKey>) -> Self {
        Self { on: Watched::Every, keys }
    }

    /// A watch of the controller's own kind: an object's key is what is reconciled.
    pub fn own(resource: GroupResource) -> Self {
        Self::of(resource, |_, object| vec![object.key().clone()])
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("on", &self.on).finish_non_exhaustive()
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

impl Action {
    /// The object that the action is about.
    pub fn target(&self) -> &ObjectKey {
        match self {
            Self::Create { key, .. }
            | Self::Update { key, .. }
            | Self::Patch { key, .. }
            | Self::Delete { key, .. } => key,
            Self::Bind { pod, .. } => pod,
            Self::Event(record) => &record.regarding,
        }
    }

    /// What the action does.
    pub fn verb(&self) -> Verb {
        match self {
            Self::Create { .. } => Verb::Create,
            Self::Update { .. } => Verb::Update,
            Self::Patch { .. } => Verb::Patch,
            Self::Delete { .. } => Verb::Delete,
            Self::Bind { .. } => Verb::Bind,
            Self::Event(_) => Verb::Event,
        }
    }
}

/// An Event's write as a request: what [`Action::Event`] becomes when the recorder lets it through.
impl From<EventWrite> for Action {
    fn from(write: EventWrite) -> Self {
        match write {
            EventWrite::Create { namespace, object } => {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                Self::Create { key: ObjectKey::new(EVENTS, &namespace, name), object }
            }
            EventWrite::Count { namespace, name, patch } => {
                let key = ObjectKey::new(EVENTS, &namespace, &name);
                Self::Patch { key, subresource: None, patch: Patch::Merge(patch) }
            }
        }
    }
}

/// What an [`Action`] does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Verb {
    Create,
    Update,
    Patch,
    Delete,
    Bind,
    Event,
}

/// An action that the API server refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// What was tried.
    pub verb: Verb,
    /// On which object; without a name where it was to be generated.
    pub target: ObjectKey,
    /// The answer.
    pub status: Status,
}

/// What came of one reconcile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// What to do, in order. A key is not reconciled again until all of them are settled; at most 100 are taken at a time.
    pub actions: Vec<Action>,
    /// Reconcile again after this time even if nothing changes.
    pub requeue_after: Option<Duration>,
    /// Not again before this time whatever changes, so that a costly reconcile takes many changes at once.
    /// A failure and a cut at 100 actions ignore it.
    pub rest: Duration,
}

impl From<Vec<Action>> for Outcome {
    fn from(actions: Vec<Action>) -> Self {
        Self { actions, ..Self::default() }
    }
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

    /// Is told what was refused of the key's last actions, before the key is reconciled again: to report it
    /// (`FailedCreate`), or to choose another way (a name that is taken).
    fn refused(&mut self, _key: &ObjectKey, _failures: &[Failure]) {}

    /// A node's agent was heard of. Only node lifecycle listens.
    fn heartbeat(&mut self, _node: &str, _now: Now) {}

    /// The machine slept, or its clock was set: what it did not hear meanwhile counts as not missed.
    fn clock_jumped(&mut self, _now: Now) {}
}
