//! The registry of kinds: what is served, under which names, with which verbs and which type of the schema.
//!
//! Generic code takes a `&Registry`, never a static: later it is derived from a view, with the custom kinds in it.

use std::sync::Arc;

use crate::schema::{Schema, TypeId};
use crate::{GroupResource, Gvk};

/// A subresource, as discovery shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// The name: `status`, `scale`, `log`.
    pub name: String,
    /// The kind of its bodies.
    pub gvk: Gvk,
    /// Its verbs.
    pub verbs: Vec<String>,
}

/// A resource that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// What it is stored under.
    pub group_resource: GroupResource,
    /// Its kind and version.
    pub gvk: Gvk,
    /// The singular name.
    pub singular: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// `po`, `deploy`, ...
    pub short_names: Vec<String>,
    /// `all`, ...
    pub categories: Vec<String>,
    /// Its verbs, sorted.
    pub verbs: Vec<String>,
    /// Its subresources, sorted by name.
    pub subresources: Vec<Subresource>,
    /// `storageVersionHash` of legacy discovery.
    pub storage_version_hash: String,
    /// Its type.
    pub type_id: TypeId,
    /// Whether a PUT of an object that is not there creates it.
    pub create_on_update: bool,
}

/// The kinds that a server serves.
#[derive(Clone, Debug)]
pub struct Registry {
    schema: Arc<Schema>,
    resources: Vec<Resource>,
}

impl Registry {
    /// A registry of these resources; their order is the order of discovery within a group.
    pub fn new(schema: Arc<Schema>, resources: Vec<Resource>) -> Self {
        Self { schema, resources }
    }

    /// The shapes.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Every resource, in discovery order.
    pub fn resources(&self) -> &[Resource] {
        &self.resources
    }

    /// The resource of a group, version and plural, as a path names it.
    pub fn by_path(&self, group: &str, version: &str, plural: &str) -> Option<&Resource> {
        self.resources.iter().find(|r| {
            r.gvk.group_version.group == group
                && r.gvk.group_version.version == version
                && r.group_resource.resource == plural
        })
    }

    /// The resource of a group and plural, in the version that is stored.
    pub fn by_group_resource(&self, group_resource: &GroupResource) -> Option<&Resource> {
        self.resources.iter().find(|r| r.group_resource == *group_resource)
    }

    /// The resource of a kind.
    pub fn by_gvk(&self, group: &str, version: &str, kind: &str) -> Option<&Resource> {
        self.resources.iter().find(|r| {
            r.gvk.group_version.group == group && r.gvk.group_version.version == version && r.gvk.kind == kind
        })
    }
}
