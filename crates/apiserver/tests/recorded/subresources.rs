//! Binding, eviction, logs, scale and streams.

use coracle_api::resources::PODS;
use coracle_api::{Method, ObjectKey};
use coracle_apiserver::TunnelSpec;
use serde_json::{Value, json};

use crate::harness::{Reply, Server, names, request};

const PODS_PATH: &str = "/api/v1/namespaces/default/pods";

/// A pod that a node has, running.
fn running_pod(server: &mut Server) {
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    server.ok(Method::Post, PODS_PATH, pod);
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    server.ok(Method::Post, &format!("{PODS_PATH}/p/binding"), binding);
    let state =
        json!({"name": "c", "state": {"running": {}}, "image": "i", "imageID": "i", "ready": true, "restartCount": 0});
    server
        .merge(&format!("{PODS_PATH}/p/status"), json!({"status": {"phase": "Running", "containerStatuses": [state]}}));
}

#[test]
fn a_pod_is_bound_once_and_found_by_its_node() {
    let mut server = Server::new();
    running_pod(&mut server);
    let again = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n2"}});
    let (code, message) = server.fails(Method::Post, &format!("{PODS_PATH}/p/binding"), again);
    let expected = "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\"";
    assert_eq!((code, message.as_str()), (409, expected));
    let found = server.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1");
    assert_eq!(names(&found), ["p"]);
    assert!(names(&server.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn2")).is_empty());
}

#[test]
fn a_scheduled_pod_is_deleted_gracefully_and_then_for_good() {
    let mut server = Server::new();
    running_pod(&mut server);
    let path = format!("{PODS_PATH}/p");
    let going = server.ok(Method::Delete, &path, Value::Null);
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(going["metadata"]["generation"], 2);
    server.ok(Method::Delete, &path, json!({"gracePeriodSeconds": 0}));
    assert!(server.view().object(&ObjectKey::new(PODS, "default", "p")).is_none());
}

#[test]
fn an_eviction_deletes_the_pod() {
    let mut server = Server::new();
    running_pod(&mut server);
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p", "namespace": "default"}});
    let answer = server.ok(Method::Post, &format!("{PODS_PATH}/p/eviction"), eviction);
    assert_eq!(answer["status"], "Success");
    assert!(server.get(&format!("{PODS_PATH}/p"))["metadata"]["deletionTimestamp"].is_string());
}

#[test]
fn a_log_is_read_from_the_node_that_has_it() {
    let mut server = Server::new();
    running_pod(&mut server);
    let Reply::Tunnel(TunnelSpec::Log { node, container, options, .. }) =
        server.run(request(Method::Get, &format!("{PODS_PATH}/p/log?follow=true&tailLines=5")))
    else {
        panic!("no log")
    };
    assert_eq!((node.as_str(), container.as_str(), options.follow, options.tail_lines), ("n1", "c", true, Some(5)));
    let (code, message) = server.fails(Method::Get, &format!("{PODS_PATH}/p/log?previous=true"), Value::Null);
    assert_eq!((code, message.as_str()), (400, "previous terminated container \"c\" in pod \"p\" not found"));
    let (_, message) = server.fails(Method::Get, &format!("{PODS_PATH}/p/log?container=x"), Value::Null);
    assert_eq!(message, "container x is not valid for pod p");
}

#[test]
fn an_unscheduled_pod_has_no_log_and_no_shell() {
    let mut server = Server::new();
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    server.ok(Method::Post, PODS_PATH, pod);
    let (code, message) = server.fails(Method::Get, &format!("{PODS_PATH}/p/portforward?ports=80"), Value::Null);
    assert_eq!((code, message.as_str()), (400, "pod p does not have a host assigned"));
    assert_eq!(server.send(Method::Get, &format!("{PODS_PATH}/p/log"), Value::Null).status, 204);
}

#[test]
fn a_scale_of_something_that_is_no_number_changes_nothing() {
    let mut server = Server::new();
    let labels = json!({"app": "d"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"replicas": 3, "selector": {"matchLabels": labels}, "template": template});
    let path = "/apis/apps/v1/namespaces/default/deployments";
    server.ok(Method::Post, path, json!({"metadata": {"name": "d"}, "spec": spec}));
    let scale = format!("{path}/d/scale");
    assert_eq!(server.merge(&scale, json!({"spec": {"replicas": "many"}})).status, 422);
    assert_eq!(server.merge(&scale, json!({"spec": {"replicas": -1}})).status, 422);
    assert_eq!(server.get(&scale)["spec"]["replicas"], 3);
    assert_eq!(server.merge(&scale, json!({"spec": {"replicas": 5}})).value()["spec"]["replicas"], 5);
    assert_eq!(server.get(&format!("{path}/d"))["metadata"]["generation"], 2);
}

#[test]
fn what_is_not_here_says_so() {
    let mut server = Server::new();
    running_pod(&mut server);
    let (code, message) = server.fails(Method::Post, &format!("{PODS_PATH}/p/exec?command=ls"), Value::Null);
    assert_eq!((code, message.as_str()), (400, "you must specify at least 1 of stdin, stdout, stderr"));
    for path in ["/apis/batch/v1/jobs", "/api/v1/nonsense", "/nonsense"] {
        let (code, message) = server.fails(Method::Get, path, Value::Null);
        assert_eq!((code, message.as_str()), (404, "the server could not find the requested resource"), "{path}");
    }
}
