//! What a node does not take, and how it says so.

use coracle_api::resources::RUNTIME_CLASSES;
use expect_test::expect;
use serde_json::json;

use super::harness::{Harness, pod, secs};
use crate::fake::Script;
use crate::runtime::Exit;

#[test]
fn a_field_that_the_runtime_cannot_honour_is_named_by_the_waiting_container() {
    let mut h = Harness::new();
    let mut pod = pod("web");
    pod["spec"]["hostNetwork"] = json!(true);
    h.apply(pod);
    h.advance(secs(60));
    h.check_state("web", "c", expect![[r#"
        state={"waiting":{"message":"spec.hostNetwork is not supported by this node: its containers see nothing of the host","reason":"CreateContainerConfigError"}} lastState={} restarts=0
    "#]]);
    h.check_event(
        "Failed",
        expect![[r#"
        +0s Warning Failed Error: spec.hostNetwork is not supported by this node: its containers see nothing of the host
    "#]],
    );
    assert_eq!(h.starts(), 0);
}

#[test]
fn a_pod_waits_for_a_runtime_that_the_node_has() {
    let mut h = Harness::new();
    h.cluster_object(RUNTIME_CLASSES, "gvisor", json!({"handler": "runsc"}));
    h.cluster_object(RUNTIME_CLASSES, "light", json!({"handler": "wasmtime"}));
    for (name, class) in [("light", "light"), ("other", "gvisor"), ("unknown", "nobody")] {
        let mut pod = pod(name);
        pod["spec"]["runtimeClassName"] = json!(class);
        h.apply(pod);
    }
    h.settle();
    assert_eq!(h.status("light")["phase"], "Running");
    assert_eq!(h.status("other")["phase"], "Pending");
    h.check_event("FailedCreatePodSandBox", expect![[r#"
        +0s Warning FailedCreatePodSandBox Failed to create pod sandbox: failed to get sandbox runtime: no runtime for "runsc" is configured
        +0s Warning FailedCreatePodSandBox Failed to create pod sandbox: RuntimeClass "nobody" not found
    "#]]);
    h.cluster_object(RUNTIME_CLASSES, "nobody", json!({"handler": "wasm"}));
    h.advance(secs(10));
    assert_eq!(h.status("unknown")["phase"], "Running");
}

#[test]
fn a_pod_bound_by_hand_fails_where_there_is_no_room() {
    let mut h = Harness::new();
    let sized = |name: &str, cpu: &str| {
        let mut pod = pod(name);
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
        pod
    };
    h.apply(sized("first", "600m"));
    h.settle();
    h.apply(sized("second", "500m"));
    h.advance(secs(1));
    h.check_status("second", expect![[r#"
        {
          "message": "Pod was rejected: Node didn't have enough resource: cpu, requested: 500, used: 600, capacity: 1000",
          "observedGeneration": 1,
          "phase": "Failed",
          "qosClass": "Burstable",
          "reason": "OutOfcpu",
          "startTime": "2026-11-22T10:00:00Z"
        }
    "#]]);
    h.check_event(
        "OutOfcpu",
        expect![[r#"
        +0s Warning OutOfcpu Node didn't have enough resource: cpu, requested: 500, used: 600, capacity: 1000
    "#]],
    );
    assert_eq!(h.status("first")["phase"], "Running");
    h.delete("first", 0);
    h.settle();
    h.apply(sized("third", "500m"));
    h.settle();
    assert_eq!(h.status("third")["phase"], "Running");
    assert_eq!(h.status("second")["phase"], "Failed");
    h.delete("second", 30);
    h.settle();
    assert!(!h.has("second"), "a refused pod can be deleted");
}

#[test]
fn a_pod_bound_by_hand_fails_where_its_selector_does_not_lead() {
    let mut h = Harness::new();
    let mut wanting = pod("selector");
    wanting["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    h.apply(wanting);
    let mut named = pod("affinity");
    named["spec"]["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}]}}});
    h.apply(named);
    let mut windows = pod("windows");
    windows["spec"]["os"] = json!({"name": "windows"});
    h.apply(windows);
    h.settle();
    assert_eq!(h.status("affinity")["phase"], "Running");
    assert_eq!(h.status("selector")["reason"], "NodeAffinity");
    assert_eq!(
        h.status("selector")["message"],
        "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
    );
    assert_eq!(h.status("windows")["reason"], "PodOSNotSupported");
}

#[test]
fn a_running_pod_is_not_asked_again_when_the_agent_restarts() {
    let mut h = Harness::new();
    let mut large = pod("web");
    large["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "900m"}});
    h.apply(large);
    h.settle();
    h.restart_without_checkpoint();
    h.advance(secs(1));
    assert_eq!(h.status("web")["phase"], "Running");
}

#[test]
fn what_a_failed_container_printed_is_its_message_only_where_that_is_asked_for() {
    let message = |policy: &str| {
        let mut h = Harness::new();
        let exit = Exit { code: 1, signal: None, reason: None, message: None, log_tail: Some("no disk\n".into()) };
        h.script("img", Script { exit: Some((secs(1), exit)), ..Script::runs() });
        let mut pod = pod("web");
        pod["spec"]["restartPolicy"] = json!("Never");
        pod["spec"]["containers"][0]["terminationMessagePolicy"] = json!(policy);
        h.apply(pod);
        h.advance(secs(2));
        h.status("web")["containerStatuses"][0]["state"]["terminated"]["message"].clone()
    };
    assert_eq!(message("FallbackToLogsOnError"), "no disk\n");
    assert_eq!(message("File"), json!(null));
}

#[test]
fn a_containers_own_restart_policy_comes_before_its_pods() {
    let mut h = Harness::new();
    h.script("img", Script::exits(secs(1), 42));
    let mut pod = pod("web");
    pod["spec"]["restartPolicy"] = json!("Always");
    pod["spec"]["containers"][0]["restartPolicy"] = json!("Never");
    h.apply(pod.clone());
    h.advance(secs(5));
    assert_eq!(h.status("web")["phase"], "Failed");
    pod["metadata"]["name"] = json!("ruled");
    pod["metadata"]["uid"] = json!("uid-ruled");
    pod["spec"]["containers"][0]["restartPolicyRules"] =
        json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    h.apply(pod);
    h.advance(secs(5));
    assert_eq!(h.status("ruled")["phase"], "Running");
}

#[test]
fn a_pods_hostname_is_what_its_spec_says() {
    let hostname = |spec: serde_json::Value| {
        let mut pod = pod("a-name");
        pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        crate::pod_spec::PodView::new(std::sync::Arc::new(pod), None).unwrap().hostname("cluster.local")
    };
    assert_eq!(hostname(json!({})), Ok("a-name".into()));
    assert_eq!(hostname(json!({"hostname": "h", "subdomain": "s"})), Ok("h".into()));
    let whole = json!({"hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true});
    assert_eq!(hostname(whole), Ok("h.s.default.svc.cluster.local".into()));
    assert_eq!(hostname(json!({"hostname": "h", "hostnameOverride": "o"})), Ok("o".into()));
    let long = json!({"hostname": "h".repeat(60), "subdomain": "s", "setHostnameAsFQDN": true});
    assert!(hostname(long).unwrap_err().contains("is too long (64 characters is the max, 88 characters requested)"));
}
