//! Tokens of ServiceAccounts: what may be asked for, and how long they hold.

use std::time::Duration;

use coracle_api::Method;
use serde_json::{Value, json};

use crate::harness::Server;

const TOKEN: &str = "/api/v1/namespaces/default/serviceaccounts/default/token";
const PODS: &str = "/api/v1/namespaces/default/pods";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// A pod of the account `default`.
fn create_pod(server: &mut Server, name: &str) -> Value {
    let spec = json!({"serviceAccountName": "default", "containers": [{"name": "c", "image": "img"}]});
    server.ok(Method::Post, PODS, json!({"metadata": {"name": name}, "spec": spec}))
}

fn bound(pod: &Value) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]})
}

fn token(server: &mut Server, spec: Value) -> String {
    let answer = server.ok(Method::Post, TOKEN, json!({ "spec": spec }));
    answer["status"]["token"].as_str().unwrap().to_owned()
}

/// What a review says: the user, or why there is none.
fn review(server: &mut Server, spec: &Value) -> Value {
    server.ok(Method::Post, REVIEWS, json!({ "spec": spec }))["status"].clone()
}

#[test]
fn a_token_that_is_wrongly_asked_for_is_refused() {
    let mut server = Server::new();
    let pod = create_pod(&mut server, "web");
    let mut other = bound(&pod);
    other["uid"] = json!("6d3e0d0c-52cb-4d5c-9d2c-0d6f5a1f6a11");
    let mut foreign = bound(&pod);
    foreign["name"] = json!("nobody");
    for (spec, expected) in [
        (
            json!({"expirationSeconds": 599}),
            "422 TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
        ),
        (json!({ "boundObjectRef": foreign }), "404 pods \"nobody\" not found"),
        (
            json!({ "boundObjectRef": other }),
            "409 Operation cannot be fulfilled on Pod \"web\": the UID in the bound object reference (6d3e0d0c-52cb-4d5c-9d2c-0d6f5a1f6a11) does not match the UID in record. The object might have been deleted and then recreated",
        ),
        (
            json!({"boundObjectRef": {"kind": "ConfigMap", "apiVersion": "v1", "name": "a"}}),
            "400 cannot bind token to object of type v1, Kind=ConfigMap",
        ),
    ] {
        let (code, message) = server.fails(Method::Post, TOKEN, json!({ "spec": spec }));
        assert_eq!(format!("{code} {message}"), expected);
    }
    let elsewhere = TOKEN.replace("/default/token", "/nobody/token");
    let (code, message) = server.fails(Method::Post, &elsewhere, json!({}));
    assert_eq!((code, message.as_str()), (404, "serviceaccounts \"nobody\" not found"));
}

#[test]
fn a_token_names_its_account_and_its_pod() {
    let mut server = Server::new();
    let pod = create_pod(&mut server, "web");
    let token = token(&mut server, json!({ "boundObjectRef": bound(&pod) }));
    let status = review(&mut server, &json!({ "token": token }));
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["audiences"], json!(["https://kubernetes.default.svc.cluster.local"]));
    let user = &status["user"];
    assert_eq!(user["username"], "system:serviceaccount:default:default");
    let groups = ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"];
    assert_eq!(user["groups"], json!(groups));
    assert_eq!(user["extra"]["authentication.kubernetes.io/pod-name"], json!(["web"]));
    assert_eq!(user["extra"]["authentication.kubernetes.io/pod-uid"], json!([pod["metadata"]["uid"]]));
}

#[test]
fn a_token_ends_with_its_time_its_pod_and_its_account() {
    let mut server = Server::new();
    let pod = create_pod(&mut server, "web");
    let short = token(&mut server, json!({"expirationSeconds": 600}));
    let of_pod = token(&mut server, json!({"expirationSeconds": 86400, "boundObjectRef": bound(&pod)}));
    let long = token(&mut server, json!({"expirationSeconds": 86400}));
    server.advance(Duration::from_mins(10));
    let holds = |server: &mut Server, token: &str| review(server, &json!({ "token": token }))["error"].clone();
    assert_eq!(holds(&mut server, &short), Value::Null);
    server.advance(Duration::from_secs(1));
    assert_eq!(holds(&mut server, &short), "[invalid bearer token, service account token has expired]");
    assert_eq!(holds(&mut server, &of_pod), Value::Null);
    server.ok(Method::Delete, &format!("{PODS}/web"), Value::Null);
    create_pod(&mut server, "web");
    assert_eq!(
        holds(&mut server, &of_pod),
        "[invalid bearer token, pods default/web of the token is another than it was]"
    );
    assert_eq!(holds(&mut server, &long), Value::Null);
    server.ok(Method::Delete, "/api/v1/namespaces/default/serviceaccounts/default", Value::Null);
    assert_eq!(
        holds(&mut server, &long),
        "[invalid bearer token, serviceaccounts default/default of the token is gone]"
    );
}

#[test]
fn a_token_is_for_its_audiences_only() {
    let mut server = Server::new();
    let vault = token(&mut server, json!({"audiences": ["vault"]}));
    let status = review(&mut server, &json!({ "token": vault }));
    assert_ne!(status["authenticated"], true, "it is not for the API server");
    let status = review(&mut server, &json!({"token": vault, "audiences": ["vault", "other"]}));
    assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!(["vault"])));
}

#[test]
fn what_a_kubelet_asks_for_lives_a_year() {
    let mut server = Server::new();
    let pod = create_pod(&mut server, "web");
    let token = token(&mut server, json!({"expirationSeconds": 3607, "boundObjectRef": bound(&pod)}));
    server.advance(Duration::from_hours(364 * 24));
    assert_eq!(review(&mut server, &json!({ "token": token }))["authenticated"], true);
}
