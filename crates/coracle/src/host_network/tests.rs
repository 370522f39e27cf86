//! What the rules are made of, over the view of a store. The rules themselves are tried end to end.

use super::*;
use crate::testing::view_of;

fn node(name: &str, range: &str, boot: &str, address: &str) -> Value {
    json!({"kind": "Node", "metadata": {"name": name}, "spec": {"podCIDR": range}, "status": {
        "nodeInfo": {"bootID": boot}, "addresses": [{"type": "InternalIP", "address": address}]}})
}

#[test]
fn containers_of_all_nodes_that_booted_with_this_one_are_reached_without_us() {
    let view = view_of(&[
        node("a", "10.42.0.0/24", "x", "192.0.2.1"),
        node("b", "10.42.1.0/24", "x", "192.0.2.1"),
        node("c", "10.42.2.0/24", "y", "192.0.2.1"),
        node("d", "10.42.4.0/24", "x", "192.0.2.2"),
        node("new", "10.42.3.0/24", "", "192.0.2.1"),
    ]);
    let text = |own: &str| bridges(&view, own).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(text("a"), ["10.42.0.0/25", "10.42.1.0/25"]);
    assert_eq!(text("c"), ["10.42.2.0/25"]);
    assert_eq!(text("new"), ["10.42.3.0/25"], "who has not said anything is alone");
    assert!(is_gateway(&view, "10.42.2.1".parse().unwrap()) && !is_gateway(&view, "10.42.2.2".parse().unwrap()));
}

#[test]
fn external_addresses_lead_into_the_cluster_by_their_ports() {
    let view = view_of(&[json!({"kind": "Service", "metadata": {"name": "web", "namespace": "shop"}, "spec": {
        "externalIPs": ["192.0.2.7", "fd00::7"], "ports": [{"port": 80}, {"port": 443}]}})]);
    assert_eq!(external(&view), [("192.0.2.7".parse().unwrap(), 80), ("192.0.2.7".parse().unwrap(), 443)]);
}
