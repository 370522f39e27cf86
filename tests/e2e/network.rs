//! The ways to a pod: a Service by its name from inside other pods, and `kubectl port-forward` from the machine.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use serde_json::json;

use crate::harness::{Cluster, Options, eventually, http_get};

const NODE_PORT: u16 = 30983;
/// Two pods that are Ready behind `web`, a third that never is, and a page that asks others through a node port.
const APPLICATION: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: database}
data: {DB_HOST: db, DB_USER: express, DB_PASSWORD: correct-horse}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web, ready: 'yes'}}
  template:
    metadata: {labels: {app: web, ready: 'yes'}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: coracle.dev/examples/web:v1
        envFrom: [{configMapRef: {name: database}}]
        ports: [{name: http, containerPort: 3000}]
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: unready, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: coracle.dev/examples/web:v1
    envFrom: [{configMapRef: {name: database}}]
    ports: [{name: http, containerPort: 3000}]
    readinessProbe: {httpGet: {path: /nothing, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: front}
spec:
  type: NodePort
  selector: {app: web, ready: 'yes'}
  ports: [{port: 80, targetPort: http, nodePort: 30983}]
";

#[test]
fn pods_are_reached_by_name_from_pods_and_through_port_forward_from_the_machine() {
    let Some(cluster) = Cluster::with(&Options { memory: true, ..Options::default() }) else { return };
    cluster.apply(APPLICATION);
    cluster.kubectl("rollout status deployment web --timeout=60s");
    cluster.wait("the third runs and is not ready", "/api/v1/namespaces/default/pods/unready", |pod| {
        pod["status"]["phase"] == "Running" && pod["status"]["containerStatuses"][0]["ready"] == json!(false)
    });
    names_lead_to_ready_pods(&cluster);
    port_forward_leads_to_a_pod(&cluster);
}

/// What a pod gets when it asks `http://NAME/`.
fn fetched(name: &str) -> Result<String, String> {
    http_get(&format!("127.0.0.1:{NODE_PORT}"), &format!("/fetch?{name}"))
}

fn names_lead_to_ready_pods(cluster: &Cluster) {
    let address = cluster.kubectl("get service web -o jsonpath={.spec.clusterIP}");
    eventually("the node port answers", || http_get(&format!("127.0.0.1:{NODE_PORT}"), "/"));
    for name in ["web", "web.default", "web.default.svc", "web.default.svc.cluster.local", &address] {
        let page = fetched(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(page.contains("Hello from express-api v1, served by web-"), "{name}: {page}");
    }
    let mut servers = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let page = fetched("web").expect("every request is answered");
        let (_, server) = page.split_once("served by ").expect("the page says who served it");
        servers.insert(server.split_whitespace().next().unwrap_or_default().to_owned());
    }
    let ready = cluster.kubectl("get pods -l ready=yes -o name").replace("pod/", "");
    assert_eq!(
        servers.into_iter().collect::<Vec<_>>().join("\n") + "\n",
        sorted(&ready),
        "all that are ready, no other"
    );
    let unknown = fetched("nobody").expect_err("there is no such name");
    assert!(unknown.starts_with("HTTP/1.1 502 ") && unknown.contains("cannot fetch http://nobody/: "), "{unknown}");
}

fn sorted(lines: &str) -> String {
    let mut lines: Vec<&str> = lines.lines().collect();
    lines.sort_unstable();
    lines.join("\n") + "\n"
}

/// A `kubectl port-forward` that listens; it ends with the value.
struct Forward {
    process: Child,
    address: String,
}

impl Forward {
    fn to(cluster: &Cluster, what: &str, port: &str) -> Self {
        let mut command = cluster.kubectl_command(&["port-forward", what, &format!(":{port}")]);
        let mut process = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().expect("it is piped")).read_line(&mut line).expect("it can be read");
        let address = line.strip_prefix("Forwarding from ").and_then(|rest| rest.split(' ').next());
        let address = address.unwrap_or_else(|| panic!("it does not listen: {line}")).to_owned();
        Self { process, address }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn port_forward_leads_to_a_pod(cluster: &Cluster) {
    for (what, port) in [("pod/unready", "3000"), ("deployment/web", "3000"), ("service/web", "80")] {
        let forward = Forward::to(cluster, what, port);
        for _ in 0..3 {
            let page = http_get(&forward.address, "/").unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(page.contains("Hello from express-api v1, served by "), "{what}: {page}");
        }
    }
    let unready = Forward::to(cluster, "pod/unready", "3000");
    let page = http_get(&unready.address, "/").expect("a pod that is not ready is reached by its own name");
    assert!(page.contains("served by unready"), "{page}");
}
