//! Which of a node's runtimes runs a pod, and what follows for its sandbox.

use coracle_api::resources::RUNTIME_CLASSES;
use expect_test::expect;
use serde_json::json;

use super::harness::{Harness, pod, secs};
use crate::fake::Script;
use crate::runtime::RuntimeKind;

#[test]
fn a_pod_that_says_nothing_waits_for_its_image_to_say_what_runs_it() {
    let mut h = Harness::with_containers();
    h.script("example.com/web:1", Script::pull_error("no such host"));
    let mut web = pod("web");
    web["spec"]["containers"][0]["image"] = json!("example.com/web:1");
    h.apply(web);
    h.advance(secs(2));
    assert_eq!(h.status("web")["containerStatuses"][0]["state"]["waiting"]["reason"], "ImagePullBackOff");
    assert!(h.status("web")["podIP"].is_null(), "its address depends on what runs it");
    h.script("example.com/web:1", Script::runs());
    h.advance(secs(20));
    h.check_pulls(expect![[r#"
        +0s pull example.com/web:1
        +10s pull example.com/web:1
    "#]]);
    assert_eq!((h.sandbox().runtime, h.last_phase("web")), (RuntimeKind::Wasm, "Running"));
    assert_eq!(h.status("web")["podIP"], "10.42.0.128");
}

#[test]
fn a_runtime_class_says_what_runs_a_pod_and_which_half_of_the_range_it_is_in() {
    let mut h = Harness::with_containers();
    h.cluster_object(RUNTIME_CLASSES, "containers", json!({"handler": "runc"}));
    let mut web = pod("web");
    web["spec"]["runtimeClassName"] = json!("containers");
    web["spec"]["containers"][0]["tty"] = json!(true);
    h.apply(web);
    h.settle();
    assert_eq!(h.sandbox().runtime, RuntimeKind::Container);
    assert_eq!(h.status("web")["podIP"], "10.42.0.2");
    assert_eq!(h.last_phase("web"), "Running");
    let id = h.status("web")["containerStatuses"][0]["containerID"].clone();
    assert_eq!(id, "docker://uid-web/c/0");
}

#[test]
fn an_annotation_asks_for_wasm_whatever_the_image() {
    let mut h = Harness::with_containers();
    let mut web = pod("web");
    web["metadata"]["annotations"] = json!({"module.wasm.image/variant": "compat-smart"});
    h.apply(web);
    h.settle();
    assert_eq!(h.sandbox().runtime, RuntimeKind::Wasm);
}

#[test]
fn a_pod_on_the_hosts_network_has_its_address_and_takes_none() {
    let mut h = Harness::with_containers();
    h.cluster_object(RUNTIME_CLASSES, "containers", json!({"handler": "docker"}));
    for name in ["one", "two"] {
        let mut pod = pod(name);
        pod["spec"]["runtimeClassName"] = json!("containers");
        pod["spec"]["hostNetwork"] = json!(name == "one");
        h.apply(pod);
        h.settle();
    }
    assert_eq!(h.status("one")["podIP"], "127.0.0.1");
    assert_eq!(h.status("two")["podIP"], "10.42.0.2");
}

/// A probe that was due and could not be made kept the agent awake for ever, and nothing else was heard.
#[test]
fn a_container_that_was_taken_over_is_not_probed_before_its_sandbox_is_there() {
    let mut h = Harness::new();
    let mut web = pod("web");
    web["spec"]["containers"][0]["livenessProbe"] = json!({"tcpSocket": {"port": 80}, "periodSeconds": 1});
    h.apply(web);
    h.advance(secs(10));
    h.sandboxes_wait();
    h.restart_agent_that_kept_nothing();
    h.advance(secs(10));
    assert_eq!(h.running(), 1);
}
