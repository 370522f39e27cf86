//! Questions and what the zone answers, over the view of a store.

use serde_json::{Value, json};

use super::*;
use crate::testing::view_of;

fn world() -> View {
    let service = |name: &str, spec: Value| json!({"kind": "Service", "metadata": {"name": name, "namespace": "shop", "uid": name}, "spec": spec});
    let owned = |name: &str, endpoints: Value, ports: Value| {
        json!({
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{name}-1"), "namespace": "shop", "uid": format!("{name}-slice"),
                "labels": {"kubernetes.io/service-name": name, "service.kubernetes.io/headless": ""},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": name, "uid": name}],
            },
            "endpoints": endpoints, "ports": ports,
        })
    };
    view_of(&[
        json!({"kind": "Namespace", "metadata": {"name": "shop"}}),
        service(
            "web",
            json!({"clusterIP": "10.43.0.5", "selector": {"a": "b"}, "ports": [
                {"name": "http", "port": 80, "targetPort": 3000}, {"name": "dns", "port": 53, "protocol": "UDP"},
            ]}),
        ),
        service("db", json!({"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"name": "sql", "port": 5432}]})),
        owned(
            "db",
            json!([
                {"addresses": ["10.42.0.7"], "hostname": "db-0", "conditions": {"ready": true}},
                {"addresses": ["10.42.0.8"], "conditions": {"ready": true}},
                {"addresses": ["10.42.0.9"], "hostname": "db-2", "conditions": {"ready": false}},
            ]),
            json!([{"name": "sql", "port": 5432, "protocol": "TCP"}]),
        ),
        service("nobody", json!({"clusterIP": "None", "selector": {"a": "c"}, "ports": [{"port": 80}]})),
        service("six", json!({"clusterIP": "None", "ports": [{"port": 80}]})),
        json!({
            "kind": "EndpointSlice",
            "metadata": {"name": "six-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "six"}},
            "endpoints": [{"addresses": ["fd00::7"]}], "ports": [],
        }),
        service("out", json!({"type": "ExternalName", "externalName": "db.example.com"})),
        service("in", json!({"type": "ExternalName", "externalName": "web.shop.svc.cluster.local"})),
        service("loop", json!({"type": "ExternalName", "externalName": "loop.shop.svc.cluster.local."})),
    ])
}

fn asked(view: &View, name: &str, kind: RecordType) -> Answer {
    let is_ours = |address: IpAddr| address.to_string().starts_with("10.4");
    answer(view, &Name::from_ascii(name).unwrap(), kind, is_ours)
}

/// The data of the answers, or what is said instead of them.
fn told(answer: &Answer) -> Vec<String> {
    let mut told: Vec<String> = answer.answers.iter().map(|record| record.data.to_string()).collect();
    if let Some(name) = &answer.elsewhere {
        told.push(format!("elsewhere {name}"));
    }
    if answer.no_name {
        told.push("NXDOMAIN".into());
    }
    told
}

#[track_caller]
fn check(name: &str, kind: RecordType, expected: &[&str]) {
    let answer = asked(&world(), name, kind);
    assert_eq!(told(&answer), expected, "{name} {kind}");
    assert!(answer.answers.iter().all(|record| record.ttl == TTL_SECONDS), "{name}");
}

#[test]
fn a_service_is_its_address_and_a_headless_one_its_ready_endpoints() {
    use RecordType::{A, AAAA, MX};
    check("web.shop.svc.cluster.local.", A, &["10.43.0.5"]);
    check("WEB.Shop.svc.Cluster.local.", A, &["10.43.0.5"]);
    check("web.shop.svc.cluster.local.", AAAA, &[]);
    check("web.shop.svc.cluster.local.", MX, &[]);
    check("db.shop.svc.cluster.local.", A, &["10.42.0.7", "10.42.0.8"]);
    check("six.shop.svc.cluster.local.", AAAA, &["fd00::7"]);
    check("six.shop.svc.cluster.local.", A, &[]);
}

#[test]
fn endpoints_have_their_hostnames_or_their_addresses_for_names() {
    check("db-0.db.shop.svc.cluster.local.", RecordType::A, &["10.42.0.7"]);
    check("10-42-0-8.db.shop.svc.cluster.local.", RecordType::A, &["10.42.0.8"]);
    check("10-42-0-7.db.shop.svc.cluster.local.", RecordType::A, &["NXDOMAIN"]);
    check("db-2.db.shop.svc.cluster.local.", RecordType::A, &["NXDOMAIN"]);
    check("10-42-0-7.shop.pod.cluster.local.", RecordType::A, &["10.42.0.7"]);
    check("10-42-0-7.nowhere.pod.cluster.local.", RecordType::A, &["NXDOMAIN"]);
}

#[test]
fn names_that_are_above_others_exist_and_those_that_nobody_has_do_not() {
    for name in ["cluster.local.", "svc.cluster.local.", "shop.svc.cluster.local.", "_tcp.web.shop.svc.cluster.local."]
    {
        check(name, RecordType::A, &[]);
    }
    for name in [
        "gone.shop.svc.cluster.local.",
        "web.nowhere.svc.cluster.local.",
        "nowhere.svc.cluster.local.",
        "nobody.shop.svc.cluster.local.",
        "_udp.db.shop.svc.cluster.local.",
        "a.b.c.d.svc.cluster.local.",
        "example.com.cluster.local.",
    ] {
        check(name, RecordType::A, &["NXDOMAIN"]);
    }
}

#[test]
fn named_ports_are_found_with_the_addresses_of_their_targets() {
    check("_http._tcp.web.shop.svc.cluster.local.", RecordType::SRV, &["0 100 80 web.shop.svc.cluster.local."]);
    check("_dns._udp.web.shop.svc.cluster.local.", RecordType::SRV, &["0 100 53 web.shop.svc.cluster.local."]);
    check("_dns._tcp.web.shop.svc.cluster.local.", RecordType::SRV, &["NXDOMAIN"]);
    check("_http._tcp.web.shop.svc.cluster.local.", RecordType::A, &[]);
    let of_db = asked(&world(), "_sql._tcp.db.shop.svc.cluster.local.", RecordType::SRV);
    assert_eq!(
        told(&of_db),
        ["0 100 5432 db-0.db.shop.svc.cluster.local.", "0 100 5432 10-42-0-8.db.shop.svc.cluster.local."]
    );
    let additional: Vec<String> =
        of_db.additionals.iter().map(|record| format!("{} {}", record.name, record.data)).collect();
    assert_eq!(
        additional,
        ["db-0.db.shop.svc.cluster.local. 10.42.0.7", "10-42-0-8.db.shop.svc.cluster.local. 10.42.0.8"]
    );
}

#[test]
fn an_external_name_is_an_alias_that_is_followed() {
    check("out.shop.svc.cluster.local.", RecordType::A, &["db.example.com.", "elsewhere db.example.com."]);
    check("out.shop.svc.cluster.local.", RecordType::CNAME, &["db.example.com."]);
    check("in.shop.svc.cluster.local.", RecordType::A, &["web.shop.svc.cluster.local.", "10.43.0.5"]);
    let looped = asked(&world(), "loop.shop.svc.cluster.local.", RecordType::A);
    assert!(!looped.no_name && looped.answers.len() == ALIASES_MAX + 1, "it ends: {looped:?}");
}

#[test]
fn addresses_have_names_and_those_outside_are_left_to_the_world() {
    check("5.0.43.10.in-addr.arpa.", RecordType::PTR, &["web.shop.svc.cluster.local."]);
    check("7.0.42.10.in-addr.arpa.", RecordType::PTR, &["db-0.db.shop.svc.cluster.local."]);
    check("8.0.42.10.in-addr.arpa.", RecordType::PTR, &["10-42-0-8.db.shop.svc.cluster.local."]);
    check("99.0.42.10.in-addr.arpa.", RecordType::PTR, &["NXDOMAIN"]);
    check("1.2.0.192.in-addr.arpa.", RecordType::PTR, &["elsewhere 1.2.0.192.in-addr.arpa."]);
    check("example.com.", RecordType::A, &["elsewhere example.com."]);
}

#[test]
fn the_zone_says_its_version_and_who_serves_it() {
    check("dns-version.cluster.local.", RecordType::TXT, &["1.1.0"]);
    check("cluster.local.", RecordType::NS, &["ns.dns.cluster.local."]);
    assert_eq!(asked(&world(), "cluster.local.", RecordType::SOA).answers.len(), 1);
}
