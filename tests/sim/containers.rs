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
        "#]],
    );
    c.check("pod/trap events", expect![[""]]);
}

#[test]
fn a_container_that_ran_for_ten_minutes_starts_over() {
    let mut c = cluster();
    c.script("long", Script::exits(mins(11), 1));
    c.apply("pod/long image=long");
    c.advance(hours(1));
    c.check("pod/long timeline", expect![[""]]);
}

#[test]
fn an_image_that_cannot_be_had_is_tried_again_ever_later() {
    let mut c = cluster();
    c.apply("pod/web image=nowhere");
    c.advance(mins(12));
    c.check("pod/web states", expect![[""]]);
    c.check("pod/web events", expect![[""]]);
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
    c.check("deployment/web pods", expect![[""]]);
    c.apply("configmap/settings data.MODE=good");
    c.apply("deployment/web spec.template.metadata.annotations.restartedAt=now");
    c.run_until_converged();
    c.check("deployment/web pods", expect![[""]]);
    c.check("deployment/web conditions", expect![[""]]);
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
    c.check("pod/web timeline", expect![[""]]);
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
    c.check("pods", expect![[""]]);
}
