//! The built-in kinds: for each, what it adds to the machinery that is the same for all.
//!
//! One file a kind. A kind's file holds its defaults, its preparation and validation, its selectable fields and its columns;
//! nothing here reads a request's path or answers one.

mod config_map;
mod controller_revision;
mod deployment;
mod descriptions;
mod endpoint_slice;
mod endpoints;
mod event;
mod generic;
mod ingress;
mod ingress_class;
mod lease;
mod metrics;
mod namespace;
mod network_policy;
mod node;
pub(crate) mod pod;
mod priority_class;
mod replica_set;
mod role;
mod role_binding;
mod runtime_class;
mod scale;
mod secret;
mod service;
mod service_account;
mod table;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod value;

use coracle_api::GroupResource;

use crate::strategy::Strategy;

/// The strategy of a resource, or of a subresource's body (`scales` of group `autoscaling`, `bindings` of the core group).
/// A resource that has no rules of its own gets one that adds nothing.
pub fn strategy_of(resource: &GroupResource) -> &'static dyn Strategy {
    match (&*resource.group, &*resource.resource) {
        ("", "configmaps") => &config_map::ConfigMapStrategy,
        ("", "endpoints") => &endpoints::EndpointsStrategy,
        ("" | "events.k8s.io", "events") => &event::EventStrategy,
        ("", "namespaces") => &namespace::NamespaceStrategy,
        ("", "nodes") => &node::NodeStrategy,
        ("", "pods") => &pod::PodStrategy,
        ("", "secrets") => &secret::SecretStrategy,
        ("", "serviceaccounts") => &service_account::ServiceAccountStrategy,
        ("", "services") => &service::ServiceStrategy,
        ("", "bindings") => &scale::BindingStrategy,
        ("apps", "controllerrevisions") => &controller_revision::ControllerRevisionStrategy,
        ("apps", "deployments") => &deployment::DeploymentStrategy,
        ("apps", "replicasets") => &replica_set::ReplicaSetStrategy,
        ("autoscaling", "scales") => &scale::ScaleStrategy,
        ("coordination.k8s.io", "leases") => &lease::LeaseStrategy,
        ("discovery.k8s.io", "endpointslices") => &endpoint_slice::EndpointSliceStrategy,
        ("metrics.k8s.io", "nodes") => &metrics::NodeMetricsStrategy,
        ("metrics.k8s.io", "pods") => &metrics::PodMetricsStrategy,
        ("networking.k8s.io", "ingressclasses") => &ingress_class::IngressClassStrategy,
        ("networking.k8s.io", "ingresses") => &ingress::IngressStrategy,
        ("networking.k8s.io", "networkpolicies") => &network_policy::NetworkPolicyStrategy,
        ("node.k8s.io", "runtimeclasses") => &runtime_class::RuntimeClassStrategy,
        ("rbac.authorization.k8s.io", "clusterrolebindings") => &role_binding::RoleBindingStrategy::ClusterRoleBinding,
        ("rbac.authorization.k8s.io", "clusterroles") => &role::RoleStrategy::ClusterRole,
        ("rbac.authorization.k8s.io", "rolebindings") => &role_binding::RoleBindingStrategy::RoleBinding,
        ("rbac.authorization.k8s.io", "roles") => &role::RoleStrategy::Role,
        ("scheduling.k8s.io", "priorityclasses") => &priority_class::PriorityClassStrategy,
        _ => &generic::GenericStrategy,
    }
}
