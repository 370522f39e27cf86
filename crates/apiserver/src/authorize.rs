//! Who may do what: `system:masters` everything, nodes what they and their pods need, everybody what roles grant him.
//!
//! A decision is a function of a view, a user and what he asks. The controllers and the scheduler are parts of this program and
//! in `system:masters`; their names are in what they write.

mod escalation;
mod impersonate;
mod index;
pub(crate) mod node;
mod rule;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use coracle_api::{GroupResource, Request, Status, StatusDetails, UserInfo};
use coracle_store::View;

pub(crate) use self::escalation::{check_binding, check_role};
pub(crate) use self::impersonate::effective_user;
use self::index::{Index, IndexCache};
pub use self::node::node_rules;
pub use self::rule::{PolicyRule, uncovered};
use crate::ServerOptions;
use crate::request::method_word;

/// The group that may do everything, whatever roles there are.
const MASTERS: &str = "system:masters";
/// Paths that everybody may read even where no role says so: what starts a server asks them before there are roles.
const HEALTH: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// What is asked of the authorizer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attributes<'a> {
    /// A verb on a resource.
    Resource(ResourceAttributes<'a>),
    /// A method on a path without a resource.
    Path {
        /// The method, in lower case.
        verb: &'a str,
        /// The path.
        path: &'a str,
    },
}

/// A verb on a resource; what is absent is empty.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ResourceAttributes<'a> {
    /// The verb.
    pub(crate) verb: &'a str,
    /// The group.
    pub(crate) group: &'a str,
    /// The plural.
    pub(crate) resource: &'a str,
    /// The subresource.
    pub(crate) subresource: &'a str,
    /// The namespace.
    pub(crate) namespace: &'a str,
    /// The object's name.
    pub(crate) name: &'a str,
    /// The `spec.nodeName` that a field selector asks for.
    pub(crate) node_name: &'a str,
}

impl ResourceAttributes<'_> {
    fn group_resource(&self) -> GroupResource {
        GroupResource { group: self.group.to_owned().into(), resource: self.resource.to_owned().into() }
    }
}

/// A decision, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Whether it may be done.
    pub(crate) allowed: bool,
    /// What allows it, or what could not be looked at; often empty.
    pub(crate) reason: String,
}

/// Decides, and remembers the roles of the newest view between requests.
#[derive(Debug, Default)]
pub struct Authorizer(IndexCache);

/// Who may do what in one view.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access<'a> {
    authorizer: &'a Authorizer,
    view: &'a View,
}

/// Whether a user may do everything.
pub(crate) fn may_do_everything(user: &UserInfo) -> bool {
    user.groups.iter().any(|group| group == MASTERS)
}

impl<'a> Access<'a> {
    /// What holds in a view.
    pub(crate) fn of(options: &'a ServerOptions, view: &'a View) -> Self {
        Self { authorizer: &options.authorizer, view }
    }

    /// Whether a user may do that, and why.
    pub(crate) fn decide(self, user: &UserInfo, attributes: &Attributes<'_>) -> Decision {
        let health = matches!(attributes, Attributes::Path { verb: "get" | "head", path } if HEALTH.contains(path));
        if health || may_do_everything(user) {
            return Decision { allowed: true, reason: String::new() };
        }
        let mut reasons = Vec::new();
        if let Some(node) = node::name_of(user) {
            match node::decide(self.view, node, attributes) {
                Ok(()) => return Decision { allowed: true, reason: String::new() },
                Err(why) => reasons.extend(Some(why).filter(|why| !why.is_empty())),
            }
        }
        let namespace = match attributes {
            Attributes::Resource(asked) => asked.namespace,
            Attributes::Path { .. } => "",
        };
        let mut errors = Vec::new();
        let index = self.index();
        for grant in index.grants(user, namespace) {
            match &grant.rules {
                Ok(rules) if rules.iter().any(|rule| rule.allows(attributes)) => {
                    return Decision { allowed: true, reason: format!("RBAC: allowed by {}", grant.through) };
                }
                Ok(_) => {}
                Err(error) => errors.push(error.clone()),
            }
        }
        errors.dedup();
        match errors.as_slice() {
            [] => {}
            [one] => reasons.push(format!("RBAC: {one}")),
            more => reasons.push(format!("RBAC: [{}]", more.join(", "))),
        }
        Decision { allowed: false, reason: reasons.join("\n") }
    }

    /// The 403 that tells what may not be done.
    pub(crate) fn check(self, user: &UserInfo, attributes: &Attributes<'_>) -> Result<(), Status> {
        let decision = self.decide(user, attributes);
        if !decision.allowed {
            return Err(forbidden(user, attributes, &decision.reason));
        }
        match (node::name_of(user), attributes) {
            (Some(node), Attributes::Resource(asked)) => node::restrict(self.view, node, asked),
            _ => Ok(()),
        }
    }

    /// The rules that a user has in a namespace (or for the cluster, where it is empty), and which could not be found.
    pub(crate) fn rules_for(self, user: &UserInfo, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        for grant in self.index().grants(user, namespace) {
            match &grant.rules {
                Ok(granted) => rules.extend(granted.iter().cloned()),
                Err(error) => errors.push(error.clone()),
            }
        }
        if may_do_everything(user) && !uncovered(&rules, &PolicyRule::everything()).is_empty() {
            rules.extend(PolicyRule::everything());
        }
        (rules, errors)
    }

    fn index(self) -> Arc<Index> {
        self.authorizer.0.of(self.view)
    }
}

/// Whether a request may do what it does on a path that is no resource, and whom it comes from: for paths that the driver serves
/// itself. Who acts as another user counts as that user.
///
/// # Errors
///
/// The 403 that says what the user may not do.
pub fn check_path(options: &ServerOptions, view: &View, request: &Request) -> Result<UserInfo, Status> {
    let access = Access::of(options, view);
    let user = effective_user(access, request)?;
    access.check(&user, &Attributes::Path { verb: method_word(request.method), path: &request.path })?;
    Ok(user)
}

/// Kubernetes' words for what a user may not do.
fn forbidden(user: &UserInfo, attributes: &Attributes<'_>, reason: &str) -> Status {
    let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    match attributes {
        Attributes::Path { verb, path } => {
            let message = format!("forbidden: User {:?} cannot {verb} path {path:?}{because}", user.name);
            Status::failure(403, Some(coracle_api::Reason::Forbidden), message).with_details(StatusDetails::default())
        }
        Attributes::Resource(asked) => {
            let ResourceAttributes { verb, group, resource, subresource, namespace, name, .. } = *asked;
            let full = if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
            let place = if namespace.is_empty() {
                "at the cluster scope".into()
            } else {
                format!("in the namespace {namespace:?}")
            };
            let user = &user.name;
            let why = format!("User {user:?} cannot {verb} resource {full:?} in API group {group:?} {place}{because}");
            Status::forbidden(&asked.group_resource(), name, why)
        }
    }
}
