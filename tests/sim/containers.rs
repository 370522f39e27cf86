//! What becomes of containers that fail: waits, reasons, Events.

use coracle_sim::{Script, TestCluster};
use expect_test::expect;

use crate::{hours, mins, secs};

fn cluster() -> TestCluster {
    TestCluster::members(1)
        .nodes(1)
        .seed(1)
        .script("trap", Script::exits(secs(0), 1))
        .script("nowhere", Script::pull_error("no such image"))
        .build()
}

#[test]
fn a_failing_container_backs_off_exponentially() {
    let mut c = cluster();
    c.apply("pod/trap image=trap");
    c.advance(hours(1));
    c.check(
        "pod/trap timeline",
        expect![[r#"
            +0s    started restarts=0   exited reason=Error
            +0s    started restarts=1   exited reason=Error
            +10s   started restarts=2   exited reason=Error
            +30s   started restarts=3   exited reason=Error
            +70s   started restarts=4   exited reason=Error
            +150s  started restarts=5   exited reason=Error
            +310s  started restarts=6   exited reason=Error
            +610s  started restarts=7   exited reason=Error
            +910s  started restarts=8   exited reason=Error
            +1210s started restarts=9   exited reason=Error
            +1510s started restarts=10  exited reason=Error
            +1810s started restarts=11  exited reason=Error
            +2110s started restarts=12  exited reason=Error
            +2410s started restarts=13  exited reason=Error
            +2710s started restarts=14  exited reason=Error
            +3010s started restarts=15  exited reason=Error
            +3310s started restarts=16  exited reason=Error
        "#]],
    );
    c.check("pod/trap events", expect![[r#"
        Normal Scheduled x1 Successfully assigned default/trap to node-1
        Warning BackOff x4 Back-off restarting failed container c in pod trap_default(UID); what it printed when it first failed: coracle logs trap -c c --instance first
        Normal Created x5 Container created
        Normal Pulled x5 Successfully pulled image "trap" in 0s (0s including waiting). Image size: 0 bytes.
        Normal Pulling x17 Pulling image "trap"
        Normal Started x5 Container started
    "#]]);
}

#[test]
fn a_container_that_ran_for_ten_minutes_starts_over() {
    let mut c = cluster();
    c.script("long", Script::exits(mins(11), 1));
    c.apply("pod/long image=long");
    c.advance(hours(1));
    c.check(
        "pod/long timeline",
        expect![[r#"
        +0s    started restarts=0   exited +660s reason=Error
        +660s  started restarts=1   exited +1320s reason=Error
        +1320s started restarts=2   exited +1980s reason=Error
        +1980s started restarts=3   exited +2640s reason=Error
        +2640s started restarts=4   exited +3300s reason=Error
        +3300s started restarts=5   running
    "#]],
    );
}

#[test]
fn an_image_that_cannot_be_had_is_tried_again_ever_later() {
    let mut c = cluster();
    c.apply("pod/web image=nowhere");
    c.advance(mins(12));
    c.check(
        "pod/web states",
        expect![[r#"
        +0s    Pending
        +0s    Pending, c: Waiting ErrImagePull restarts=0
        +1s    Pending, c: Waiting ImagePullBackOff restarts=0
        +10s   Pending, c: Waiting ErrImagePull restarts=0
        +11s   Pending, c: Waiting ImagePullBackOff restarts=0
        +30s   Pending, c: Waiting ErrImagePull restarts=0
        +31s   Pending, c: Waiting ImagePullBackOff restarts=0
        +70s   Pending, c: Waiting ErrImagePull restarts=0
        +71s   Pending, c: Waiting ImagePullBackOff restarts=0
        +150s  Pending, c: Waiting ErrImagePull restarts=0
        +151s  Pending, c: Waiting ImagePullBackOff restarts=0
        +310s  Pending, c: Waiting ErrImagePull restarts=0
        +311s  Pending, c: Waiting ImagePullBackOff restarts=0
        +610s  Pending, c: Waiting ErrImagePull restarts=0
        +611s  Pending, c: Waiting ImagePullBackOff restarts=0
    "#]],
    );
    c.check(
        "pod/web events",
        expect![[r#"
            Normal Scheduled x1 Successfully assigned default/web to node-1
            Warning Failed x5 Error: ErrImagePull
            Warning Failed x5 Failed to pull image "nowhere": no such image
            Normal Pulling x7 Pulling image "nowhere"
            Normal BackOff x5 Back-off pulling image "nowhere"
            Warning Failed x5 Error: ImagePullBackOff
        "#]],
    );
}

#[test]
fn fixing_the_config_map_and_restarting_the_rollout_heals_a_crash_loop() {
    let mut c = cluster();
    c.script("web", Script::exits(secs(1), 1).unless_env("MODE", "good"));
    c.apply(
        "configmap/settings data.MODE=bad
         deployment/web image=web replicas=2 configMap=settings",
    );
    c.advance(mins(5));
    c.check(
        "deployment/web pods",
        expect![[r#"
        web node-1 Running, c: Waiting CrashLoopBackOff restarts=5
        web node-1 Running, c: Waiting CrashLoopBackOff restarts=5
    "#]],
    );
    c.apply("configmap/settings data.MODE=good");
    c.apply("deployment/web spec.template.metadata.annotations.restartedAt=now");
    c.run_until_converged();
    c.check(
        "deployment/web pods",
        expect![[r#"
        web node-1 Running, c: Running ready restarts=0
        web node-1 Running, c: Running ready restarts=0
    "#]],
    );
    c.check(
        "deployment/web conditions",
        expect![[r#"
        Available=True MinimumReplicasAvailable
        Progressing=True NewReplicaSetAvailable
    "#]],
    );
}

#[test]
fn a_container_that_does_not_end_when_asked_is_killed_when_its_grace_is_over() {
    let mut c = cluster();
    c.script("stubborn", Script { stop_after: None, ..Script::runs() });
    c.apply("pod/web image=stubborn terminationGracePeriodSeconds=20");
    c.settle();
    c.delete("pod/web", coracle_sim::Propagation::Background);
    c.advance(secs(19));
    assert!(c.get("pod/web").is_some());
    c.advance(secs(2));
    assert!(c.get("pod/web").is_none());
    c.check(
        "pod/web timeline",
        expect![[r#"
        +0s    started restarts=0   exited +20s reason=Error
    "#]],
    );
}

#[test]
fn a_pod_that_may_not_restart_ends_as_it_ended() {
    let mut c = cluster();
    c.script("done", Script::exits(secs(3), 0));
    c.apply(
        "pod/done image=done restartPolicy=OnFailure
         pod/failed image=trap restartPolicy=Never",
    );
    c.advance(mins(1));
    c.check(
        "pods",
        expect![[r#"
        done done node-1 Succeeded, c: Terminated Completed restarts=0
        failed trap node-1 Failed, c: Terminated Error restarts=0
    "#]],
    );
}
