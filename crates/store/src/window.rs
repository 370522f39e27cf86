//! The watch window: the latest changes of every resource, and the root of every revision that made them.
//!
//! It is bounded by bytes and by the time of entries, and is trimmed from the oldest revision on. Every member trims alike,
//! because it looks at nothing but entries and options.

use std::sync::Arc;
use std::time::Duration;

use coracle_api::{GroupResource, Object, Revision};
use coracle_base::Timestamp;
use imbl::{OrdMap, Vector};

use crate::root::Root;
use crate::{Change, Expired};

/// What a step, and each change in it, costs beyond bodies: the nodes of persistent maps that it does not share with the
/// step before, and what was read out of the object. A step of one change was measured at 6.5 KiB. Without it a window of
/// small objects would take many times its bound.
const CHANGE_OVERHEAD: usize = 3072;

/// The kept past of a store.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// By revision. The first is the oldest state that is kept; its own changes are not.
    steps: Vector<Arc<Step>>,
    changes: OrdMap<Arc<GroupResource>, Arc<ResourceWindow>>,
    /// No change up to here is told of, of any resource.
    compacted: Revision,
    bytes: usize,
}

/// One changing transaction.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) time: Timestamp,
    pub(crate) root: Arc<Root>,
    resources: Vec<Arc<GroupResource>>,
    bytes: usize,
}

/// The changes of one resource.
#[derive(Clone, Debug, Default)]
struct ResourceWindow {
    /// The revision of the last change that was trimmed.
    floor: Revision,
    changes: Vector<Change>,
}

impl Window {
    /// A window that starts at a root.
    pub(crate) fn starting_at(root: Arc<Root>, time: Timestamp, compacted: Revision) -> Self {
        let step = Step { time, root, resources: Vec::new(), bytes: 0 };
        Self { steps: Vector::unit(Arc::new(step)), changes: OrdMap::new(), compacted, bytes: 0 }
    }

    /// Takes in what one transaction changed.
    pub(crate) fn push(&mut self, time: Timestamp, root: Arc<Root>, changes: Vec<Change>) {
        let mut resources: Vec<Arc<GroupResource>> = Vec::new();
        let mut bytes = CHANGE_OVERHEAD;
        for change in changes {
            let Some(object) = change.object() else { continue };
            bytes += object.body().len() + CHANGE_OVERHEAD;
            let resource = self.resource(&object.key().resource);
            if !resources.contains(&resource) {
                resources.push(resource.clone());
            }
            Arc::make_mut(self.changes.entry(resource).or_default()).changes.push_back(change);
        }
        self.bytes += bytes;
        self.steps.push_back(Arc::new(Step { time, root, resources, bytes }));
    }

    /// Forgets what is over the bounds at a time; the latest state always stays.
    pub(crate) fn trim(&mut self, now: Timestamp, kept: Duration, bytes_max: usize) {
        while let Some(next) = self.steps.get(1)
            && (self.bytes > bytes_max || next.time + kept < now)
        {
            self.bytes -= next.bytes;
            let (revision, resources) = (next.root.revision, next.resources.clone());
            self.steps.pop_front();
            for resource in resources {
                let Some(window) = self.changes.get_mut(&resource) else { continue };
                let window = Arc::make_mut(window);
                window.floor = revision;
                while window.changes.front().is_some_and(|change| change.revision <= revision) {
                    window.changes.pop_front();
                }
            }
        }
    }

    /// The kept revisions, oldest first; the changes of the first are not kept.
    pub(crate) fn steps(&self) -> &Vector<Arc<Step>> {
        &self.steps
    }

    /// The state at a revision.
    pub(crate) fn at(&self, revision: Revision) -> Result<&Arc<Step>, Expired> {
        let oldest = self.steps.front().map_or(revision, |step| step.root.revision);
        match self.steps.binary_search_by_key(&revision, |step| step.root.revision) {
            Ok(index) => Ok(&self.steps[index]),
            Err(_) => Err(Expired { asked: revision, oldest }),
        }
    }

    /// The changes of a resource after a revision.
    pub(crate) fn changes_after(&self, resource: &GroupResource, after: Revision) -> Result<Vec<Change>, Expired> {
        let oldest = self.floor(resource);
        if after < oldest {
            return Err(Expired { asked: after, oldest });
        }
        let Some(window) = self.changes.get(resource) else { return Ok(Vec::new()) };
        if window.changes.back().is_none_or(|last| last.revision <= after) {
            return Ok(Vec::new());
        }
        let first = window.partition(after);
        Ok(window.changes.skip(first).into_iter().collect())
    }

    /// The changes of one step.
    pub(crate) fn changes_of(&self, step: &Step) -> impl Iterator<Item = &Change> {
        let revision = step.root.revision;
        step.resources.iter().filter_map(|resource| self.changes.get(resource)).flat_map(move |window| {
            let first = window.partition(Revision(revision.0.saturating_sub(1)));
            (first..).map_while(|index| window.changes.get(index)).take_while(move |change| change.revision == revision)
        })
    }

    /// The revision of the last trimmed change of every resource that is in the window.
    pub(crate) fn floors(&self) -> impl Iterator<Item = (&Arc<GroupResource>, Revision)> {
        self.changes.iter().map(|(resource, window)| (resource, window.floor))
    }

    /// The oldest revision after which every change of a resource is kept.
    fn floor(&self, resource: &GroupResource) -> Revision {
        self.changes.get(resource).map_or(self.compacted, |window| window.floor.max(self.compacted))
    }

    /// Says that changes of a resource up to a revision are not kept, as a snapshot does.
    pub(crate) fn raise_floor(&mut self, resource: &GroupResource, floor: Revision) {
        let resource = self.resource(resource);
        Arc::make_mut(self.changes.entry(resource).or_default()).floor = floor;
    }

    /// The key of a resource, shared with the map where it is there.
    fn resource(&self, resource: &GroupResource) -> Arc<GroupResource> {
        self.changes.get_key_value(resource).map_or_else(|| Arc::new(resource.clone()), |(shared, _)| shared.clone())
    }
}

impl ResourceWindow {
    /// The index of the first change after a revision.
    fn partition(&self, after: Revision) -> usize {
        let order = |change: &Change| {
            if change.revision <= after { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater }
        };
        self.changes.binary_search_by(order).unwrap_or_else(|index| index)
    }
}

impl Change {
    /// The object after the change or, of a deletion, before it.
    pub fn object(&self) -> Option<&Arc<Object>> {
        self.new.as_ref().or(self.old.as_ref())
    }
}
