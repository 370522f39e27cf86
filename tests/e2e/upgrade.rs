//! An upgrade of a running cluster: one machine after the other comes back as the next version, while clients write and pods run.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64};

use serde_json::Value;

use crate::harness::{Cluster, Http, Token, eventually, program};
use crate::kill_loop::{CONFIG_MAPS, EXAMPLE, StopOnDrop, name, whole, write};
use crate::machines::{DEPLOYMENT, three};

const MEMBERS: &str = "/coracle/v1/members";

#[test]
fn machines_of_two_versions_are_one_cluster_until_all_are_upgraded() {
    let Some(mut members) = three() else { return };
    members[0].apply(EXAMPLE);
    let ready = |deployment: &Value| deployment["status"]["readyReplicas"] == 4;
    members[0].wait("the Deployment is ready", DEPLOYMENT, ready);
    let old = uses(&members[0]);
    let mut answered = BTreeSet::new();
    let number = AtomicU64::new(0);
    for upgraded in 0..3 {
        let stop = AtomicBool::new(false);
        let others: Vec<_> =
            (0..3).filter(|other| *other != upgraded).map(|other| members[other].kubeconfig()).collect();
        let written: Vec<String> = std::thread::scope(|scope| {
            let writers: Vec<_> = others
                .iter()
                .map(|kubeconfig| scope.spawn(|| write(&Http::new(kubeconfig, Token::Admin), &number, &stop)))
                .collect();
            let stopping = StopOnDrop(&stop);
            assert!(members[upgraded].signal("INT").success(), "{}", members[upgraded].output());
            start_as(&mut members[upgraded], old + 1);
            members[upgraded].until_up();
            drop(stopping);
            writers.into_iter().flat_map(|writer| writer.join().expect("a writer does not panic")).collect()
        });
        assert!(!written.is_empty(), "clients were served while member {} was upgraded", upgraded + 1);
        answered.extend(written);
        for member in &members {
            let list = member.get(CONFIG_MAPS);
            let items = list["items"].as_array().expect("a list has items");
            let there: BTreeSet<String> = items.iter().filter(|item| whole(item)).map(name).collect();
            let lost: Vec<_> = answered.difference(&there).collect();
            assert!(lost.is_empty(), "of {} answered writes these are lost: {lost:?}", answered.len());
        }
        if upgraded < 2 {
            eventually("the new version says what it understands", || says(&members[0], upgraded, old + 1));
            assert_eq!(uses(&members[0]), old, "nothing new is used while an old version has to understand it");
            let told = members[2].coracle(&["members"]).ok();
            let line = format!("What is new in feature level {} is not used before these are upgraded: ", old + 1);
            assert!(told.contains(&line), "{told}");
        }
    }
    members[0].wait("the Deployment is ready", DEPLOYMENT, ready);
    eventually("the new level is used", || match uses(&members[0]) {
        level if level == old + 1 => Ok(()),
        other => Err(other),
    });
    an_old_version_does_not_come_back(&mut members[1], old);
}

fn an_old_version_does_not_come_back(member: &mut Cluster, old: u64) {
    assert!(member.signal("INT").success(), "{}", member.output());
    start_as(member, old);
    assert!(!member.ended().success());
    let line = format!(
        "the cluster is of feature level {}, and this version of Coracle knows {old}: start the member with a newer one",
        old + 1
    );
    assert!(member.output().contains(&line), "{}", member.output());
    start_as(member, old + 1);
    member.until_up();
}

fn start_as(member: &mut Cluster, level: u64) {
    let mut program = program(member.directory());
    program.env("CORACLE_FEATURE_LEVEL", level.to_string());
    member.begin(program, &["up"]);
}

/// The feature level that the cluster uses.
fn uses(cluster: &Cluster) -> u64 {
    cluster.get(MEMBERS)["featureLevel"].as_u64().expect("a cluster has a feature level")
}

fn says(cluster: &Cluster, member: usize, level: u64) -> Result<(), Value> {
    let list = cluster.get(MEMBERS);
    if list["members"][member]["featureLevel"] == level { Ok(()) } else { Err(list) }
}
