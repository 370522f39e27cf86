//! Requests and where they go, over the view of a store.

use serde_json::{Value, json};

use super::*;
use crate::testing::view_of;

fn backend(service: &str) -> Value {
    json!({"service": {"name": service, "port": {"number": 80}}})
}

fn ingress(name: &str, created: &str, spec: Value) -> Value {
    let time = format!("2026-11-22T10:00:{created}Z");
    json!({"kind": "Ingress", "metadata": {"name": name, "namespace": "shop", "creationTimestamp": time}, "spec": spec})
}

fn routes(ingresses: &[Value]) -> Routes {
    let class = |name: &str, controller: &str| json!({"kind": "IngressClass", "metadata": {"name": name}, "spec": {"controller": controller}});
    let service = |name: &str| {
        json!({"kind": "Service", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"clusterIP": "10.43.0.5", "ports": [{"name": "http", "port": 80}]}})
    };
    let mut objects = vec![class("coracle", CONTROLLER), class("other", "example.com/other")];
    objects.extend(["a", "b", "c", "d", "e", "f"].map(service));
    objects.extend_from_slice(ingresses);
    Routes::of(&view_of(&objects))
}

fn rule(host: &str, paths: &[(&str, &str, &str)]) -> Value {
    let path = |(path, kind, service): &(&str, &str, &str)| json!({"path": path, "pathType": kind, "backend": backend(service)});
    let paths: Vec<Value> = paths.iter().map(path).collect();
    json!({"host": host, "http": {"paths": paths}})
}

#[track_caller]
fn check(routes: &Routes, host: &str, path: &str, expected: Option<&str>) {
    let found = routes.find(host, path).and_then(|target| target.service.as_ref());
    assert_eq!(found.map(|key| &*key.name), expected, "{host}{path}");
}

#[test]
fn the_exact_path_goes_before_the_longest_prefix() {
    let spec = json!({"ingressClassName": "coracle", "rules": [rule("shop.example", &[
        ("/", "Prefix", "a"), ("/api", "Prefix", "b"), ("/api/v2/", "Prefix", "c"), ("/api/v2", "Exact", "d"),
        ("/impl", "ImplementationSpecific", "e"),
    ])]});
    let routes = routes(&[ingress("i", "00", spec)]);
    for (path, service) in [
        ("/", "a"),
        ("/other", "a"),
        ("/api", "b"),
        ("/api/", "b"),
        ("/apis", "a"),
        ("/api/v1/x", "b"),
        ("/api/v2", "d"),
        ("/api/v2/x", "c"),
        ("/impl/x", "e"),
    ] {
        check(&routes, "shop.example", path, Some(service));
        check(&routes, "SHOP.example", path, Some(service));
    }
    check(&routes, "other.example", "/", None);
}

#[test]
fn a_host_goes_before_a_wildcard_and_that_before_none() {
    let spec = json!({"ingressClassName": "coracle", "defaultBackend": backend("d"), "rules": [
        rule("shop.example", &[("/", "Prefix", "a")]), rule("*.example", &[("/", "Prefix", "b")]),
        rule("", &[("/all", "Prefix", "c")]),
    ]});
    let routes = routes(&[ingress("i", "00", spec)]);
    check(&routes, "shop.example", "/", Some("a"));
    check(&routes, "www.example", "/", Some("b"));
    check(&routes, "a.www.example", "/", Some("d"));
    check(&routes, "a.www.example", "/all", Some("c"));
}

#[test]
fn of_two_that_want_the_same_the_older_has_it() {
    let spec = |service: &str| json!({"ingressClassName": "coracle", "rules": [rule("h.example", &[("/", "Prefix", service)])]});
    let routes = routes(&[ingress("a", "09", spec("a")), ingress("b", "01", spec("b"))]);
    check(&routes, "h.example", "/", Some("b"));
}

#[test]
fn only_classes_of_this_controller_are_served() {
    let spec = |class: Value| json!({"ingressClassName": class, "rules": [rule("h.example", &[("/", "Prefix", "a")])]});
    let mut annotated = ingress("c", "00", spec(Value::Null));
    annotated["metadata"]["annotations"] = json!({CLASS_ANNOTATION: "coracle"});
    assert_eq!(
        routes(&[ingress("a", "00", spec("other".into())), ingress("b", "00", spec(Value::Null))]).ingresses,
        []
    );
    assert_eq!(routes(&[annotated]).ingresses.len(), 1);
}

#[test]
fn what_is_missing_is_named() {
    let spec = json!({"ingressClassName": "coracle", "defaultBackend": {"resource": {"kind": "Bucket", "name": "b"}},
        "rules": [rule("h.example", &[("/", "Prefix", "gone")]), {"host": "p.example", "http": {"paths": [
            {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "a", "port": {"name": "grpc"}}}},
        ]}}],
        "tls": [{"hosts": ["h.example"], "secretName": "cert"}, {"secretName": "cert"}]});
    let routes = routes(&[ingress("i", "00", spec)]);
    let mut reasons: Vec<&str> = routes.faults.iter().map(|fault| fault.reason).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["BackendNotSupported", "SecretNotFound", "ServiceNotFound", "ServicePortNotFound"]);
    let secret = |host: &str| routes.secrets.get(host).map(|key| &*key.name);
    assert_eq!(secret("h.example"), Some("cert"));
    assert_eq!(secret("p.example"), Some("cert"), "who names no host means those of the rules");
    assert_eq!(secret("other.example"), None);
}

#[test]
fn a_path_that_looks_like_an_expression_is_a_prefix_and_its_ingress_is_told_so() {
    let spec = json!({"ingressClassName": "coracle", "rules": [
        rule("h.example", &[("/(a|b", "ImplementationSpecific", "a"), ("/plain", "ImplementationSpecific", "a"), ("/c(d", "Exact", "a")]),
    ]});
    let routes = routes(&[ingress("i", "00", spec)]);
    check(&routes, "h.example", "/(a|b/c", Some("a"));
    check(&routes, "h.example", "/a", None);
    let told: Vec<&str> = routes.faults.iter().map(|fault| fault.message.as_str()).collect();
    assert_eq!(told, ["path \"/(a|b\" is taken as a prefix, letter by letter: there are no regular expressions here"]);
}
