//! What must hold in every run, whatever the scenario: one property a file, looked at after every event or at convergence.

mod acknowledged_writes;
mod agreement;
mod one_instance;
mod owners_exist;
mod replica_bounds;
mod revisions_rise;
mod rollout_bounds;
pub(crate) mod watches;

use coracle_api::Revision;
use coracle_base::Instant;
use coracle_node::runtime::RuntimeEvent;
use coracle_store::{Change, View};

pub(crate) use agreement::Agreement;

/// A property that does not hold, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    /// The property.
    pub(crate) property: &'static str,
    /// What is wrong.
    pub(crate) why: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.property, self.why)
    }
}

/// What a property comes to.
pub(crate) type Checked = Result<(), Broken>;

/// Every property, with what each remembers.
#[derive(Debug, Default)]
pub(crate) struct Invariants {
    replica_bounds: replica_bounds::ReplicaBounds,
    one_instance: one_instance::OneInstance,
    /// Nothing fails: Deployments keep their bounds.
    pub(crate) peace: bool,
}

impl Invariants {
    /// The state changed.
    pub(crate) fn changed(&mut self, at: Instant, before: Revision, view: &View, changes: &[Change]) -> Checked {
        revisions_rise::check(before, view, changes)?;
        one_instance::changed(changes)?;
        if self.peace {
            rollout_bounds::check(view, changes)?;
        }
        self.replica_bounds.changed(at, view, changes)
    }

    /// Something happened in a node's runtime.
    pub(crate) fn runtime(&mut self, node: &str, event: &RuntimeEvent) -> Checked {
        self.one_instance.runtime(node, event)
    }

    /// A node's containers ended with it.
    pub(crate) fn node_lost(&mut self, node: &str) {
        self.one_instance.node_lost(node);
    }

    /// A member that crashed serves again.
    pub(crate) fn recovered(before: &View, now: &View) -> Checked {
        acknowledged_writes::check(before, now)
    }

    /// Nothing is under way any more.
    pub(crate) fn converged(view: &View) -> Checked {
        owners_exist::check(view)
    }
}
