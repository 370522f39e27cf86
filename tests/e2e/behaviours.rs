//! How pods behave, whatever runs them: one suite on the scripted runtime, on WebAssembly and on Docker Engine.
//!
//! The manifests are the same in all three. What differs is what the images are: scripts, modules, or file systems with a program.

use std::time::Duration;

use coracle::api::{Method, Request, UserInfo};
use coracle::{Cluster, ClusterBuilder, Script};
use serde_json::{Value, json};

use crate::harness::{Docker, Guest};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_mins(2);
/// Images that end at once with a code, and one that runs until it is asked to end.
const SUCCEEDS: &str = "behaviours.test/succeeds:1";
const FAILS: &str = "behaviours.test/fails:1";
const RUNS: &str = "behaviours.test/runs:1";
const ABSENT: &str = "127.0.0.1:9/absent:1";

fn exits(code: u32) -> Vec<u8> {
    Guest::new().exit(code).wat().into_bytes()
}

async fn read(cluster: &Cluster, path: &str) -> Value {
    cluster.request(Request::new(Method::Get, path, UserInfo::default())).await.value()
}

/// Waits until a pod is as `holds` says.
async fn until(cluster: &Cluster, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/api/v1/namespaces/default/pods/{name}");
    let looking = async {
        loop {
            let pod = read(cluster, &path).await;
            if holds(&pod) {
                return pod;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if let Ok(pod) = tokio::time::timeout(PATIENCE, looking).await {
        return pod;
    }
    panic!("{name} never {what}: {:#}", read(cluster, &path).await["status"]);
}

fn pod(name: &str, spec: &Value) -> String {
    let mut all = json!({"terminationGracePeriodSeconds": 1});
    for (key, value) in spec.as_object().expect("a spec is an object") {
        all[key] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": all}).to_string()
}

fn one(image: &str) -> Value {
    json!([{"name": "main", "image": image, "imagePullPolicy": "IfNotPresent"}])
}

fn main_status(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

async fn suite(cluster: &Cluster) {
    a_pod_that_ends_is_over_and_says_how(cluster).await;
    a_container_that_fails_backs_off_and_counts(cluster).await;
    init_containers_come_first(cluster).await;
    a_missing_key_holds_a_container_until_it_is_there(cluster).await;
    an_image_that_cannot_be_had_is_waited_for(cluster).await;
    a_deployment_scales_and_its_pods_go(cluster).await;
}

async fn a_pod_that_ends_is_over_and_says_how(cluster: &Cluster) {
    for (name, image, phase, code, reason) in
        [("done", SUCCEEDS, "Succeeded", 0, "Completed"), ("broken", FAILS, "Failed", 3, "Error")]
    {
        cluster.apply(&pod(name, &json!({"restartPolicy": "Never", "containers": one(image)}))).await.unwrap();
        let ended = until(cluster, name, "ended", |pod| pod["status"]["phase"] == phase).await;
        let terminated = &main_status(&ended)["state"]["terminated"];
        assert_eq!((&terminated["exitCode"], &terminated["reason"]), (&json!(code), &json!(reason)), "{name}");
        assert_eq!(main_status(&ended)["restartCount"], 0, "{name}");
    }
}

async fn a_container_that_fails_backs_off_and_counts(cluster: &Cluster) {
    cluster.apply(&pod("loop", &json!({"containers": one(FAILS)}))).await.unwrap();
    let waiting = until(cluster, "loop", "backed off", |pod| {
        let status = main_status(pod);
        status["state"]["waiting"]["reason"] == "CrashLoopBackOff" && status["restartCount"].as_u64() >= Some(1)
    });
    let waiting = waiting.await;
    assert_eq!(main_status(&waiting)["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(waiting["status"]["phase"], "Running");
}

async fn init_containers_come_first(cluster: &Cluster) {
    let init = |image: &str| json!([{"name": "first", "image": image, "imagePullPolicy": "IfNotPresent"}]);
    let spec = json!({"initContainers": init(SUCCEEDS), "containers": one(RUNS)});
    cluster.apply(&pod("prepared", &spec)).await.unwrap();
    let running = until(cluster, "prepared", "ran", |pod| main_status(pod)["state"]["running"].is_object()).await;
    assert_eq!(running["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], 0);
    let spec = json!({"restartPolicy": "Never", "initContainers": init(FAILS), "containers": one(RUNS)});
    cluster.apply(&pod("unprepared", &spec)).await.unwrap();
    let failed = until(cluster, "unprepared", "failed", |pod| pod["status"]["phase"] == "Failed").await;
    assert!(main_status(&failed)["state"]["running"].is_null(), "{failed}");
}

async fn a_missing_key_holds_a_container_until_it_is_there(cluster: &Cluster) {
    let mut containers = one(RUNS);
    let from = json!({"configMapKeyRef": {"name": "later", "key": "word"}});
    containers[0]["env"] = json!([{"name": "WORD", "valueFrom": from}]);
    cluster.apply(&pod("patient", &json!({"containers": containers}))).await.unwrap();
    until(cluster, "patient", "was held", |pod| {
        main_status(pod)["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    })
    .await;
    cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: later}, data: {word: now}}").await.unwrap();
    until(cluster, "patient", "ran", |pod| main_status(pod)["state"]["running"].is_object()).await;
}

async fn an_image_that_cannot_be_had_is_waited_for(cluster: &Cluster) {
    cluster.apply(&pod("absent", &json!({"containers": one(ABSENT)}))).await.unwrap();
    let waiting = until(cluster, "absent", "backed off", |pod| {
        main_status(pod)["state"]["waiting"]["reason"] == "ImagePullBackOff"
    });
    let waiting = waiting.await;
    let message = main_status(&waiting)["state"]["waiting"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with(&format!("Back-off pulling image {ABSENT:?}: ErrImagePull: ")), "{message}");
    assert_eq!(waiting["status"]["phase"], "Pending");
}

async fn a_deployment_scales_and_its_pods_go(cluster: &Cluster) {
    let manifest = |replicas: u32| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": one(RUNS)}},
        }})
        .to_string()
    };
    cluster.apply(&manifest(2)).await.unwrap();
    cluster.wait_for("deployment/web", "Available", PATIENCE).await.unwrap();
    cluster.apply(&manifest(0)).await.unwrap();
    let gone = async {
        loop {
            let pods = read(cluster, "/api/v1/namespaces/default/pods").await;
            let all = pods["items"].as_array().expect("a list has items");
            if all.iter().all(|pod| pod["metadata"]["labels"]["app"] != "web") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the pods of a deployment of none go");
}

async fn run(builder: ClusterBuilder) {
    let cluster = builder.start().await.unwrap();
    suite(&cluster).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_behave_on_the_scripted_runtime() {
    let exits = |code| Script::exits(Duration::ZERO, code);
    let builder = Cluster::builder().nodes(0).fake_nodes(1);
    let builder = builder.script(SUCCEEDS, exits(0)).script(FAILS, exits(3)).script(RUNS, Script::runs());
    run(builder.script(ABSENT, Script::pull_error("nobody has it"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_behave_as_wasm() {
    let runs = Guest::new().sleep(1_000_000_000).wat();
    let builder = Cluster::builder().image(SUCCEEDS, exits(0)).image(FAILS, exits(3));
    run(builder.image(RUNS, runs.into_bytes())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_behave_as_containers() {
    let Some(docker) = Docker::new() else { return };
    docker.image(SUCCEEDS, "exit 0");
    docker.image(FAILS, "exit 3");
    docker.image(RUNS, "exec sleep 100000");
    run(Cluster::builder().name(&docker.node).docker("/var/run/docker.sock")).await;
    assert_eq!(docker.leftovers(), Vec::<String>::new());
}
