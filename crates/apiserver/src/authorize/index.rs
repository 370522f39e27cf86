//! Who is granted what: the roles and bindings of a view, by subject.
//!
//! The index is made anew when a role or a binding has changed; between changes a request looks its user and groups up in it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use coracle_api::resources::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES};
use coracle_api::{Fields, Object, ObjectKey, Revision, UserInfo};
use coracle_store::View;
use serde_json::Value;

use super::rule::PolicyRule;

/// What a binding is made of.
const BINDING: Fields = Fields::Only(&[("roleRef", Fields::All), ("subjects", Fields::All)]);
/// What a role is made of.
const ROLE: Fields = Fields::Only(&[("rules", Fields::All)]);

/// What one binding gives one of its subjects.
#[derive(Debug)]
pub(super) struct Grant {
    /// Where: one namespace, or everywhere and the cluster itself.
    namespace: Option<Arc<str>>,
    /// The role's rules, or why there are none.
    pub(super) rules: Result<Arc<[PolicyRule]>, String>,
    /// `ClusterRoleBinding "x" of ClusterRole "y" to Group "z"`.
    pub(super) through: String,
}

/// The grants of a view by subject.
#[derive(Debug, Default)]
pub(super) struct Index {
    users: BTreeMap<String, Vec<Grant>>,
    groups: BTreeMap<String, Vec<Grant>>,
}

impl Index {
    fn of(view: &View) -> Self {
        let mut index = Self::default();
        let mut roles = BTreeMap::new();
        let cluster = view.list(&CLUSTER_ROLE_BINDINGS, None);
        for binding in cluster.chain(view.list(&ROLE_BINDINGS, None)) {
            index.add(view, binding, &mut roles);
        }
        index
    }

    fn add(&mut self, view: &View, binding: &Object, roles: &mut BTreeMap<ObjectKey, Arc<[PolicyRule]>>) {
        let value = binding.fields(BINDING);
        let key = binding.key();
        let namespace: Option<Arc<str>> = (key.resource == ROLE_BINDINGS).then(|| key.namespace.clone());
        let rules = rules_of(view, &value["roleRef"], namespace.as_deref().unwrap_or_default(), roles);
        let role = (text(&value["roleRef"], "kind"), text(&value["roleRef"], "name"));
        let binding = match &namespace {
            Some(namespace) => format!("RoleBinding {:?}", format!("{}/{namespace}", key.name)),
            None => format!("ClusterRoleBinding {:?}", &*key.name),
        };
        for subject in value["subjects"].as_array().into_iter().flatten() {
            let (kind, name) = (text(subject, "kind"), text(subject, "name"));
            let mut shown = name.to_owned();
            let grants = match kind {
                "User" => self.users.entry(name.to_owned()),
                "Group" => self.groups.entry(name.to_owned()),
                "ServiceAccount" => {
                    let own = Some(text(subject, "namespace")).filter(|namespace| !namespace.is_empty());
                    let Some(of) = own.or(namespace.as_deref()) else { continue };
                    shown = format!("{name}/{of}");
                    self.users.entry(format!("system:serviceaccount:{of}:{name}"))
                }
                _ => continue,
            };
            let through = format!("{binding} of {} {:?} to {kind} {shown:?}", role.0, role.1);
            grants.or_default().push(Grant { namespace: namespace.clone(), rules: rules.clone(), through });
        }
    }

    /// What a user is granted for a namespace, or for the cluster where it is empty: what holds everywhere comes first.
    pub(super) fn grants<'a>(&'a self, user: &'a UserInfo, namespace: &'a str) -> impl Iterator<Item = &'a Grant> {
        let own = move || {
            let groups = user.groups.iter().filter_map(|group| self.groups.get(group)).flatten();
            self.users.get(&user.name).into_iter().flatten().chain(groups)
        };
        let here = move |grant: &&Grant| grant.namespace.as_deref() == Some(namespace);
        own().filter(|grant| grant.namespace.is_none()).chain(own().filter(here))
    }
}

/// The rules of the role that a binding names.
fn rules_of(
    view: &View,
    reference: &Value,
    namespace: &str,
    roles: &mut BTreeMap<ObjectKey, Arc<[PolicyRule]>>,
) -> Result<Arc<[PolicyRule]>, String> {
    let key = role_key(reference, namespace)
        .ok_or_else(|| format!("unsupported role reference kind: {:?}", text(reference, "kind")))?;
    if let Some(known) = roles.get(&key) {
        return Ok(known.clone());
    }
    let Some(role) = view.object(&key) else {
        return Err(format!("{} {:?} not found", singular(&key), &*key.name));
    };
    let rules: Arc<[PolicyRule]> = PolicyRule::all_of(&role.fields(ROLE)).into();
    roles.insert(key, rules.clone());
    Ok(rules)
}

/// The role that a `roleRef` means, seen from a binding in a namespace (empty for a ClusterRoleBinding).
pub(super) fn role_key(reference: &Value, namespace: &str) -> Option<ObjectKey> {
    let name = text(reference, "name");
    match text(reference, "kind") {
        "ClusterRole" => Some(ObjectKey::new(CLUSTER_ROLES, "", name)),
        "Role" if !namespace.is_empty() => Some(ObjectKey::new(ROLES, namespace, name)),
        _ => None,
    }
}

fn singular(key: &ObjectKey) -> &'static str {
    if key.resource == ROLES { "role.rbac.authorization.k8s.io" } else { "clusterrole.rbac.authorization.k8s.io" }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// The last changes that an index knows of.
type Known = [Revision; 4];

/// The newest index that was made. A cache: it changes no answer.
#[derive(Debug, Default)]
pub(super) struct IndexCache(Mutex<Option<(Known, Arc<Index>)>>);

impl IndexCache {
    /// The index of a view.
    pub(super) fn of(&self, view: &View) -> Arc<Index> {
        let known =
            [&CLUSTER_ROLES, &ROLES, &CLUSTER_ROLE_BINDINGS, &ROLE_BINDINGS].map(|resource| view.last_change(resource));
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cached {
            Some((of, index)) if *of == known => index.clone(),
            _ => {
                let index = Arc::new(Index::of(view));
                // A request that began on an older view leaves the newer index to the others.
                if cached.as_ref().is_none_or(|(of, _)| of.iter().max() <= known.iter().max()) {
                    *cached = Some((known, index.clone()));
                }
                index
            }
        }
    }
}
