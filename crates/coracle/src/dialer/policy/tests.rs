//! A table of policies, and of the connections that they allow.

use serde_json::json;

use super::*;
use crate::testing::view_of;

/// Pods `web` and `db` in `shop`, `web` in `other`; and these policies in `shop`.
fn world(specs: &[Value]) -> View {
    let namespace = |name: &str| json!({"kind": "Namespace", "metadata": {"name": name, "labels": {"name": name}}});
    let pod = |namespace: &str, name: &str, last: u8| {
        json!({
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "uid": format!("{namespace}-{name}"), "labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "ports": [
                {"name": "http", "containerPort": 3000}, {"name": "http", "containerPort": 3001, "protocol": "UDP"}]}]},
            "status": {"podIP": format!("10.42.0.{last}")},
        })
    };
    let mut host = pod("shop", "host", 9);
    host["spec"]["hostNetwork"] = true.into();
    let mut objects = vec![
        namespace("shop"),
        namespace("other"),
        pod("shop", "web", 1),
        pod("shop", "db", 2),
        pod("other", "web", 3),
        host,
    ];
    for (index, spec) in specs.iter().enumerate() {
        objects.push(json!({"kind": "NetworkPolicy", "metadata": {"name": format!("p{index}"), "namespace": "shop"}, "spec": spec}));
    }
    view_of(&objects)
}

fn end(text: &str) -> End {
    match text {
        "node" => End::Node,
        text => text.parse().map_or_else(|_| End::Pod(Uid::from(text)), End::Address),
    }
}

/// Each connection is `from > to:port`, with `/udp` where it is none of TCP, and a `!` before it where it is denied.
#[track_caller]
fn check_all(specs: &[Value], connections: &[&str]) {
    let view = world(specs);
    for connection in connections {
        let (expected, text) = connection.strip_prefix('!').map_or((true, *connection), |rest| (false, rest));
        let (from, to) = text.split_once(" > ").unwrap();
        let (to, protocol) = to.strip_suffix("/udp").map_or((to, Protocol::Tcp), |to| (to, Protocol::Udp));
        let (to, port) = to.rsplit_once(':').unwrap();
        let found = check(&view, &end(from), &end(to), port.parse().unwrap(), protocol);
        assert_eq!(found.is_ok(), expected, "{connection}: {found:?}");
    }
}

#[test]
fn without_policies_everything_goes() {
    check_all(&[], &["other-web > shop-db:5432", "shop-db > 192.0.2.1:80", "203.0.113.1 > shop-web:80"]);
}

#[test]
fn a_policy_without_rules_lets_nothing_in_but_what_comes_from_the_node() {
    let deny = json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]});
    check_all(
        &[deny],
        &[
            "!shop-web > shop-db:1",
            "!192.0.2.1 > shop-db:1",
            "node > shop-db:1",
            "shop-db > shop-web:1",
            "shop-db > 192.0.2.1:1",
            "shop-db > shop-db:1",
            "other-web > shop-web:1",
        ],
    );
}

#[test]
fn an_empty_rule_lets_everything_in() {
    let allow = json!({"podSelector": {}, "ingress": [{}], "policyTypes": ["Ingress"]});
    check_all(&[allow], &["shop-web > shop-db:1", "192.0.2.1 > shop-db:1/udp"]);
}

#[test]
fn what_any_policy_allows_is_allowed() {
    let deny = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
    let allow = json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 5432}]}]});
    check_all(
        &[deny, allow],
        &[
            "shop-web > shop-db:5432",
            "!shop-web > shop-db:5433",
            "!shop-web > shop-db:5432/udp",
            "!other-web > shop-db:5432",
            "!shop-db > shop-web:80",
        ],
    );
}

#[test]
fn peers_are_pods_of_the_own_namespace_or_of_selected_ones() {
    let from = |peer: Value| json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": [peer]}]});
    let other = json!({"matchLabels": {"name": "other"}});
    check_all(
        &[from(json!({"podSelector": {}}))],
        &["shop-web > shop-db:1", "!other-web > shop-db:1", "!192.0.2.1 > shop-db:1"],
    );
    check_all(&[from(json!({"namespaceSelector": other}))], &["other-web > shop-db:1", "!shop-web > shop-db:1"]);
    check_all(
        &[from(json!({"namespaceSelector": {}}))],
        &["other-web > shop-db:1", "shop-web > shop-db:1", "!10.9.9.9 > shop-db:1"],
    );
    let both = json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "db"}}});
    check_all(&[from(both)], &["!other-web > shop-db:1"]);
}

#[test]
fn ranges_of_addresses_have_exceptions_and_hold_pods_too() {
    let block = json!({"cidr": "10.42.0.0/16", "except": ["10.42.0.3/32"]});
    let policy = json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": [{"ipBlock": block}]}]});
    check_all(
        &[policy],
        &["shop-web > shop-db:1", "!other-web > shop-db:1", "10.42.7.7 > shop-db:1", "!192.0.2.1 > shop-db:1"],
    );
}

#[test]
fn ports_are_numbers_ranges_or_names_of_the_target() {
    let ports = |ports: Value| json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{ "ports": ports }]});
    check_all(
        &[ports(json!([{"port": 80, "endPort": 90}]))],
        &["shop-web > shop-db:80", "shop-web > shop-db:90", "!shop-web > shop-db:91"],
    );
    check_all(&[ports(json!([{"port": "http"}]))], &["shop-web > shop-db:3000", "!shop-web > shop-db:3001"]);
    check_all(
        &[ports(json!([{"port": "http", "protocol": "UDP"}]))],
        &["shop-web > shop-db:3001/udp", "!shop-web > shop-db:3000/udp"],
    );
    check_all(&[ports(json!([{"protocol": "UDP"}]))], &["shop-web > shop-db:7/udp", "!shop-web > shop-db:7"]);
    check_all(&[ports(json!([{"protocol": "SCTP"}]))], &["!shop-web > shop-db:7"]);
}

#[test]
fn egress_is_about_what_the_pod_opens() {
    let policy = json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": [
        {"to": [{"podSelector": {"matchLabels": {"app": "db"}}}], "ports": [{"port": "http"}]},
        {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
    ]});
    check_all(
        &[policy],
        &[
            "shop-web > shop-db:3000",
            "!shop-web > shop-db:22",
            "shop-web > 192.0.2.7:443",
            "!shop-web > 198.51.100.1:443",
            "other-web > shop-web:1",
            "shop-web > shop-web:9",
            "!shop-web > other-web:3000",
        ],
    );
}

#[test]
fn both_ends_have_their_say() {
    let egress = json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": [{}]});
    let ingress = json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]});
    check_all(&[egress, ingress], &["!shop-web > shop-db:1", "shop-web > other-web:1"]);
}

#[test]
fn a_pod_with_the_hosts_network_is_its_node() {
    let policy = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    check_all(&[policy], &["shop-host > 192.0.2.1:1", "192.0.2.1 > shop-host:1"]);
}

#[test]
fn who_denies_is_named() {
    let view = world(&[json!({"podSelector": {}, "policyTypes": ["Ingress"]})]);
    let denied = check(&view, &end("other-web"), &end("shop-db"), 1, Protocol::Tcp).unwrap_err();
    assert_eq!(denied.to_string(), "NetworkPolicy shop/p0 allows no such ingress connection");
}

#[test]
fn ranges_are_of_both_versions() {
    for (range, address, expected) in [
        ("10.0.0.0/8", "10.255.0.1", true),
        ("10.0.0.0/8", "11.0.0.1", false),
        ("0.0.0.0/0", "1.2.3.4", true),
        ("fd00::/8", "fd12::1", true),
        ("fd00::/8", "10.0.0.1", false),
        ("::/0", "fe80::1", true),
        ("nonsense", "1.2.3.4", false),
    ] {
        assert_eq!(is_within(range, address.parse().unwrap()), expected, "{range} {address}");
    }
}

#[test]
fn the_rules_of_policies_are_addresses_and_ports() {
    let spec = json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}, {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.7/32"]}}],
             "ports": [{"port": "http"}, {"port": 80, "endPort": 90}, {"protocol": "UDP"}]},
        ],
        "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"name": "other"}}}], "ports": [{"port": "http"}]}, {}]});
    let view = world(&[spec]);
    let pod = |uid: &str| view.by_uid(&Uid::from(uid)).unwrap();
    let address = |last: u8| Ipv4Addr::new(10, 42, 0, last);
    let open = Opening {
        peers: Some((BTreeSet::from([address(1)]), vec![("192.0.2.0/24".into(), vec!["192.0.2.7/32".into()])])),
        ports: Some(vec![(Protocol::Tcp, 3000, 3000), (Protocol::Tcp, 80, 90), (Protocol::Udp, 0, u16::MAX)]),
    };
    assert_eq!(openings(&view, pod("shop-db"), "ingress"), Some(vec![open]));
    let named = Opening {
        peers: Some((BTreeSet::from([address(3)]), Vec::new())),
        ports: Some(vec![(Protocol::Tcp, 3000, 3000)]),
    };
    assert_eq!(openings(&view, pod("shop-db"), "egress"), Some(vec![named, Opening::default()]));
    assert_eq!(openings(&view, pod("shop-web"), "ingress"), None);
    assert_eq!(about(&view, pod("shop-db")).count(), 2);
    let here: Vec<IpAddr> =
        pods_in(&view, |address| address != IpAddr::from([10, 42, 0, 3])).map(|(_, at)| at).collect();
    assert_eq!(here, [IpAddr::V4(address(2)), address(1).into()], "those of the host's network are the host");
}
