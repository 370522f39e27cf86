//! Services, slices and names over the view of a store.

use coracle_api::{Attributes, canonical_json};
use coracle_base::Timestamp;
use coracle_store::{Entry, Store, StoreOptions, Transaction, Write};
use serde_json::{Value, json};

use tokio::time::Instant;

use super::*;
use crate::dialer::names::{Name, look_up};
use crate::dialer::{End, Turns};

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
            let terminating = state.starts_with("terminating");
            let serving = !matches!(*state, "unready" | "terminating unready");
            let node = if *state == "on n2" { "n2" } else { "n1" };
            json!({
                "addresses": [address], "hostname": hostname, "nodeName": node,
                "conditions": {"ready": serving && !terminating, "serving": serving, "terminating": terminating},
                "targetRef": {"kind": "Pod", "name": hostname, "uid": format!("uid-{address}")},
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
    let (protocol, via) = (Protocol::Tcp, Via::Anyhow);
    let (service, peer) = (ObjectKey::new(SERVICES, "shop", service), "10.0.0.1".into());
    ServicePort { service, port, protocol, peer, via, from: End::Node }
}

fn via(service: &str, via: Via) -> ServicePort {
    ServicePort { via, ..to(service, 80) }
}

fn names(endpoints: &[Endpoint]) -> Vec<String> {
    endpoints.iter().map(|endpoint| format!("{}:{}", endpoint.address, endpoint.port)).collect()
}

#[track_caller]
fn tried(view: &View, to: &ServicePort) -> Vec<String> {
    names(&candidates(view, to).unwrap().endpoints)
}

#[test]
fn only_ready_endpoints_are_tried_each_first_in_its_turn() {
    let endpoints = [("10.42.0.1", ""), ("10.42.0.2", "unready"), ("10.42.0.3", "terminating"), ("10.42.0.4", "")];
    let view = view(&[web()], &[slice("web", 3000, &endpoints), slice("web", 4000, &[("10.42.0.9", "")])]);
    assert_eq!(tried(&view, &to("web", 80)), ["10.42.0.1:3000", "10.42.0.4:3000", "10.42.0.9:4000"]);
    let (turns, now) = (Turns::default(), Instant::now());
    let next = || names(&turns.order(&to("web", 80), candidates(&view, &to("web", 80)).unwrap(), now));
    assert_eq!(next(), ["10.42.0.4:3000", "10.42.0.9:4000", "10.42.0.1:3000"]);
    assert_eq!(next(), ["10.42.0.9:4000", "10.42.0.1:3000", "10.42.0.4:3000"]);
    assert_eq!(next()[0], "10.42.0.1:3000");
    let first = candidates(&view, &to("web", 80)).unwrap().endpoints.remove(0);
    assert_eq!(first.pod, Some(("n1".to_owned(), Uid::from("uid-10.42.0.1"))));
    assert_eq!(first.while_ending, WhileEnding::Refuse, "there are others if its pod turns out to end");
}

#[test]
fn a_service_that_leads_nowhere_says_why() {
    let view = view(&[web()], &[slice("web", 3000, &[("10.42.0.1", "unready")])]);
    let why = |to: ServicePort| candidates(&view, &to).unwrap_err().to_string();
    assert_eq!(why(to("web", 80)), "no endpoints available for service \"web\"");
    assert_eq!(why(to("web", 53)), "no service port 53 found for service \"web\"", "it is UDP");
    assert_eq!(why(to("other", 80)), "there is no service \"other\"");
}

#[test]
fn where_nobody_is_ready_those_that_end_and_serve_still_are_tried() {
    let ending = [("10.42.0.1", "terminating"), ("10.42.0.2", "unready"), ("10.42.0.3", "terminating unready")];
    // Endpoints that only say that they are terminating serve as long as they are ready for others.
    let mut slices = slice("web", 80, &ending);
    slices["endpoints"][0]["conditions"]["serving"] = true.into();
    let view = view(&[web()], &[slices]);
    assert_eq!(tried(&view, &to("web", 80)), ["10.42.0.1:80"]);
    let only = candidates(&view, &to("web", 80)).unwrap().endpoints.remove(0);
    assert_eq!(only.while_ending, WhileEnding::Connect, "it is known to end, and there is no other");
}

#[test]
fn pods_that_are_published_before_they_are_ready_are_tried() {
    let mut early = slice("web", 80, &[("10.42.0.1", "unready"), ("10.42.0.2", "terminating")]);
    for endpoint in early["endpoints"].as_array_mut().unwrap() {
        endpoint["conditions"]["ready"] = true.into();
    }
    assert_eq!(tried(&view(&[web()], &[early]), &to("web", 80)), ["10.42.0.1:80", "10.42.0.2:80"]);
}

#[test]
fn a_client_stays_with_its_endpoint_for_the_services_time_and_moves_when_it_is_gone() {
    let mut sticky = web();
    sticky["spec"]["sessionAffinity"] = "ClientIP".into();
    sticky["spec"]["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 60}});
    let all = [("10.42.0.1", ""), ("10.42.0.2", ""), ("10.42.0.3", "")];
    let before = view(&[sticky.clone()], &[slice("web", 80, &all)]);
    let after = view(&[sticky], &[slice("web", 80, &all[..2])]);
    let (turns, start) = (Turns::default(), Instant::now());
    let connect = |view: &View, client: usize, at: u64| {
        let to = ServicePort { peer: format!("10.0.0.{client}"), ..to("web", 80) };
        let found = candidates(view, &to).unwrap();
        let (affinity, now) = (found.affinity, start + Duration::from_secs(at));
        let first = turns.order(&to, found, now).remove(0);
        turns.connected(&to, &first, affinity, now);
        first.address.to_string()
    };
    let first: Vec<String> = (0..3).map(|client| connect(&before, client, 0)).collect();
    let used: std::collections::BTreeSet<&String> = first.iter().collect();
    assert_eq!(used.len(), 3, "clients take turns: {first:?}");
    for at in [30, 80, 130] {
        let again: Vec<String> = (0..3).map(|client| connect(&before, client, at)).collect();
        assert_eq!(again, first, "each connection begins the time anew");
    }
    let moved: Vec<String> = (0..3).map(|client| connect(&after, client, 140)).collect();
    for (was, is) in first.iter().zip(&moved) {
        assert!(was == is || was == "10.42.0.3", "{first:?} {moved:?}");
    }
    let after_its_time: std::collections::BTreeSet<String> =
        (0..3).map(|n| connect(&before, 0, 300 + n * 61)).collect();
    assert!(after_its_time.len() > 1, "it is any endpoint's turn again: {after_its_time:?}");
}

#[test]
fn local_traffic_policies_keep_connections_on_the_node_where_they_came_in() {
    let mut local = web();
    local["spec"]["internalTrafficPolicy"] = "Local".into();
    let mut outer = web();
    outer["metadata"]["name"] = "outer".into();
    outer["spec"]["externalTrafficPolicy"] = "Local".into();
    let endpoints = [("10.42.0.1", ""), ("10.42.1.2", "on n2")];
    let owned = |service: &str| {
        let mut slice = slice(service, 80, &endpoints);
        slice["metadata"]["ownerReferences"][0]["uid"] = "web-uid".into();
        slice
    };
    let view = view(&[local, outer], &[owned("web"), owned("outer")]);
    let on = |service, node: &str| (via(service, Via::Inside(node.into())), via(service, Via::Outside(node.into())));
    let (inside, outside) = on("web", "n2");
    assert_eq!(tried(&view, &inside), ["10.42.1.2:80"]);
    assert_eq!(tried(&view, &outside).len(), 2);
    let (inside, outside) = on("outer", "n1");
    assert_eq!(tried(&view, &inside).len(), 2);
    assert_eq!(tried(&view, &outside), ["10.42.0.1:80"]);
    assert_eq!(tried(&view, &via("outer", Via::Anyhow)).len(), 2);
    let nowhere = candidates(&view, &on("web", "n3").0).unwrap_err();
    assert_eq!(nowhere, Unroutable::LocalEndpoints("web".into()));
    let key = ObjectKey::new(SERVICES, "shop", "web");
    assert_eq!(["n1", "n2", "n3"].map(|node| ready_on(&view, &key, node)), [1, 1, 0]);
}

#[test]
fn endpoints_that_say_for_which_node_or_zone_they_are_are_taken_there_first() {
    let mut slices = slice("web", 80, &[("10.42.0.1", ""), ("10.42.1.2", "on n2")]);
    for (index, node) in ["n1", "n2"].into_iter().enumerate() {
        slices["endpoints"][index]["hints"] = json!({"forNodes": [{"name": node}]});
    }
    let hinted = view(&[web()], &[slices.clone()]);
    assert_eq!(tried(&hinted, &via("web", Via::Inside("n2".into()))), ["10.42.1.2:80"]);
    assert_eq!(tried(&hinted, &via("web", Via::Inside("n3".into()))).len(), 2, "nobody is for it: all are");
    slices["endpoints"][0]["hints"] = Value::Null;
    let partly = view(&[web()], &[slices]);
    assert_eq!(tried(&partly, &via("web", Via::Inside("n2".into()))).len(), 2, "not all say so");
}

#[test]
fn addresses_outside_lead_to_the_service_that_has_them_and_the_port() {
    let mut service = web();
    service["spec"]["externalIPs"] = json!(["192.0.2.7"]);
    service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.8"}]}});
    let view = view(&[service], &[]);
    let at = |address: &str, port| service_outside(&view, address.parse().unwrap(), port, Protocol::Tcp);
    let key = Some(ObjectKey::new(SERVICES, "shop", "web"));
    assert_eq!([at("192.0.2.7", 80), at("192.0.2.8", 80)], [key.clone(), key]);
    assert_eq!([at("192.0.2.7", 53), at("192.0.2.9", 80)], [None, None], "53 is UDP");
}

#[test]
fn ports_have_numbers_and_names() {
    let view = view(&[web()], &[]);
    let key = ObjectKey::new(SERVICES, "shop", "web");
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
    let of_db = Name::Endpoint(ObjectKey::new(SERVICES, "shop", "db"), "host-7".into());
    assert_eq!(look_up(&view, "shop", "host-7.db"), of_db);
    assert_eq!(look_up(&view, "shop", "host-8.db.shop.svc.cluster.local"), Name::Unknown, "it is not ready");
}

#[test]
fn a_headless_service_leads_to_its_pods_at_the_port_that_was_asked_for() {
    let view = view(&[headless()], &[slice("db", 80, &[("10.42.0.7", ""), ("10.42.0.8", "unready")])]);
    assert_eq!(tried(&view, &to("db", 5432)), ["10.42.0.7:5432"]);
    assert_eq!(addresses(&view, &ObjectKey::new(SERVICES, "shop", "db")), ["10.42.0.7".parse::<IpAddr>().unwrap()]);
}

#[test]
fn the_endpoints_of_a_service_without_a_selector_are_the_users_slices() {
    let mut manual = web();
    manual["spec"]["selector"] = Value::Null;
    let mut kept = slice("web", 5000, &[("192.0.2.1", "")]);
    kept["metadata"]["ownerReferences"] = Value::Null;
    let view = view(&[manual], &[kept]);
    assert_eq!(tried(&view, &to("web", 80)), ["192.0.2.1:5000"]);
}
