//! What a container needs before it runs: its image, its environment, its volumes.

use expect_test::expect;
use serde_json::json;

use super::harness::{Harness, pod, secs};
use crate::fake::Script;
use crate::runtime::{ContainerError, ImageError};

#[test]
fn an_image_that_cannot_be_pulled_backs_off() {
    let mut h = Harness::new();
    h.script("img", Script::pull_error("no such image; import it with: coracle image import img FILE"));
    h.apply(pod("web"));
    h.settle();
    h.check_state("web", "c", expect![[r#"
        state={"waiting":{"message":"no such image; import it with: coracle image import img FILE","reason":"ErrImagePull"}} lastState={} restarts=0
    "#]]);
    h.advance(secs(1));
    h.check_state("web", "c", expect![[r#"
        state={"waiting":{"message":"Back-off pulling image \"img\": ErrImagePull: no such image; import it with: coracle image import img FILE","reason":"ImagePullBackOff"}} lastState={} restarts=0
    "#]]);
    h.advance(secs(900));
    h.check_pulls(expect![[r#"
        +0s pull img
        +10s pull img
        +30s pull img
        +70s pull img
        +150s pull img
        +310s pull img
        +610s pull img
    "#]]);
    h.script("img", Script::runs());
    h.advance(secs(300));
    assert_eq!(h.status("web")["phase"], "Running");
}

#[test]
fn an_image_that_may_not_be_pulled_is_named() {
    let mut h = Harness::new();
    h.script("img", Script { pull: Some(ImageError::NeverPull), ..Script::runs() });
    let mut pod = pod("web");
    pod["spec"]["containers"][0]["imagePullPolicy"] = json!("Never");
    h.apply(pod);
    h.advance(secs(60));
    h.check_state("web", "c", expect![[r#"
        state={"waiting":{"message":"Container image \"img\" is not present with pull policy of Never","reason":"ErrImageNeverPull"}} lastState={} restarts=0
    "#]]);
    h.check_events(expect![[r#"
        +0s Warning ErrImageNeverPull Container image "img" is not present with pull policy of Never
        +0s Warning Failed Error: ErrImageNeverPull
    "#]]);
}

#[test]
fn a_container_that_cannot_be_created_or_started_says_why() {
    let mut h = Harness::new();
    h.script("img", Script { start: Some(ContainerError::Create("not a Wasm module".into())), ..Script::runs() });
    h.apply(pod("create"));
    h.settle();
    h.check_state(
        "create",
        "c",
        expect![[r#"
        state={"waiting":{"message":"not a Wasm module","reason":"CreateContainerError"}} lastState={} restarts=0
    "#]],
    );
    h.script("other", Script::never_starts("unknown import: env::f"));
    let mut run = pod("run");
    run["spec"]["containers"][0]["image"] = json!("other");
    h.apply(run);
    h.settle();
    h.check_state("run", "c", expect![[r#"
        state={"waiting":{"message":"unknown import: env::f","reason":"RunContainerError"}} lastState={"terminated":{"containerID":"wasmtime://uid-run/c/1","exitCode":128,"finishedAt":"2026-11-22T10:00:00Z","message":"unknown import: env::f","reason":"StartError","startedAt":"2026-11-22T10:00:00Z"}} restarts=1
    "#]]);
    h.advance(secs(25));
    h.check_state("run", "c", expect![[r#"
        state={"waiting":{"message":"back-off 20s restarting failed container=c pod=run_default(uid-run)","reason":"CrashLoopBackOff"}} lastState={"terminated":{"containerID":"wasmtime://uid-run/c/2","exitCode":128,"finishedAt":"2026-11-22T10:00:10Z","message":"unknown import: env::f","reason":"StartError","startedAt":"2026-11-22T10:00:10Z"}} restarts=2
    "#]]);
}

#[test]
fn a_missing_config_map_key_holds_a_container_until_it_is_there() {
    let mut h = Harness::new();
    let mut pod = pod("web");
    pod["spec"]["containers"][0]["env"] =
        json!([{"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode"}}}]);
    h.apply(pod);
    h.settle();
    h.check_state("web", "c", expect![[r#"
        state={"waiting":{"message":"configmap \"settings\" not found","reason":"CreateContainerConfigError"}} lastState={} restarts=0
    "#]]);
    h.config_map("settings", json!({"other": "x"}));
    h.settle();
    h.check_state("web", "c", expect![[r#"
        state={"waiting":{"message":"couldn't find key mode in ConfigMap default/settings","reason":"CreateContainerConfigError"}} lastState={} restarts=0
    "#]]);
    h.config_map("settings", json!({"mode": "fast"}));
    h.settle();
    assert_eq!(h.status("web")["phase"], "Running");
    assert_eq!(h.env("c"), ["MODE=fast"]);
}

#[test]
fn the_environment_is_resolved_in_order() {
    let mut h = Harness::new();
    h.config_map("settings", json!({"a": "1"}));
    let mut pod = pod("web");
    let container = &mut pod["spec"]["containers"][0];
    container["envFrom"] = json!([{"prefix": "CFG_", "configMapRef": {"name": "settings"}},
        {"secretRef": {"name": "absent", "optional": true}}]);
    container["env"] = json!([
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "URL", "value": "http://$(IP)/$(UNKNOWN)"},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
        {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}}]);
    container["args"] = json!(["--listen=$(IP)", "$$(IP)"]);
    container["resources"] = json!({"limits": {"cpu": "500m"}});
    h.apply(pod);
    h.settle();
    let env = h.env("c");
    assert_eq!(
        env,
        ["CFG_a=1", "IP=10.42.0.128", "URL=http://10.42.0.128/$(UNKNOWN)", "CPU=500", "MEM=1024", "LABEL=web"]
    );
    assert_eq!(h.args("c"), ["--listen=10.42.0.128", "$(IP)"]);
}

#[test]
fn a_volume_follows_its_config_map() {
    let mut h = Harness::new();
    let mut pod = pod("web");
    pod["spec"]["volumes"] = json!([{"name": "conf", "configMap": {"name": "settings"}}]);
    h.apply(pod);
    h.settle();
    assert_eq!(h.status("web")["phase"], "Pending");
    h.check_event(
        "FailedMount",
        expect![[r#"
        +0s Warning FailedMount MountVolume.SetUp failed for volume "conf" : configmap "settings" not found
    "#]],
    );
    h.config_map("settings", json!({"mode": "slow"}));
    h.settle();
    assert_eq!(h.status("web")["phase"], "Running");
    h.config_map("settings", json!({"mode": "fast"}));
    h.settle();
    assert_eq!(h.volume("conf"), ["mode=fast"]);
    assert_eq!(h.starts(), 1);
}

#[test]
fn a_volume_of_an_unknown_kind_holds_the_pod_and_is_named() {
    let mut h = Harness::new();
    let mut pod = pod("web");
    pod["spec"]["volumes"] = json!([{"name": "disk", "hostPath": {"path": "/"}}]);
    h.apply(pod);
    h.advance(secs(60));
    h.check_event("FailedMount", expect![[r#"
        +0s Warning FailedMount MountVolume.SetUp failed for volume "disk" : volumes of type hostPath are not supported by this node
    "#]]);
    h.check_state(
        "web",
        "c",
        expect![[r#"
        state={"waiting":{"reason":"ContainerCreating"}} lastState={} restarts=0
    "#]],
    );
}

#[test]
fn the_api_access_volume_has_the_certificate_and_the_namespace_and_no_token() {
    let mut h = Harness::new();
    h.config_map("kube-root-ca.crt", json!({"ca.crt": "PEM"}));
    let mut pod = pod("web");
    pod["spec"]["volumes"] = json!([{"name": "kube-api-access-x", "projected": {"sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}}]);
    h.apply(pod);
    h.settle();
    assert_eq!(h.volume("kube-api-access-x"), ["ca.crt=PEM", "namespace=default"]);
}

#[test]
fn a_new_image_replaces_the_container() {
    let mut h = Harness::new();
    let mut pod = pod("web");
    h.apply(pod.clone());
    h.settle();
    pod["metadata"]["generation"] = json!(2);
    pod["spec"]["containers"][0]["image"] = json!("img2");
    h.apply(pod);
    h.settle();
    assert_eq!(h.status("web")["containerStatuses"][0]["image"], "img2");
    assert_eq!(h.status("web")["containerStatuses"][0]["restartCount"], 1);
    h.check_event(
        "Killing",
        expect![[r#"
        +0s Normal Killing Container c definition changed, will be restarted
    "#]],
    );
}

#[test]
fn a_volume_that_the_runtime_refuses_is_tried_again() {
    let mut h = Harness::new();
    let mut pod = pod("web");
    pod["spec"]["volumes"] = json!([{"name": "scratch", "emptyDir": {}}]);
    h.volume_refusal(Some("no space left on device"));
    h.apply(pod);
    h.advance(secs(25));
    assert_eq!(h.status("web")["phase"], "Pending");
    h.check_event(
        "FailedMount",
        expect![[r#"
        +0s Warning FailedMount MountVolume.SetUp failed for volume "scratch" : no space left on device
        +10s Warning FailedMount MountVolume.SetUp failed for volume "scratch" : no space left on device
        +20s Warning FailedMount MountVolume.SetUp failed for volume "scratch" : no space left on device
    "#]],
    );
    h.volume_refusal(None);
    h.advance(secs(10));
    assert_eq!(h.status("web")["phase"], "Running");
}

#[test]
fn an_update_of_a_volume_that_the_runtime_refuses_leaves_the_containers_running() {
    let mut h = Harness::new();
    let mut pod = pod("web");
    pod["spec"]["volumes"] = json!([{"name": "conf", "configMap": {"name": "settings"}}]);
    h.config_map("settings", json!({"mode": "slow"}));
    h.apply(pod);
    h.settle();
    h.volume_refusal(Some("no space left on device"));
    h.config_map("settings", json!({"mode": "fast"}));
    h.advance(secs(15));
    h.check_event(
        "FailedMount",
        expect![[r#"
        +0s Warning FailedMount MountVolume.SetUp failed for volume "conf" : no space left on device
        +10s Warning FailedMount MountVolume.SetUp failed for volume "conf" : no space left on device
    "#]],
    );
    assert_eq!((h.starts(), h.running()), (1, 1));
}
