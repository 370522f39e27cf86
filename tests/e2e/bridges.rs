//! Containers of two hosts, each with an Engine of its own: Services and pods by their addresses over TCP and UDP, and policies for what
//! crosses no node.

use crate::harness::{Cluster, Docker, Engine, Hosts, Ran, eventually};

const IMAGE: &str = "coracle.test/datagrams:1";

/// On the second host a pod that answers at a port of each protocol, and its Service; on the first one those who ask, and one of the same
/// kind on their own bridge.
const APPLICATION: &str = "
apiVersion: v1
kind: Pod
metadata: {name: far, labels: {app: far}}
spec: {nodeName: host-1, terminationGracePeriodSeconds: 1, containers: [
  {name: tcp, image: coracle.test/datagrams:1, command: [sh, -c, 'hostname > /tmp/index.html; exec httpd -f -p 8080 -h /tmp']},
  {name: udp, image: coracle.test/datagrams:1, command: [datagrams, serve, '9053']}]}
---
apiVersion: v1
kind: Service
metadata: {name: far}
spec:
  type: NodePort
  selector: {app: far}
  ports:
  - {name: tcp, port: 80, targetPort: 8080, nodePort: 31880}
  - {name: udp, protocol: UDP, port: 53053, targetPort: 9053, nodePort: 31853}
---
apiVersion: v1
kind: Pod
metadata: {name: near, labels: {app: near}}
spec: {nodeName: host-0, terminationGracePeriodSeconds: 1, containers: [
  {name: tcp, image: coracle.test/datagrams:1, command: [sh, -c, 'hostname > /tmp/index.html; exec httpd -f -p 8080 -h /tmp']},
  {name: udp, image: coracle.test/datagrams:1, command: [datagrams, serve, '9053']}]}
---
apiVersion: v1
kind: Pod
metadata: {name: friend, labels: {app: friend}}
spec: {nodeName: host-0, terminationGracePeriodSeconds: 1, containers: [
  {name: main, image: coracle.test/datagrams:1, command: [sleep, '100000']}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, labels: {app: stranger}}
spec: {nodeName: host-0, terminationGracePeriodSeconds: 1, containers: [
  {name: main, image: coracle.test/datagrams:1, command: [sleep, '100000']}]}
";

struct World {
    hosts: Hosts,
    // Before the Engines, whose containers it removes.
    members: Vec<Cluster>,
    _engines: Vec<Engine>,
}

impl World {
    fn up() -> Option<Self> {
        let hosts = Hosts::new(2)?;
        let mut engines = Vec::new();
        for host in 0..2 {
            let engine = Engine::new(Some(hosts.name(host)))?;
            let docker = Docker::at(&engine.host(), "");
            docker.tool(IMAGE, env!("CARGO_BIN_EXE_datagrams"));
            engines.push(engine);
        }
        let sockets: Vec<String> =
            engines.iter().map(|engine| engine.host().trim_start_matches("unix://").to_owned()).collect();
        let (mut first, mut second) = (Cluster::elsewhere(), Cluster::elsewhere());
        let program = hosts.on(0, &crate::harness::program(first.directory()));
        let common = |host: usize| ["--host-network", "auto", "--docker", sockets[host].as_str()];
        let up = ["up", "--listen", "0.0.0.0:6443", "--name", "host-0"];
        first.run_program(program, &[&up[..], &common(0)].concat());
        let output = first.output();
        let line = output.lines().find(|line| line.trim().starts_with("coracle join")).expect("it says how to join");
        let mut join: Vec<&str> = line.split_whitespace().skip(1).collect();
        join.extend(["--name", "host-1"]);
        join.extend(common(1));
        second.run_program(hosts.on(1, &crate::harness::program(second.directory())), &join);
        Some(Self { hosts, members: vec![first, second], _engines: engines })
    }

    fn kubectl(&self, arguments: &[&str]) -> Ran {
        self.hosts.run_on(0, &self.members[0], &[&["kubectl"], arguments].concat())
    }

    fn apply(&self, manifest: &str) {
        self.members[0].write("manifest.yaml", manifest);
        self.kubectl(&["apply", "-f", "manifest.yaml"]).ok();
    }

    fn field(&self, what: &str, path: &str) -> String {
        self.kubectl(&["get", what, "-o", &format!("jsonpath={{{path}}}")]).ok()
    }

    /// Runs a command in a pod.
    fn exec(&self, pod: &str, command: &[&str]) -> Ran {
        self.kubectl(&[&["exec", pod, "--"], command].concat())
    }

    /// A page, as a pod gets it.
    fn page(&self, pod: &str, address: &str) -> Result<String, Ran> {
        let ran = self.exec(pod, &["wget", "-q", "-O-", &format!("http://{address}/")]);
        if ran.code == Some(0) { Ok(ran.stdout) } else { Err(ran) }
    }

    /// The answer to a datagram, as a pod gets it.
    fn datagram(&self, pod: &str, address: &str) -> Result<String, Ran> {
        let ran = self.exec(pod, &["datagrams", "ask", address, "hello"]);
        if ran.code == Some(0) { Ok(ran.stdout) } else { Err(ran) }
    }

    #[track_caller]
    fn answers(&self, pod: &str, name: &str, tcp: &str, udp: &str) {
        eventually(&format!("{pod} has the page of {name} at {tcp}"), || match self.page(pod, tcp) {
            Ok(page) if page == format!("{name}\n") => Ok(()),
            other => Err(other),
        });
        eventually(&format!("{pod} has an answer of {name} at {udp}"), || match self.datagram(pod, udp) {
            Ok(answer) if answer == format!("{name}: hello\n") => Ok(()),
            other => Err(other),
        });
    }

    #[track_caller]
    fn is_refused(&self, pod: &str, tcp: &str, udp: &str) {
        eventually(&format!("{pod} gets nothing from {tcp}"), || match self.page(pod, tcp) {
            Ok(page) => Err(page),
            Err(_) => Ok(()),
        });
        eventually(&format!("{pod} gets nothing from {udp}"), || match self.datagram(pod, udp) {
            Ok(answer) => Err(answer),
            Err(_) => Ok(()),
        });
    }
}

#[test]
fn containers_of_two_hosts_reach_services_and_pods_and_policies_hold_on_their_bridges_too() {
    let Some(world) = World::up() else { return };
    world.apply(APPLICATION);
    world.kubectl(&["wait", "pod", "--all", "--for=condition=Ready", "--timeout=80s"]).ok();
    let service = world.field("service/far", ".spec.clusterIP");
    let [far, near] = ["far", "near"].map(|pod| world.field(&format!("pod/{pod}"), ".status.podIP"));
    services_and_pods_are_reached(&world, &service, &far);
    policies_hold_on_the_bridge(&world, &near, &far);
    for mut member in world.members {
        member.signal("INT");
    }
}

fn services_and_pods_are_reached(world: &World, service: &str, far: &str) {
    world.answers("friend", "far", &format!("{service}:80"), &format!("{service}:53053"));
    let pod = format!("{far}:8080");
    eventually("a pod of another host is reached by its own address", || world.page("friend", &pod));
    let page = world.page("friend", "far.default.svc.cluster.local").expect("its name leads there");
    assert_eq!(page, "far\n");
    // From the machine: by the Service's address, by a node port of either host.
    let program = env!("CARGO_BIN_EXE_datagrams");
    for address in
        [format!("{service}:53053"), format!("{}:31853", Hosts::address(0)), format!("{}:31853", Hosts::address(1))]
    {
        eventually(&format!("the machine has an answer at {address}"), || {
            let ran = world.hosts.exec(0, &[program, "ask", &address, "hello"]);
            if ran.stdout == "far: hello\n" { Ok(()) } else { Err(ran) }
        });
    }
    let page =
        world.hosts.exec(0, &["curl", "-s", "--max-time", "10", &format!("http://{}:31880/", Hosts::address(0))]);
    assert_eq!(page.ok(), "far\n");
}

fn policies_hold_on_the_bridge(world: &World, near: &str, far: &str) {
    let (tcp, udp) = (format!("{near}:8080"), format!("{near}:9053"));
    for pod in ["friend", "stranger"] {
        world.answers(pod, "near", &tcp, &udp);
    }
    eventually("a pod of another host reaches it", || world.page("far", &tcp));
    world.apply(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends}
spec:
  podSelector: {matchLabels: {app: near}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: friend}}}]
    ports: [{port: 8080}, {port: 9053, protocol: UDP}]
",
    );
    world.is_refused("stranger", &tcp, &udp);
    eventually("nor does a pod of another host", || match world.page("far", &tcp) {
        Ok(page) => Err(page),
        Err(_) => Ok(()),
    });
    world.answers("friend", "near", &tcp, &udp);
    // To the outside: a server on what joins the hosts, which is none of them.
    let _outside = world.hosts.serve_on_hub(9099);
    let beyond = format!("{}:9099", Hosts::HUB);
    let reached = |pod: &str| world.page(pod, &beyond);
    eventually("a container reaches the outside", || reached("stranger"));
    world.apply(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: inside}
spec:
  podSelector: {matchLabels: {app: stranger}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: far}}}]
",
    );
    eventually("a container reaches the outside no more", || match reached("stranger") {
        Ok(page) => Err(page),
        Err(_) => Ok(()),
    });
    let pod = format!("{far}:8080");
    eventually("what the policy names is reached", || world.page("stranger", &pod));
    eventually("who is not meant still does", || reached("friend"));
    world.kubectl(&["delete", "networkpolicy", "--all"]).ok();
    world.answers("stranger", "near", &tcp, &udp);
    eventually("without policies all do", || reached("stranger"));
}
