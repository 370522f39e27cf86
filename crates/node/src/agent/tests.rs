//! The agent with a scripted runtime and a recorded API server, under virtual time.

mod harness;

use std::time::Duration;

use expect_test::expect;
use serde_json::json;

use crate::fake::Script;
use crate::runtime::{ContainerError, ImageError, ProbeResult};
use harness::{Harness, pod, secs};

#[test]
fn a_pod_runs_and_says_so() {
    let mut h = Harness::new();
    h.apply(pod("web"));
    h.settle();
    h.check_status(
        "web",
        expect![[r#"
        {
          "conditions": [
            {
              "lastProbeTime": null,
              "lastTransitionTime": "2026-11-22T10:00:00Z",
              "observedGeneration": 1,
              "status": "True",
              "type": "PodReadyToStartContainers"
            },
            {
              "lastProbeTime": null,
              "lastTransitionTime": "2026-11-22T10:00:00Z",
              "observedGeneration": 1,
              "status": "True",
              "type": "Initialized"
            },
            {
              "lastProbeTime": null,
              "lastTransitionTime": "2026-11-22T10:00:00Z",
              "message": null,
              "observedGeneration": 1,
              "reason": null,
              "status": "True",
              "type": "Ready"
            },
            {
              "lastProbeTime": null,
              "lastTransitionTime": "2026-11-22T10:00:00Z",
              "message": null,
              "observedGeneration": 1,
              "reason": null,
              "status": "True",
              "type": "ContainersReady"
            },
            {
              "lastProbeTime": null,
              "lastTransitionTime": "2026-11-22T10:00:00Z",
              "observedGeneration": 1,
              "status": "True",
              "type": "PodScheduled"
            }
          ],
          "containerStatuses": [
            {
              "containerID": "wasmtime://uid-web/c/0",
              "image": "img",
              "imageID": "img",
              "lastState": {},
              "name": "c",
              "ready": true,
              "restartCount": 0,
              "started": true,
              "state": {
                "running": {
                  "startedAt": "2026-11-22T10:00:00Z"
                }
              }
            }
          ],
          "hostIP": "127.0.0.1",
          "hostIPs": [
            {
              "ip": "127.0.0.1"
            }
          ],
          "observedGeneration": 1,
          "phase": "Running",
          "podIP": "10.42.0.128",
          "podIPs": [
            {
              "ip": "10.42.0.128"
            }
          ],
          "qosClass": "BestEffort",
          "startTime": "2026-11-22T10:00:00Z"
        }
    "#]],
    );
    h.check_events(expect![[r#"
        +0s Normal Pulled Container image "img" already present on machine
        +0s Normal Created Container created
        +0s Normal Started Container started
    "#]]);
}

#[test]
fn the_node_is_registered_and_becomes_ready_once_everything_is_known() {
    let mut h = Harness::unsynced();
    h.settle();
    assert_eq!(h.node_ready(), "False");
    h.synced();
    h.settle();
    assert_eq!(h.node_ready(), "True");
    let writes = h.node_writes();
    h.advance(secs(3600));
    assert_eq!(h.node_writes(), writes, "an idle node writes nothing");
    assert_eq!(h.heartbeats(), 361);
}

#[test]
fn a_node_that_was_called_unknown_or_was_deleted_speaks_up() {
    let mut h = Harness::new();
    h.settle();
    h.node_condition("Ready", "Unknown");
    h.settle();
    assert_eq!(h.node_ready(), "True");
    h.delete_node();
    h.settle();
    assert_eq!(h.node_ready(), "True");
}

#[test]
fn an_hour_of_crash_loop_backs_off_to_five_minutes() {
    let mut h = Harness::new();
    h.script("img", Script::exits(Duration::ZERO, 1));
    h.apply(pod("web"));
    h.advance(secs(3600));
    h.check_starts(expect![[r#"
        +0s c/0 starts
        +0s c/1 starts
        +10s c/2 starts
        +30s c/3 starts
        +70s c/4 starts
        +150s c/5 starts
        +310s c/6 starts
        +610s c/7 starts
        +910s c/8 starts
        +1210s c/9 starts
        +1510s c/10 starts
        +1810s c/11 starts
        +2110s c/12 starts
        +2410s c/13 starts
        +2710s c/14 starts
        +3010s c/15 starts
        +3310s c/16 starts
    "#]]);
    h.check_state("web", "c", expect![[r#"
        state={"waiting":{"message":"back-off 5m0s restarting failed container=c pod=web_default(uid-web)","reason":"CrashLoopBackOff"}} lastState={"terminated":{"containerID":"wasmtime://uid-web/c/16","exitCode":1,"finishedAt":"2026-11-22T10:55:10Z","reason":"Error","startedAt":"2026-11-22T10:55:10Z"}} restarts=16
    "#]]);
    h.check_event("BackOff", expect![[r#"
        +0s Warning BackOff Back-off restarting failed container c in pod web_default(uid-web); what it printed when it first failed: coracle logs web -c c --instance first
        +10s Warning BackOff Back-off restarting failed container c in pod web_default(uid-web); what it printed when it first failed: coracle logs web -c c --instance first
        +30s Warning BackOff Back-off restarting failed container c in pod web_default(uid-web); what it printed when it first failed: coracle logs web -c c --instance first
        +70s Warning BackOff Back-off restarting failed container c in pod web_default(uid-web); what it printed when it first failed: coracle logs web -c c --instance first
        +150s Warning BackOff Back-off restarting failed container c in pod web_default(uid-web); what it printed when it first failed: coracle logs web -c c --instance first
        +310s Warning BackOff Back-off restarting failed container c in pod web_default(uid-web); what it printed when it first failed: coracle logs web -c c --instance first
        +610s Warning BackOff Back-off restarting failed container c in pod web_default(uid-web); what it printed when it first failed: coracle logs web -c c --instance first
        +910s Warning BackOff Back-off restarting failed container c in pod web_default(uid-web); what it printed when it first failed: coracle logs web -c c --instance first
        +1210s Warning BackOff Back-off restarting failed container c in pod web_default(uid-web); what it printed when it first failed: coracle logs web -c c --instance first
        +1510s Warning BackOff Back-off restarting failed container c in pod web_default(uid-web); what it printed when it first failed: coracle logs web -c c --instance first
        +1810s Warning BackOff Back-off restarting failed container c in pod web_default(uid-web); what it printed when it first failed: coracle logs web -c c --instance first
        +2110s Warning BackOff Back-off restarting failed container c in pod web_default(uid-web); what it printed when it first failed: coracle logs web -c c --instance first
        +2410s Warning BackOff Back-off restarting failed container c in pod web_default(uid-web); what it printed when it first failed: coracle logs web -c c --instance first
        +2710s Warning BackOff Back-off restarting failed container c in pod web_default(uid-web); what it printed when it first failed: coracle logs web -c c --instance first
        +3010s Warning BackOff Back-off restarting failed container c in pod web_default(uid-web); what it printed when it first failed: coracle logs web -c c --instance first
        +3310s Warning BackOff Back-off restarting failed container c in pod web_default(uid-web); what it printed when it first failed: coracle logs web -c c --instance first
    "#]]);
}

#[test]
fn ten_minutes_of_running_forgive_a_crash_loop() {
    let mut h = Harness::new();
    h.script("img", Script::exits(Duration::ZERO, 1));
    h.apply(pod("web"));
    h.advance(secs(100));
    h.script("img", Script::exits(secs(601), 1));
    h.advance(secs(1000));
    h.script("img", Script::exits(Duration::ZERO, 1));
    h.advance(secs(1000));
    h.check_starts(expect![[r#"
        +0s c/0 starts
        +0s c/1 starts
        +10s c/2 starts
        +30s c/3 starts
        +70s c/4 starts
        +150s c/5 starts
        +751s c/6 starts
        +1352s c/7 starts
        +1362s c/8 starts
        +1382s c/9 starts
        +1422s c/10 starts
        +1502s c/11 starts
        +1662s c/12 starts
        +1962s c/13 starts
    "#]]);
}

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
fn init_containers_run_one_after_the_other_and_before_the_others() {
    let mut h = Harness::new();
    h.script("init", Script::exits(secs(5), 0));
    let mut pod = pod("web");
    pod["spec"]["initContainers"] = json!([{"name": "one", "image": "init"}, {"name": "two", "image": "init"}]);
    h.apply(pod);
    h.advance(secs(7));
    h.check_status(
        "web",
        expect![[r#"
            {
              "conditions": [
                {
                  "lastProbeTime": null,
                  "lastTransitionTime": "2026-11-22T10:00:00Z",
                  "observedGeneration": 1,
                  "status": "True",
                  "type": "PodReadyToStartContainers"
                },
                {
                  "lastProbeTime": null,
                  "lastTransitionTime": "2026-11-22T10:00:00Z",
                  "message": "containers with incomplete status: [two]",
                  "observedGeneration": 1,
                  "reason": "ContainersNotInitialized",
                  "status": "False",
                  "type": "Initialized"
                },
                {
                  "lastProbeTime": null,
                  "lastTransitionTime": "2026-11-22T10:00:00Z",
                  "message": "containers with unready status: [c]",
                  "observedGeneration": 1,
                  "reason": "ContainersNotReady",
                  "status": "False",
                  "type": "Ready"
                },
                {
                  "lastProbeTime": null,
                  "lastTransitionTime": "2026-11-22T10:00:00Z",
                  "message": "containers with unready status: [c]",
                  "observedGeneration": 1,
                  "reason": "ContainersNotReady",
                  "status": "False",
                  "type": "ContainersReady"
                },
                {
                  "lastProbeTime": null,
                  "lastTransitionTime": "2026-11-22T10:00:00Z",
                  "observedGeneration": 1,
                  "status": "True",
                  "type": "PodScheduled"
                }
              ],
              "containerStatuses": [
                {
                  "image": "img",
                  "imageID": "",
                  "lastState": {},
                  "name": "c",
                  "ready": false,
                  "restartCount": 0,
                  "started": false,
                  "state": {
                    "waiting": {
                      "reason": "PodInitializing"
                    }
                  }
                }
              ],
              "hostIP": "127.0.0.1",
              "hostIPs": [
                {
                  "ip": "127.0.0.1"
                }
              ],
              "initContainerStatuses": [
                {
                  "containerID": "wasmtime://uid-web/one/0",
                  "image": "init",
                  "imageID": "init",
                  "lastState": {},
                  "name": "one",
                  "ready": true,
                  "restartCount": 0,
                  "started": false,
                  "state": {
                    "terminated": {
                      "containerID": "wasmtime://uid-web/one/0",
                      "exitCode": 0,
                      "finishedAt": "2026-11-22T10:00:05Z",
                      "reason": "Completed",
                      "startedAt": "2026-11-22T10:00:00Z"
                    }
                  }
                },
                {
                  "containerID": "wasmtime://uid-web/two/0",
                  "image": "init",
                  "imageID": "init",
                  "lastState": {},
                  "name": "two",
                  "ready": false,
                  "restartCount": 0,
                  "started": true,
                  "state": {
                    "running": {
                      "startedAt": "2026-11-22T10:00:05Z"
                    }
                  }
                }
              ],
              "observedGeneration": 1,
              "phase": "Pending",
              "podIP": "10.42.0.128",
              "podIPs": [
                {
                  "ip": "10.42.0.128"
                }
              ],
              "qosClass": "BestEffort",
              "startTime": "2026-11-22T10:00:00Z"
            }
        "#]],
    );
    h.advance(secs(10));
    h.check_starts(expect![[r#"
        +0s one/0 starts
        +5s two/0 starts
        +10s c/0 starts
    "#]]);
    assert_eq!(h.condition("web", "Ready"), "True");
}

#[test]
fn a_failing_init_container_fails_a_pod_that_is_not_restarted() {
    let mut h = Harness::new();
    h.script("init", Script::exits(secs(1), 1));
    let mut pod = pod("web");
    pod["spec"]["initContainers"] = json!([{"name": "one", "image": "init"}]);
    pod["spec"]["restartPolicy"] = json!("Never");
    h.apply(pod);
    h.advance(secs(5));
    assert_eq!(h.status("web")["phase"], "Failed");
    h.check_starts(expect![[r#"
        +0s one/0 starts
    "#]]);
}

#[test]
fn a_sidecar_starts_first_is_restarted_and_ends_last() {
    let mut h = Harness::new();
    h.script("main", Script::exits(secs(30), 0));
    h.script("proxy", Script { ready_after: secs(3), ..Script::exits(secs(10), 1) });
    let mut pod = pod("job");
    pod["spec"]["containers"][0]["image"] = json!("main");
    pod["spec"]["restartPolicy"] = json!("Never");
    pod["spec"]["initContainers"] = json!([{"name": "proxy", "image": "proxy", "restartPolicy": "Always",
        "startupProbe": {"httpGet": {"port": 80}, "periodSeconds": 1, "failureThreshold": 30}}]);
    h.apply(pod);
    h.advance(secs(60));
    h.check_timeline(expect![[r#"
        +0s proxy/0 starts
        +3s c/0 starts
        +10s proxy/0 exits with 1
        +10s proxy/1 starts
        +20s proxy/1 exits with 1
        +30s proxy/2 starts
        +33s c/0 exits with 0
        +33s proxy/2 is stopped
        +33s proxy/2 exits with 0
    "#]]);
    assert_eq!(h.status("job")["phase"], "Succeeded");
}

#[test]
fn readiness_follows_its_probe() {
    let mut h = Harness::new();
    h.script("img", Script::ready_after(secs(12)));
    let mut pod = pod("web");
    pod["spec"]["containers"][0]["ports"] = json!([{"name": "http", "containerPort": 3000}]);
    pod["spec"]["containers"][0]["readinessProbe"] = json!({"httpGet": {"port": "http", "path": "/ok"},
        "initialDelaySeconds": 2, "periodSeconds": 5});
    h.apply(pod);
    h.advance(secs(11));
    assert_eq!(h.condition("web", "Ready"), "False");
    h.advance(secs(1));
    assert_eq!(h.condition("web", "Ready"), "True");
    h.check_event(
        "Unhealthy",
        expect![[r#"
        +2s Warning Unhealthy Readiness probe failed: HTTP probe failed with statuscode: 503
        +7s Warning Unhealthy Readiness probe failed: HTTP probe failed with statuscode: 503
    "#]],
    );
    assert_eq!(h.starts(), 1);
}

#[test]
fn a_failing_liveness_probe_restarts_the_container() {
    let mut h = Harness::new();
    h.script("img", Script::ready_after(secs(10_000)));
    let mut pod = pod("web");
    pod["spec"]["containers"][0]["livenessProbe"] = json!({"tcpSocket": {"port": 80}, "periodSeconds": 10});
    h.apply(pod);
    h.advance(secs(60));
    h.check_timeline(expect![[r#"
        +0s c/0 starts
        +20s c/0 is stopped
        +20s c/0 exits with 0
        +20s c/1 starts
        +40s c/1 is stopped
        +40s c/1 exits with 0
        +50s c/2 starts
    "#]]);
}

#[test]
fn a_failing_startup_probe_restarts_the_container() {
    let mut h = Harness::new();
    h.script("img", Script::ready_after(secs(10_000)));
    let mut pod = pod("web");
    pod["spec"]["containers"][0]["startupProbe"] =
        json!({"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 5});
    h.apply(pod);
    h.advance(secs(5));
    h.check_event(
        "Killing",
        expect![[r#"
        +4s Normal Killing Container c failed startup probe, will be restarted
    "#]],
    );
    assert_eq!(h.condition("web", "Ready"), "False");
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
fn a_new_image_replaces_the_container() {
    let mut h = Harness::new();
    let mut pod = pod("web");
    h.apply(pod.clone());
    h.settle();
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
fn a_node_without_an_api_server_runs_what_it_ran() {
    let mut h = Harness::new();
    h.config_map("settings", json!({"mode": "fast"}));
    let mut pod = pod("web");
    pod["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
    h.apply(pod);
    h.advance(secs(10));
    h.restart_without_api();
    h.settle();
    assert_eq!(h.running(), 1);
    assert_eq!(h.env("c"), ["mode=fast"]);
    h.forget("web");
    h.tell_everything();
    h.settle();
    assert_eq!(h.running(), 0);
    assert_eq!(h.node_ready(), "True");
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
