//! Reads the table of the built-in kinds, `builtin.tsv`: one kind a line, in discovery order, in columns:
//!
//! group, version, plural, singular, kind, scope, short names, categories, verbs, subresources
//! (`name=[group/version.]Kind:verbs`, joined by `;`, the group left out where it is the kind's own), storage version hash,
//! `1` where a PUT creates, and the group that its objects are stored under.

use std::borrow::Cow;

use super::{Resource, Subresource};
use crate::schema::{Schema, TypeId};
use crate::{GroupResource, GroupVersion, Gvk};

/// Reads the table, which is part of the program: what does not read is a broken build, so it panics.
pub(super) fn parse(text: &'static str, schema: &Schema) -> Vec<Resource> {
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(|line| row(line, schema)).collect()
}

fn row(line: &'static str, schema: &Schema) -> Resource {
    let mut cells = line.split('\t');
    let mut cell = || cells.next().unwrap_or_default();
    let (group, version, plural, singular, kind) = (cell(), cell(), cell(), cell(), cell());
    let (scope, short_names, categories, verbs, subresources) = (cell(), cell(), cell(), cell(), cell());
    let (storage_version_hash, put_creates, stored_group) = (cell(), cell(), cell());
    let group_version = GroupVersion::builtin(group, version);
    Resource {
        group_resource: GroupResource::builtin(stored_group, plural),
        gvk: Gvk { group_version: group_version.clone(), kind: Cow::Borrowed(kind) },
        singular: singular.to_owned(),
        namespaced: scope == "Namespaced",
        short_names: list(short_names, ','),
        categories: list(categories, ','),
        verbs: list(verbs, ','),
        subresources: list(subresources, ';').iter().map(|entry| subresource(entry, &group_version)).collect(),
        storage_version_hash: storage_version_hash.to_owned(),
        type_id: type_of(group, version, kind, schema),
        create_on_update: put_creates == "1",
    }
}

fn list(text: &str, separator: char) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { text.split(separator).map(str::to_owned).collect() }
}

fn subresource(entry: &str, parent: &GroupVersion) -> Subresource {
    let (name, rest) = entry.split_once('=').unwrap_or_else(|| panic!("{entry:?} is no subresource"));
    let (kind, verbs) = rest.split_once(':').unwrap_or_else(|| panic!("{entry:?} has no verbs"));
    // A group may have dots in it (`authentication.k8s.io/v1.TokenRequest`), a kind has none.
    let (group_version, kind) = match kind.rsplit_once('.') {
        Some((group_version, kind)) => {
            (GroupVersion::parse(group_version).unwrap_or_else(|| panic!("{entry:?} has no version")), kind)
        }
        None => (parent.clone(), kind),
    };
    let gvk = Gvk { group_version, kind: Cow::Owned(kind.to_owned()) };
    Subresource { name: name.to_owned(), gvk, verbs: list(verbs, ',') }
}

/// The type of a built-in kind: `apps/v1` Deployment is `io.k8s.api.apps.v1.Deployment`.
fn type_of(group: &str, version: &str, kind: &str, schema: &Schema) -> TypeId {
    let package = if group.is_empty() { "core" } else { group.split('.').next().unwrap_or(group) };
    let name = format!("io.k8s.api.{package}.{version}.{kind}");
    schema.find(&name).unwrap_or_else(|| panic!("no type {name} in the schema"))
}
