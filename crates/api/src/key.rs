//! What names things: groups, versions, kinds, resources, objects and revisions.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// An API group and version, as in `apps/v1`; the core group is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupVersion {
    /// The group, empty for the core group.
    pub group: Cow<'static, str>,
    /// The version.
    pub version: Cow<'static, str>,
}

impl GroupVersion {
    /// A group and version known at compile time.
    pub const fn builtin(group: &'static str, version: &'static str) -> Self {
        Self { group: Cow::Borrowed(group), version: Cow::Borrowed(version) }
    }

    /// Reads an `apiVersion`: `v1` or `apps/v1`; `None` when it has more than one slash or an empty version.
    pub fn parse(api_version: &str) -> Option<Self> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        if version.is_empty() || version.contains('/') || (group.is_empty() && api_version.contains('/')) {
            return None;
        }
        Some(Self { group: Cow::Owned(group.to_owned()), version: Cow::Owned(version.to_owned()) })
    }
}

impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(&self.version) } else { write!(f, "{}/{}", self.group, self.version) }
    }
}

/// A group, version and kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Gvk {
    /// The group and version.
    pub group_version: GroupVersion,
    /// The kind, as in `Deployment`.
    pub kind: Cow<'static, str>,
}

impl Gvk {
    /// A kind known at compile time.
    pub const fn builtin(group: &'static str, version: &'static str, kind: &'static str) -> Self {
        Self { group_version: GroupVersion::builtin(group, version), kind: Cow::Borrowed(kind) }
    }

    /// The `apiVersion` of objects of this kind.
    pub fn api_version(&self) -> String {
        self.group_version.to_string()
    }
}

/// A group and the plural name of a resource: what an object is stored under, whatever version it was written in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupResource {
    /// The group, empty for the core group.
    pub group: Cow<'static, str>,
    /// The plural, as in `deployments`.
    pub resource: Cow<'static, str>,
}

impl GroupResource {
    /// A resource known at compile time.
    pub const fn builtin(group: &'static str, resource: &'static str) -> Self {
        Self { group: Cow::Borrowed(group), resource: Cow::Borrowed(resource) }
    }
}

/// `deployments.apps`, or `pods` for the core group: how messages name a resource.
impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(&self.resource) } else { write!(f, "{}.{}", self.resource, self.group) }
    }
}

/// What an object is stored under. Keys order by resource, namespace, name, which is the order of every LIST.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// The resource.
    pub resource: GroupResource,
    /// The namespace, empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// The key of an object; `namespace` is empty for a cluster-scoped one.
    pub fn new(resource: GroupResource, namespace: &str, name: &str) -> Self {
        Self { resource, namespace: namespace.into(), name: name.into() }
    }
}

/// `deployments.apps default/web`, for messages to people who run the cluster.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.resource, self.name)
        } else {
            write!(f, "{} {}/{}", self.resource, self.namespace, self.name)
        }
    }
}

/// An object's `metadata.uid`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Uid(pub Arc<str>);

impl Uid {
    /// The text of the uid.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The store's counter: one a changing transaction, the same on all members. `resourceVersion` is its decimal form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision(pub u64);

impl Revision {
    /// Reads a `resourceVersion`; `None` when it is not a decimal number.
    pub fn parse(resource_version: &str) -> Option<Self> {
        resource_version.parse().ok().map(Self)
    }

    /// Appends its decimal form.
    pub fn write(self, out: &mut Vec<u8>) {
        write!(out, "{self}").expect("a number is written to memory");
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
