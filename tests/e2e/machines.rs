//! Three processes that are one cluster, as three machines would be: joining, losing any of them, and going on.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::harness::machines::{self, leader, row, table, token};
use crate::harness::{Cluster, Http, Token, eventually};
use crate::kill_loop::{CONFIG_MAPS, EXAMPLE, StopOnDrop, name, whole, write};

/// How many writes are answered before all members are killed.
const WRITES: usize = 300;

/// A cluster of three processes, all of them voters.
pub(crate) fn three() -> Option<[Cluster; 3]> {
    let members = machines::three([&[], &["--name", "second"], &["--name", "third"]])?;
    assert_eq!(row(&members[0], 2)[1], "second");
    Some(members)
}

/// Writes through a member until it is answered.
fn write_through(cluster: &Cluster, name: &str) {
    let body = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}}).to_string();
    eventually("a write is answered", || {
        match cluster.http().send("POST", CONFIG_MAPS, "application/json", body.clone().into_bytes()) {
            // What was not answered may have been written.
            Ok(answer) if matches!(answer.code, 201 | 409) => Ok(()),
            other => Err(other),
        }
    });
}

fn config_maps(cluster: &Cluster) -> BTreeSet<String> {
    let list = cluster.get(CONFIG_MAPS);
    list["items"].as_array().into_iter().flatten().map(name).collect()
}

#[test]
fn any_of_three_machines_serves_the_cluster_and_any_may_be_lost() {
    let Some(mut members) = three() else { return };
    members[2].apply(EXAMPLE);
    for cluster in &members {
        cluster.wait("the Deployment is ready", DEPLOYMENT, |deployment| deployment["status"]["readyReplicas"] == 4);
    }
    let pods = members[0].get("/api/v1/namespaces/default/pods");
    let nodes: BTreeSet<String> = items(&pods).iter().map(|pod| pod["spec"]["nodeName"].to_string()).collect();
    assert_eq!(nodes.len(), 3, "every machine runs pods: {pods}");
    for pod in items(&pods) {
        for cluster in &members {
            let logs = cluster.kubectl(&format!("logs {}", name(pod)));
            assert!(logs.contains("express-api v1 is starting"), "{logs}");
            let path = format!("/api/v1/namespaces/default/pods/{}:3000/proxy/", name(pod));
            let answer = cluster.http().get(&path);
            assert!(answer.text.contains(&name(pod)), "any machine reaches any pod: {answer:?}");
        }
    }
    for round in 0..3 {
        let lost = leader(&members, 0);
        let [one, other] = [(lost + 1) % 3, (lost + 2) % 3];
        let mut watch = Watching::begin(&members[other]);
        members[lost].signal("KILL");
        let written: Vec<String> = (0..5).map(|number| format!("lost-{round}-{number}")).collect();
        for name in &written {
            write_through(&members[one], name);
            assert!(config_maps(&members[other]).contains(name), "the other one knows at once");
        }
        assert_eq!(watch.until(&format!("lost-{round}-4")), written, "a watch of a survivor goes on, without a gap");
        assert_eq!(row(&members[one], lost as u64 + 1)[2], "down");
        members[lost].start(&[]);
        assert!(config_maps(&members[lost]).contains(&written[4]), "who comes back has caught up");
        members[0].wait("the Deployment is ready", DEPLOYMENT, |deployment| deployment["status"]["readyReplicas"] == 4);
    }
    let chosen = members[0].coracle(&["kubeconfig", "--server", "third"]).ok();
    assert!(chosen.contains(&members[2].address()), "{chosen}");
}

pub(crate) const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/default/deployments/express-api-deployment";

fn items(list: &Value) -> &Vec<Value> {
    list["items"].as_array().expect("a list has items")
}

/// A `kubectl get -w` of ConfigMaps, which is one stream for as long as its member lives.
struct Watching {
    kubectl: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn begin(cluster: &Cluster) -> Self {
        let mut kubectl = cluster.kubectl_command(&["get", "configmaps", "--watch", "-o", "name"]);
        let mut kubectl = kubectl.stdout(Stdio::piped()).spawn().expect("kubectl starts");
        let lines = BufReader::new(kubectl.stdout.take().expect("it is piped")).lines();
        let mut watch = Self { kubectl, lines };
        // What is there comes first.
        watch.until("kube-root-ca.crt");
        watch
    }

    /// The names of what came with the same beginning as the last, up to that.
    fn until(&mut self, last: &str) -> Vec<String> {
        let (beginning, _) = last.rsplit_once('-').expect("a name has a dash");
        let names = self.lines.by_ref().map(|line| line.expect("the watch goes on").replace("configmap/", ""));
        let mut seen = Vec::new();
        for name in names.filter(|name| name.starts_with(beginning)) {
            seen.push(name);
            if seen.last().is_some_and(|name| name == last) {
                break;
            }
        }
        seen
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

#[test]
fn a_leader_that_is_stopped_is_replaced_and_follows_when_it_goes_on() {
    let Some(mut members) = three() else { return };
    let stopped = leader(&members, 0);
    let [one, other] = [(stopped + 1) % 3, (stopped + 2) % 3];
    members[stopped].tell("STOP");
    write_through(&members[one], "meanwhile");
    let next = leader(&members, other);
    assert_ne!(next, stopped);
    members[stopped].tell("CONT");
    // A read through it sees what was written while it was stopped: it asks before it answers.
    assert!(config_maps(&members[stopped]).contains("meanwhile"));
    eventually("it follows", || {
        let row = row(&members[one], stopped as u64 + 1);
        if row[2] == "follower" { Ok(()) } else { Err(row) }
    });
    let (id, asked) = ((stopped + 1).to_string(), one);
    members[asked].coracle(&["members", "stop", &id]).ok();
    assert!(members[stopped].ended().success(), "a member of another machine is stopped in good order");
    assert_eq!(row(&members[asked], stopped as u64 + 1)[2], "down");
    write_through(&members[other], "two-of-three");
    members[stopped].start(&[]);
    assert!(config_maps(&members[stopped]).contains("two-of-three"));
}

#[test]
fn three_machines_killed_at_once_lose_no_answered_write_and_make_up_none() {
    let Some(mut members) = three() else { return };
    let (stop, number) = (AtomicBool::new(false), AtomicU64::new(0));
    let answered: BTreeSet<String> = std::thread::scope(|scope| {
        let kubeconfigs = members.each_ref().map(Cluster::kubeconfig);
        let (stop, number) = (&stop, &number);
        let writers: Vec<_> = kubeconfigs
            .into_iter()
            .map(|kubeconfig| scope.spawn(move || write(&Http::new(&kubeconfig, Token::Admin), number, stop)))
            .collect();
        let stopping = StopOnDrop(stop);
        eventually("there is load", || {
            let written = number.load(Ordering::Relaxed);
            if written > WRITES as u64 { Ok(()) } else { Err(written) }
        });
        for member in &mut members {
            member.signal("KILL");
        }
        drop(stopping);
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer does not panic")).collect()
    });
    assert!(answered.len() >= WRITES / 2, "{} of {number:?} writes were answered", answered.len());
    for member in &mut members {
        let program = crate::harness::program(member.directory());
        member.begin(program, &["up"]);
    }
    for member in &mut members {
        member.until_up();
    }
    for member in &members {
        let list = member.get(CONFIG_MAPS);
        let there: BTreeSet<String> = items(&list).iter().filter(|item| whole(item)).map(name).collect();
        let lost: Vec<_> = answered.difference(&there).collect();
        assert!(lost.is_empty(), "of {} answered writes these are lost: {lost:?}", answered.len());
        let asked = |name: &&String| {
            name.strip_prefix("write-")
                .and_then(|n| n.parse().ok())
                .is_some_and(|n: u64| n < number.load(Ordering::Relaxed))
        };
        let made_up: Vec<_> = there.iter().filter(|name| name.starts_with("write-") && !asked(name)).collect();
        assert!(made_up.is_empty(), "nobody asked for these: {made_up:?}");
    }
}

#[test]
fn a_member_that_is_removed_stops_and_what_it_ran_is_replaced() {
    let Some(mut members) = three() else { return };
    members[0].apply(EXAMPLE);
    members[0].wait("the Deployment is ready", DEPLOYMENT, |deployment| deployment["status"]["readyReplicas"] == 4);
    let removed = members[0].coracle(&["members", "remove", "3"]).ok();
    assert_eq!(removed, "Member 3 is removed.\n");
    assert!(!members[2].ended().success());
    let output = members[2].output();
    assert!(output.contains("this member was removed from the cluster"), "{output}");
    assert_eq!(table(&members[0]).len(), 2);
    members[1].wait("its pods are gone", "/api/v1/namespaces/default/pods", |pods| {
        items(pods).iter().all(|pod| pod["spec"]["nodeName"] != "third")
    });
    members[0].wait("they are replaced", DEPLOYMENT, |deployment| deployment["status"]["readyReplicas"] == 4);
    let anew = members[2].coracle(&[
        "up",
        "--data-dir",
        &members[2].data_dir().to_string_lossy(),
        "--kubeconfig",
        "other-kubeconfig",
    ]);
    assert!(anew.fails().contains("was removed from the cluster"), "it does not come back");
    let again = members[0].joined(&token(&members[1]), &["--name", "third", "--worker"]);
    let row = row(&again, 4);
    assert_eq!((row[1].as_str(), row[2].as_str()), ("third", "learner"), "an id is never given twice");
}

#[test]
fn a_voter_that_stays_silent_gives_its_vote_to_a_spare() {
    let Some(mut members) = three() else { return };
    let spare = members[0].joined(&token(&members[0]), &["--name", "fourth"]);
    assert_eq!(row(&members[0], 4)[2], "learner", "the fourth machine runs pods");
    let settings = members[0].coracle(&["settings", "--voter-silence", "5s", "--node-grace", "8s"]).ok();
    assert!(settings.contains("voter-silence   5s") && settings.contains("pod-toleration  300s"), "{settings}");
    members[2].signal("KILL");
    eventually("the spare votes", || {
        let row = row(&members[0], 4);
        if row[2] == "follower" { Ok(()) } else { Err(row) }
    });
    // The three that run vote now: the loss of one more is survived.
    members[1].signal("KILL");
    write_through(&members[0], "two-of-three");
    assert!(config_maps(&spare).contains("two-of-three"));
}

#[test]
fn a_token_that_does_not_hold_lets_nobody_in_and_says_why() {
    let Some(cluster) = Cluster::up() else { return };
    let Some(other) = Cluster::up() else { return };
    let join = |token: &str| {
        let address = cluster.address();
        let data = cluster.directory().join("joining");
        let arguments = ["join", &address, "--token", token, "--listen", "127.0.0.1:0", "--data-dir"];
        let refused = cluster.coracle(&[&arguments[..], &[&data.to_string_lossy()]].concat()).fails();
        let _ = std::fs::remove_dir_all(&data);
        assert_eq!(refused.trim_end().lines().count(), 1, "one line: {refused}");
        refused
    };
    let good = token(&cluster);
    assert!(join("secret").contains("the join token is not one"));
    assert!(join(&token(&other)).contains("is not the cluster that the token is for"), "nothing is sent to another");
    let (head, _) = good.rsplit_once('.').expect("a token has a dot");
    assert!(join(&format!("{head}.0000000000000000")).contains("nobody here knows it"));
    let short = cluster.coracle(&["token", "create", "--ttl", "1s"]).ok().trim().to_owned();
    eventually("the token expires", || {
        let list = cluster.coracle(&["token", "list"]).ok();
        if list.contains("(expired)") { Ok(()) } else { Err(list) }
    });
    assert!(join(&short).contains("it expired at"));
    let once = cluster.coracle(&["token", "create", "--uses", "1", "--description", "for one"]).ok().trim().to_owned();
    let member = cluster.joined(&once, &[]);
    assert!(join(&once).contains("it was used as often as it may be"));
    assert!(!cluster.coracle(&["token", "list"]).ok().contains(&once), "no secret is shown");
    cluster.coracle(&["token", "revoke", &good]).ok();
    assert!(join(&good).contains("nobody here knows it"));
    drop(member);
    // A token is no way to the data: neither as a bearer token nor as what a Secret of its name would tell.
    let (_, credential) = good.rsplit_once("::").expect("a token has two parts");
    let asked = cluster.run(&["get", "secrets", "-A", "--token", credential, "--kubeconfig", "/dev/null"]);
    assert!(asked.code != Some(0), "{asked:?}");
}

#[test]
fn a_machine_without_the_others_waits_for_them_and_says_so() {
    let Some(mut members) = three() else { return };
    for member in &mut members {
        member.signal("KILL");
    }
    let program = crate::harness::program(members[0].directory());
    members[0].begin(program, &["up"]);
    eventually("it says that it waits", || {
        let output = members[0].output();
        if output.contains("Waiting for the other members") { Ok(()) } else { Err(output) }
    });
    members[1].start(&[]);
    members[0].until_up();
    write_through(&members[0], "two-of-three");
    let stopped = members[1].signal("INT");
    assert!(stopped.success(), "{}", members[1].output());
    let refused = members[0].kubectl_fails("create configmap one-of-three");
    assert!(refused.contains("Timeout") || refused.contains("unavailable"), "one of three decides nothing: {refused}");
    assert!(members[0].signal("INT").success(), "a member that decides nothing can be stopped");
}
