//! How pods end.

use expect_test::expect;
use serde_json::json;

use super::harness::{Harness, pod, secs};
use crate::fake::Script;
use crate::runtime::ProbeResult;

#[test]
fn a_pod_that_is_not_restarted_ends_with_its_container() {
    for (policy, code, phase) in [("Never", 0, "Succeeded"), ("Never", 3, "Failed"), ("OnFailure", 0, "Succeeded")] {
        let mut h = Harness::new();
        h.script("img", Script::exits(secs(5), code));
        let mut pod = pod("job");
        pod["spec"]["restartPolicy"] = json!(policy);
        h.apply(pod);
        h.advance(secs(60));
        assert_eq!(h.status("job")["phase"], phase, "{policy} {code}");
        assert_eq!(h.starts(), 1);
        assert_eq!(h.running(), 0);
    }
}

#[test]
fn a_deleted_pod_ends_gracefully_and_is_then_removed() {
    let mut h = Harness::new();
    h.script("img", Script { stop_after: Some(secs(3)), ..Script::runs() });
    let mut pod = pod("web");
    pod["spec"]["containers"][0]["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 5}}});
    h.apply(pod);
    h.advance(secs(10));
    h.delete("web", 30);
    h.advance(secs(7));
    assert_eq!(h.status("web")["phase"], "Running");
    assert_eq!(h.condition("web", "Ready"), "True");
    h.advance(secs(2));
    assert!(!h.has("web"));
    h.check_timeline(expect![[r#"
        +0s c/0 starts
        +15s c/0 is stopped
        +18s c/0 exits with 0
    "#]]);
    assert_eq!(h.last_phase("web"), "Succeeded");
}

#[test]
fn a_container_that_does_not_end_in_time_is_killed() {
    let mut h = Harness::new();
    h.script("img", Script { stop_after: None, ..Script::runs() });
    h.apply(pod("web"));
    h.settle();
    h.delete("web", 30);
    h.advance(secs(20));
    h.delete("web", 1);
    h.advance(secs(2));
    assert!(!h.has("web"));
    h.check_timeline(expect![[r#"
        +0s c/0 starts
        +0s c/0 is stopped
        +21s c/0 is killed
        +21s c/0 exits with 137
    "#]]);
    assert_eq!(h.last_phase("web"), "Failed");
}

#[test]
fn a_pre_stop_command_that_cannot_run_is_told_and_does_not_hold_the_end() {
    let mut h = Harness::new();
    h.probe_answer(ProbeResult::Error("exec is not supported for Wasm containers".into()));
    let mut pod = pod("web");
    pod["spec"]["containers"][0]["lifecycle"] = json!({"preStop": {"exec": {"command": ["bye"]}}});
    h.apply(pod);
    h.settle();
    h.delete("web", 30);
    h.settle();
    assert!(!h.has("web"));
    h.check_event(
        "FailedPreStopHook",
        expect![[r#"
        +0s Warning FailedPreStopHook PreStopHook failed
    "#]],
    );
}

#[test]
fn a_pod_has_no_longer_than_its_active_deadline() {
    let mut h = Harness::new();
    let mut pod = pod("web");
    pod["spec"]["activeDeadlineSeconds"] = json!(20);
    h.apply(pod);
    h.advance(secs(21));
    let status = h.status("web");
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("DeadlineExceeded")));
    assert_eq!(h.running(), 0);
}

#[test]
fn addresses_are_freed_when_a_pod_is_gone() {
    let mut h = Harness::small(3);
    for name in ["a", "b", "c", "d"] {
        h.apply(pod(name));
    }
    h.settle();
    assert_eq!(h.status("d")["phase"], "Pending");
    h.check_event(
        "FailedCreatePodSandBox",
        expect![[r#"
        +0s Warning FailedCreatePodSandBox Failed to create pod sandbox: the node has no free pod address
    "#]],
    );
    h.delete("a", 30);
    h.advance(secs(10));
    assert_eq!(h.status("d")["podIP"], "10.42.0.4");
}

#[test]
fn a_pod_whose_volume_grows_beyond_its_limit_is_evicted() {
    let mut h = Harness::new();
    let mut pod = pod("web");
    pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {"sizeLimit": "1Mi"}}]);
    h.apply(pod);
    h.stores("data", 1 << 20);
    h.advance(secs(60));
    assert_eq!(h.status("web")["phase"], "Running");
    h.stores("data", (1 << 20) + 1);
    h.advance(secs(20));
    assert_eq!(h.status("web")["phase"], "Failed");
    assert_eq!(h.status("web")["reason"], "Evicted");
    assert_eq!(h.status("web")["message"], "Usage of EmptyDir volume \"data\" exceeds the limit \"1Mi\". ");
    assert_eq!(h.running(), 0);
}

#[test]
fn a_pod_that_has_more_on_the_disk_than_its_containers_may_is_evicted() {
    let mut h = Harness::new();
    let mut pod = pod("web");
    pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {"ephemeral-storage": "1Mi"}});
    h.apply(pod);
    h.stores("data", 2 << 20);
    h.advance(secs(20));
    let message = "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ";
    assert_eq!(h.status("web")["message"], message);
}
