//! Pods that are containers: real ones, on Docker Engine, of an image that is made here.

use serde_json::{Value, json};

use crate::harness::{Cluster, Docker, IMAGE, Options, eventually, http_get};

pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";

/// A cluster with a node of the Engine's name for it.
#[track_caller]
fn up(docker: &Docker, memory: bool) -> Option<Cluster> {
    let arguments = ["--name", &docker.node, "--docker", "/var/run/docker.sock"];
    Cluster::with(&Options { arguments: &arguments, memory, ..Options::default() })
}

/// A pod of one container that runs a script, with the rest of its spec and of its container as JSON.
pub(crate) fn pod(name: &str, script: &str, spec: &Value, container: &Value) -> Value {
    let mut main = json!({"name": "main", "image": IMAGE, "command": ["/bin/sh", "-c", script]});
    merge(&mut main, container);
    let mut all = json!({"terminationGracePeriodSeconds": 1, "containers": [main]});
    merge(&mut all, spec);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": all})
}

fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().expect("it is an object") {
        into[key] = value.clone();
    }
}

#[track_caller]
pub(crate) fn create(cluster: &Cluster, pod: &Value) {
    let answer = cluster.http().json("POST", PODS, pod);
    assert_eq!(answer.code, 201, "{answer:?}");
}

#[track_caller]
pub(crate) fn wait(cluster: &Cluster, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    cluster.wait(&format!("{name} {what}"), &format!("{PODS}/{name}"), |pod| holds(&pod["status"]))
}

pub(crate) fn phase(status: &Value, phase: &str) -> bool {
    status["phase"] == phase
}

pub(crate) fn is_ready(status: &Value) -> bool {
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

pub(crate) fn container(status: &Value) -> &Value {
    &status["containerStatuses"][0]
}

#[track_caller]
pub(crate) fn logs(cluster: &Cluster, pod: &str, holds: impl Fn(&str) -> bool) -> String {
    eventually(&format!("{pod} has printed what it should"), || {
        let answer = cluster.http().get(&format!("{PODS}/{pod}/log"));
        if answer.code == 200 && holds(&answer.text) { Ok(answer.text) } else { Err(answer) }
    })
}

#[track_caller]
pub(crate) fn event(cluster: &Cluster, pod: &str, text: &str) {
    eventually(&format!("the Events of {pod} tell of {text:?}"), || {
        let path = format!("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3D{pod}");
        let answer = cluster.http().get(&path);
        let list = answer.json();
        let told = list["items"].as_array().into_iter().flatten();
        let line = |event: &Value| format!("{}: {}", event["reason"], event["message"].as_str().unwrap_or_default());
        let lines: Vec<String> = told.map(line).collect();
        if lines.iter().any(|line| line.contains(text)) { Ok(()) } else { Err(lines) }
    });
}

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: coracle.test/busybox:1
        command: [/bin/sh, -c, \"mkdir /www; hostname > /www/index.html; echo serving; exec httpd -f -p 8080 -h /www\"]
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /index.html, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 31880}]
";

#[test]
fn a_deployment_of_containers_is_served_healed_and_leaves_nothing_behind() {
    let Some(docker) = Docker::new() else { return };
    let Some(mut cluster) = up(&docker, true) else { return };
    cluster.apply(WEB);
    cluster.kubectl("rollout status deployment/web --timeout=60s");
    let pods = cluster.get(&format!("{PODS}?labelSelector=app%3Dweb"));
    let mut names: Vec<&str> =
        pods["items"].as_array().unwrap().iter().filter_map(|p| p["metadata"]["name"].as_str()).collect();
    names.sort_unstable();
    let mut answered: Vec<String> = Vec::new();
    eventually("both pods have answered through the node port", || {
        let body = http_get("127.0.0.1:31880", "/").unwrap_or_default();
        answered.extend(names.iter().filter(|name| body.contains(**name)).map(|name| (*name).to_owned()));
        if names.iter().all(|name| answered.iter().any(|seen| seen == name)) { Ok(()) } else { Err(body) }
    });
    assert!(cluster.kubectl(&format!("logs {}", names[0])).contains("serving"));
    let id = pods["items"][0]["status"]["containerStatuses"][0]["containerID"].as_str().unwrap();
    assert!(id.starts_with("docker://"), "{id}");

    // Somebody removes a container: it is started again, and nobody else's is touched.
    let label = format!("coracle.dev/pod={}", names[0]);
    let victim =
        docker.containers(&label).into_iter().find(|id| docker.inspect(id, "{{.Name}}").contains("_web_")).unwrap();
    docker.run(&["rm", "-f", &victim]).ok();
    wait(&cluster, names[0], "was restarted and is ready", |status| {
        container(status)["restartCount"] == 1 && is_ready(status)
    });
    assert_eq!(cluster.get(&format!("{PODS}/{}", names[1]))["status"]["containerStatuses"][0]["restartCount"], 0);

    cluster.kubectl("scale deployment/web --replicas=1");
    eventually("the containers of one pod are left", || match docker.containers("").len() {
        2 => Ok(()),
        other => Err(other),
    });
    assert!(cluster.coracle(&["image", "ls"]).ok().contains("docker"));
    assert!(cluster.signal("INT").success());
    assert_eq!(docker.leftovers(), Vec::<String>::new());
}

#[test]
fn containers_end_as_docker_says_and_that_is_told() {
    let Some(docker) = Docker::new() else { return };
    let Some(cluster) = up(&docker, true) else { return };
    let never = json!({"restartPolicy": "Never"});
    create(
        &cluster,
        &pod("three", "echo out; echo err >&2; echo last words > /dev/termination-log; exit 3", &never, &json!({})),
    );
    create(
        &cluster,
        &pod("greedy", "exec tail /dev/zero", &never, &json!({"resources": {"limits": {"memory": "16Mi"}}})),
    );
    create(&cluster, &pod("missing", "", &never, &json!({"command": ["/bin/nothing"]})));
    create(&cluster, &pod("loop", "echo again; exit 1", &json!({}), &json!({})));
    create(
        &cluster,
        &pod("absent", "", &never, &json!({"image": "coracle.test/absent:1", "imagePullPolicy": "Never"})),
    );
    create(&cluster, &pod("root", "id", &never, &json!({"securityContext": {"runAsNonRoot": true}})));

    let ended = |name: &str| wait(&cluster, name, "has failed", |status| phase(status, "Failed"))["status"].clone();
    let three = ended("three");
    assert_eq!(container(&three)["state"]["terminated"]["exitCode"], 3);
    assert_eq!(container(&three)["state"]["terminated"]["message"], "last words\n");
    let mut lines: Vec<String> =
        logs(&cluster, "three", |text| text.contains("err")).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["err", "out"]);
    let greedy = ended("greedy");
    assert_eq!(container(&greedy)["state"]["terminated"]["reason"], "OOMKilled");
    assert_eq!(container(&greedy)["state"]["terminated"]["exitCode"], 137);
    let missing = ended("missing");
    assert_eq!(container(&missing)["state"]["terminated"]["reason"], "StartError");
    assert!(container(&missing)["state"]["terminated"]["message"].as_str().unwrap().contains("no such file"));
    wait(&cluster, "loop", "backs off after a restart", |status| {
        container(status)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
            && container(status)["restartCount"].as_u64() >= Some(1)
    });
    assert_eq!(cluster.kubectl("logs loop --previous"), "again\n");
    wait(&cluster, "absent", "has no image", |status| {
        container(status)["state"]["waiting"]["reason"] == "ErrImageNeverPull"
    });
    let root = wait(&cluster, "root", "must not run as root", |status| {
        container(status)["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    });
    let message = container(&root["status"])["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.contains("image will run as root"), "{message}");
}

const SETTINGS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {key: hush}
";

#[test]
fn containers_have_the_volumes_rights_and_neighbours_that_their_pod_says() {
    let Some(docker) = Docker::new() else { return };
    let Some(cluster) = up(&docker, true) else { return };
    cluster.apply(SETTINGS);

    let spec = json!({
        "restartPolicy": "Never",
        "hostname": "host-of-mine",
        "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["other.example"]}],
        "shareProcessNamespace": true,
        "securityContext": {"fsGroup": 3000},
        "volumes": [
            {"name": "settings", "configMap": {"name": "settings"}},
            {"name": "keys", "secret": {"secretName": "keys"}},
            {"name": "own", "emptyDir": {}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ],
        "initContainers": [
            {"name": "first", "image": IMAGE, "command": ["/bin/sh", "-c", "echo made > /own/made"],
             "volumeMounts": [{"name": "own", "mountPath": "/own"}]},
            {"name": "side", "image": IMAGE, "restartPolicy": "Always", "command": ["/bin/sh", "-c", "exec httpd -f -p 9000 -h /tmp"],
             "startupProbe": {"tcpSocket": {"port": 9000}, "periodSeconds": 1}},
        ],
    });
    let mounts = json!([
        {"name": "settings", "mountPath": "/settings"},
        {"name": "settings", "mountPath": "/one", "subPath": "color"},
        {"name": "keys", "mountPath": "/keys"},
        {"name": "own", "mountPath": "/own"},
        {"name": "memory", "mountPath": "/memory"},
    ]);
    let script = "set -e; cat /settings/color /one /keys/key /own/made; echo; echo $COLOR $(hostname) $(id -u):$(id -g) $(id -G); \
                  cat /etc/hosts; test ! -w / && echo read-only; echo x > /memory/x; ps | cat; wget -q -O- localhost:9000/ 2>&1 || true; \
                  until test \"$(cat /settings/color)\" = green; do sleep 0.1; done; echo changed";
    let main = json!({
        "volumeMounts": mounts,
        "env": [{"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}}],
        "securityContext": {"runAsUser": 1000, "runAsGroup": 2000, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
                            "capabilities": {"drop": ["ALL"]}},
    });
    create(&cluster, &pod("all", script, &spec, &main));
    let printed = logs(&cluster, "all", |text| text.contains("404") || text.contains("server returned error"));
    for expected in [
        "blueblue",
        "hushmade",
        "blue host-of-mine 1000:2000 2000 3000",
        "192.0.2.7\tother.example",
        "read-only",
        "/sandbox",
    ] {
        assert!(printed.contains(expected), "{expected:?} is missing:\n{printed}");
    }
    cluster.apply(&SETTINGS.replace("blue", "green"));
    logs(&cluster, "all", |text| text.contains("changed"));
    wait(&cluster, "all", "has succeeded", |status| phase(status, "Succeeded"));
}

#[test]
fn a_killed_node_takes_its_containers_over_and_loses_no_line() {
    let Some(docker) = Docker::new() else { return };
    let Some(mut cluster) = up(&docker, false) else { return };
    let script = "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.05; done";
    create(
        &cluster,
        &pod(
            "counter",
            script,
            &json!({}),
            &json!({"livenessProbe": {"exec": {"command": ["/bin/test", "-d", "/bin"]}, "periodSeconds": 1}}),
        ),
    );
    logs(&cluster, "counter", |text| text.contains("line 20\n"));
    let before = docker.containers("");
    cluster.signal("KILL");
    assert_eq!(docker.containers(""), before, "a killed process leaves its containers running");
    cluster.start(&["--listen", "127.0.0.1:0", "--docker", "/var/run/docker.sock"]);
    let ready = wait(&cluster, "counter", "is ready again", is_ready);
    assert_eq!(container(&ready["status"])["restartCount"], 0);
    assert_eq!(docker.containers(""), before);
    let text = logs(&cluster, "counter", |text| text.lines().count() > 120);
    let lines: Vec<&str> = text.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(*line, format!("line {number}"), "after {:?}", &lines[number.saturating_sub(2)..number]);
    }
    assert!(cluster.signal("INT").success());
    assert_eq!(docker.leftovers(), Vec::<String>::new());
}

#[test]
fn a_container_that_will_not_end_is_killed_after_its_grace_and_one_that_forks_is_alone_with_it() {
    let Some(docker) = Docker::new() else { return };
    let Some(cluster) = up(&docker, true) else { return };
    create(
        &cluster,
        &pod(
            "stubborn",
            "trap '' TERM; echo up; while true; do sleep 1; done",
            &json!({"terminationGracePeriodSeconds": 2}),
            &json!({}),
        ),
    );
    create(
        &cluster,
        &pod(
            "polite",
            "trap 'echo bye; exit 0' TERM; echo up; while true; do sleep 0.1; done",
            &json!({"terminationGracePeriodSeconds": 30}),
            &json!({}),
        ),
    );
    for name in ["stubborn", "polite"] {
        logs(&cluster, name, |text| text.contains("up"));
        cluster.kubectl(&format!("delete pod {name} --timeout=20s"));
    }
    assert_eq!(docker.containers("coracle.dev/container=main"), Vec::<String>::new());
    create(
        &cluster,
        &pod("forks", "echo up; while true; do sleep 1000 & done", &json!({"restartPolicy": "Never"}), &json!({})),
    );
    logs(&cluster, "forks", |text| text.contains("can't fork"));
    create(&cluster, &pod("neighbour", "echo fine", &json!({"restartPolicy": "Never"}), &json!({})));
    wait(&cluster, "neighbour", "has succeeded", |status| phase(status, "Succeeded"));
    cluster.kubectl("delete pod forks --timeout=60s");
}

#[test]
fn containers_run_beside_wasm_and_without_an_engine_wasm_runs_alone() {
    let Some(docker) = Docker::new() else { return };
    let Some(cluster) = up(&docker, true) else { return };
    let module = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)
        (func (export "_start") (call $exit (i32.const 7))))"#;
    cluster.import("coracle.test/seven:1", module);
    let never = json!({"restartPolicy": "Never"});
    let wasm = json!({"image": "coracle.test/seven:1", "command": []});
    create(&cluster, &pod("wasm", "", &never, &wasm));
    create(&cluster, &pod("container", "exit 7", &never, &json!({})));
    for (name, scheme) in [("wasm", "wasmtime://"), ("container", "docker://")] {
        let failed = wait(&cluster, name, "has failed", |status| phase(status, "Failed"));
        let terminated = &container(&failed["status"])["state"]["terminated"];
        assert_eq!(terminated["exitCode"], 7, "{name}");
        assert!(terminated["containerID"].as_str().unwrap().starts_with(scheme), "{terminated}");
    }

    let arguments = ["--name", "lonely", "--docker", "/nowhere/docker.sock"];
    let Some(alone) = Cluster::with(&Options { arguments: &arguments, memory: true, ..Options::default() }) else {
        return;
    };
    alone.import("coracle.test/seven:1", module);
    create(&alone, &pod("wasm", "", &never, &wasm));
    wait(&alone, "wasm", "has failed", |status| phase(status, "Failed"));
    alone.apply("apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: docker}\nhandler: docker\n");
    create(&alone, &pod("container", "exit 7", &json!({"runtimeClassName": "docker"}), &json!({})));
    event(&alone, "container", "Failed to create pod sandbox: Docker Engine cannot be reached at /nowhere/docker.sock");
    let node = alone.wait("the node says what is missing", "/api/v1/nodes/lonely", |node| {
        let conditions = node["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        conditions
            .iter()
            .any(|condition| condition["type"] == "ContainerRuntimeUnhealthy" && condition["status"] == "True")
    });
    assert!(is_ready(&node["status"]), "{}", node["status"]);
}

#[test]
fn a_container_is_probed_by_commands_and_over_its_network() {
    let Some(docker) = Docker::new() else { return };
    let Some(cluster) = up(&docker, true) else { return };
    let probes = json!({
        "startupProbe": {"exec": {"command": ["/bin/test", "-f", "/started"]}, "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        "livenessProbe": {"exec": {"command": ["/bin/sh", "-c", "echo no more; test ! -f /sick"]}, "periodSeconds": 1, "failureThreshold": 1},
        "lifecycle": {"postStart": {"exec": {"command": ["/bin/touch", "/started"]}}},
    });
    create(&cluster, &pod("probed", "exec httpd -f -p 8080 -h /tmp", &json!({}), &probes));
    wait(&cluster, "probed", "is ready", is_ready);
    let main = docker.containers("coracle.dev/container=main").remove(0);
    docker.run(&["exec", &main, "/bin/touch", "/sick"]).ok();
    wait(&cluster, "probed", "was restarted and is ready", |status| {
        container(status)["restartCount"] == 1 && is_ready(status)
    });
    event(&cluster, "probed", "Liveness probe failed: no more");
    let answered = cluster.run(&["get", "--raw", "/api/v1/namespaces/default/pods/probed:8080/proxy/nothing"]).fails();
    assert!(answered.contains("not find") || answered.contains("404"), "{answered}");
}
