//! The metrics API, over what nodes say.

use std::time::Duration;

use coracle_api::Method;
use coracle_apiserver::{ContainerRates, NodeUsage, Rates};
use serde_json::{Value, json};

use crate::harness::{Server, request};

const NODES: &str = "/apis/metrics.k8s.io/v1beta1/nodes";
const PODS: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";

/// A server with two nodes, and two pods on the first that are measured.
fn server() -> Server {
    let mut server = Server::new();
    for name in ["one", "two"] {
        let labels = json!({"name": name, "labels": {"disk": name}});
        server.ok(Method::Post, "/api/v1/nodes", json!({ "metadata": labels }));
    }
    let mut containers = Vec::new();
    for (pod, names) in [("web", &["main", "side"][..]), ("db", &["main"])] {
        let all: Vec<Value> = names.iter().map(|name| json!({"name": name, "image": "img"})).collect();
        let body = json!({"metadata": {"name": pod, "labels": {"app": pod}}, "spec": {"containers": all}});
        let made = server.ok(Method::Post, "/api/v1/namespaces/default/pods", body);
        let uid = made["metadata"]["uid"].as_str().unwrap();
        let rates = Rates { cpu_nanos: 250_000_000, memory_bytes: 3 << 20 };
        containers.extend(names.iter().map(|name| ContainerRates { pod: uid.into(), name: (*name).into(), rates }));
    }
    let rates = Rates { cpu_nanos: 1_500_000_000, memory_bytes: 1 << 30 };
    let usage = |node: &str, containers| NodeUsage {
        node: node.into(),
        at: server.now.wall,
        window: Duration::from_millis(10_020),
        rates,
        containers,
    };
    let gone = usage("a node that was deleted", Vec::new());
    server.usage = json!([usage("two", Vec::new()), usage("one", containers), gone]);
    server
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[test]
fn nodes_and_pods_have_the_metrics_that_their_nodes_tell() {
    let mut server = server();
    let list = server.get(NODES);
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("NodeMetricsList"), &json!("metrics.k8s.io/v1beta1")));
    assert_eq!(names(&list), ["one", "two"]);
    let node = server.get(&format!("{NODES}/two"));
    assert_eq!((&node["kind"], &node["window"]), (&json!("NodeMetrics"), &json!("10.02s")));
    assert_eq!(node["usage"], json!({"cpu": "1500000000n", "memory": "1048576Ki"}));
    assert_eq!(node["timestamp"], "2026-11-22T10:31:08Z");
    let list = server.get(PODS);
    assert_eq!((&list["kind"], names(&list)), (&json!("PodMetricsList"), vec!["db", "web"]));
    let web = server.get(&format!("{PODS}/web"));
    let used = json!({"cpu": "250000000n", "memory": "3072Ki"});
    assert_eq!(web["containers"], json!([{"name": "main", "usage": used}, {"name": "side", "usage": used}]));
    assert_eq!(web["metadata"]["labels"], json!({"app": "web"}));
}

#[test]
fn metrics_are_selected_by_labels_names_and_namespaces() {
    let mut server = server();
    assert_eq!(names(&server.get(&format!("{NODES}?labelSelector=disk%3Dtwo"))), ["two"]);
    assert_eq!(names(&server.get(&format!("{PODS}?labelSelector=app%21%3Dweb"))), ["db"]);
    assert_eq!(names(&server.get(&format!("{PODS}?fieldSelector=metadata.name%3Dweb"))), ["web"]);
    assert_eq!(names(&server.get("/apis/metrics.k8s.io/v1beta1/pods")), ["db", "web"]);
    assert!(names(&server.get(&PODS.replace("default", "kube-system"))).is_empty());
}

#[test]
fn a_table_of_pods_has_the_sums_of_their_containers() {
    let mut server = server();
    let mut asked = request(Method::Get, &format!("{PODS}/web"));
    asked.accept = Some("application/json;as=Table;v=v1;g=meta.k8s.io".into());
    let table = server.response(asked).value();
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"][0]["cells"], json!(["web", "500m", "6144Ki", "10.02s"]));
}

#[test]
fn what_is_not_measured_is_not_found_and_nothing_is_written() {
    let mut server = server();
    let (code, message) = server.fails(Method::Get, &format!("{PODS}/nobody"), Value::Null);
    assert_eq!((code, message.as_str()), (404, "podmetrics.metrics.k8s.io \"default/nobody\" not found"));
    let (code, message) = server.fails(Method::Get, &format!("{NODES}/three"), Value::Null);
    assert_eq!((code, message.as_str()), (404, "nodemetrics.metrics.k8s.io \"three\" not found"));
    let (code, _) = server.fails(Method::Post, PODS, json!({"metadata": {"name": "made-up"}}));
    assert_eq!(code, 405);
}
