//! Whose password an image is pulled with, and which Events tell of it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use expect_test::expect;
use serde_json::{Value, json};

use super::harness::{Harness, pod, secs};
use crate::fake::Script;

/// A Secret's type and data with a user of a registry.
fn pull_secret(server: &str, user: &str) -> (&'static str, Value) {
    let config = json!({"auths": {server: {"username": user, "password": "secret"}}}).to_string();
    ("kubernetes.io/dockerconfigjson", json!({".dockerconfigjson": STANDARD.encode(config)}))
}

fn private_pod() -> Value {
    let mut pod = pod("web");
    pod["spec"]["containers"][0]["image"] = json!("r.example.com/team/web:1");
    pod["spec"]["imagePullSecrets"] = json!([{"name": "registry"}]);
    pod
}

#[test]
fn a_private_image_is_pulled_once_its_secret_is_there() {
    let mut h = Harness::new();
    h.script("r.example.com/team/web:1", Script::private("me"));
    h.apply(private_pod());
    h.advance(secs(2));
    let (kind, data) = pull_secret("r.example.com", "me");
    h.secret("registry", kind, data);
    h.advance(secs(2));
    h.check_events(expect![[r#"
        +0s Warning FailedToRetrieveImagePullSecret Unable to retrieve some image pull secrets (registry); attempting to pull the image may not succeed.
        +0s Normal Pulling Pulling image "r.example.com/team/web:1"
        +0s Warning Failed Failed to pull image "r.example.com/team/web:1": pull access denied for r.example.com/team/web:1
        +0s Warning Failed Error: ErrImagePull
        +1s Normal BackOff Back-off pulling image "r.example.com/team/web:1"
        +1s Warning Failed Error: ImagePullBackOff
        +2s Normal Pulling Pulling image "r.example.com/team/web:1"
        +3s Normal Pulled Successfully pulled image "r.example.com/team/web:1" in 1s (1s including waiting). Image size: 0 bytes.
        +3s Normal Created Container created
        +3s Normal Started Container started
    "#]]);
    assert_eq!(h.status("web")["phase"], "Running");
}

#[test]
fn a_secret_for_another_registry_or_of_another_type_opens_nothing() {
    let mut h = Harness::new();
    h.script("r.example.com/team/web:1", Script::private("me"));
    let (kind, data) = pull_secret("r.example.com/other", "me");
    h.secret("registry", kind, data);
    h.apply(private_pod());
    h.advance(secs(2));
    assert_eq!(h.status("web")["phase"], "Pending");
    let (_, data) = pull_secret("r.example.com", "me");
    h.secret("registry", "Opaque", data);
    h.advance(secs(60));
    assert_eq!(h.status("web")["phase"], "Pending");
    h.check_event("FailedToRetrieveImagePullSecret", expect![""]);
}

#[test]
fn pods_with_different_passwords_do_not_share_a_pull() {
    let mut h = Harness::new();
    h.script("r.example.com/team/web:1", Script::private("me"));
    let (kind, data) = pull_secret("r.example.com", "me");
    h.secret("registry", kind, data);
    let mut other = private_pod();
    other["metadata"]["name"] = json!("other");
    other["metadata"]["uid"] = json!("uid-other");
    other["spec"]["imagePullSecrets"] = json!([]);
    h.apply(other);
    h.apply(private_pod());
    h.advance(secs(2));
    assert_eq!(h.status("web")["phase"], "Running");
    assert_eq!(h.status("other")["phase"], "Pending");
}
