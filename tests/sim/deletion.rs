//! What goes with what: cascades, namespaces, orphans.

use coracle_sim::{Propagation, TestCluster};

use crate::{mins, secs};

fn cluster() -> TestCluster {
    let mut c = TestCluster::members(1).nodes(1).seed(1).build();
    c.apply("deployment/web replicas=3 image=v1");
    c.run_until_converged();
    c
}

fn counts(c: &TestCluster) -> (usize, usize, usize) {
    (c.list("deployments").len(), c.list("replicasets").len(), c.list("pods").len())
}

#[test]
fn a_deployment_deleted_in_the_background_goes_first_and_its_dependents_follow() {
    let mut c = cluster();
    c.delete("deployment/web", Propagation::Background);
    assert_eq!(counts(&c).0, 0, "it is gone at once");
    c.run_until_converged();
    assert_eq!(counts(&c), (0, 0, 0));
}

#[test]
fn a_deployment_deleted_in_the_foreground_goes_after_its_dependents() {
    let mut c = cluster();
    c.delete("deployment/web", Propagation::Foreground);
    c.run_until(|c| {
        let (deployments, sets, pods) = counts(c);
        assert!(deployments == 1 || (sets, pods) == (0, 0), "it went before its dependents");
        assert!(sets == 1 || pods == 0, "the ReplicaSet went before its pods");
        deployments == 0
    });
    c.run_until_converged();
    assert_eq!(counts(&c), (0, 0, 0));
}

#[test]
fn the_dependents_of_an_orphaning_deletion_stay_and_are_adopted_again() {
    let mut c = cluster();
    c.delete("deployment/web", Propagation::Orphan);
    c.advance(secs(10));
    assert_eq!(counts(&c), (0, 1, 3));
    assert!(c.list("replicasets")[0]["metadata"]["ownerReferences"].is_null());
    c.apply("deployment/web replicas=3 image=v1");
    c.run_until_converged();
    assert_eq!(counts(&c), (1, 1, 3));
    assert_eq!(c.list("replicasets")[0]["metadata"]["ownerReferences"][0]["name"], "web");
}

#[test]
fn a_namespace_goes_with_everything_in_it() {
    let mut c = cluster();
    c.apply(
        "namespace/shop
         configmap/settings namespace=shop data.a=b
         service/web namespace=shop
         deployment/web namespace=shop replicas=3 image=v1",
    );
    c.run_until_converged();
    assert!(c.get("shop/configmap/kube-root-ca.crt").is_some());
    c.delete("namespace/shop", Propagation::Background);
    c.run_until_converged();
    assert!(c.get("namespace/shop").is_none());
    for resource in
        ["pods", "replicasets", "deployments", "configmaps", "services", "endpointslices", "serviceaccounts"]
    {
        let left = c.list(resource).into_iter().filter(|object| object["metadata"]["namespace"] == "shop").count();
        assert_eq!(left, 0, "{resource}");
    }
    assert_eq!(counts(&c), (1, 1, 3), "the others stay");
}

#[test]
fn dependents_of_what_never_was_are_collected() {
    let mut c = cluster();
    c.apply(
        "apiVersion: v1
kind: ConfigMap
metadata:
  name: left-over
  ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: gone, uid: 11111111-2222-4333-8444-555555555555}]",
    );
    c.advance(mins(1));
    assert!(c.get("configmap/left-over").is_none());
}

#[test]
fn an_idle_cluster_writes_nothing() {
    let mut c = cluster();
    c.apply("service/web");
    c.advance(mins(10));
    let (revision, steps) = (c.view().revision(), c.steps());
    c.advance(crate::hours(2));
    assert_eq!(c.view().revision(), revision);
    assert!(c.steps() - steps < 7200, "{} events in two idle hours", c.steps() - steps);
}
