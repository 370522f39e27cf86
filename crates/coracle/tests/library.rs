//! The library as a kube-rs program uses it: a `kube::Client` in the process, typed kinds, watches, apply, logs.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle::{Cluster, ClusterClock};
use futures_util::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{
    Api, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, PropagationPolicy, WatchEvent,
    WatchParams,
};
use kube::{Error, ResourceExt};
use serde_json::json;

const SOON: Duration = Duration::from_secs(20);

/// Prints a line and then sleeps for ever.
const HELLO: &str = r#"(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "hello from a module\n")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const 20))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (i32.store (i32.const 144) (i32.const 1))
    (i64.store (i32.const 152) (i64.const 3600000000000))
    (loop $again
      (drop (call $poll (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 320)))
      (br $again))))"#;

async fn without_nodes() -> (Cluster, Api<ConfigMap>) {
    let cluster = Cluster::builder().nodes(0).start().await.unwrap();
    let maps = Api::default_namespaced(cluster.client());
    (cluster, maps)
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"app": "test"}}, "data": {"value": value}}))
        .unwrap()
}

fn value(map: &ConfigMap) -> Option<&str> {
    map.data.as_ref()?.get("value").map(String::as_str)
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> (u16, String) {
    match result.unwrap_err() {
        Error::Api(status) => (status.code, status.reason),
        other => panic!("not an answer of the API server: {other}"),
    }
}

#[tokio::test]
async fn objects_are_created_read_replaced_and_deleted() {
    let (_cluster, maps) = without_nodes().await;
    let created = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    assert!(created.uid().is_some() && created.resource_version().is_some());
    assert_eq!(code(maps.create(&PostParams::default(), &config_map("a", "1")).await), (409, "AlreadyExists".into()));
    let mut changed = maps.get("a").await.unwrap();
    changed.data = Some(BTreeMap::from([("value".into(), "2".into())]));
    let replaced = maps.replace("a", &PostParams::default(), &changed).await.unwrap();
    assert_eq!(value(&replaced), Some("2"));
    assert_eq!(code(maps.replace("a", &PostParams::default(), &changed).await), (409, "Conflict".into()));
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_none());
    assert_eq!(code(maps.get("a").await), (404, "NotFound".into()));
}

#[tokio::test]
async fn a_watch_continues_where_the_list_ended() {
    let (_cluster, maps) = without_nodes().await;
    maps.create(&PostParams::default(), &config_map("before", "1")).await.unwrap();
    let params = ListParams::default().labels("app=test");
    let listed = maps.list(&params).await.unwrap();
    assert_eq!(listed.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["before"]);
    let revision = listed.metadata.resource_version.unwrap();
    let watch = maps.watch(&WatchParams::default().labels("app=test"), &revision).await.unwrap();
    maps.create(&PostParams::default(), &config_map("after", "1")).await.unwrap();
    let patch = Patch::Merge(json!({"data": {"value": "2"}}));
    maps.patch("after", &PatchParams::default(), &patch).await.unwrap();
    // Leaving the selection looks like a deletion.
    let patch = Patch::Merge(json!({"metadata": {"labels": {"app": null}}}));
    maps.patch("before", &PatchParams::default(), &patch).await.unwrap();
    maps.delete("after", &DeleteParams::default()).await.unwrap();
    let events: Vec<_> = watch
        .try_filter_map(|event| async {
            Ok(match event {
                WatchEvent::Added(map) => Some(("added", map.name_any())),
                WatchEvent::Modified(map) => Some(("modified", map.name_any())),
                WatchEvent::Deleted(map) => Some(("deleted", map.name_any())),
                WatchEvent::Bookmark(_) => None,
                WatchEvent::Error(status) => panic!("{status:?}"),
            })
        })
        .take(4)
        .try_collect()
        .await
        .unwrap();
    let expected = [("added", "after"), ("modified", "after"), ("deleted", "before"), ("deleted", "after")]
        .map(|(e, n)| (e, n.into()));
    assert_eq!(events, expected);
}

#[tokio::test]
async fn a_list_comes_in_pages_of_one_revision() {
    let (_cluster, maps) = without_nodes().await;
    for number in 0..7 {
        maps.create(&PostParams::default(), &config_map(&format!("map-{number}"), "1")).await.unwrap();
    }
    let first = maps.list(&ListParams::default().labels("app=test").limit(3)).await.unwrap();
    maps.delete("map-6", &DeleteParams::default()).await.unwrap();
    let (mut names, mut next) = (Vec::new(), first.metadata.continue_.clone());
    names.extend(first.iter().map(ResourceExt::name_any));
    while let Some(token) = next.filter(|token| !token.is_empty()) {
        let page = maps.list(&ListParams::default().labels("app=test").limit(3).continue_token(&token)).await.unwrap();
        assert_eq!(page.metadata.resource_version, first.metadata.resource_version);
        names.extend(page.iter().map(ResourceExt::name_any));
        next = page.metadata.continue_;
    }
    assert_eq!(names, (0..7).map(|number| format!("map-{number}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn server_side_apply_gives_fields_to_managers_and_tells_of_conflicts() {
    let (_cluster, maps) = without_nodes().await;
    let applied = |value: &str| {
        Patch::Apply(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}, "data": {"value": value},
        }))
    };
    maps.patch("shared", &PatchParams::apply("one"), &applied("1")).await.unwrap();
    assert_eq!(code(maps.patch("shared", &PatchParams::apply("two"), &applied("2")).await), (409, "Conflict".into()));
    let taken = maps.patch("shared", &PatchParams::apply("two").force(), &applied("2")).await.unwrap();
    assert_eq!(value(&taken), Some("2"));
    let managers: Vec<_> = taken.managed_fields().iter().filter_map(|entry| entry.manager.clone()).collect();
    assert_eq!(managers, ["two"]);
}

#[tokio::test]
async fn an_invalid_object_is_refused_in_kubernetes_words() {
    let (_cluster, maps) = without_nodes().await;
    let error = maps.create(&PostParams::default(), &config_map("Bad_Name", "1")).await.unwrap_err();
    let Error::Api(status) = error else { panic!("{error}") };
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    assert!(status.message.starts_with("ConfigMap \"Bad_Name\" is invalid: metadata.name"), "{}", status.message);
}

#[tokio::test]
async fn a_wasm_pod_runs_prints_and_is_deleted() {
    let cluster = Cluster::builder().image("example.com/hello:1", HELLO.as_bytes()).start().await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let hello: Pod = serde_json::from_value(json!({
        "metadata": {"name": "hello"},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "example.com/hello:1"}],
        },
    }))
    .unwrap();
    pods.create(&PostParams::default(), &hello).await.unwrap();
    if let Err(error) = cluster.wait_for("pod/hello", "Ready", SOON).await {
        panic!("{error}: {:?}", pods.get("hello").await.unwrap().status);
    }
    let params = LogParams { follow: true, ..LogParams::default() };
    let mut lines = pods.log_stream("hello", &params).await.unwrap().lines();
    assert_eq!(lines.next().await.unwrap().unwrap(), "hello from a module");
    let running = pods.get("hello").await.unwrap();
    let status = running.status.unwrap();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert!(status.pod_ip.is_some());
    pods.delete("hello", &DeleteParams::default()).await.unwrap();
    assert!(lines.next().await.is_none(), "the log ends with the container");
    tokio::time::timeout(SOON, async {
        while pods.get_opt("hello").await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the pod is gone");
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_deployment_is_scaled_and_goes_with_its_pods() {
    let cluster = Cluster::builder().clock(ClusterClock::Virtual).fake_nodes(3).start().await.unwrap();
    let client = cluster.client();
    let nodes: Api<Node> = Api::all(client.clone());
    assert_eq!(nodes.list_metadata(&ListParams::default()).await.unwrap().items.len(), 3);
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let pods: Api<Pod> = Api::default_namespaced(client);
    let web: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "example.com/web:1"}]},
            },
        },
    }))
    .unwrap();
    deployments.create(&PostParams::default(), &web).await.unwrap();
    cluster.wait_for("deployment/web", "readyReplicas=2", SOON).await.unwrap();
    let scale = Patch::Merge(json!({"spec": {"replicas": 6}}));
    deployments.patch_scale("web", &PatchParams::default(), &scale).await.unwrap();
    cluster.wait_for("deployment/web", "readyReplicas=6", SOON).await.unwrap();
    assert_eq!(deployments.get_scale("web").await.unwrap().status.unwrap().replicas, 6);
    let foreground =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    deployments.delete("web", &foreground).await.unwrap();
    tokio::time::sleep(SOON).await;
    assert!(deployments.get_opt("web").await.unwrap().is_none());
    assert!(pods.list(&ListParams::default()).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn a_client_outlives_its_cluster_without_hanging() {
    let (cluster, maps) = without_nodes().await;
    cluster.shutdown().await;
    let (code, reason) = code(maps.create(&PostParams::default(), &config_map("late", "1")).await);
    assert_eq!((code, reason.as_str()), (503, "ServiceUnavailable"));
}
