//! Paths: `/api/v1/namespaces/default/pods/web/status` and what its parts mean.
//!
//! Source: `RequestInfo` of `k8s.io/apiserver`.

/// Subresources of a Namespace: they stand where a namespaced resource would.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A resource, whether it is served or not.
    Resource(ResourcePath),
    /// Anything else: discovery, health, documents.
    Path,
}

/// The parts of a resource's path; what is absent is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResourcePath {
    /// The group, empty for the core group.
    pub(crate) group: String,
    /// The version.
    pub(crate) version: String,
    /// The namespace of a namespaced resource.
    pub(crate) namespace: String,
    /// The plural.
    pub(crate) resource: String,
    /// The object's name.
    pub(crate) name: String,
    /// The subresource.
    pub(crate) subresource: String,
    /// What follows the subresource, with its leading slash (for `proxy`).
    pub(crate) rest: String,
    /// Whether it is a path of the old `/watch/` form.
    pub(crate) watch: bool,
}

impl ResourcePath {
    /// The namespace that authorization looks at: a Namespace counts as inside itself.
    pub(crate) fn scope(&self) -> &str {
        if self.resource == "namespaces" && self.group.is_empty() { &self.name } else { &self.namespace }
    }
}

/// Reads a path, percent-decoded, without its query.
pub(crate) fn parse(path: &str) -> Target {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (group, version, mut rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return Target::Path,
    };
    let mut found = ResourcePath { group: group.into(), version: version.into(), ..ResourcePath::default() };
    if let ["watch", behind @ ..] = rest {
        found.watch = true;
        rest = behind;
    }
    if let ["namespaces", namespace, resource, ..] = rest
        && !NAMESPACE_SUBRESOURCES.contains(resource)
    {
        (*namespace).clone_into(&mut found.namespace);
        rest = &rest[2..];
    }
    let [resource, behind @ ..] = rest else { return Target::Path };
    (*resource).clone_into(&mut found.resource);
    if let Some(name) = behind.first() {
        (*name).clone_into(&mut found.name);
    }
    if let Some(subresource) = behind.get(1) {
        (*subresource).clone_into(&mut found.subresource);
    }
    if behind.len() > 2 {
        found.rest = format!("/{}", behind[2..].join("/"));
        if path.ends_with('/') {
            found.rest.push('/');
        }
    } else if !found.subresource.is_empty() && path.ends_with('/') {
        found.rest.push('/');
    }
    Target::Resource(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: &str) {
        let found = match parse(path) {
            Target::Path => "-".to_owned(),
            Target::Resource(r) => {
                format!(
                    "{}|{}|{}|{}|{}|{}|{}",
                    r.group, r.version, r.namespace, r.resource, r.name, r.subresource, r.rest
                )
            }
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn paths_are_read_as_kubernetes_reads_them() {
        check("/api/v1/pods", "|v1||pods|||");
        check("/api/v1/namespaces/a/pods/web/status", "|v1|a|pods|web|status|");
        check("/api/v1/namespaces/a", "|v1||namespaces|a||");
        check("/api/v1/namespaces/a/finalize", "|v1||namespaces|a|finalize|");
        check("/apis/apps/v1/namespaces/a/deployments/d/scale", "apps|v1|a|deployments|d|scale|");
        check("/api/v1/namespaces/a/services/http:web:80/proxy/x/y/", "|v1|a|services|http:web:80|proxy|/x/y/");
    }

    #[test]
    fn discovery_is_no_resource() {
        for path in ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz", "/openapi/v3"] {
            check(path, "-");
        }
    }
}
