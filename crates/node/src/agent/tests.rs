//! The agent with a scripted runtime and a recorded API server, under virtual time.
#![expect(clippy::needless_raw_string_hashes, reason = "that is how expect-test writes them")]

mod agent_restart;
mod containers;
mod ending;
mod harness;
mod images;
mod order_and_probes;
mod refusals;
mod runtimes;
mod tokens;

use std::time::Duration;

use expect_test::expect;
use serde_json::json;

use crate::fake::Script;
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
              "observedGeneration": 1,
              "status": "True",
              "type": "Ready"
            },
            {
              "lastProbeTime": null,
              "lastTransitionTime": "2026-11-22T10:00:00Z",
              "observedGeneration": 1,
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
fn what_could_not_be_reported_comes_together_in_one_report() {
    let mut h = Harness::new();
    h.settle();
    h.connected(false);
    h.script("img", Script::exits(secs(1), 0));
    let mut pod = pod("job");
    pod["spec"]["restartPolicy"] = json!("Never");
    h.apply(pod);
    h.advance(secs(20));
    assert_eq!(h.running(), 0);
    h.connected(true);
    h.advance(secs(30));
    assert_eq!(h.status("job")["phase"], "Succeeded");
    assert_eq!(h.pod_writes(), 1);
}
