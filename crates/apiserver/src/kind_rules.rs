//! What the verbs do differently for some kinds, as tables: facts of Kubernetes' storage strategies.

use coracle_api::{GroupResource, Resource};

/// Kinds whose DELETE answers with the object even when it is gone.
const RETURNS_DELETED: [(&str, &str); 9] = [
    ("", "namespaces"),
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("", "pods"),
    ("", "podtemplates"),
    ("", "resourcequotas"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("storage.k8s.io", "storageclasses"),
];

/// Kinds whose dependents stay when no propagation policy is given.
const ORPHANS_BY_DEFAULT: [(&str, &str); 2] = [("", "replicationcontrollers"), ("batch", "jobs")];

fn listed(table: &[(&str, &str)], resource: &GroupResource) -> bool {
    table.contains(&(&*resource.group, &*resource.resource))
}

/// Whether DELETE answers with the object even when it is gone.
pub(crate) fn returns_deleted(resource: &Resource) -> bool {
    listed(&RETURNS_DELETED, &resource.group_resource)
}

/// Whether dependents stay when no propagation policy is given.
pub(crate) fn orphans_by_default(resource: &Resource) -> bool {
    listed(&ORPHANS_BY_DEFAULT, &resource.group_resource)
}

/// The warning that every answer about a deprecated kind carries.
pub(crate) fn deprecation(resource: &Resource) -> Option<&'static str> {
    (listed(&[("", "endpoints")], &resource.group_resource))
        .then_some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
}
