//! The built-in kinds: for each, what it adds to the machinery that is the same for all.
//!
//! One file a kind. A kind's file holds its defaults, its preparation and validation, its selectable fields and its columns;
//! nothing here reads a request's path or answers one.

mod config_map;
mod descriptions;
mod generic;
mod lease;
mod namespace;
mod secret;
mod service_account;
mod table;
#[cfg(test)]
mod testing;
mod value;

use coracle_api::GroupResource;

use crate::strategy::Strategy;

/// The strategy of a resource, or of a subresource's body (`scales` of group `autoscaling`, `bindings` of the core group).
/// A resource that has no rules of its own gets one that adds nothing.
pub fn strategy_of(resource: &GroupResource) -> &'static dyn Strategy {
    match (&*resource.group, &*resource.resource) {
        ("", "configmaps") => &config_map::ConfigMapStrategy,
        ("", "namespaces") => &namespace::NamespaceStrategy,
        ("", "secrets") => &secret::SecretStrategy,
        ("", "serviceaccounts") => &service_account::ServiceAccountStrategy,
        ("coordination.k8s.io", "leases") => &lease::LeaseStrategy,
        _ => &generic::GenericStrategy,
    }
}
