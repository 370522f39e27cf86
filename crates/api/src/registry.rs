//! The registry of kinds: what is served, under which names, with which verbs and which type of the schema.
//!
//! Generic code takes a `&Registry`, never a static: later it is derived from a view, with the custom kinds in it.
//! The built-in kinds are the rows of `registry/builtin.tsv`: the next kind is one row and its strategy. Those of `registry/metrics.tsv` are
//! never stored.

use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};

use crate::schema::{Schema, TypeId};
use crate::{GroupResource, GroupVersion, Gvk};

mod event_view;
mod table;
#[cfg(test)]
mod tests;

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

impl Resource {
    /// Whether its objects are stored as another group's: `events.k8s.io` shows the Events of the core group.
    pub fn is_view(&self) -> bool {
        self.gvk.group_version.group != self.group_resource.group
    }

    /// Whether it has a verb.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// The subresource of a name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }
}

/// The kinds that a server serves. Cloning it copies pointers.
#[derive(Clone, Debug)]
pub struct Registry {
    schema: Arc<Schema>,
    tables: Arc<Tables>,
}

#[derive(Debug)]
struct Tables {
    resources: Vec<Resource>,
    /// Indexes into `resources`, each sorted by what it is searched by.
    by_path: Vec<usize>,
    by_group_resource: Vec<usize>,
    by_gvk: Vec<usize>,
}

impl Registry {
    /// The built-in kinds, read once.
    pub fn builtin() -> Self {
        static BUILTIN: LazyLock<Registry> = LazyLock::new(|| {
            let schema = Schema::builtin();
            let resources = table::parse(
                concat!(include_str!("registry/builtin.tsv"), include_str!("registry/metrics.tsv")),
                &schema,
            );
            Registry::new(schema, resources)
        });
        BUILTIN.clone()
    }

    /// A registry of these resources; their order is the order of discovery, of groups and within a group.
    ///
    /// Where two are stored under the same group and plural, the first is the one in the version that is stored.
    pub fn new(schema: Arc<Schema>, resources: Vec<Resource>) -> Self {
        let mut by_path: Vec<usize> = (0..resources.len()).collect();
        let mut by_group_resource = by_path.clone();
        let mut by_gvk = by_path.clone();
        by_path.sort_by_key(|&index| path_of(&resources[index]));
        by_group_resource.sort_by_key(|&index| &resources[index].group_resource);
        by_gvk.sort_by_key(|&index| kind_of(&resources[index]));
        Self { schema, tables: Arc::new(Tables { resources, by_path, by_group_resource, by_gvk }) }
    }

    /// The shapes.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Every resource, in discovery order.
    pub fn resources(&self) -> &[Resource] {
        &self.tables.resources
    }

    /// The group versions that are served, in discovery order.
    pub fn group_versions(&self) -> Vec<&GroupVersion> {
        let mut found: Vec<&GroupVersion> = Vec::new();
        for resource in self.resources() {
            if !found.contains(&&resource.gvk.group_version) {
                found.push(&resource.gvk.group_version);
            }
        }
        found
    }

    /// The resource of a group, version and plural, as a path names it.
    pub fn by_path(&self, group: &str, version: &str, plural: &str) -> Option<&Resource> {
        self.first(&self.tables.by_path, |resource| path_of(resource).cmp(&(group, version, plural)))
    }

    /// The resource of a group and plural, in the version that is stored.
    pub fn by_group_resource(&self, group_resource: &GroupResource) -> Option<&Resource> {
        self.first(&self.tables.by_group_resource, |resource| resource.group_resource.cmp(group_resource))
    }

    /// The resource of a kind.
    pub fn by_gvk(&self, group: &str, version: &str, kind: &str) -> Option<&Resource> {
        self.first(&self.tables.by_gvk, |resource| kind_of(resource).cmp(&(group, version, kind)))
    }

    /// The first resource that an index, sorted by what `compare` looks at, holds equal.
    fn first(&self, index: &[usize], compare: impl Fn(&Resource) -> Ordering) -> Option<&Resource> {
        let resources = &self.tables.resources;
        let at = index.partition_point(|&index| compare(&resources[index]).is_lt());
        index.get(at).map(|&index| &resources[index]).filter(|resource| compare(resource).is_eq())
    }
}

fn path_of(resource: &Resource) -> (&str, &str, &str) {
    let GroupVersion { group, version } = &resource.gvk.group_version;
    (group, version, &resource.group_resource.resource)
}

fn kind_of(resource: &Resource) -> (&str, &str, &str) {
    let GroupVersion { group, version } = &resource.gvk.group_version;
    (group, version, &resource.gvk.kind)
}
