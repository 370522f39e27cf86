//! One pure reconciler per controller, and the queue that feeds them.
//!
//! A controller reads a [`coracle_store::View`] and returns [`Action`]s: it cannot write, wait or read a clock.
//! The engine passes its actions through the API server like any client's, as `system:controller:<name>`.

#![cfg_attr(test, expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them"))]

mod controller;
mod manager;
mod object;
mod pod;
mod queue;

mod cluster_role_aggregation;
mod deployment;
mod endpoint_slice;
mod endpoint_slice_mirroring;
mod endpoints;
mod garbage_collector;
mod namespace;
mod node_lifecycle;
mod pod_garbage_collector;
mod replica_set;
mod service;
mod service_account;
mod service_load_balancer;
mod taint_eviction;

#[cfg(test)]
mod testing;

use coracle_base::Rng;

pub use cluster_role_aggregation::ClusterRoleAggregationController;
pub use controller::{Action, Context, Controller, Failure, Outcome, Patch, Verb, Watch, Watched};
pub use coracle_api::events::{EventRecord, EventRecorder, EventType, EventWrite};
pub use deployment::DeploymentController;
pub use endpoint_slice::EndpointSliceController;
pub use endpoint_slice_mirroring::EndpointSliceMirroringController;
pub use endpoints::EndpointsController;
pub use garbage_collector::GarbageCollector;
pub use manager::{Manager, Work, WorkId};
pub use namespace::NamespaceController;
pub use node_lifecycle::NodeLifecycleController;
pub use pod_garbage_collector::PodGarbageCollector;
pub use replica_set::ReplicaSetController;
pub use service_account::{RootCaPublisher, ServiceAccountController};
pub use service_load_balancer::ServiceLoadBalancerController;
pub use taint_eviction::TaintEvictionController;

/// Every controller; `root_ca` is the certificate (PEM) that `kube-root-ca.crt` publishes.
pub fn all(root_ca: &str, rng: &mut Rng) -> Vec<Box<dyn Controller>> {
    vec![
        Box::new(DeploymentController),
        Box::new(ReplicaSetController::new(rng.fork())),
        Box::new(EndpointSliceController::new(rng.fork())),
        Box::new(EndpointsController),
        Box::new(NamespaceController),
        Box::new(ServiceAccountController),
        Box::new(ServiceLoadBalancerController),
        Box::new(RootCaPublisher::new(root_ca)),
        Box::new(ClusterRoleAggregationController),
        Box::new(NodeLifecycleController::default()),
        Box::new(TaintEvictionController::default()),
        Box::new(PodGarbageCollector::default()),
        Box::new(GarbageCollector),
        Box::new(EndpointSliceMirroringController::new(rng.fork())),
    ]
}
