//! The OpenAPI v3 documents, one a group version, made out of the registry and the schema table.
//!
//! kubectl reads them before `apply`, `create`, `replace`, `diff` and for `explain`: it looks for the PATCH operation of a kind and
//! its `fieldValidation` parameter, and for the keys by which lists merge. Making a document takes milliseconds and its bytes never
//! change for a registry, so that who serves them keeps them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use crate::schema::TypeId;
use crate::{GroupVersion, Registry, Resource};

mod descriptions;
mod paths;
mod schemas;
#[cfg(test)]
mod tests;

pub use self::descriptions::DescriptionTable;

/// Where descriptions come from: of a type (by its full name), or of one of its fields (by its JSON name).
pub type Descriptions<'a> = &'a dyn Fn(&str, Option<&str>) -> Option<String>;

/// No descriptions: `kubectl explain` prints `<no description>`.
pub fn no_descriptions(_type_name: &str, _field: Option<&str>) -> Option<String> {
    None
}

/// The path of a group version's document below `/openapi/v3/`: `api/v1`, `apis/apps/v1`.
pub fn document_path(group_version: &GroupVersion) -> String {
    let GroupVersion { group, version } = group_version;
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The document of a group version, as JSON. `server_version` is the server's own (`v1.36.1+coracle.1`).
pub fn document(
    registry: &Registry,
    group_version: &GroupVersion,
    server_version: &str,
    descriptions: Descriptions<'_>,
) -> Vec<u8> {
    let resources: Vec<&Resource> =
        registry.resources().iter().filter(|resource| resource.gvk.group_version == *group_version).collect();
    let mut paths = Map::new();
    let mut kinds = Kinds::default();
    for resource in resources {
        paths::add(registry, resource, &mut paths, &mut kinds);
    }
    let document = json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": server_version},
        "paths": paths,
        "components": {"schemas": schemas::reachable(registry.schema(), &kinds, descriptions)},
    });
    serde_json::to_vec(&document).expect("a JSON value is written to memory")
}

/// The hash of a document, which its address in the index carries and its `ETag` is: SHA-512 in capital hexadecimal digits.
pub fn hash(document: &[u8]) -> String {
    Sha512::digest(document).iter().fold(String::with_capacity(128), |mut text, byte| {
        write!(text, "{byte:02X}").expect("a text is written to memory");
        text
    })
}

/// The body of `/openapi/v3`: the address of every document, from its path (see [`document_path`]) and hash.
pub fn index(hashes: &BTreeMap<String, String>) -> Vec<u8> {
    let paths: Map<String, Value> = hashes
        .iter()
        .map(|(path, hash)| (path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")})))
        .collect();
    serde_json::to_vec(&json!({ "paths": paths })).expect("a JSON value is written to memory")
}

/// The types that the paths of a document name, and those of them that are kinds.
#[derive(Debug, Default)]
struct Kinds {
    named: BTreeSet<TypeId>,
    kinds: BTreeMap<TypeId, BTreeSet<[String; 3]>>,
}

impl Kinds {
    /// Remembers that a type is named; it is a kind where `[group, version, kind]` is given.
    fn add(&mut self, id: TypeId, kind: Option<[String; 3]>) {
        self.named.insert(id);
        if let Some(kind) = kind {
            self.kinds.entry(id).or_default().insert(kind);
        }
    }
}

fn group_version_kind([group, version, kind]: &[String; 3]) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn reference(type_name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{type_name}")})
}
