//! The rules of Kubernetes' default ClusterRoles, and who is bound to them.
//!
//! The user-facing roles are whole, kinds included that Coracle does not serve yet: what they allow is the same on any cluster.

/// A default ClusterRole.
#[derive(Debug)]
pub(super) struct Role {
    pub(super) name: &'static str,
    /// The roles that it is put together into.
    pub(super) aggregated_to: &'static [&'static str],
    /// The name by which its own rules are put together, when they are.
    pub(super) aggregates: Option<&'static str>,
    pub(super) rules: &'static [Rule],
}

/// One of its rules; words are parted by spaces.
#[derive(Debug)]
pub(super) enum Rule {
    /// Verbs on the resources of a group.
    On(&'static str, &'static str, &'static str),
    /// Verbs on paths.
    At(&'static str, &'static str),
}

use Rule::{At, On};

const READ: &str = "get list watch";
const WRITE: &str = "create delete deletecollection patch update";
const READ_WRITE: &str = "create delete deletecollection get list patch update watch";

const fn role(name: &'static str, rules: &'static [Rule]) -> Role {
    Role { name, aggregated_to: &[], aggregates: None, rules }
}

/// The ClusterRoles, but for `system:node`, which the node authorizer knows.
pub(super) const ROLES: &[Role] = &[
    role("cluster-admin", &[On("*", "*", "*"), At("*", "*")]),
    role(
        "system:discovery",
        &[At("get", "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/")],
    ),
    role(
        "system:monitoring",
        &[At("get", "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*")],
    ),
    role(
        "system:basic-user",
        &[
            On("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
            On("create", "authentication.k8s.io", "selfsubjectreviews"),
        ],
    ),
    role("system:public-info-viewer", &[At("get", "/healthz /livez /readyz /version /version/")]),
    role(
        "system:auth-delegator",
        &[
            On("create", "authentication.k8s.io", "tokenreviews"),
            On("create", "authorization.k8s.io", "subjectaccessreviews"),
        ],
    ),
    role("system:service-account-issuer-discovery", &[At("get", "/.well-known/openid-configuration /openid/v1/jwks")]),
    Role { name: "admin", aggregated_to: &[], aggregates: Some("admin"), rules: &[] },
    Role { name: "edit", aggregated_to: &["admin"], aggregates: Some("edit"), rules: &[] },
    Role { name: "view", aggregated_to: &["edit"], aggregates: Some("view"), rules: &[] },
    Role { name: "system:aggregate-to-admin", aggregated_to: &["admin"], aggregates: None, rules: ADMIN },
    Role { name: "system:aggregate-to-edit", aggregated_to: &["edit"], aggregates: None, rules: EDIT },
    Role { name: "system:aggregate-to-view", aggregated_to: &["view"], aggregates: None, rules: VIEW },
];

const ADMIN: &[Rule] = &[
    On("create", "authorization.k8s.io", "localsubjectaccessreviews"),
    On(READ_WRITE, "rbac.authorization.k8s.io", "rolebindings roles"),
];

const EDIT: &[Rule] = &[
    On(READ, "", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
    On("impersonate", "", "serviceaccounts"),
    On(WRITE, "", "pods pods/attach pods/exec pods/portforward pods/proxy"),
    On("create", "", "pods/eviction"),
    On(
        WRITE,
        "",
        "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets \
         serviceaccounts services services/proxy",
    ),
    On("create", "", "serviceaccounts/token"),
    On(
        WRITE,
        "apps",
        "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets \
         statefulsets/scale",
    ),
    On(WRITE, "autoscaling", "horizontalpodautoscalers"),
    On(WRITE, "batch", "cronjobs jobs"),
    On(
        WRITE,
        "extensions",
        "daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets \
         replicasets/scale replicationcontrollers/scale",
    ),
    On(WRITE, "policy", "poddisruptionbudgets"),
    On(WRITE, "networking.k8s.io", "ingresses networkpolicies"),
    On(READ_WRITE, "coordination.k8s.io", "leases"),
];

const VIEW: &[Rule] = &[
    On(
        READ,
        "",
        "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers \
         replicationcontrollers/scale serviceaccounts services services/status",
    ),
    On(
        READ,
        "",
        "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status \
         resourcequotas resourcequotas/status",
    ),
    On(READ, "", "namespaces"),
    On(READ, "discovery.k8s.io", "endpointslices"),
    On(
        READ,
        "apps",
        "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets \
         replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
    ),
    On(READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    On(READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
    On(
        READ,
        "extensions",
        "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status \
         networkpolicies replicasets replicasets/scale replicasets/status replicationcontrollers/scale",
    ),
    On(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    On(READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
];

/// The ClusterRoleBindings, each of the role of its own name, and the groups that they bind to it.
///
/// Nodes are bound to none: the node authorizer says what each may do.
pub(super) const BINDINGS: &[(&str, &[&str])] = &[
    ("cluster-admin", &["system:masters"]),
    ("system:monitoring", &["system:monitoring"]),
    ("system:discovery", &["system:authenticated"]),
    ("system:basic-user", &["system:authenticated"]),
    ("system:public-info-viewer", &["system:authenticated", "system:unauthenticated"]),
    ("system:service-account-issuer-discovery", &["system:serviceaccounts"]),
    ("system:node", &[]),
];
