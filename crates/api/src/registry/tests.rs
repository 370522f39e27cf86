use serde_json::json;

use super::*;
use crate::decode::{Strictness, decode_value};
use crate::resources::{DEPLOYMENT, DEPLOYMENTS, EVENTS, PODS};

#[test]
fn a_kind_is_found_by_path_resource_and_kind() {
    let registry = Registry::builtin();
    let by_path = registry.by_path("apps", "v1", "deployments").unwrap();
    assert_eq!(by_path.gvk, DEPLOYMENT);
    assert_eq!(registry.by_group_resource(&DEPLOYMENTS), Some(by_path));
    assert_eq!(registry.by_gvk("apps", "v1", "Deployment"), Some(by_path));
    assert_eq!(registry.schema().get(by_path.type_id).name, "io.k8s.api.apps.v1.Deployment");
    assert_eq!(registry.by_path("apps", "v2", "deployments"), None);
    assert_eq!(registry.by_path("", "v1", "deployments"), None);
    assert_eq!(registry.by_gvk("apps", "v1", "Zebra"), None);
}

#[test]
fn every_resource_is_found_by_its_own_names() {
    let registry = Registry::builtin();
    for resource in registry.resources() {
        let GroupVersion { group, version } = &resource.gvk.group_version;
        assert_eq!(registry.by_path(group, version, &resource.group_resource.resource), Some(resource));
        assert_eq!(registry.by_gvk(group, version, &resource.gvk.kind), Some(resource));
        let stored = registry.by_group_resource(&resource.group_resource).unwrap();
        assert!(!stored.is_view());
        assert_eq!(stored == resource, !resource.is_view());
    }
}

#[test]
fn a_subresource_may_have_a_kind_of_another_group() {
    let registry = Registry::builtin();
    let pods = registry.by_group_resource(&PODS).unwrap();
    assert_eq!(pods.subresource("eviction").unwrap().gvk, Gvk::builtin("policy", "v1", "Eviction"));
    assert_eq!(pods.subresource("status").unwrap().gvk, pods.gvk);
    assert_eq!(pods.subresource("ephemeralcontainers"), None);
    let names: Vec<&str> = pods.subresources.iter().map(|subresource| subresource.name.as_str()).collect();
    assert!(names.is_sorted(), "{names:?}");
}

#[test]
fn events_of_both_groups_are_stored_as_the_core_groups() {
    let registry = Registry::builtin();
    let view = registry.by_path("events.k8s.io", "v1", "events").unwrap();
    assert!(view.is_view());
    assert_eq!(view.group_resource, EVENTS);
    assert_eq!(registry.by_group_resource(&EVENTS).unwrap().gvk, Gvk::builtin("", "v1", "Event"));
}

#[test]
fn groups_come_in_the_order_of_discovery() {
    let order: Vec<String> = Registry::builtin().group_versions().iter().map(ToString::to_string).collect();
    assert_eq!(
        order.join(" "),
        "v1 apps/v1 events.k8s.io/v1 authentication.k8s.io/v1 authorization.k8s.io/v1 networking.k8s.io/v1 \
         rbac.authorization.k8s.io/v1 scheduling.k8s.io/v1 coordination.k8s.io/v1 node.k8s.io/v1 discovery.k8s.io/v1 metrics.k8s.io/v1beta1"
    );
}

#[test]
fn an_event_of_the_newer_group_is_stored_under_the_older_names_and_shown_under_its_own() {
    let registry = Registry::builtin();
    let view = registry.by_path("events.k8s.io", "v1", "events").unwrap();
    let decode = |type_id, value: &serde_json::Value| {
        decode_value(registry.schema(), type_id, value, Strictness::Strict).expect("the event decodes").value
    };
    let event = decode(
        view.type_id,
        &json!({"metadata": {"name": "e"}, "regarding": {"kind": "Pod"}, "note": "n", "reportingController": "c",
            "deprecatedSource": {"host": "h"}, "deprecatedCount": 2, "eventTime": "2026-11-22T10:31:34.123456Z"}),
    );
    let mut stored = event.clone();
    view.to_stored(&mut stored);
    let core = registry.by_group_resource(&EVENTS).unwrap();
    let as_core = decode(core.type_id, &stored);
    assert_eq!((&as_core["message"], &as_core["involvedObject"]["kind"]), (&"n".into(), &"Pod".into()));
    let mut shown = as_core.clone();
    view.from_stored(&mut shown);
    assert_eq!(decode(view.type_id, &shown), event);
    let mut same = as_core.clone();
    core.from_stored(&mut same);
    assert_eq!(same, as_core);
}
