//! The order among containers, and probes.

use expect_test::expect;
use serde_json::json;

use super::harness::{Harness, pod, secs};
use crate::fake::Script;
use crate::runtime::ProbeResult;

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
fn a_container_is_ready_when_its_probe_and_its_program_say_so() {
    let mut h = Harness::new();
    h.script("img", Script::ready_after(secs(12)));
    let mut pod = pod("web");
    pod["spec"]["containers"][0]["readinessProbe"] = json!({"tcpSocket": {"port": 80}, "periodSeconds": 5});
    h.apply(pod);
    h.advance(secs(1));
    h.says_ready("web", 0, false);
    h.advance(secs(20));
    assert_eq!(h.condition("web", "Ready"), "False", "the probe alone is not enough");
    h.says_ready("web", 0, true);
    h.advance(secs(1));
    assert_eq!(h.condition("web", "Ready"), "True");
    assert_eq!(h.status("web")["containerStatuses"][0]["ready"], true);
    h.says_ready("web", 0, false);
    h.advance(secs(1));
    assert_eq!(h.condition("web", "Ready"), "False");
}

#[test]
fn a_container_that_starts_anew_has_said_nothing_and_what_an_older_one_said_is_forgotten() {
    let mut h = Harness::new();
    h.script("img", Script::exits(secs(5), 0));
    h.apply(pod("web"));
    h.advance(secs(1));
    h.says_ready("web", 0, false);
    h.advance(secs(1));
    assert_eq!(h.condition("web", "Ready"), "False");
    h.advance(secs(4));
    assert_eq!((h.starts(), h.condition("web", "Ready").as_str()), (2, "True"));
    h.says_ready("web", 0, false);
    h.advance(secs(1));
    assert_eq!(h.condition("web", "Ready"), "True");
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
fn a_failing_post_start_hook_ends_the_container() {
    let mut h = Harness::new();
    h.probe_answer(ProbeResult::Failure("HTTP probe failed with statuscode: 500".into()));
    let mut pod = pod("web");
    pod["spec"]["containers"][0]["lifecycle"] = json!({"postStart": {"httpGet": {"port": 80}}});
    h.apply(pod);
    h.advance(secs(5));
    h.check_timeline(expect![[r#"
        +0s c/0 starts
        +0s c/0 is stopped
        +0s c/0 exits with 0
        +0s c/1 starts
        +0s c/1 is stopped
        +0s c/1 exits with 0
    "#]]);
    h.check_event(
        "FailedPostStartHook",
        expect![[r#"
        +0s Warning FailedPostStartHook PostStartHook failed
        +0s Warning FailedPostStartHook PostStartHook failed
    "#]],
    );
    assert_eq!(h.condition("web", "Ready"), "False");
}
