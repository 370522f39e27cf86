//! Pods of every kind of life: those that end, those that wait for each other, those that cannot start, and why.

use expect_test::expect;
use serde_json::{Value, json};

use crate::harness::{Cluster, Guest, Mask, Options, eventually};

const PODS: &str = "/api/v1/namespaces/default/pods";

const CONFIGURATION: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue, SIZE: large}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {key: hush}
";

/// A pod of one container, with the rest of its spec and of its container as JSON.
fn pod(name: &str, image: &str, spec: &Value, container: &Value) -> Value {
    let mut main = json!({"name": "main", "image": image});
    merge(&mut main, container);
    let mut all = json!({"terminationGracePeriodSeconds": 1, "containers": [main]});
    merge(&mut all, spec);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"tier": "test"}}, "spec": all})
}

fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().expect("it is an object") {
        into[key] = value.clone();
    }
}

#[track_caller]
fn create(cluster: &Cluster, pod: &Value) {
    let answer = cluster.http().json("POST", PODS, pod);
    assert_eq!(answer.code, 201, "{answer:?}");
}

fn container(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

#[track_caller]
fn logs(cluster: &Cluster, pod: &str, holds: impl Fn(&str) -> bool) -> String {
    eventually(&format!("{pod} has printed what it should"), || {
        let answer = cluster.http().get(&format!("{PODS}/{pod}/log"));
        if answer.code == 200 && holds(&answer.text) { Ok(answer.text) } else { Err(answer) }
    })
}

/// The row that `kubectl get pod` prints, ages masked.
#[track_caller]
fn row(cluster: &Cluster, pod: &str) -> String {
    Mask::new().apply(&cluster.kubectl(&format!("get pod {pod} --no-headers")))
}

/// The Events of a pod, with their reasons and messages, a line each.
#[track_caller]
fn events(cluster: &Cluster, pod: &str) -> String {
    let list = cluster.get(&format!("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3D{pod}"));
    let line = |event: &Value| {
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        format!("{} {}: {}\n", text("type"), text("reason"), text("message"))
    };
    list["items"].as_array().expect("a list has items").iter().map(line).collect()
}

/// The same once this text is in them: they are written behind what they tell of.
#[track_caller]
fn events_until(cluster: &Cluster, pod: &str, text: &str) -> String {
    eventually(&format!("the Events of {pod} tell of {text}"), || {
        let events = events(cluster, pod);
        if events.contains(text) { Ok(events) } else { Err(events) }
    })
}

#[test]
fn pods_end_wait_and_are_told_things_as_in_kubernetes() {
    let Some(cluster) = Cluster::with(&Options { memory: true, ..Options::default() }) else { return };
    cluster.apply(CONFIGURATION);
    commands_end(&cluster);
    init_containers_run_first(&cluster);
    the_environment_comes_from_everywhere(&cluster);
    volumes_hold_files(&cluster);
    memory_is_limited(&cluster);
    probes_decide(&cluster);
}

fn commands_end(cluster: &Cluster) {
    let once_more = Guest::new().exit_if_there("tried", 0).write("tried", "").exit(3);
    cluster.import("test/once-more:v1", &once_more.wat());
    cluster.import("test/failing:v1", &Guest::new().print("three\n").exit(3).wat());
    let scratch = json!({"volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]});
    let volumes = json!([{"name": "scratch", "emptyDir": {}}]);
    let on_failure = json!({"restartPolicy": "OnFailure", "volumes": volumes});
    create(cluster, &pod("on-failure", "test/once-more:v1", &on_failure, &scratch));
    create(cluster, &pod("never", "test/failing:v1", &json!({"restartPolicy": "Never"}), &json!({})));
    let done = |name: &str, phase: &'static str| {
        cluster.wait(&format!("{name} ends"), &format!("{PODS}/{name}"), |pod| pod["status"]["phase"] == phase)
    };
    let pod = done("on-failure", "Succeeded");
    assert_eq!(container(&pod)["restartCount"], 1, "it failed once: {pod}");
    assert_eq!(container(&pod)["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(row(cluster, "on-failure"), "on-failure  0/1  Completed  1 (AGE ago)  AGE\n");
    let pod = done("never", "Failed");
    assert_eq!(container(&pod)["state"]["terminated"]["exitCode"], 3);
    assert_eq!(row(cluster, "never"), "never  0/1  Error  0  AGE\n");
    assert_eq!(cluster.kubectl("logs never"), "three\n");
}

fn init_containers_run_first(cluster: &Cluster) {
    cluster.import("test/writer:v1", &Guest::new().write("note", "from the first\n").exit(0).wat());
    cluster.import("test/reader:v1", &Guest::new().cat("note").exit(0).wat());
    let mounts = json!([{"name": "shared", "mountPath": "/shared"}]);
    let init = |image: &str| json!([{"name": "first", "image": image, "volumeMounts": mounts.clone()}]);
    let spec = |image: &str| json!({"restartPolicy": "Never", "initContainers": init(image), "volumes": [{"name": "shared", "emptyDir": {}}]});
    let main = json!({"volumeMounts": mounts});
    create(cluster, &pod("init", "test/reader:v1", &spec("test/writer:v1"), &main));
    create(cluster, &pod("init-fails", "test/reader:v1", &spec("test/failing:v1"), &main));
    assert_eq!(logs(cluster, "init", |text| !text.is_empty()), "from the first\n");
    cluster.wait("the failed init container fails the pod", &format!("{PODS}/init-fails"), |pod| {
        pod["status"]["phase"] == "Failed"
    });
    assert_eq!(row(cluster, "init-fails"), "init-fails  0/1  Init:Error  0  AGE\n");
    assert_eq!(cluster.kubectl("logs init-fails -c first"), "three\n");
}

fn the_environment_comes_from_everywhere(cluster: &Cluster) {
    cluster.import("test/environment:v1", &Guest::new().environment().exit(0).wat());
    let env = json!([
        {"name": "A_LITERAL", "value": "yes"},
        {"name": "AN_EXPANDED", "value": "$(A_LITERAL) and $$(A_LITERAL) and $(NO_SUCH)"},
        {"name": "A_CONFIG", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
        {"name": "A_SECRET", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "key"}}},
        {"name": "AN_ABSENT", "valueFrom": {"configMapKeyRef": {"name": "nothing", "key": "x", "optional": true}}},
        {"name": "A_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "A_LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['tier']"}}},
        {"name": "A_LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ]);
    let from = json!([{"prefix": "A_", "configMapRef": {"name": "settings"}}]);
    let main = json!({"env": env, "envFrom": from, "resources": {"limits": {"memory": "64Mi"}}});
    create(cluster, &pod("environment", "test/environment:v1", &json!({"restartPolicy": "Never"}), &main));
    let text = logs(cluster, "environment", |text| text.contains("A_"));
    let mut lines: Vec<&str> = text.lines().filter(|line| line.starts_with('A')).collect();
    lines.sort_unstable();
    expect![[r"
        AN_EXPANDED=yes and $(A_LITERAL) and $(NO_SUCH)
        A_CONFIG=blue
        A_LABEL=test
        A_LIMIT=64
        A_LITERAL=yes
        A_NAME=environment
        A_SECRET=hush
        A_SIZE=large
        A_color=blue"]]
    .assert_eq(&lines.join("\n"));
    let missing = json!({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "nothing", "key": "x"}}}]});
    create(cluster, &pod("unconfigured", "test/environment:v1", &json!({}), &missing));
    let pod = cluster.wait("it waits for its Secret", &format!("{PODS}/unconfigured"), |pod| {
        container(pod)["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    });
    assert_eq!(container(&pod)["state"]["waiting"]["message"], "secret \"nothing\" not found");
}

fn volumes_hold_files(cluster: &Cluster) {
    let guest = Guest::new().cat("color").print(" ").cat("key").print(" ").cat("tier").print(" ").cat("renamed");
    cluster.import("test/files:v1", &guest.print("\n").sleep(100).for_ever().wat());
    let labels = json!([{"path": "tier", "fieldRef": {"fieldPath": "metadata.labels['tier']"}}]);
    let projected = json!([{"configMap": {"name": "settings", "items": [{"key": "SIZE", "path": "renamed"}]}}]);
    let volumes = json!([
        {"name": "config", "configMap": {"name": "settings"}},
        {"name": "secret", "secret": {"secretName": "keys"}},
        {"name": "downward", "downwardAPI": {"items": labels}},
        {"name": "projected", "projected": {"sources": projected}},
    ]);
    let mount = |name: &str| json!({"name": name, "mountPath": format!("/{name}")});
    let mounts = json!(["config", "secret", "downward", "projected"].map(mount));
    create(cluster, &pod("files", "test/files:v1", &json!({"volumes": volumes}), &json!({"volumeMounts": mounts})));
    logs(cluster, "files", |text| text.starts_with("blue hush test large\n"));
    cluster.kubectl(r#"patch configmap settings -p {"data":{"color":"green"}}"#);
    logs(cluster, "files", |text| text.contains("green hush test large\n"));
    let access = Guest::new().cat("namespace").print(" ").cat("token").print("\n").sleep(60_000).for_ever();
    cluster.import("test/access:v1", &access.wat());
    create(cluster, &pod("access", "test/access:v1", &json!({}), &json!({})));
    let text = logs(cluster, "access", |text| text.ends_with('\n'));
    let token = text.trim().strip_prefix("default ").unwrap_or_else(|| panic!("it reads what it is given: {text}"));
    let review = json!({"spec": {"token": token}});
    let review = cluster.http().json("POST", "/apis/authentication.k8s.io/v1/tokenreviews", &review).json();
    assert_eq!(review["status"]["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["access"]));
    cluster.kubectl("delete pod access --grace-period=0 --force");
    let foreign = json!({"volumes": [{"name": "disk", "nfs": {"server": "files.example", "path": "/"}}]});
    let main = json!({"volumeMounts": [{"name": "disk", "mountPath": "/disk"}]});
    create(cluster, &pod("foreign", "test/files:v1", &foreign, &main));
    expect![[r#"
        Normal Scheduled: Successfully assigned default/foreign to coracle
        Warning FailedMount: MountVolume.SetUp failed for volume "disk" : volumes of type nfs are not supported by this node
    "#]].assert_eq(&events_until(cluster, "foreign", "FailedMount"));
    assert_eq!(row(cluster, "foreign"), "foreign  0/1  ContainerCreating  0  AGE\n");
    cluster.kubectl("delete pod files foreign --wait=true --timeout=20s");
}

fn memory_is_limited(cluster: &Cluster) {
    cluster.import("test/growing:v1", &Guest::new().grow_for_ever().wat());
    let limits = json!({"resources": {"limits": {"memory": "16Mi"}}});
    create(cluster, &pod("growing", "test/growing:v1", &json!({"restartPolicy": "Never"}), &limits));
    let ended = |pod: &Value| !container(pod)["state"]["terminated"].is_null();
    let pod = cluster.wait("it ends", &format!("{PODS}/growing"), ended);
    let state = &container(&pod)["state"]["terminated"];
    assert_eq!((&state["reason"], &state["exitCode"]), (&json!("OOMKilled"), &json!(137)));
    assert_eq!(row(cluster, "growing"), "growing  0/1  OOMKilled  0  AGE\n");
    let printed = cluster.kubectl("logs growing");
    assert_eq!(
        printed.lines().filter(|line| *line == "one more").count(),
        15,
        "the sixteenth is one too many: {printed}"
    );
    just_under_the_limit_it_runs_on(cluster);
}

/// A module of one page that takes fourteen mebibytes more and stays.
fn just_under_the_limit_it_runs_on(cluster: &Cluster) {
    let before = cluster.resident_memory();
    cluster.import("test/large:v1", &Guest::new().grow_and_touch(14).print("large\n").sleep(60_000).for_ever().wat());
    let limits = json!({"resources": {"limits": {"memory": "16Mi"}}});
    create(cluster, &pod("large", "test/large:v1", &json!({}), &limits));
    logs(cluster, "large", |text| text == "large\n");
    assert_eq!(row(cluster, "large"), "large  1/1  Running  0  AGE\n");
    if let (Some(before), Some(now)) = (before, cluster.resident_memory()) {
        assert!(now >= before + (14 << 20), "what the guest wrote to counts as the process's: {before} and then {now}");
    }
    cluster.kubectl("delete pod large --grace-period=0 --force");
}

fn probes_decide(cluster: &Cluster) {
    let env = json!([
        {"name": "DB_HOST", "value": "db"},
        {"name": "DB_USER", "value": "express"},
        {"name": "DB_PASSWORD", "value": "correct-horse"},
    ]);
    let get = |path: &str| json!({"httpGet": {"path": path, "port": 8080}, "periodSeconds": 1, "failureThreshold": 2});
    let tcp = json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1});
    let web = |name: &str, probes: Value| {
        let mut main = json!({"env": env});
        merge(&mut main, &probes);
        create(cluster, &pod(name, "coracle.dev/examples/web:v1", &json!({}), &main));
    };
    web("probed", json!({"startupProbe": tcp, "readinessProbe": get("/healthz"), "livenessProbe": get("/healthz")}));
    web("unready", json!({"readinessProbe": get("/nothing")}));
    web("unhealthy", json!({"livenessProbe": get("/nothing")}));
    let restarted = |pod: &Value| container(pod)["restartCount"].as_i64() >= Some(1);
    cluster.wait("the failing liveness probe restarts it", &format!("{PODS}/unhealthy"), restarted);
    let seen = events_until(cluster, "unhealthy", "Killing");
    for event in [
        "Warning Unhealthy: Liveness probe failed: HTTP probe failed with statuscode: 404",
        "Normal Killing: Container main failed liveness probe, will be restarted",
    ] {
        assert!(seen.contains(event), "{event} is not in\n{seen}");
    }
    cluster.wait("it is ready", &format!("{PODS}/probed"), |pod| container(pod)["ready"] == true);
    assert_eq!(row(cluster, "probed"), "probed  1/1  Running  0  AGE\n");
    assert_eq!(row(cluster, "unready"), "unready  0/1  Running  0  AGE\n");
    events_until(cluster, "unready", "Readiness probe failed: HTTP probe failed with statuscode: 404");
    cluster.kubectl("delete pod unhealthy unready --grace-period=0 --force");
}

#[test]
fn pods_that_cannot_start_say_why() {
    let Some(cluster) = Cluster::with(&Options { memory: true, ..Options::default() }) else { return };
    let component = r#"(component (import "wasi:filesystem/types@0.1.0" (instance (export "f" (func)))))"#;
    cluster.import("test/importing:v1", component);
    std::fs::write(cluster.directory().join("broken.wasm"), b"\0asm\x01\0\0\0\xff\xff\xff").expect("a file is written");
    cluster.coracle(&["image", "import", "test/broken:v1", "broken.wasm"]).ok();
    create(&cluster, &pod("importing", "test/importing:v1", &json!({}), &json!({})));
    create(&cluster, &pod("broken", "test/broken:v1", &json!({}), &json!({})));
    create(&cluster, &pod("absent", "localhost:1/absent:v1", &json!({}), &json!({})));
    create(&cluster, &pod("never-pulled", "localhost:1/absent:v1", &json!({}), &json!({"imagePullPolicy": "Never"})));
    create(&cluster, &pod("misnamed", "Test/UPPER:v1", &json!({}), &json!({})));
    create(
        &cluster,
        &pod("misplaced", "localhost:1/absent:v1", &json!({"nodeSelector": {"disk": "fast"}}), &json!({})),
    );
    let said = |name: &str, reason: &str, last: &str| {
        let waiting = |pod: &Value| container(pod)["state"]["waiting"]["reason"] == reason;
        let pod = cluster.wait(&format!("{name}: {reason}"), &format!("{PODS}/{name}"), waiting);
        let message = container(&pod)["state"]["waiting"]["message"].as_str().unwrap_or_default().to_owned();
        format!("{reason}: {message}\n{}", events_until(&cluster, name, last))
    };
    expect![[r#"
        CreateContainerError: image "test/importing:v1": it imports wasi:filesystem/types@0.1.0: this node offers wasi:filesystem/types@0.2.12
        Normal Scheduled: Successfully assigned default/importing to coracle
        Normal Pulled: Container image "test/importing:v1" already present on machine
        Warning Failed: Error: image "test/importing:v1": it imports wasi:filesystem/types@0.1.0: this node offers wasi:filesystem/types@0.2.12
    "#]]
    .assert_eq(&said("importing", "CreateContainerError", "Failed: Error"));
    expect![[r#"
        CreateContainerError: image "test/broken:v1": the image is not valid WebAssembly: failed to parse WebAssembly module: malformed section id (at offset 0x8)
        Normal Scheduled: Successfully assigned default/broken to coracle
        Normal Pulled: Container image "test/broken:v1" already present on machine
        Warning Failed: Error: image "test/broken:v1": the image is not valid WebAssembly: failed to parse WebAssembly module: malformed section id (at offset 0x8)
    "#]].assert_eq(&said("broken", "CreateContainerError", "Failed: Error"));
    expect![[r#"
        ErrImageNeverPull: Container image "localhost:1/absent:v1" is not present with pull policy of Never
        Normal Scheduled: Successfully assigned default/never-pulled to coracle
        Warning ErrImageNeverPull: Container image "localhost:1/absent:v1" is not present with pull policy of Never
        Warning Failed: Error: ErrImageNeverPull
    "#]]
    .assert_eq(&said("never-pulled", "ErrImageNeverPull", "Error: ErrImageNeverPull"));
    expect![[r#"
        InvalidImageName: Failed to apply default image tag "Test/UPPER:v1": invalid reference format: repository name must be lowercase
        Normal Scheduled: Successfully assigned default/misnamed to coracle
        Warning InspectFailed: Failed to apply default image tag "Test/UPPER:v1": invalid reference format: repository name must be lowercase
        Warning Failed: Error: InvalidImageName
    "#]].assert_eq(&said("misnamed", "InvalidImageName", "Error: InvalidImageName"));
    expect![[r#"
        ImagePullBackOff: Back-off pulling image "localhost:1/absent:v1": ErrImagePull: the registry localhost:1 cannot be asked: error sending request for url (http://localhost:1/v2/absent/manifests/v1): client error (Connect): tcp connect error: Connection refused (os error 111); an image can be imported as well: `coracle image import localhost:1/absent:v1 FILE`
        Normal Scheduled: Successfully assigned default/absent to coracle
        Normal Pulling: Pulling image "localhost:1/absent:v1"
        Warning Failed: Failed to pull image "localhost:1/absent:v1": the registry localhost:1 cannot be asked: error sending request for url (http://localhost:1/v2/absent/manifests/v1): client error (Connect): tcp connect error: Connection refused (os error 111); an image can be imported as well: `coracle image import localhost:1/absent:v1 FILE`
        Warning Failed: Error: ErrImagePull
        Normal BackOff: Back-off pulling image "localhost:1/absent:v1"
        Warning Failed: Error: ImagePullBackOff
    "#]].assert_eq(&said("absent", "ImagePullBackOff", "Error: ImagePullBackOff"));
    let unscheduled = |pod: &Value| pod["status"]["conditions"][0]["reason"] == "Unschedulable";
    cluster.wait("nowhere fits", &format!("{PODS}/misplaced"), unscheduled);
    expect![[r"
        Warning FailedScheduling: 0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.
    "]].assert_eq(&events_until(&cluster, "misplaced", "FailedScheduling"));
    let table = cluster.kubectl("get pods --no-headers");
    let statuses = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()[..3].join(" ") + "\n");
    expect![[r"
        absent 0/1 ImagePullBackOff
        broken 0/1 CreateContainerError
        importing 0/1 CreateContainerError
        misnamed 0/1 InvalidImageName
        misplaced 0/1 Pending
        never-pulled 0/1 ErrImageNeverPull
    "]]
    .assert_eq(&statuses.collect::<String>());
}
