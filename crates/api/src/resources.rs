//! The resources that controllers, the scheduler and nodes name in code.

use crate::{GroupResource, Gvk};

/// The rows of guests' key-value store, in the namespaces of the ServiceAccounts that they belong to. Nobody serves them: they are
/// reached through a node's port, and removed by the leader.
pub const KEY_VALUES: GroupResource = GroupResource::builtin("coracle.dev", "keyvalues");

macro_rules! resources {
    ($($name:ident, $gvk:ident: $group:literal $version:literal $plural:literal $kind:literal;)*) => {
        $(
            #[doc = concat!("`", $plural, "` of group \"", $group, "\".")]
            pub const $name: GroupResource = GroupResource::builtin($group, $plural);
            #[doc = concat!("Kind `", $kind, "` in version ", $version, " of group \"", $group, "\".")]
            pub const $gvk: Gvk = Gvk::builtin($group, $version, $kind);
        )*

        /// The kind of one of these resources; `None` for any other resource.
        pub fn kind_of(resource: &GroupResource) -> Option<Gvk> {
            const ALL: &[(GroupResource, Gvk)] = &[$(($name, $gvk)),*];
            ALL.iter().find(|(known, _)| known == resource).map(|(_, gvk)| gvk.clone())
        }

        /// The resource of a group and plural, without an allocation, where it is one of these.
        pub fn known(group: &str, resource: &str) -> Option<GroupResource> {
            [$($name),*].into_iter().chain([KEY_VALUES]).find(|known| known.resource == resource && known.group == group)
        }
    };
}

resources! {
    CLUSTER_ROLES, CLUSTER_ROLE: "rbac.authorization.k8s.io" "v1" "clusterroles" "ClusterRole";
    CLUSTER_ROLE_BINDINGS, CLUSTER_ROLE_BINDING: "rbac.authorization.k8s.io" "v1" "clusterrolebindings" "ClusterRoleBinding";
    CONFIG_MAPS, CONFIG_MAP: "" "v1" "configmaps" "ConfigMap";
    CONTROLLER_REVISIONS, CONTROLLER_REVISION: "apps" "v1" "controllerrevisions" "ControllerRevision";
    DEPLOYMENTS, DEPLOYMENT: "apps" "v1" "deployments" "Deployment";
    ENDPOINTS, ENDPOINTS_KIND: "" "v1" "endpoints" "Endpoints";
    ENDPOINT_SLICES, ENDPOINT_SLICE: "discovery.k8s.io" "v1" "endpointslices" "EndpointSlice";
    EVENTS, EVENT: "" "v1" "events" "Event";
    INGRESSES, INGRESS: "networking.k8s.io" "v1" "ingresses" "Ingress";
    INGRESS_CLASSES, INGRESS_CLASS: "networking.k8s.io" "v1" "ingressclasses" "IngressClass";
    LEASES, LEASE: "coordination.k8s.io" "v1" "leases" "Lease";
    NAMESPACES, NAMESPACE: "" "v1" "namespaces" "Namespace";
    NETWORK_POLICIES, NETWORK_POLICY: "networking.k8s.io" "v1" "networkpolicies" "NetworkPolicy";
    NODES, NODE: "" "v1" "nodes" "Node";
    PODS, POD: "" "v1" "pods" "Pod";
    PRIORITY_CLASSES, PRIORITY_CLASS: "scheduling.k8s.io" "v1" "priorityclasses" "PriorityClass";
    REPLICA_SETS, REPLICA_SET: "apps" "v1" "replicasets" "ReplicaSet";
    ROLES, ROLE: "rbac.authorization.k8s.io" "v1" "roles" "Role";
    ROLE_BINDINGS, ROLE_BINDING: "rbac.authorization.k8s.io" "v1" "rolebindings" "RoleBinding";
    RUNTIME_CLASSES, RUNTIME_CLASS: "node.k8s.io" "v1" "runtimeclasses" "RuntimeClass";
    SECRETS, SECRET: "" "v1" "secrets" "Secret";
    SERVICES, SERVICE: "" "v1" "services" "Service";
    SERVICE_ACCOUNTS, SERVICE_ACCOUNT: "" "v1" "serviceaccounts" "ServiceAccount";
}
