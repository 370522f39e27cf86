//! Clusters under virtual time: everything runs inline on the test's runtime, and time passes when nothing is left to do.

#[cfg(feature = "wasm")]
#[path = "support/component.rs"]
mod component;

use std::time::{Duration, Instant};

use coracle::api::{Method, Request, UserInfo};
use coracle::{Cluster, ClusterBuilder, ClusterClock, ErrorKind, Script};
use serde_json::{Value, json};

/// What an hour of virtual time may take on a busy machine, unoptimized; a second that really passes is far beyond it.
const REAL_TIME_MAX: Duration = Duration::from_secs(20);

fn virtual_cluster() -> ClusterBuilder {
    Cluster::builder().clock(ClusterClock::Virtual).seed(7)
}

fn deployment(name: &str, replicas: u32) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": format!("example.com/{name}:1")}]},
            },
        },
    })
    .to_string()
}

async fn read(cluster: &Cluster, path: &str) -> Value {
    cluster.request(Request::new(Method::Get, path, UserInfo::default())).await.value()
}

async fn pods(cluster: &Cluster) -> Vec<Value> {
    let list = read(cluster, "/api/v1/namespaces/default/pods").await;
    list["items"].as_array().cloned().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_deployment_on_fake_nodes_becomes_available() {
    let real = Instant::now();
    let cluster = virtual_cluster().fake_nodes(2).start().await.unwrap();
    let started = cluster.now();
    cluster.apply(&deployment("web", 3)).await.unwrap();
    cluster.wait_for("deployment/web", "Available", Duration::from_mins(1)).await.unwrap();
    let pods = pods(&cluster).await;
    assert_eq!(pods.iter().filter(|pod| pod["status"]["phase"] == "Running").count(), 3);
    let passed = cluster.now().duration_since(started).unwrap();
    assert!(passed < Duration::from_secs(10), "{passed:?}");
    cluster.shutdown().await;
    assert!(real.elapsed() < REAL_TIME_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_progress_deadline_of_ten_minutes_passes_at_once() {
    let real = Instant::now();
    let script = Script::pull_error("no such host");
    let cluster = virtual_cluster().fake_nodes(1).script("example.com/web:1", script).start().await.unwrap();
    let started = cluster.now();
    cluster.apply(&deployment("web", 2)).await.unwrap();
    cluster.wait_for("deployment/web", "Progressing=False", Duration::from_mins(11)).await.unwrap();
    let passed = cluster.now().duration_since(started).unwrap();
    assert!((600..660).contains(&passed.as_secs()), "{passed:?}");
    let web = read(&cluster, "/apis/apps/v1/namespaces/default/deployments/web").await;
    let conditions = web["status"]["conditions"].as_array().unwrap();
    let progressing = conditions.iter().find(|condition| condition["type"] == "Progressing").unwrap();
    assert_eq!(progressing["reason"], "ProgressDeadlineExceeded");
    let pods = pods(&cluster).await;
    assert_eq!(pods[0]["status"]["containerStatuses"][0]["state"]["waiting"]["reason"], "ImagePullBackOff");
    assert!(real.elapsed() < REAL_TIME_MAX);
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_a_crash_loop_has_its_sixteen_restarts() {
    let real = Instant::now();
    let script = Script::exits(Duration::ZERO, 1);
    let cluster = virtual_cluster().fake_nodes(1).script("example.com/web:1", script).start().await.unwrap();
    cluster.apply(&deployment("web", 1)).await.unwrap();
    tokio::time::sleep(Duration::from_hours(1)).await;
    let pods = pods(&cluster).await;
    let container = &pods[0]["status"]["containerStatuses"][0];
    // At 0, 0, 10, 30, 70, 150 and 310 s, and every 300 s from there on.
    assert_eq!(container["restartCount"], 16, "{container:#}");
    assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert!(real.elapsed() < REAL_TIME_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_ready_when_its_probe_says_so() {
    let script = Script::ready_after(Duration::from_secs(42));
    let cluster = virtual_cluster().fake_nodes(1).script("example.com/slow:1", script).start().await.unwrap();
    let started = cluster.now();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "slow"},
        "spec": {"containers": [{
            "name": "main", "image": "example.com/slow:1",
            "readinessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1},
        }]},
    });
    cluster.apply(&pod.to_string()).await.unwrap();
    cluster.wait_for("pod/slow", "phase=Running", Duration::from_secs(5)).await.unwrap();
    cluster.wait_for("pod/slow", "Ready", Duration::from_mins(2)).await.unwrap();
    let passed = cluster.now().duration_since(started).unwrap();
    assert!((42..50).contains(&passed.as_secs()), "{passed:?}");
}

#[tokio::test(start_paused = true)]
async fn two_clusters_share_a_program_and_its_time() {
    let one = virtual_cluster().fake_nodes(1).start().await.unwrap();
    let other = virtual_cluster().fake_nodes(1).start().await.unwrap();
    one.apply(&deployment("web", 1)).await.unwrap();
    one.wait_for("deployment/web", "Available", Duration::from_mins(1)).await.unwrap();
    assert!(pods(&other).await.is_empty());
    one.shutdown().await;
    other.apply(&deployment("web", 2)).await.unwrap();
    other.wait_for("deployment/web", "Available", Duration::from_mins(1)).await.unwrap();
    assert_eq!(pods(&other).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_draws_the_same_names() {
    let mut names = Vec::new();
    for _ in 0..2 {
        let cluster = virtual_cluster().fake_nodes(2).start().await.unwrap();
        cluster.apply(&deployment("web", 3)).await.unwrap();
        cluster.wait_for("deployment/web", "Available", Duration::from_mins(1)).await.unwrap();
        let pods = pods(&cluster).await;
        names.push(pods.iter().map(|pod| pod["metadata"]["name"].clone()).collect::<Vec<_>>());
        cluster.shutdown().await;
    }
    assert_eq!(names[0], names[1]);
}

#[tokio::test(start_paused = true)]
async fn what_knows_no_virtual_time_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for (builder, message) in [
        (
            virtual_cluster().data_dir(directory.path()),
            "a cluster under virtual time is in memory: a disk knows no virtual time",
        ),
        (
            virtual_cluster().listen(([127, 0, 0, 1], 0).into()),
            "a cluster under virtual time has no socket: who connects would not share its time",
        ),
    ] {
        let error = builder.start().await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Invalid, message));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn virtual_time_needs_a_runtime_of_one_thread() {
    let error = virtual_cluster().start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("current_thread"), "{error}");
}

#[cfg(feature = "wasm")]
#[path = "virtual_time/network.rs"]
mod network;

/// Real modules on the test's own runtime.
#[cfg(feature = "wasm")]
mod guests {
    use super::component::component;
    use super::*;

    const TRAP: &str = r#"(module (func (export "_start") unreachable))"#;
    const SPIN: &str = r#"(module (func (export "_start") (loop (br 0))))"#;
    /// Sleeps for an hour, and fails unless the wall clock has gone on by it.
    const SLEEP: &str = r#"(module
        (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
        (memory (export "memory") 1)
        (func $now (result i64)
            (drop (call $time (i32.const 0) (i64.const 1) (i32.const 256)))
            (i64.load (i32.const 256)))
        (func (export "_start") (local $start i64)
            (local.set $start (call $now))
            (i32.store (i32.const 16) (i32.const 1))
            (i64.store (i32.const 24) (i64.const 3600000000000))
            (if (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)) (then unreachable))
            (if (i64.lt_u (i64.sub (call $now) (local.get $start)) (i64.const 3600000000000)) (then unreachable))))"#;
    /// A command: its `run` succeeds.
    const COMMAND: &str = r#"(component
        (core module $m (func (export "run") (result i32) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (component $c
            (import "import-func-run" (func $f (result (result))))
            (export "run" (func $f)))
        (instance $command (instantiate $c (with "import-func-run" (func $run))))
        (export "wasi:cli/run@0.2.0" (instance $command)))"#;

    async fn cluster() -> Cluster {
        let images = [("trap", TRAP), ("spin", SPIN), ("sleep", SLEEP), ("command", COMMAND)];
        let images = images.into_iter().fold(virtual_cluster().nodes(1), |cluster, (name, text)| {
            cluster.image(format!("example.com/{name}:1"), text.as_bytes())
        });
        images.start().await.unwrap()
    }

    async fn apply(cluster: &Cluster, image: &str, restart: &str, container: Value) {
        let mut container = container;
        container["name"] = "main".into();
        container["image"] = format!("example.com/{image}:1").into();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": image},
            "spec": {"restartPolicy": restart, "containers": [container]},
        });
        cluster.apply(&pod.to_string()).await.unwrap();
    }

    async fn status(cluster: &Cluster, pod: &str) -> Value {
        read(cluster, &format!("/api/v1/namespaces/default/pods/{pod}")).await["status"]["containerStatuses"][0].clone()
    }

    async fn restarts_after(cluster: &Cluster, pod: &str, seconds: u64) -> i64 {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        status(cluster, pod).await["restartCount"].as_i64().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_deployment_of_a_module_becomes_available() {
        let real = Instant::now();
        let cluster = cluster().await;
        let started = cluster.now();
        cluster.apply(&deployment("sleep", 3)).await.unwrap();
        cluster.wait_for("deployment/sleep", "Available", Duration::from_mins(1)).await.unwrap();
        assert!(cluster.now().duration_since(started).unwrap() < Duration::from_secs(10));
        assert_eq!(read(&cluster, "/api/v1/nodes/coracle").await["status"]["capacity"]["cpu"], "4");
        cluster.shutdown().await;
        assert!(real.elapsed() < REAL_TIME_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_module_in_a_crash_loop_waits_ten_twenty_and_forty_seconds() {
        let real = Instant::now();
        let cluster = cluster().await;
        apply(&cluster, "trap", "Always", json!({})).await;
        // It starts at 0, 0, 10, 30, 70, 150 and 310 s.
        let mut restarts = Vec::new();
        for seconds in [5, 10, 20, 40, 80, 160] {
            restarts.push(restarts_after(&cluster, "trap", seconds).await);
        }
        assert_eq!(restarts, [1, 2, 3, 4, 5, 6]);
        let status = status(&cluster, "trap").await;
        assert_eq!(status["lastState"]["terminated"]["exitCode"], 134, "{status:#}");
        assert!(real.elapsed() < REAL_TIME_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_sleeps_for_an_hour_of_the_tests_time() {
        let real = Instant::now();
        let cluster = cluster().await;
        let started = cluster.now();
        apply(&cluster, "sleep", "Never", json!({})).await;
        cluster.wait_for("pod/sleep", "phase=Succeeded", Duration::from_hours(2)).await.unwrap();
        let passed = cluster.now().duration_since(started).unwrap();
        assert!((3600..3610).contains(&passed.as_secs()), "{passed:?}");
        assert!(real.elapsed() < REAL_TIME_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_spins_takes_time_and_can_be_ended() {
        let cluster = cluster().await;
        let probe = json!({"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 3});
        let limits = json!({"limits": {"cpu": "100m"}});
        apply(&cluster, "spin", "Always", json!({"livenessProbe": probe, "resources": limits})).await;
        assert_eq!(restarts_after(&cluster, "spin", 2).await, 0);
        assert_eq!(restarts_after(&cluster, "spin", 3).await, 1);
        let gone = Request::new(Method::Delete, "/api/v1/namespaces/default/pods/spin", UserInfo::default());
        assert!(cluster.request(gone).await.is_success());
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(pods(&cluster).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn used_up_instructions_end_a_guest_at_their_time() {
        let cluster = cluster().await;
        let started = cluster.now();
        apply(&cluster, "spin", "Never", json!({"resources": {"limits": {"coracle.dev/fuel": "30M"}}})).await;
        cluster.wait_for("pod/spin", "phase=Failed", Duration::from_mins(1)).await.unwrap();
        let passed = cluster.now().duration_since(started).unwrap();
        assert!((3..5).contains(&passed.as_secs()), "{passed:?}");
        assert_eq!(status(&cluster, "spin").await["state"]["terminated"]["reason"], "FuelExhausted");
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_component_succeeds() {
        let cluster = cluster().await;
        apply(&cluster, "command", "Never", json!({})).await;
        cluster.wait_for("pod/command", "phase=Succeeded", Duration::from_mins(1)).await.unwrap();
    }

    /// A program of `tests/guests` that ends by itself when it is told to, with 1, or, if it is `deaf`, never.
    /// Its pod has 100 seconds, and then 40 to end: how it ended, and when.
    async fn steadfast(words: Value) -> (Value, u64) {
        let cluster = virtual_cluster().nodes(1).image("example.com/steadfast:1", component("steadfast"));
        let cluster = cluster.start().await.unwrap();
        let started = cluster.now();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "steadfast"},
            "spec": {
                "restartPolicy": "Never", "activeDeadlineSeconds": 100, "terminationGracePeriodSeconds": 40,
                "containers": [{"name": "main", "image": "example.com/steadfast:1", "args": words}],
            },
        });
        cluster.apply(&pod.to_string()).await.unwrap();
        cluster.wait_for("pod/steadfast", "phase=Failed", Duration::from_mins(5)).await.unwrap();
        let passed = cluster.now().duration_since(started).unwrap().as_secs();
        (status(&cluster, "steadfast").await["state"]["terminated"]["exitCode"].clone(), passed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_hears_of_its_termination_ends_in_its_own_way() {
        let (code, passed) = steadfast(json!([])).await;
        assert_eq!(code, 1);
        assert!((100..105).contains(&passed), "{passed}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_hears_of_its_termination_and_goes_on_is_killed_after_its_grace() {
        let (code, passed) = steadfast(json!(["deaf"])).await;
        assert_eq!(code, 137);
        assert!((140..145).contains(&passed), "{passed}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_says_that_it_is_not_ready_is_not() {
        let cluster = virtual_cluster().nodes(1).image("example.com/steadfast:1", component("steadfast"));
        let cluster = cluster.start().await.unwrap();
        apply(&cluster, "steadfast", "Never", json!({"args": ["unready"]})).await;
        cluster.wait_for("pod/steadfast", "phase=Running", Duration::from_mins(1)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(status(&cluster, "steadfast").await["ready"], false);
        assert!(cluster.wait_for("pod/steadfast", "Ready", Duration::from_secs(5)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_reads_a_config_map_as_its_configuration() {
        let cluster = virtual_cluster().nodes(1).image("example.com/settings:1", component("settings"));
        let cluster = cluster.start().await.unwrap();
        let map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "paint"}, "data": {"COLOR": "red"}});
        cluster.apply(&map.to_string()).await.unwrap();
        apply(&cluster, "settings", "Never", json!({"envFrom": [{"configMapRef": {"name": "paint"}}]})).await;
        cluster.wait_for("pod/settings", "phase=Succeeded", Duration::from_mins(1)).await.unwrap();
        let ended = status(&cluster, "settings").await["state"]["terminated"].clone();
        assert_eq!(ended["message"], r#"Ok(Some("red"))"#);
    }

    #[tokio::test(start_paused = true)]
    async fn guests_of_a_cluster_that_is_gone_run_no_more() {
        let one = cluster().await;
        apply(&one, "spin", "Always", json!({})).await;
        one.wait_for("pod/spin", "Ready", Duration::from_mins(1)).await.unwrap();
        one.shutdown().await;
        // A guest that spun on would hold this up for minutes.
        let real = Instant::now();
        tokio::time::sleep(Duration::from_hours(10)).await;
        assert!(real.elapsed() < REAL_TIME_MAX);
    }
}
