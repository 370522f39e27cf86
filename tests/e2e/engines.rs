//! Docker Engines themselves: one that ends and comes back, one that two clusters share, and what killed clusters leave on it.

use serde_json::{Value, json};

use crate::containers::{PODS, container, create, is_ready, logs, phase, pod, wait};
use crate::harness::{Cluster, Docker, Engine, Guest, Options, eventually};

fn condition<'a>(node: &'a Value, kind: &str) -> Option<&'a Value> {
    node["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// Waits until the node says whether its Engine can be used; it is Ready all the time.
#[track_caller]
fn engine_is_there(cluster: &Cluster, node: &str, is_there: bool) -> Value {
    let unhealthy = if is_there { "False" } else { "True" };
    let path = format!("/api/v1/nodes/{node}");
    let found = cluster.wait("the node says how its Engine is", &path, |node| {
        condition(node, "ContainerRuntimeUnhealthy").map_or(is_there, |condition| condition["status"] == unhealthy)
    });
    assert_eq!(condition(&found, "Ready").map(|ready| &ready["status"]), Some(&json!("True")), "{found}");
    found
}

#[test]
fn an_engine_that_ends_and_comes_back_has_its_pods_again_and_wasm_notices_nothing() {
    let Some(mut engine) = Engine::new(None) else { return };
    let docker = Docker::at(&engine.host(), "");
    let arguments = ["--name", &docker.node, "--docker", docker.socket()];
    let Some(mut cluster) = Cluster::with(&Options { arguments: &arguments, memory: true, ..Options::default() })
    else {
        return;
    };
    let beats = Guest::new().print("beat\n").sleep(100).for_ever().wat();
    cluster.import("coracle.test/beats:1", &beats);
    cluster.import("coracle.test/seven:1", &Guest::new().exit(7).wat());
    let wasm = |image: &str| json!({"image": image, "command": []});
    let never = json!({"restartPolicy": "Never"});
    let probe = json!({"readinessProbe": {"exec": {"command": ["test", "-d", "/bin"]}, "periodSeconds": 1}});
    create(&cluster, &pod("beats", "", &json!({}), &wasm("coracle.test/beats:1")));
    create(&cluster, &pod("always", "echo up; exec sleep 100000", &json!({}), &probe));
    create(&cluster, &pod("never", "echo up; exec sleep 100000", &never, &json!({})));
    for name in ["beats", "always", "never"] {
        wait(&cluster, name, "is ready", is_ready);
    }

    for (round, signal) in ["TERM", "KILL"].into_iter().enumerate() {
        let restarts = container(&cluster.get(&format!("{PODS}/always"))["status"])["restartCount"].as_u64();
        engine.stop(signal);
        let node = engine_is_there(&cluster, &docker.node, false);
        let message = condition(&node, "ContainerRuntimeUnhealthy").expect("it was waited for")["message"].as_str();
        assert!(message.is_some_and(|message| message.contains("docker.sock")), "{message:?}");
        // What needs no Engine runs, old and new; what does waits and says for what.
        let seven = format!("seven-{round}");
        create(&cluster, &pod(&seven, "", &never, &wasm("coracle.test/seven:1")));
        wait(&cluster, &seven, "has failed", |status| phase(status, "Failed"));
        let late = format!("late-{round}");
        create(&cluster, &pod(&late, "echo up; exec sleep 100000", &json!({}), &json!({})));
        engine.start();
        engine_is_there(&cluster, &docker.node, true);
        wait(&cluster, "always", "was restarted and is ready", |status| {
            container(status)["restartCount"].as_u64() > restarts && is_ready(status)
        });
        wait(&cluster, &late, "is ready", is_ready);
        let ended = wait(&cluster, "never", "has failed", |status| phase(status, "Failed"));
        assert_eq!(container(&ended["status"])["restartCount"], 0, "it is not started again: {ended}");
        assert_ne!(container(&ended["status"])["state"]["terminated"]["exitCode"], 0, "{ended}");
    }
    let beats = cluster.get(&format!("{PODS}/beats"));
    assert!(is_ready(&beats["status"]) && container(&beats["status"])["restartCount"] == 0, "{beats}");
    assert!(cluster.signal("INT").success());
    assert_eq!(docker.leftovers(), Vec::<String>::new());
}

#[test]
fn clusters_share_an_engine_and_the_next_one_clears_up_after_one_that_was_killed_and_kept_nothing() {
    let Some(docker) = Docker::new() else { return };
    let others = ["-living", "-kept", "-next"].map(|suffix| docker.beside(suffix));
    let [living_node, kept_node, next_node] = &others;
    let up = |docker: &Docker, memory: bool| {
        let arguments = ["--name", &docker.node, "--docker", docker.socket()];
        Cluster::with(&Options { arguments: &arguments, memory, ..Options::default() })
    };
    let (Some(mut killed), Some(living), Some(mut kept)) =
        (up(&docker, true), up(living_node, true), up(kept_node, false))
    else {
        return;
    };
    let volume = json!({"volumes": [{"name": "m", "emptyDir": {"medium": "Memory"}}]});
    let mount = json!({"volumeMounts": [{"name": "m", "mountPath": "/m"}]});
    let mut ranges = Vec::new();
    for (cluster, docker) in [(&killed, &docker), (&living, living_node), (&kept, kept_node)] {
        create(cluster, &pod("web", "echo up; exec sleep 100000", &volume, &mount));
        wait(cluster, "web", "is ready", is_ready);
        ranges.push(cluster.get(&format!("/api/v1/nodes/{}", docker.node))["spec"]["podCIDR"].to_string());
    }
    ranges.sort();
    ranges.dedup();
    assert_eq!(ranges.len(), 3, "clusters of one Engine have ranges of their own: {ranges:?}");

    let before = [living_node, kept_node].map(Docker::leftovers);
    killed.signal("KILL");
    kept.signal("KILL");
    assert!(docker.leftovers().len() >= 5, "containers, a volume and a network are left: {:?}", docker.leftovers());
    let Some(next) = up(next_node, true) else { return };
    eventually("what the killed cluster left is gone", || {
        let left = docker.leftovers();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    assert_eq!([living_node, kept_node].map(Docker::leftovers), before, "nothing of any other was touched");
    let web = living.get(&format!("{PODS}/web"));
    assert!(is_ready(&web["status"]) && container(&web["status"])["restartCount"] == 0, "{web}");
    // Who kept its state takes its containers over.
    kept.start(&["--listen", "127.0.0.1:0", "--docker", kept_node.socket()]);
    let web = wait(&kept, "web", "is ready again", is_ready);
    assert_eq!(container(&web["status"])["restartCount"], 0);
    logs(&kept, "web", |text| text == "up\n");
    drop((next, living));
}
