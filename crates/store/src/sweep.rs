//! Looking at every object of some resources, a slice at a time: what a new leader begins with.
//!
//! It keeps a place, not a state: each slice is of the view that it is given. What changes meanwhile is told to whoever sweeps
//! in the usual way, so that nothing is missed.

use std::collections::VecDeque;
use std::sync::Arc;

use coracle_api::{GroupResource, Object};

use crate::View;

/// How far the objects of some resources have been looked at.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    resources: VecDeque<GroupResource>,
    /// The namespace and name of the last one of the first resource.
    after: Option<(Arc<str>, Arc<str>)>,
}

impl Sweep {
    /// Every object of these resources, one resource after the other.
    pub fn of(resources: impl IntoIterator<Item = GroupResource>) -> Self {
        Self { resources: resources.into_iter().collect(), after: None }
    }

    /// Whether there is nothing left to look at.
    pub fn is_over(&self) -> bool {
        self.resources.is_empty()
    }

    /// The next objects, at most `budget` of them and all of one resource. None of a resource may be left: ask [`Self::is_over`].
    pub fn next<'a>(&mut self, view: &'a View, budget: usize) -> Vec<&'a Arc<Object>> {
        let Some(resource) = self.resources.front() else { return Vec::new() };
        let left = match &self.after {
            Some((namespace, name)) => view.list_after(resource, None, (namespace, name)),
            None => view.list(resource, None),
        };
        let slice: Vec<&Arc<Object>> = left.take(budget).collect();
        if slice.len() < budget {
            self.resources.pop_front();
            self.after = None;
        } else if let Some(last) = slice.last() {
            self.after = Some((Arc::clone(&last.key().namespace), Arc::clone(&last.key().name)));
        }
        slice
    }
}
