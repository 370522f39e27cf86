//! ServiceAccount tokens in pods' volumes.

use expect_test::expect;
use serde_json::{Value, json};

use super::harness::{Harness, pod, secs};

fn pod_with_token(seconds: i64) -> Value {
    let mut pod = pod("web");
    pod["spec"]["serviceAccountName"] = json!("default");
    pod["spec"]["volumes"] = json!([{"name": "access", "projected": {"sources": [
        {"serviceAccountToken": {"expirationSeconds": seconds, "path": "token"}}]}}]);
    pod
}

#[test]
fn a_token_is_there_before_the_container_and_is_renewed_in_good_time() {
    let mut h = Harness::with_tokens();
    h.apply(pod_with_token(1000));
    h.settle();
    assert_eq!(h.running(), 1);
    assert_eq!(h.volume("access"), ["token=token 1 of web for 1000 s"]);
    h.advance(secs(799));
    assert_eq!(h.volume("access"), ["token=token 1 of web for 1000 s"]);
    h.advance(secs(1));
    assert_eq!(h.volume("access"), ["token=token 2 of web for 1000 s"]);
    assert_eq!(h.starts(), 1, "the container goes on");
}

#[test]
fn a_pod_whose_token_is_refused_waits_and_says_why() {
    let mut h = Harness::with_tokens();
    h.token_refusal(Some("no such account"));
    h.apply(pod_with_token(1000));
    h.advance(secs(15));
    assert_eq!(h.running(), 0);
    h.check_event(
        "FailedMount",
        expect![[r#"
        +0s Warning FailedMount MountVolume.SetUp failed for volume "access" : failed to fetch token: no such account
    "#]],
    );
    h.token_refusal(None);
    h.advance(secs(10));
    assert_eq!(h.running(), 1);
}

#[test]
fn a_token_that_cannot_be_renewed_is_kept() {
    let mut h = Harness::with_tokens();
    h.apply(pod_with_token(1000));
    h.settle();
    h.token_refusal(Some("not now"));
    h.advance(secs(805));
    assert_eq!(h.volume("access"), ["token=token 1 of web for 1000 s"]);
    h.token_refusal(None);
    h.advance(secs(10));
    assert_eq!(h.volume("access"), ["token=token 2 of web for 1000 s"]);
}

#[test]
fn an_agent_that_starts_again_has_the_tokens_that_it_kept() {
    let mut h = Harness::with_tokens();
    h.apply(pod_with_token(1000));
    h.advance(secs(10));
    h.restart_without_api();
    h.advance(secs(5));
    assert_eq!(h.running(), 1, "nobody is there to ask for another");
    assert_eq!(h.volume("access"), ["token=token 1 of web for 1000 s"]);
}
