//! Three machines with a network between them that fails: each member has a network namespace of its own.

use std::process::Stdio;

use serde_json::Value;

use crate::harness::{Cluster, Hosts, eventually};

/// Nodes count as gone within seconds here.
const IMPATIENT: [&str; 4] = ["--node-grace", "4s", "--pod-toleration", "2s"];
const DEPLOYMENT: &str = include_str!("../../examples/web/deployment.yaml");
const CONFIG_MAP: &str = include_str!("../../examples/web/configmap.yaml");
const SERVICE: &str = include_str!("../../examples/web/service.yaml");

/// A cluster of three machines.
struct Machines {
    hosts: Hosts,
    members: Vec<Cluster>,
}

impl Machines {
    /// All of them voters.
    fn up() -> Option<Self> {
        let hosts = Hosts::new(3)?;
        let mut machines = Self { members: Vec::new(), hosts };
        let mut first = Cluster::elsewhere();
        let program = machines.hosts.on(0, &crate::harness::program(first.directory()));
        first.run_program(program, &[&["up", "--listen", "0.0.0.0:6443", "--name", "host-0"][..], &IMPATIENT].concat());
        let output = first.output();
        let invitation = output.lines().find(|line| line.trim().starts_with("coracle join"));
        let invitation = invitation.unwrap_or_else(|| panic!("it says how to join: {output}")).trim().to_owned();
        machines.members.push(first);
        for host in 1..3 {
            let mut member = Cluster::elsewhere();
            let program = machines.hosts.on(host, &crate::harness::program(member.directory()));
            let name = format!("host-{host}");
            // What is printed is what a person copies.
            let mut arguments: Vec<&str> = invitation.split_whitespace().skip(1).collect();
            arguments.extend(["--name", &name]);
            member.run_program(program, &arguments);
            machines.members.push(member);
        }
        eventually("all three vote", || {
            let table = machines.table(0);
            let voting = table.iter().filter(|row| matches!(row[2].as_str(), "leader" | "follower")).count();
            if voting == 3 { Ok(()) } else { Err(table) }
        });
        Some(machines)
    }

    /// `coracle members` as a host sees them.
    fn table(&self, host: usize) -> Vec<Vec<String>> {
        let table = self.hosts.run_on(host, &self.members[host], &["members"]).ok();
        table.lines().skip(1).map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    }

    fn leader(&self, asked: usize) -> usize {
        eventually("somebody leads", || {
            let table = self.table(asked);
            let leader = table.iter().find(|row| row[2] == "leader").and_then(|row| row[0].parse::<usize>().ok());
            leader.map(|id| id - 1).ok_or(table)
        })
    }

    /// What kubectl says on a host, of that host's own API server.
    #[track_caller]
    fn kubectl(&self, host: usize, arguments: &str) -> String {
        let command: Vec<&str> = ["kubectl"].into_iter().chain(arguments.split_whitespace()).collect();
        self.hosts.run_on(host, &self.members[host], &command).ok()
    }

    /// Writes through a host until it is answered.
    fn write_through(&self, host: usize, name: &str) {
        eventually("a write is answered", || {
            let ran = self.hosts.run_on(
                host,
                &self.members[host],
                &["kubectl", "create", "configmap", name, "--from-literal=a=b", "--request-timeout=5s"],
            );
            if ran.code == Some(0) || ran.stderr.contains("already exists") { Ok(()) } else { Err(ran) }
        });
    }

    fn has(&self, host: usize, config_map: &str) -> bool {
        self.kubectl(host, "get configmaps -o name").contains(&format!("configmap/{config_map}\n"))
    }

    fn json(&self, host: usize, arguments: &str) -> Value {
        let text = self.kubectl(host, &format!("{arguments} -o json"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

#[test]
fn a_machine_whose_cable_is_pulled_decides_nothing_and_follows_when_it_is_back() {
    let Some(machines) = Machines::up() else { return };
    let lost = machines.leader(0);
    let [one, other] = [(lost + 1) % 3, (lost + 2) % 3];
    machines.hosts.plug(lost, false);
    machines.write_through(one, "meanwhile");
    assert!(machines.has(other, "meanwhile"));
    let refused = machines.hosts.run_on(
        lost,
        &machines.members[lost],
        &["kubectl", "create", "configmap", "alone", "--from-literal=a=b", "--request-timeout=15s"],
    );
    refused.fails();
    machines.hosts.plug(lost, true);
    eventually("it has heard of what it missed", || {
        let ran = machines.hosts.run_on(lost, &machines.members[lost], &["kubectl", "get", "configmap", "meanwhile"]);
        if ran.code == Some(0) { Ok(()) } else { Err(ran) }
    });
    for host in 0..3 {
        assert!(!machines.has(host, "alone"), "what nobody acknowledged and no majority had is nowhere");
    }
}

#[test]
fn a_machine_that_hears_nothing_from_the_leader_does_not_disturb_the_others() {
    let Some(machines) = Machines::up() else { return };
    let leader = machines.leader(0);
    let deaf = (leader + 1) % 3;
    let before = machines.table(leader)[leader][3].clone();
    machines.hosts.deafen(deaf, leader);
    for round in 0..5 {
        machines.write_through(leader, &format!("round-{round}"));
    }
    let table = machines.table(leader);
    assert_eq!(table[leader][2], "leader", "who cannot hear the leader does not take its place: {table:?}");
    assert_eq!(table[leader][3], before, "and starts no terms");
}

#[test]
fn a_machine_that_gets_another_address_is_found_again() {
    let Some(machines) = Machines::up() else { return };
    let moved = (machines.leader(0) + 1) % 3;
    let asked = (moved + 1) % 3;
    machines.hosts.move_to(moved, "10.77.0.77");
    eventually("the others know its new address", || {
        let table = machines.table(asked);
        let row = &table[moved];
        if row[7] == "10.77.0.77:6443" && row[2] != "down" { Ok(()) } else { Err(table) }
    });
    machines.write_through(moved, "from-elsewhere");
    assert!(machines.has(asked, "from-elsewhere"));
    let chosen = machines.hosts.run(&machines.members[asked], &["kubeconfig", "--server", &format!("host-{moved}")]);
    assert!(chosen.ok().contains("https://10.77.0.77:6443"));
    let nodes = machines.hosts.run(&machines.members[asked], &["kubectl", "get", "nodes", "-o", "name"]);
    assert_eq!(nodes.ok().lines().count(), 3, "the certificate has the new address");
    eventually("its node says so, too", || {
        let node = machines.json(asked, &format!("get node host-{moved}"));
        if node["status"]["addresses"][0]["address"] == "10.77.0.77" { Ok(()) } else { Err(node["status"].clone()) }
    });
}

#[test]
fn a_network_that_loses_packets_slows_the_cluster_down_and_breaks_nothing() {
    let Some(machines) = Machines::up() else { return };
    for host in 0..3 {
        machines.hosts.lose(host, "0.05");
    }
    for round in 0..10 {
        machines.write_through(round % 3, &format!("lossy-{round}"));
    }
    for host in 0..3 {
        eventually("every machine has everything", || {
            let found = (0..10).filter(|round| machines.has(host, &format!("lossy-{round}"))).count();
            if found == 10 { Ok(()) } else { Err(found) }
        });
    }
}

#[test]
fn pods_of_a_machine_that_is_lost_are_replaced_and_gone_from_it_before_it_is_ready_again() {
    let Some(machines) = Machines::up() else { return };
    let manifest = format!("{CONFIG_MAP}\n---\n{DEPLOYMENT}");
    machines.members[0].write("web.yaml", &manifest);
    machines.kubectl(0, "apply -f web.yaml");
    let ready = |asked: usize| {
        let deployment = machines.json(asked, "get deployment express-api-deployment");
        deployment["status"]["readyReplicas"] == 4 && deployment["status"]["replicas"] == 4
    };
    eventually("four pods are ready", || if ready(0) { Ok(()) } else { Err(machines.json(0, "get pods")) });
    let lost = 2;
    let on_lost = |asked: usize| -> Vec<Value> {
        let pods = machines.json(asked, "get pods");
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        pods.into_iter().filter(|pod| pod["spec"]["nodeName"] == format!("host-{lost}")).collect()
    };
    let before: Vec<Value> = on_lost(0).into_iter().map(|pod| pod["metadata"]["uid"].clone()).collect();
    assert!(!before.is_empty(), "every machine runs pods");
    machines.hosts.plug(lost, false);
    eventually("what it ran is replaced", || {
        let deployment = machines.json(0, "get deployment express-api-deployment");
        let leaving = on_lost(0).iter().all(|pod| !pod["metadata"]["deletionTimestamp"].is_null());
        if leaving && deployment["status"]["readyReplicas"] == 4 { Ok(()) } else { Err(deployment) }
    });
    let taints = machines.json(0, "get node host-2")["spec"]["taints"].clone();
    let keys: Vec<&str> = taints.as_array().into_iter().flatten().filter_map(|taint| taint["key"].as_str()).collect();
    assert!(keys.contains(&"node.kubernetes.io/unreachable"), "{taints}");
    machines.hosts.plug(lost, true);
    let at_once = eventually("the machine's node is ready again", || {
        let node = machines.json(0, "get node host-2");
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        if ready { Ok(on_lost(0)) } else { Err(conditions) }
    });
    let stayed: Vec<&Value> = at_once.iter().filter(|pod| before.contains(&pod["metadata"]["uid"])).collect();
    assert!(stayed.is_empty(), "what no longer belongs to it was gone before it was ready: {stayed:?}");
    eventually("four pods are ready", || if ready(0) { Ok(()) } else { Err(machines.json(0, "get pods")) });
}

#[test]
fn whoever_asks_a_service_goes_around_a_machine_whose_cable_is_pulled() {
    let Some(machines) = Machines::up() else { return };
    machines.members[0].write("web.yaml", &[CONFIG_MAP, DEPLOYMENT, SERVICE].join("\n---\n"));
    machines.kubectl(0, "apply -f web.yaml");
    machines.kubectl(0, "rollout status deployment express-api-deployment --timeout=60s");
    // Until then its pods are endpoints.
    machines.hosts.run_on(0, &machines.members[0], &["settings", "--node-grace", "5m"]).ok();
    let pods = machines.json(0, "get pods");
    let pods = pods["items"].as_array().expect("a list has items");
    let there = pods.iter().find(|pod| pod["spec"]["nodeName"] == "host-2").expect("every machine runs pods");
    let name = there["metadata"]["name"].as_str().expect("a pod has a name");
    let path = format!("/api/v1/namespaces/default/pods/{name}:3000/proxy/wait/600000");
    let waiting = machines.members[0].kubectl_command(&["get", "--raw", &path]);
    let mut waiting = machines.hosts.on(0, &waiting);
    let mut waiting = waiting.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("kubectl starts");
    eventually("the pod is asked", || {
        let sockets = machines.hosts.exec(2, &["ss", "-Htn", "state", "established", "src", "10.77.0.3:6443"]).ok();
        if sockets.lines().count() > 2 { Ok(()) } else { Err(sockets) }
    });
    machines.hosts.plug(2, false);
    let ask = || {
        let curl = ["curl", "-s", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code} %{time_total}"];
        let asked = machines.hosts.exec(0, &[&curl[..], &["http://127.0.0.1:30080/"]].concat()).ok();
        let (code, seconds) = asked.split_once(' ').expect("two words");
        assert_eq!(code, "200", "nobody is refused for a machine that is gone");
        seconds.parse::<f64>().expect("a number")
    };
    eventually("the machine that is silent is tried last", || {
        let seconds: Vec<f64> = (0..12).map(|_| ask()).collect();
        if seconds.iter().all(|seconds| *seconds < 1.0) { Ok(()) } else { Err(seconds) }
    });
    eventually("who waits for its answer hears that none will come", || match waiting.try_wait() {
        Ok(Some(ended)) if !ended.success() => Ok(()),
        other => Err(other),
    });
}
