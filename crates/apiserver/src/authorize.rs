//! Who may do what.
//!
//! There are no roles yet: `system:masters`, the controllers of the control plane and nodes may do everything,
//! every known user may look at discovery and ask about himself, and everybody may look at the server's health.

use coracle_api::{GroupResource, Request, Status, StatusDetails, UserInfo};

/// What is asked of the authorizer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attributes<'a> {
    /// A verb on a resource.
    Resource {
        /// The verb.
        verb: &'a str,
        /// The group.
        group: &'a str,
        /// The plural.
        resource: &'a str,
        /// The subresource, or empty.
        subresource: &'a str,
        /// The namespace, or empty.
        namespace: &'a str,
        /// The name, or empty.
        name: &'a str,
    },
    /// A method on a path without a resource.
    Path {
        /// The method, in lower case.
        verb: &'a str,
        /// The path.
        path: &'a str,
    },
}

/// Paths that everybody may read (`system:public-info-viewer`).
const PUBLIC: [&str; 5] = ["/healthz", "/livez", "/readyz", "/version", "/version/"];

/// Paths that every known user may read (`system:discovery`); `*` stands for anything behind.
const DISCOVERY: [&str; 12] = [
    "/.well-known/openid-configuration",
    "/openid/v1/jwks",
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
];

/// What every known user may create (`system:basic-user`).
const BASIC: [(&str, &str); 3] = [
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
];

/// Whether a user may do everything.
pub(crate) fn may_do_everything(user: &UserInfo) -> bool {
    user.groups.iter().any(|group| group == "system:masters")
        || user.name.starts_with("system:controller:")
        || user.name.starts_with("system:node:")
}

/// Whether a user may do that.
pub(crate) fn allowed(user: &UserInfo, attributes: Attributes<'_>) -> bool {
    if may_do_everything(user) {
        return true;
    }
    let known = user.groups.iter().any(|group| group == "system:authenticated");
    match attributes {
        Attributes::Resource { verb, group, resource, .. } => {
            known && verb == "create" && BASIC.contains(&(group, resource))
        }
        Attributes::Path { verb, path } => {
            let read = matches!(verb, "get" | "head");
            read && (PUBLIC.contains(&path) || (known && DISCOVERY.iter().any(|pattern| matches_path(pattern, path))))
        }
    }
}

/// The patterns of paths that a user may read, for `SelfSubjectRulesReview`.
pub(crate) fn readable_paths(user: &UserInfo) -> Vec<&'static str> {
    if user.groups.iter().any(|group| group == "system:authenticated") { DISCOVERY.to_vec() } else { PUBLIC.to_vec() }
}

fn matches_path(pattern: &str, path: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == path, |prefix| path.starts_with(prefix))
}

/// The 403 that tells what may not be done.
pub(crate) fn check(user: &UserInfo, attributes: Attributes<'_>) -> Result<(), Status> {
    if allowed(user, attributes) {
        return Ok(());
    }
    Err(match attributes {
        Attributes::Path { verb, path } => {
            let message = format!("forbidden: User {:?} cannot {verb} path {path:?}", user.name);
            Status::failure(403, Some(coracle_api::Reason::Forbidden), message).with_details(StatusDetails::default())
        }
        Attributes::Resource { verb, group, resource, subresource, namespace, name } => {
            let group_resource = GroupResource { group: group.to_owned().into(), resource: resource.to_owned().into() };
            let full = if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
            let place = if namespace.is_empty() {
                "at the cluster scope".into()
            } else {
                format!("in the namespace {namespace:?}")
            };
            let why = format!("User {:?} cannot {verb} resource {full:?} in API group {group:?} {place}", user.name);
            Status::forbidden(&group_resource, name, why)
        }
    })
}

/// The user that a request acts as: the impersonated one where its headers say so and the user may impersonate.
pub(crate) fn effective_user(request: &Request) -> Result<UserInfo, Status> {
    let Some(name) = request.header("impersonate-user") else {
        if request.headers.iter().any(|(key, _)| key.starts_with("impersonate-")) {
            let message = "requested [{UserExtra  impersonate  }] without impersonating a user";
            return Err(Status::internal(message));
        }
        return Ok(request.user.clone());
    };
    let asked = Attributes::Resource {
        verb: "impersonate",
        group: "",
        resource: "users",
        subresource: "",
        namespace: "",
        name,
    };
    check(&request.user, asked)?;
    let mut groups: Vec<String> =
        request.headers.iter().filter(|(key, _)| key == "impersonate-group").map(|(_, value)| value.clone()).collect();
    let mut user = UserInfo { name: name.to_owned(), ..UserInfo::default() };
    if let Some(account) = name.strip_prefix("system:serviceaccount:")
        && groups.is_empty()
    {
        groups.push("system:serviceaccounts".into());
        groups.extend(account.split(':').next().map(|namespace| format!("system:serviceaccounts:{namespace}")));
    }
    let membership = if name == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" };
    if !groups.iter().any(|group| group == membership) {
        groups.push(membership.into());
    }
    user.groups = groups;
    request.header("impersonate-uid").unwrap_or_default().clone_into(&mut user.uid);
    for (key, value) in &request.headers {
        if let Some(extra) = key.strip_prefix("impersonate-extra-") {
            user.extra.entry(extra.to_owned()).or_default().push(value.clone());
        }
    }
    Ok(user)
}
