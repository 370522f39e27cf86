use std::time::Duration;

use coracle_api::{Attributes, canonical_json};
use coracle_base::Timestamp;
use coracle_store::{Entry, Store, StoreOptions, Transaction, Write};
use serde_json::json;

use super::*;

/// A store and a scheduler that sees its changes; decisions are carried out at once.
struct Cluster {
    store: Store,
    scheduler: Scheduler,
    rng: Rng,
    now: Now,
    uids: u64,
}

impl Cluster {
    fn new() -> Self {
        let now = Now { wall: Timestamp::from_secs(1_800_000_000), ..Now::default() };
        let store = Store::new(StoreOptions::default());
        Self { store, scheduler: Scheduler::new(), rng: Rng::seeded(1), now, uids: 0 }
    }

    fn write(&mut self, write: Write) {
        let key = match &write {
            Write::Put { key, .. } | Write::Delete { key } => key.clone(),
        };
        let before = self.store.view().revision();
        let mut entry = Entry::at(self.now.wall);
        entry.transactions.push(Transaction { writes: vec![write], ..Transaction::default() });
        for result in self.store.apply(1, &entry) {
            result.unwrap();
        }
        let view = self.store.view();
        for change in view.changes_after(&key.resource, before).unwrap() {
            self.scheduler.observe(&view, &change);
        }
    }

    fn put(&mut self, key: &ObjectKey, value: &Value) {
        let attributes = Attributes::from([
            ("spec.nodeName".to_owned(), value["spec"]["nodeName"].as_str().unwrap_or_default().to_owned()),
            ("status.phase".to_owned(), value["status"]["phase"].as_str().unwrap_or_default().to_owned()),
        ]);
        let write = Write::Put { key: key.clone(), body: canonical_json(value).into(), attributes };
        self.write(write);
    }

    /// A node of 4 cores, 8Gi and 10 pods, with changes.
    fn node(&mut self, name: &str, changes: Value) {
        self.uids += 1;
        let mut node = json!({
            "metadata": {"name": name, "uid": format!("node-{}", self.uids), "labels": {"kubernetes.io/hostname": name}},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "ephemeral-storage": "10Gi", "pods": "10"}},
        });
        node = coracle_api::patch::merge_patch(&node, &changes).unwrap();
        self.put(&ObjectKey::new(NODES, "", name), &node);
    }

    /// A pod of one core, with changes to its spec.
    fn pod(&mut self, name: &str, spec: Value) {
        self.uids += 1;
        let resources = json!({"requests": {"cpu": "1", "memory": "1Gi"}});
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{}", self.uids), "labels": {"app": "web"}},
            "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "c", "resources": resources}]},
        });
        pod["spec"] = coracle_api::patch::merge_patch(&pod["spec"], &spec).unwrap();
        self.put(&pod_key(name), &pod);
    }

    fn cpu(&mut self, name: &str, cpu: &str, mut spec: Value) {
        spec["containers"] = json!([{"name": "c", "resources": {"requests": {"cpu": cpu}}}]);
        self.pod(name, spec);
    }

    fn set_phase(&mut self, name: &str, phase: &str) {
        let mut value = self.store.view().object(&pod_key(name)).unwrap().value(None);
        if let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        value["status"]["phase"] = phase.into();
        self.put(&pod_key(name), &value);
    }

    fn delete(&mut self, name: &str) {
        self.write(Write::Delete { key: pod_key(name) });
    }

    /// Schedules and carries out what is decided, a line each.
    fn schedule(&mut self) -> Vec<String> {
        let view = self.store.view();
        let decisions = self.scheduler.schedule(&view, self.now, &mut self.rng, 10_000);
        decisions.iter().map(|decision| self.carry_out(decision)).collect()
    }

    fn carry_out(&mut self, decision: &Decision) -> String {
        let view = self.store.view();
        let mut value = view.object(decision.pod()).unwrap().value(None);
        if let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        match decision {
            Decision::Bind { pod, node, .. } => {
                value["spec"]["nodeName"] = node.as_str().into();
                self.put(pod, &value);
                self.scheduler.settled(self.now, pod, true);
                format!("{} -> {node}", pod.name)
            }
            Decision::Unschedulable { pod, message, nominated, victims, .. } => {
                if let Some(patch) = decision.status_patch(&view, self.now) {
                    value["status"] = coracle_api::patch::merge_patch(&value["status"], &patch["status"]).unwrap();
                    self.put(pod, &value);
                }
                self.scheduler.settled(self.now, pod, true);
                match nominated {
                    Some(node) => {
                        let names: Vec<&str> = victims.iter().map(|victim| &*victim.pod.name).collect();
                        format!("{} waits for {node} without {}", pod.name, names.join(","))
                    }
                    None => format!("{}: {message}", pod.name),
                }
            }
        }
    }
}

fn pod_key(name: &str) -> ObjectKey {
    ObjectKey::new(PODS, "default", name)
}

#[test]
fn pods_go_where_the_most_is_free() {
    let mut c = Cluster::new();
    c.node("a", json!({}));
    c.node("b", json!({}));
    c.cpu("big", "2", json!({"nodeSelector": {"kubernetes.io/hostname": "a"}}));
    assert_eq!(c.schedule(), ["big -> a"]);
    c.pod("one", json!({}));
    assert_eq!(c.schedule(), ["one -> b"]);
}

#[test]
fn without_nodes_the_pod_is_told_so() {
    let mut c = Cluster::new();
    c.pod("p", json!({}));
    assert_eq!(c.schedule(), ["p: no nodes available to schedule pods"]);
    assert_eq!(c.schedule(), [] as [&str; 0]);
    c.now = c.now.after(Duration::from_secs(2));
    c.node("a", json!({}));
    assert_eq!(c.schedule(), ["p -> a"]);
}

#[test]
fn every_reason_is_counted() {
    let mut c = Cluster::new();
    c.node("cordoned", json!({"spec": {"unschedulable": true}}));
    c.node("tainted", json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}));
    c.node("small", json!({"status": {"allocatable": {"cpu": "500m", "memory": "1Mi"}}}));
    c.node("full", json!({"status": {"allocatable": {"pods": "0"}}}));
    c.pod("p", json!({}));
    assert_eq!(
        c.schedule(),
        ["p: 0/4 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 Too many pods, \
          1 node(s) had untolerated taint(s), 1 node(s) were unschedulable. \
          preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling."]
    );
}

#[test]
fn own_settings_of_a_runtime_are_no_resource_that_a_node_lacks() {
    let mut c = Cluster::new();
    c.node("a", json!({}));
    let resources = json!({"requests": {"coracle.dev/fuel": "1000"}});
    c.pod("fuel", json!({"containers": [{"name": "c", "resources": resources}]}));
    c.pod("gpu", json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]}));
    let decided = c.schedule();
    assert_eq!(decided[0], "fuel -> a");
    assert!(decided[1].starts_with("gpu: 0/1 nodes are available: 1 Insufficient example.com/gpu."), "{decided:?}");
}

#[test]
fn node_affinity_and_tolerations_are_respected() {
    let mut c = Cluster::new();
    c.node("a", json!({"metadata": {"labels": {"disk": "ssd"}}, "spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}}));
    c.node("b", json!({}));
    let terms = json!([{"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}]);
    let affinity =
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
    c.pod("strict", json!({"affinity": affinity}));
    c.pod("tolerant", json!({"affinity": affinity, "tolerations": [{"key": "k", "operator": "Equal", "value": "v"}]}));
    assert_eq!(
        c.schedule(),
        [
            "strict: 0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, \
             1 node(s) had untolerated taint(s). preemption: 0/2 nodes are available: \
             2 Preemption is not helpful for scheduling.",
            "tolerant -> a",
        ]
    );
}

#[test]
fn a_port_of_the_node_is_taken_once() {
    let mut c = Cluster::new();
    c.node("a", json!({}));
    let spec = json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
    c.pod("first", spec.clone());
    c.pod("second", spec);
    let decided = c.schedule();
    assert_eq!(decided[0], "first -> a");
    assert!(decided[1].contains("1 node(s) didn't have free ports for the requested pod ports. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."), "{decided:?}");
}

#[test]
fn anti_affinity_keeps_pods_apart_and_affinity_brings_them_together() {
    let mut c = Cluster::new();
    c.node("a", json!({}));
    c.node("b", json!({}));
    let term = json!({"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"});
    let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}});
    for name in ["one", "two", "three"] {
        c.pod(name, apart.clone());
    }
    let decided = c.schedule();
    assert!(decided[0].contains("->") && decided[1].contains("->"), "{decided:?}");
    assert_ne!(decided[0].rsplit(' ').next(), decided[1].rsplit(' ').next());
    assert!(decided[2].starts_with("three: 0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules."));
    c.pod("plain", json!({}));
    assert!(c.schedule()[0].contains("2 node(s) didn't satisfy existing pods anti-affinity rules"));

    let mut c = Cluster::new();
    c.node("a", json!({}));
    c.node("b", json!({}));
    let together = json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}});
    for name in ["one", "two", "three"] {
        c.pod(name, together.clone());
    }
    let nodes: Vec<String> = c.schedule().iter().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect();
    assert!(nodes.iter().all(|node| *node == nodes[0]), "{nodes:?}");
}

#[test]
fn spread_constraints_bound_the_skew() {
    let mut c = Cluster::new();
    c.node("a", json!({"metadata": {"labels": {"zone": "1"}}}));
    c.node("b", json!({"metadata": {"labels": {"zone": "2"}}, "status": {"allocatable": {"pods": "1"}}}));
    c.node("c", json!({}));
    let constraint = json!({
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    });
    for name in ["one", "two", "three", "four"] {
        c.pod(name, json!({"topologySpreadConstraints": [constraint]}));
    }
    let decided = c.schedule();
    assert_eq!(decided.iter().filter(|line| line.ends_with("-> a")).count(), 2, "{decided:?}");
    assert_eq!(decided.iter().filter(|line| line.ends_with("-> b")).count(), 1, "{decided:?}");
    assert!(
        decided[3].contains(
            "0/3 nodes are available: 1 Too many pods, 1 node(s) didn't match pod topology spread constraints, \
         1 node(s) didn't match pod topology spread constraints (missing required label)."
        ),
        "{decided:?}"
    );
}

#[test]
fn pods_of_one_controller_are_spread_over_nodes() {
    let mut c = Cluster::new();
    for node in ["a", "b", "c"] {
        c.node(node, json!({}));
    }
    for n in 0..6 {
        c.pod(&format!("p{n}"), json!({}));
    }
    let decided = c.schedule();
    for node in ["a", "b", "c"] {
        assert_eq!(decided.iter().filter(|line| line.ends_with(node)).count(), 2, "{decided:?}");
    }
}

#[test]
fn the_more_important_pod_goes_first_and_takes_the_place_of_the_least_important() {
    let mut c = Cluster::new();
    c.node("a", json!({}));
    c.cpu("low", "2", json!({"priority": 1}));
    c.cpu("mid", "2", json!({"priority": 5}));
    assert_eq!(c.schedule(), ["mid -> a", "low -> a"]);
    c.cpu("high", "2", json!({"priority": 10}));
    assert_eq!(c.schedule(), ["high waits for a without low"]);
    // What the victim leaves is kept: a less important pod does not slip in.
    c.delete("low");
    c.cpu("sneaky", "1", json!({"priority": 2}));
    c.now = c.now.after(Duration::from_millis(10));
    assert!(c.schedule()[0].starts_with("sneaky: 0/1 nodes are available: 1 Insufficient cpu."));
    c.now = c.now.after(Duration::from_secs(1));
    assert_eq!(c.schedule(), ["high -> a"]);
}

#[test]
fn a_pod_that_never_preempts_says_so() {
    let mut c = Cluster::new();
    c.node("a", json!({}));
    c.cpu("low", "4", json!({"priority": 1}));
    c.schedule();
    c.cpu("high", "4", json!({"priority": 10, "preemptionPolicy": "Never"}));
    assert_eq!(
        c.schedule(),
        ["high: 0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."]
    );
}

#[test]
fn a_gated_pod_and_one_of_another_scheduler_are_left_alone() {
    let mut c = Cluster::new();
    c.node("a", json!({}));
    c.pod("gated", json!({"schedulingGates": [{"name": "wait"}]}));
    c.pod("other", json!({"schedulerName": "mine"}));
    assert_eq!(c.schedule(), [] as [&str; 0]);
    c.pod("gated", json!({}));
    assert_eq!(c.schedule(), ["gated -> a"]);
}

#[test]
fn an_unschedulable_pod_is_tried_again_when_there_is_room_with_a_back_off_that_grows() {
    let mut c = Cluster::new();
    c.node("a", json!({}));
    c.cpu("full", "4", json!({}));
    c.schedule();
    c.cpu("waits", "1", json!({}));
    assert_eq!(c.schedule().len(), 1);
    // Nothing changed: nothing is tried.
    c.now = c.now.after(Duration::from_secs(100));
    assert_eq!(c.schedule(), [] as [&str; 0]);
    c.delete("full");
    assert_eq!(c.schedule(), ["waits -> a"]);
}

#[test]
fn a_refused_binding_gives_the_room_back_and_is_tried_again() {
    let mut c = Cluster::new();
    c.node("a", json!({}));
    c.cpu("p", "4", json!({}));
    let view = c.store.view();
    assert_eq!(c.scheduler.schedule(&view, c.now, &mut c.rng, 10).len(), 1);
    c.scheduler.settled(c.now, &pod_key("p"), false);
    assert_eq!(c.schedule(), [] as [&str; 0]);
    c.now = c.now.after(Duration::from_secs(1));
    assert_eq!(c.scheduler.next_wakeup(), Some(c.now.mono));
    assert_eq!(c.schedule(), ["p -> a"]);
}

#[test]
fn three_thousand_pods_fill_a_hundred_nodes_evenly() {
    let mut c = Cluster::new();
    for n in 0..100 {
        c.node(
            &format!("n{n:03}"),
            json!({"status": {"allocatable": {"pods": "110", "cpu": "64", "memory": "256Gi"}}}),
        );
    }
    for n in 0..3000 {
        c.pod(&format!("p{n:04}"), json!({}));
    }
    let view = c.store.view();
    let decisions = c.scheduler.schedule(&view, c.now, &mut c.rng, 3000);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for decision in &decisions {
        let Decision::Bind { node, .. } = decision else { panic!("{decision:?}") };
        *counts.entry(node.clone()).or_default() += 1;
    }
    assert!(counts.values().all(|count| *count == 30), "{counts:?}");
}

#[test]
fn a_pod_that_ends_makes_room_and_a_status_that_changes_does_not() {
    let mut c = Cluster::new();
    c.node("a", json!({}));
    c.cpu("full", "4", json!({}));
    c.schedule();
    c.cpu("waits", "1", json!({}));
    assert_eq!(c.schedule().len(), 1);
    c.now = c.now.after(Duration::from_secs(10));
    c.set_phase("full", "Running");
    assert_eq!(c.schedule(), [] as [&str; 0]);
    c.set_phase("full", "Succeeded");
    assert_eq!(c.schedule(), ["waits -> a"]);
}
