//! What an agent that starts again makes of what it kept and finds.

use std::time::Duration;

use expect_test::expect;
use serde_json::json;

use super::harness::{Harness, pod, secs};
use crate::fake::Script;

#[test]
fn lost_containers_start_again_after_a_restart_without_a_wait() {
    let mut h = Harness::new();
    h.apply(pod("web"));
    h.advance(secs(100));
    h.restart();
    h.settle();
    h.check_state("web", "c", expect![[r#"
        state={"running":{"startedAt":"2026-11-22T10:01:40Z"}} lastState={"terminated":{"containerID":"wasmtime://uid-web/c/0","exitCode":137,"finishedAt":"2026-11-22T10:01:40Z","message":"The container could not be located after the node restarted","reason":"ContainerStatusUnknown","startedAt":"2026-11-22T10:00:00Z"}} restarts=1
    "#]]);
    assert_eq!(h.status("web")["podIP"], "10.42.0.128");
    assert_eq!(h.node_ready(), "True");
    h.restart_without_checkpoint();
    h.settle();
    assert_eq!(h.status("web")["containerStatuses"][0]["restartCount"], 2);
    assert_eq!(h.running(), 1);
}

#[test]
fn a_container_of_which_nothing_was_kept_or_told_is_taken_over() {
    let mut h = Harness::new();
    h.apply(pod("web"));
    h.advance(secs(10));
    h.restart_agent_that_kept_nothing();
    h.advance(secs(10));
    h.check_timeline(expect![[r#"
        +0s c/0 starts
        +10s agent restarts
    "#]]);
    assert_eq!(h.running(), 1);
    assert_eq!(h.status("web")["containerStatuses"][0]["restartCount"], 0);
    assert_eq!((h.last_phase("web"), h.node_ready().as_str()), ("Running", "True"));
}

#[test]
fn a_node_without_an_api_server_runs_what_it_ran() {
    let mut h = Harness::new();
    h.config_map("settings", json!({"mode": "fast"}));
    let mut pod = pod("web");
    pod["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
    h.apply(pod);
    h.advance(secs(10));
    h.restart_without_api();
    h.settle();
    assert_eq!(h.running(), 0, "the API server may want something else");
    h.advance(secs(5));
    assert_eq!(h.running(), 1);
    assert_eq!(h.env("c"), ["mode=fast"]);
    h.forget("web");
    h.tell_everything();
    h.settle();
    assert_eq!(h.running(), 0);
    assert_eq!(h.node_ready(), "True");
}

#[test]
fn a_pod_that_went_while_nobody_told_the_agent_stops_when_everything_is_told_again() {
    let mut h = Harness::new();
    h.apply(pod("web"));
    h.apply(pod("api"));
    h.advance(secs(10));
    h.forget("web");
    h.synced();
    h.settle();
    assert_eq!(h.running(), 2, "nothing was told");
    h.tell_everything();
    h.settle();
    assert_eq!((h.running(), h.node_ready().as_str()), (1, "True"));
    assert_eq!(h.last_phase("api"), "Running");
}

#[test]
fn a_crash_loop_goes_on_where_it_was_after_a_restart() {
    let mut h = Harness::new();
    h.script("img", Script::exits(Duration::ZERO, 1));
    h.apply(pod("web"));
    h.advance(secs(80));
    h.restart();
    h.advance(secs(400));
    h.check_starts(expect![[r#"
        +0s c/0 starts
        +0s c/1 starts
        +10s c/2 starts
        +30s c/3 starts
        +70s c/4 starts
        +80s agent restarts
        +150s c/5 starts
        +310s c/6 starts
    "#]]);
}

#[test]
fn twenty_kills_leave_every_pod_running_once() {
    let mut h = Harness::new();
    h.script("crash", Script::exits(secs(3), 1));
    for name in ["a", "b", "c"] {
        h.apply(pod(name));
    }
    let mut crash = pod("crash");
    crash["spec"]["containers"][0]["image"] = json!("crash");
    h.apply(crash);
    for kill in 0..20_u64 {
        h.advance(Duration::from_millis(kill * kill * 37));
        h.restart();
    }
    h.advance(secs(1));
    for name in ["a", "b", "c"] {
        assert_eq!(h.condition(name, "Ready"), "True", "{name}");
    }
    assert!(h.running() <= 4);
    assert_eq!(h.node_ready(), "True");
}

#[test]
fn init_containers_run_again_before_lost_containers_do() {
    let mut h = Harness::new();
    h.script("init", Script::exits(secs(5), 0));
    let mut pod = pod("web");
    pod["spec"]["initContainers"] = json!([{"name": "one", "image": "init"}]);
    h.apply(pod);
    h.advance(secs(20));
    h.restart();
    h.advance(secs(20));
    h.check_starts(expect![[r#"
        +0s one/0 starts
        +5s c/0 starts
        +20s agent restarts
        +20s one/1 starts
        +25s c/1 starts
    "#]]);
}

#[test]
fn more_pods_than_a_step_takes_all_run() {
    let mut h = Harness::new();
    for number in 0..100 {
        h.apply(pod(&format!("web-{number}")));
    }
    h.settle();
    assert_eq!(h.running(), 100);
    h.restart();
    h.settle();
    assert_eq!(h.running(), 100);
}
