//! Services, slices and names over the view of a store.

use coracle_api::{Attributes, canonical_json};
use coracle_base::Timestamp;
use coracle_store::{Entry, Store, StoreOptions, Transaction, Write};
use serde_json::{Value, json};

use super::*;
use crate::dialer::names::{Name, look_up};

/// The view of a store with these services and slices, all in namespace `shop`.
fn view(services: &[Value], slices: &[Value]) -> View {
    let mut store = Store::new(StoreOptions::default());
    let put = |resource: &coracle_api::GroupResource, object: &Value| {
        let name = object["metadata"]["name"].as_str().unwrap();
        let key = ObjectKey::new(resource.clone(), "shop", name);
        let address = object["spec"]["clusterIP"].as_str().unwrap_or_default();
        let attributes = Attributes::from([("spec.clusterIP".to_owned(), address.to_owned())]);
        Write::Put { key, body: canonical_json(object).into(), attributes }
    };
    let writes = services.iter().map(|o| put(&SERVICES, o)).chain(slices.iter().map(|o| put(&ENDPOINT_SLICES, o)));
    let transaction = Transaction { writes: writes.collect(), ..Transaction::default() };
    store.apply(1, &Entry { time: Timestamp::EPOCH, transactions: vec![transaction] }).remove(0).unwrap();
    store.view()
}

fn web() -> Value {
    json!({
        "metadata": {"name": "web", "uid": "web-uid", "namespace": "shop"},
        "spec": {
            "clusterIP": "10.96.0.5", "type": "NodePort", "selector": {"app": "web"},
            "ports": [
                {"name": "http", "port": 80, "targetPort": "named", "nodePort": 30080, "protocol": "TCP"},
                {"name": "dns", "port": 53, "nodePort": 30053, "protocol": "UDP"},
            ],
        },
    })
}

/// A slice of `web` whose endpoints are addresses with the condition that is not as usual.
fn slice(service: &str, port: u16, endpoints: &[(&str, &str)]) -> Value {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(address, state)| {
            let hostname = format!("host-{}", address.rsplit('.').next().unwrap());
            let (ready, terminating) = (*state != "unready", *state == "terminating");
            json!({
                "addresses": [address], "conditions": {"ready": ready, "terminating": terminating}, "hostname": hostname,
                "nodeName": "n1", "targetRef": {"kind": "Pod", "name": hostname, "uid": format!("uid-{address}")},
            })
        })
        .collect();
    json!({
        "metadata": {
            "name": format!("{service}-{port}"), "uid": format!("slice-{service}-{port}"), "namespace": "shop",
            "labels": {"kubernetes.io/service-name": service},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": service, "uid": format!("{service}-uid")}],
        },
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
    })
}

fn headless() -> Value {
    json!({
        "metadata": {"name": "db", "uid": "db-uid", "namespace": "shop"},
        "spec": {"clusterIP": "None", "selector": {"app": "db"}, "ports": [{"name": "http", "port": 80}]},
    })
}

fn to(service: &str, port: u16) -> ServicePort {
    ServicePort { service: ObjectKey::new(SERVICES, "shop", service), port, peer: "10.0.0.1".into() }
}

#[track_caller]
fn tried(view: &View, to: &ServicePort, turn: usize) -> Vec<String> {
    let found = candidates(view, to, || turn).unwrap();
    found.iter().map(|endpoint| format!("{}:{}", endpoint.address, endpoint.port)).collect()
}

#[test]
fn only_ready_endpoints_are_tried_each_first_in_its_turn() {
    let endpoints = [("10.42.0.1", ""), ("10.42.0.2", "unready"), ("10.42.0.3", "terminating"), ("10.42.0.4", "")];
    let view = view(&[web()], &[slice("web", 3000, &endpoints), slice("web", 4000, &[("10.42.0.9", "")])]);
    assert_eq!(tried(&view, &to("web", 80), 0), ["10.42.0.1:3000", "10.42.0.4:3000", "10.42.0.9:4000"]);
    assert_eq!(tried(&view, &to("web", 80), 4), ["10.42.0.4:3000", "10.42.0.9:4000", "10.42.0.1:3000"]);
    let first = candidates(&view, &to("web", 80), || 0).unwrap().remove(0);
    assert_eq!(first.pod, Some(("n1".to_owned(), Uid::from("uid-10.42.0.1"))));
}

#[test]
fn a_service_that_leads_nowhere_says_why() {
    let view = view(&[web()], &[slice("web", 3000, &[("10.42.0.1", "unready")])]);
    let why = |to: ServicePort| candidates(&view, &to, || 0).unwrap_err().to_string();
    assert_eq!(why(to("web", 80)), "no endpoints available for service \"web\"");
    assert_eq!(why(to("web", 53)), "no service port 53 found for service \"web\"", "it is UDP");
    assert_eq!(why(to("other", 80)), "there is no service \"other\"");
}

#[test]
fn a_client_stays_with_its_endpoint_and_only_those_of_a_lost_one_move() {
    let mut sticky = web();
    sticky["spec"]["sessionAffinity"] = "ClientIP".into();
    let all = [("10.42.0.1", ""), ("10.42.0.2", ""), ("10.42.0.3", "")];
    let before = view(&[sticky.clone()], &[slice("web", 80, &all)]);
    let after = view(&[sticky], &[slice("web", 80, &all[..2])]);
    let first = |view: &View, client: usize| {
        let to = ServicePort { peer: format!("10.0.0.{client}"), ..to("web", 80) };
        tried(view, &to, client).remove(0)
    };
    let mut used = std::collections::BTreeMap::<String, usize>::new();
    for client in 0..100 {
        let choice = first(&before, client);
        assert_eq!(first(&before, client), choice);
        if choice != "10.42.0.3:80" {
            assert_eq!(first(&after, client), choice);
        }
        *used.entry(choice).or_default() += 1;
    }
    assert!(used.len() == 3 && used.values().all(|count| *count > 15), "{used:?}");
}

#[test]
fn node_ports_are_those_of_tcp_and_ports_have_numbers_and_names() {
    let view = view(&[web()], &[]);
    let key = ObjectKey::new(SERVICES, "shop", "web");
    assert_eq!(node_ports(&view, view.object(&key).unwrap()), [(30080, 80)]);
    assert_eq!(service_port(&view, &key, Some("http")), Some(80));
    assert_eq!(service_port(&view, &key, Some("80")), Some(80));
    assert_eq!(service_port(&view, &key, Some("81")), None);
    assert_eq!(service_port(&view, &key, None), None);
    assert_eq!(service_at(&view, "10.96.0.5".parse().unwrap()), Some(key));
    assert_eq!(service_at(&view, "10.96.0.6".parse().unwrap()), None);
}

#[test]
fn names_are_what_kubernetes_dns_makes_of_them() {
    let alias = json!({
        "metadata": {"name": "alias", "uid": "alias-uid", "namespace": "shop"},
        "spec": {"type": "ExternalName", "externalName": "db.example.com"},
    });
    let inner = json!({
        "metadata": {"name": "inner", "uid": "inner-uid", "namespace": "shop"},
        "spec": {"type": "ExternalName", "externalName": "web.shop.svc.cluster.local"},
    });
    let looped = json!({
        "metadata": {"name": "loop", "uid": "loop-uid", "namespace": "shop"},
        "spec": {"type": "ExternalName", "externalName": "loop.shop.svc.cluster.local"},
    });
    let services = [web(), headless(), alias, inner, looped];
    let view = view(&services, &[slice("db", 80, &[("10.42.0.7", ""), ("10.42.0.8", "unready")])]);
    let web = || Name::Service(ObjectKey::new(SERVICES, "shop", "web"));
    for name in ["web", "WEB", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local", "web.shop.svc.cluster.local."]
    {
        assert_eq!(look_up(&view, "shop", name), web(), "{name}");
    }
    assert_eq!(look_up(&view, "other", "web"), Name::Outside("web".into()));
    assert_eq!(look_up(&view, "other", "web.shop"), web());
    assert_eq!(look_up(&view, "other", "gone.shop.svc.cluster.local"), Name::Unknown);
    assert_eq!(look_up(&view, "shop", "alias"), Name::Outside("db.example.com".into()));
    assert_eq!(look_up(&view, "shop", "inner"), web());
    assert_eq!(look_up(&view, "shop", "loop"), Name::Unknown);
    assert_eq!(look_up(&view, "shop", "10-42-0-7.shop.pod"), Name::Address("10.42.0.7".parse().unwrap()));
    let of_db = Name::Pod(ObjectKey::new(SERVICES, "shop", "db"), "host-7".into());
    assert_eq!(look_up(&view, "shop", "host-7.db"), of_db);
    assert_eq!(look_up(&view, "shop", "host-8.db.shop.svc.cluster.local"), Name::Unknown, "it is not ready");
}

#[test]
fn a_headless_service_leads_to_its_pods_at_the_port_that_was_asked_for() {
    let view = view(&[headless()], &[slice("db", 80, &[("10.42.0.7", ""), ("10.42.0.8", "unready")])]);
    assert_eq!(tried(&view, &to("db", 5432), 0), ["10.42.0.7:5432"]);
    assert_eq!(addresses(&view, &ObjectKey::new(SERVICES, "shop", "db")), ["10.42.0.7".parse::<IpAddr>().unwrap()]);
}

#[test]
fn the_endpoints_of_a_service_without_a_selector_are_the_users_slices() {
    let mut manual = web();
    manual["spec"]["selector"] = Value::Null;
    let mut kept = slice("web", 5000, &[("192.0.2.1", "")]);
    kept["metadata"]["ownerReferences"] = Value::Null;
    let view = view(&[manual], &[kept]);
    assert_eq!(tried(&view, &to("web", 80), 0), ["192.0.2.1:5000"]);
}
