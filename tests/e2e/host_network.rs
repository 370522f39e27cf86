//! The host's network: a machine and its containers reach Services and pods by their addresses, through one table and two routes that are
//! put back when somebody removes them and go with the process.
//!
//! Hosts are network namespaces here, and a "container" is one more of them on a bridge of its host.

use std::fs;
use std::process::{Command, Stdio};

use crate::harness::{Cluster, Hosts, Ran, eventually, finish};

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
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeName: host-1
      containers:
      - name: web
        image: coracle.dev/examples/web:v1
        envFrom: [{configMapRef: {name: database}}]
        ports: [{name: http, containerPort: 3000}]
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  externalIPs: [198.51.100.7]
  ports: [{port: 80, targetPort: http}]
";

/// A namespace on a bridge of a host, as Docker makes them: the first addresses of the node's range.
struct Container {
    name: String,
}

impl Container {
    fn on(hosts: &Hosts, host: usize, range: &str) -> Self {
        let name = format!("coracle-container-{}", std::process::id());
        let base = range.strip_suffix(".0/24").expect("a node has a /24");
        let ip = |arguments: &[&str]| {
            let mut command = Command::new("ip");
            command.args(arguments);
            finish(command).ok();
        };
        ip(&["netns", "add", &name]);
        hosts.exec(host, &["ip", "link", "add", "br-test", "type", "bridge"]).ok();
        hosts
            .exec(host, &["ip", "link", "add", "veth-test", "type", "veth", "peer", "name", "eth0", "netns", &name])
            .ok();
        hosts.exec(host, &["ip", "link", "set", "veth-test", "master", "br-test", "up"]).ok();
        hosts.exec(host, &["ip", "link", "set", "br-test", "up"]).ok();
        hosts.exec(host, &["ip", "addr", "add", &format!("{base}.1/25"), "dev", "br-test"]).ok();
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        ip(&["-n", &name, "link", "set", "eth0", "up"]);
        ip(&["-n", &name, "addr", "add", &format!("{base}.2/25"), "dev", "eth0"]);
        ip(&["-n", &name, "route", "add", "default", "via", &format!("{base}.1")]);
        resolver(&name, &format!("{base}.1"));
        Self { name }
    }

    fn exec(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).args(arguments);
        finish(command)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(format!("/etc/netns/{}", self.name));
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).stderr(Stdio::null()).status();
    }
}

/// What `ip netns exec` gives its programs for `/etc/resolv.conf`: the one of a pod in `default`.
fn resolver(namespace: &str, server: &str) {
    let folder = format!("/etc/netns/{namespace}");
    fs::create_dir_all(&folder).expect("a folder is made");
    let search = "default.svc.cluster.local svc.cluster.local cluster.local";
    let text = format!("nameserver {server}\nsearch {search}\noptions ndots:5\n");
    fs::write(format!("{folder}/resolv.conf"), text).expect("a file is written");
}

#[test]
fn a_machine_and_its_containers_reach_services_and_pods_by_their_addresses() {
    let Some(hosts) = Hosts::new(2) else { return };
    let (mut first, mut second) = (Cluster::elsewhere(), Cluster::elsewhere());
    let program = hosts.on(0, &crate::harness::program(first.directory()));
    hosts.exec(0, &["nft", "add", "table", "inet", "mine"]).ok();
    let up = ["up", "--listen", "0.0.0.0:6443", "--name", "host-0", "--host-network", "auto"];
    first.run_program(program, &up);
    let output = first.output();
    let invitation = output.lines().find(|line| line.trim().starts_with("coracle join")).expect("it says how to join");
    let mut join: Vec<&str> = invitation.split_whitespace().skip(1).collect();
    join.extend(["--name", "host-1", "--host-network", "auto"]);
    second.run_program(hosts.on(1, &crate::harness::program(second.directory())), &join);
    first.write("application.yaml", APPLICATION);
    let kubectl = |arguments: &str| {
        let all: Vec<&str> = std::iter::once("kubectl").chain(arguments.split_whitespace()).collect();
        hosts.run_on(0, &first, &all)
    };
    kubectl("apply -f application.yaml").ok();
    kubectl("rollout status deployment web --timeout=80s").ok();
    eventually("the node says that the host's network is held", || {
        let path = "jsonpath={.status.conditions[?(@.type==\"coracle.dev/HostNetwork\")].reason}";
        let reason = hosts.run_on(0, &first, &["kubectl", "get", "node", "host-0", "-o", path]);
        if reason.stdout == "Held" { Ok(()) } else { Err(reason) }
    });
    let service = kubectl("get service web -o jsonpath={.spec.clusterIP}").ok();
    let pod = kubectl("get pods -l app=web -o jsonpath={.items[0].status.podIP}").ok();
    let fetch = |run: &dyn Fn(&[&str]) -> Ran, url: &str| {
        eventually("the page comes", || {
            let ran = run(&["curl", "-s", "--max-time", "10", url]);
            if ran.code == Some(0) && ran.stdout.contains("Hello from express-api v1") { Ok(()) } else { Err(ran) }
        });
    };
    let urls = [format!("http://{service}/"), format!("http://{pod}:3000/"), "http://198.51.100.7/".into()];
    let host = |arguments: &[&str]| hosts.exec(0, arguments);
    // The external address has no way of its own on a host without a default route.
    hosts.exec(0, &["ip", "route", "add", "default", "via", "10.77.0.254"]).ok();
    for url in &urls {
        fetch(&host, url);
    }
    let refused = host(&["curl", "-s", "--max-time", "10", &format!("http://{service}:81/")]);
    // 7, 52 and 56: not connected, no answer, reset; 28 would be silence.
    assert!(
        matches!(refused.code, Some(7 | 52 | 56)),
        "a port that the service does not have ends at once: {refused:?}"
    );
    resolver(hosts.name(0), "10.43.0.10");
    fetch(&host, "http://web/");

    let range = kubectl("get node host-0 -o jsonpath={.spec.podCIDR}").ok();
    let container = Container::on(&hosts, 0, &range);
    let inside = |arguments: &[&str]| container.exec(arguments);
    for url in urls.iter().map(String::as_str).chain(["http://web.default/", "http://web/"]) {
        fetch(&inside, url);
    }

    hosts.exec(0, &["nft", "delete", "table", "inet", "coracle"]).ok();
    hosts.exec(0, &["ip", "route", "del", "local", "10.43.0.0/16", "dev", "lo", "table", "main"]).ok();
    fetch(&host, &urls[0]);
    eventually("the route is back", || {
        let routes = hosts.exec(0, &["ip", "route", "show", "table", "main"]);
        if routes.stdout.contains("local 10.43.0.0/16 dev lo") { Ok(()) } else { Err(routes) }
    });

    let mut other = Cluster::elsewhere();
    let program = hosts.on(0, &crate::harness::program(other.directory()));
    other.run_program(program, &["up", "--listen", "0.0.0.0:7443", "--name", "other", "--host-network", "auto"]);
    eventually("a second process on the host says that another has it", || {
        let path = "jsonpath={.status.conditions[?(@.type==\"coracle.dev/HostNetwork\")].reason}";
        let reason = hosts.run_on(0, &other, &["kubectl", "get", "node", "other", "-o", path]);
        if reason.stdout == "HeldByAnotherProcess" { Ok(()) } else { Err(reason) }
    });
    other.signal("INT");
    first.signal("INT");
    let tables = hosts.exec(0, &["nft", "list", "tables"]).ok();
    assert!(tables.contains("inet mine") && !tables.contains("coracle"), "{tables}");
    let routes = hosts.exec(0, &["ip", "route", "show", "table", "main"]).ok();
    assert!(!routes.contains("dev lo"), "{routes}");
    let _ = fs::remove_dir_all(format!("/etc/netns/{}", hosts.name(0)));
}
