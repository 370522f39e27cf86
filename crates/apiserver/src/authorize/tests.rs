use coracle_api::resources as r;
use coracle_api::{Attributes as Fields, GroupResource, Method, Object, ObjectKey, Request, Revision};
use coracle_base::Timestamp;
use coracle_store::{Entry, Store, StoreOptions, Transaction, Write};
use serde_json::{Value, json};

use super::*;

/// Objects of a cluster, and an authorizer that remembers nothing yet.
struct Cluster {
    store: Store,
    options: ServerOptions,
}

impl Cluster {
    fn new() -> Self {
        Self { store: Store::new(StoreOptions::default()), options: ServerOptions::default() }
    }

    fn with(mut self, resource: &GroupResource, namespace: &str, name: &str, mut object: Value) -> Self {
        object["metadata"] = json!({ "name": name });
        let mut attributes = Fields::new();
        attributes.insert("spec.nodeName".into(), object["spec"]["nodeName"].as_str().unwrap_or_default().into());
        let key = ObjectKey::new(resource.clone(), namespace, name);
        let object = Object::new(key.clone(), Revision(0), object, attributes.clone());
        let mut entry = Entry::at(Timestamp::EPOCH);
        let writes = vec![Write::Put { key, body: object.body().clone(), attributes }];
        entry.transactions.push(Transaction { writes, ..Transaction::default() });
        self.store.apply(1, &entry).pop().unwrap().unwrap();
        self
    }

    /// A ClusterRole that allows these verbs on these resources of the core group.
    fn role(self, name: &str, verbs: &[&str], resources: &[&str]) -> Self {
        let rules = json!([{"verbs": verbs, "apiGroups": [""], "resources": resources}]);
        self.with(&r::CLUSTER_ROLES, "", name, json!({ "rules": rules }))
    }

    /// Binds a ClusterRole in a namespace, or in the whole cluster where it is empty.
    fn bound(self, role: &str, namespace: &str, subject: Value) -> Self {
        let resource = if namespace.is_empty() { &r::CLUSTER_ROLE_BINDINGS } else { &r::ROLE_BINDINGS };
        let binding = json!({"roleRef": {"kind": "ClusterRole", "name": role}, "subjects": [subject]});
        self.with(resource, namespace, &format!("of-{role}"), binding)
    }

    /// `yes`, or the message of the refusal.
    fn may(&self, user: &UserInfo, verb: &str, resource: &str, namespace: &str, name: &str) -> String {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let (group, resource) = resource.split_once(':').unwrap_or(("", resource));
        let asked =
            ResourceAttributes { verb, group, resource, subresource, namespace, name, ..ResourceAttributes::default() };
        answer(Access::of(&self.options, &self.store.view()).check(user, &Attributes::Resource(asked)))
    }
}

fn answer<T>(result: Result<T, Status>) -> String {
    result.map_or_else(|status| status.message, |_| "yes".into())
}

fn user(name: &str, groups: &[&str]) -> UserInfo {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    UserInfo { name: name.into(), groups, ..UserInfo::default() }
}

#[test]
fn a_user_may_do_what_he_his_groups_or_his_account_are_bound_to() {
    let cluster = Cluster::new()
        .role("read", &["get"], &["pods"])
        .role("list", &["list"], &["pods"])
        .role("log", &["get"], &["pods/log"])
        .bound("read", "", json!({"kind": "User", "name": "ann"}))
        .bound("list", "shop", json!({"kind": "Group", "name": "dev"}))
        .bound("log", "shop", json!({"kind": "ServiceAccount", "name": "app", "namespace": "other"}));
    let (ann, bob) = (user("ann", &["dev"]), user("bob", &[]));
    assert_eq!(cluster.may(&ann, "get", "pods", "anywhere", "web"), "yes");
    assert_eq!(cluster.may(&ann, "list", "pods", "shop", ""), "yes");
    assert_eq!(
        cluster.may(&ann, "list", "pods", "", ""),
        r#"pods is forbidden: User "ann" cannot list resource "pods" in API group "" at the cluster scope"#
    );
    assert_eq!(
        cluster.may(&bob, "get", "pods", "shop", "web"),
        r#"pods "web" is forbidden: User "bob" cannot get resource "pods" in API group "" in the namespace "shop""#
    );
    let account = user("system:serviceaccount:other:app", &[]);
    assert_eq!(cluster.may(&account, "get", "pods/log", "shop", "web"), "yes");
    assert_ne!(cluster.may(&account, "get", "pods/log", "other", "web"), "yes");
    assert_eq!(cluster.may(&user("root", &["system:masters"]), "delete", "nodes", "", "n"), "yes");
}

#[test]
fn a_binding_to_a_role_that_is_not_there_is_told_of() {
    let cluster = Cluster::new().bound("gone", "", json!({"kind": "User", "name": "ann"}));
    assert_eq!(
        cluster.may(&user("ann", &[]), "get", "pods", "shop", "web"),
        "pods \"web\" is forbidden: User \"ann\" cannot get resource \"pods\" in API group \"\" in the namespace \"shop\": \
         RBAC: clusterrole.rbac.authorization.k8s.io \"gone\" not found"
    );
}

#[test]
fn what_a_changed_role_takes_away_is_gone_at_once() {
    let cluster =
        Cluster::new().role("read", &["get"], &["pods"]).bound("read", "", json!({"kind": "User", "name": "ann"}));
    let ann = user("ann", &[]);
    assert_eq!(cluster.may(&ann, "get", "pods", "shop", "web"), "yes");
    let cluster = cluster.role("read", &["get"], &["nodes"]);
    assert_ne!(cluster.may(&ann, "get", "pods", "shop", "web"), "yes");
    assert_eq!(cluster.may(&ann, "get", "nodes", "", "n"), "yes");
}

#[test]
fn a_decision_says_what_it_rests_on() {
    let cluster = Cluster::new().role("read", &["get"], &["pods"]).bound(
        "read",
        "shop",
        json!({"kind": "ServiceAccount", "name": "app"}),
    );
    let asked =
        ResourceAttributes { verb: "get", resource: "pods", namespace: "shop", ..ResourceAttributes::default() };
    let account = user("system:serviceaccount:shop:app", &[]);
    let decision = Access::of(&cluster.options, &cluster.store.view()).decide(&account, &Attributes::Resource(asked));
    let reason = r#"RBAC: allowed by RoleBinding "of-read/shop" of ClusterRole "read" to ServiceAccount "app/shop""#;
    assert_eq!(decision, Decision { allowed: true, reason: reason.into() });
}

#[test]
fn everybody_may_ask_for_health_and_nobody_for_more_without_a_role() {
    let cluster = Cluster::new();
    let view = cluster.store.view();
    let ask = |method, path: &str| {
        answer(check_path(&cluster.options, &view, &Request::new(method, path, UserInfo::anonymous())).map(drop))
    };
    assert_eq!(ask(Method::Get, "/readyz"), "yes");
    assert_eq!(ask(Method::Post, "/readyz"), r#"forbidden: User "system:anonymous" cannot post path "/readyz""#);
    assert_eq!(ask(Method::Get, "/api"), r#"forbidden: User "system:anonymous" cannot get path "/api""#);
}

#[test]
fn a_node_reads_and_writes_what_is_its_own() {
    let env = json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "token", "key": "a"}}}]);
    let spec = json!({
        "nodeName": "n1",
        "volumes": [{"projected": {"sources": [{"configMap": {"name": "settings"}}]}}],
        "containers": [{"env": env}],
        "serviceAccountName": "app",
    });
    let cluster = Cluster::new().with(&r::PODS, "shop", "mine", json!({ "spec": spec })).with(
        &r::PODS,
        "shop",
        "other",
        json!({"spec": {"nodeName": "n2"}}),
    );
    let node = UserInfo::node("n1");
    let may =
        |verb: &str, resource: &str, namespace: &str, name: &str| cluster.may(&node, verb, resource, namespace, name);
    for (verb, resource, namespace, name) in [
        ("patch", "nodes/status", "", "n1"),
        ("create", "nodes", "", ""),
        ("get", "nodes", "", "n1"),
        ("patch", "pods/status", "shop", "mine"),
        ("delete", "pods", "shop", "mine"),
        ("delete", "pods", "shop", "gone"),
        ("get", "secrets", "shop", "token"),
        ("get", "configmaps", "shop", "settings"),
        ("create", "events", "shop", ""),
        ("create", "serviceaccounts/token", "shop", "app"),
        ("update", "coordination.k8s.io:leases", "kube-node-lease", "n1"),
    ] {
        assert_eq!(may(verb, resource, namespace, name), "yes", "{verb} {resource} {namespace}/{name}");
    }
    let because = |verb: &str, resource: &str, namespace: &str, name: &str, why: &str| {
        let message = may(verb, resource, namespace, name);
        assert!(message.ends_with(why), "{message}");
    };
    because("patch", "nodes/status", "", "n2", "node \"n1\" is not allowed to modify node \"n2\"");
    because("list", "nodes", "", "", "node 'n1' cannot read all nodes, only its own Node object");
    because("list", "pods", "", "", "can only list/watch pods with spec.nodeName field selector");
    let own_pods = "node \"n1\" can only update pod status for pods with spec.nodeName set to itself";
    because("patch", "pods/status", "shop", "other", own_pods);
    let unrelated = "no relationship found between node 'n1' and this object";
    because("get", "secrets", "shop", "other", unrelated);
    because("get", "secrets", "other", "token", unrelated);
    because("create", "serviceaccounts/token", "shop", "default", unrelated);
    because("delete", "secrets", "shop", "token", "can only read resources of this type");
    let leases = "can only access node lease with the same name as the requesting node";
    because("update", "coordination.k8s.io:leases", "kube-node-lease", "n2", leases);
    because("create", "pods", "shop", "", "in the namespace \"shop\"");
}

#[test]
fn to_act_as_somebody_else_takes_the_right_to_each_part_of_him() {
    let rules = json!([
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["bob"]},
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["serviceaccounts"]},
        {"verbs": ["impersonate"], "apiGroups": ["authentication.k8s.io"], "resources": ["userextras/team"]},
    ]);
    let cluster = Cluster::new().with(&r::CLUSTER_ROLES, "", "as", json!({ "rules": rules })).bound(
        "as",
        "",
        json!({"kind": "User", "name": "ann"}),
    );
    let act = |headers: &[(&str, &str)]| {
        let mut request = Request::new(Method::Get, "/", user("ann", &[]));
        request.headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        effective_user(Access::of(&cluster.options, &cluster.store.view()), &request)
    };
    let bob = act(&[("impersonate-user", "bob"), ("impersonate-extra-te%61m", "a")]).unwrap();
    assert_eq!((bob.name.as_str(), &bob.groups[..]), ("bob", &["system:authenticated".to_owned()][..]));
    assert_eq!(bob.extra["team"], ["a"]);
    let account = act(&[("impersonate-user", "system:serviceaccount:shop:app")]).unwrap();
    let groups = ["system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated"];
    assert_eq!(account.groups, groups);
    assert_eq!(
        answer(act(&[("impersonate-user", "eve")])),
        r#"users "eve" is forbidden: User "ann" cannot impersonate resource "users" in API group "" at the cluster scope"#
    );
    assert_eq!(
        answer(act(&[("impersonate-user", "bob"), ("impersonate-group", "system:masters")])),
        "groups \"system:masters\" is forbidden: User \"ann\" cannot impersonate resource \"groups\" in API group \"\" at \
         the cluster scope"
    );
    assert_eq!(
        answer(act(&[("impersonate-group", "dev")])),
        "Internal error occurred: requested [{Group  dev    }] without impersonating a user"
    );
}
