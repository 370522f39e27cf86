//! Which ports are wanted, over the view of a store.

use coracle_api::{Attributes, canonical_json};
use coracle_base::Timestamp;
use coracle_store::{Entry, Store, StoreOptions, Transaction, Write};
use serde_json::{Value, json};

use super::*;

fn view(services: &[Value]) -> View {
    let mut store = Store::new(StoreOptions::default());
    let put = |object: &Value| {
        let key = ObjectKey::new(SERVICES, "shop", object["metadata"]["name"].as_str().unwrap());
        Write::Put { key, body: canonical_json(object).into(), attributes: Attributes::new() }
    };
    let transaction = Transaction { writes: services.iter().map(put).collect(), ..Transaction::default() };
    store.apply(1, &Entry { time: Timestamp::EPOCH, transactions: vec![transaction] }).remove(0).unwrap();
    store.view()
}

fn service(name: &str, created: &str, spec: Value) -> Value {
    let time = format!("2026-11-22T10:00:{created}Z");
    json!({"metadata": {"name": name, "namespace": "shop", "creationTimestamp": time}, "spec": spec})
}

#[track_caller]
fn check(services: &[Value], address: &str, expected: &[&str]) -> Wanted {
    let own = BTreeSet::from(["192.0.2.1".parse().unwrap()]);
    let wanted = wanted(&view(services), address.parse().unwrap(), &own);
    let one = |(door, behind): (&Door, &Behind)| {
        let protocol = if door.protocol == Protocol::Tcp { "tcp" } else { "udp" };
        let name = format!("{}:{}", behind.service.name, behind.port);
        format!("{protocol} {}:{} {} {name}", door.address, door.port, behind.purpose.name())
    };
    assert_eq!(wanted.doors.iter().map(one).collect::<Vec<_>>(), expected);
    wanted
}

#[test]
fn node_ports_are_opened_for_both_protocols() {
    let spec = json!({"type": "NodePort", "ports": [
        {"port": 80, "nodePort": 30080}, {"port": 53, "nodePort": 30053, "protocol": "UDP"},
        {"port": 9, "nodePort": 30009, "protocol": "SCTP"},
    ]});
    check(
        &[service("web", "00", spec)],
        "0.0.0.0",
        &["udp 0.0.0.0:30053 node port web:53", "tcp 0.0.0.0:30080 node port web:80"],
    );
}

#[test]
fn a_load_balancers_ports_are_opened_unless_somebody_else_balances_it() {
    let spec = |class: Value| {
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30999,
            "loadBalancerClass": class, "loadBalancerSourceRanges": ["192.0.2.0/24"], "ports": [{"port": 80}]})
    };
    let wanted = check(
        &[service("web", "00", spec(Value::Null)), service("other", "00", spec("example.com/lb".into()))],
        "0.0.0.0",
        &["tcp 0.0.0.0:80 load balancer port web:80", "tcp 0.0.0.0:30999 health check node port other:0"],
    );
    let balanced = wanted.doors.values().find(|behind| behind.purpose == Purpose::LoadBalancer).unwrap();
    assert_eq!(balanced.sources, ["192.0.2.0/24"]);
}

#[test]
fn who_wants_a_port_that_an_older_service_has_does_not_get_it() {
    let spec = || json!({"type": "LoadBalancer", "ports": [{"port": 80}]});
    let wanted = check(
        &[service("a", "09", spec()), service("b", "01", spec())],
        "0.0.0.0",
        &["tcp 0.0.0.0:80 load balancer port b:80"],
    );
    let (door, behind, owner) = &wanted.clashes[0];
    assert_eq!((door.port, &*behind.service.name, &*owner.name), (80, "a", "b"));
}

#[test]
fn external_addresses_of_this_machine_are_opened_where_node_ports_are_for_others_too() {
    let spec = json!({"type": "ClusterIP", "externalIPs": ["192.0.2.1", "192.0.2.2"], "ports": [{"port": 80}]});
    let services = [service("web", "00", spec)];
    check(&services, "0.0.0.0", &["tcp 192.0.2.1:80 external port web:80"]);
    check(&services, "127.0.0.1", &[]);
}
