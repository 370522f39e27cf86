use coracle_api::resources;
use coracle_store::{Settlement, Want};
use serde_json::{Value, json};

use super::ServiceStrategy;
use crate::kinds::testing::{World, cells, texts};
use crate::strategy::Strategy;

fn service(spec: Value) -> Value {
    json!({"metadata": {"name": "s1", "namespace": "default"}, "spec": spec})
}

/// A Service as it is stored, with its address.
fn stored() -> Value {
    let mut object = service(json!({"clusterIP": "10.43.0.7", "selector": {"a": "b"}, "ports": [{"port": 80}]}));
    World::new().create(&ServiceStrategy, &mut object).unwrap();
    object
}

/// A world in which a Service holds 10.43.0.7 and the node port 30080.
fn holding() -> World {
    let mut held = stored();
    held["spec"]["type"] = "NodePort".into();
    held["spec"]["ports"][0]["nodePort"] = 30_080.into();
    let settlements = World::new().settlements(&ServiceStrategy, &held, None);
    World::new().with_settled(&resources::SERVICES, held, settlements)
}

#[track_caller]
fn updated(mut new: Value, old: &Value) -> Value {
    World::new().update(&ServiceStrategy, "", &mut new, old).unwrap();
    new
}

fn wrong(mut object: Value) -> Vec<String> {
    World::new().create(&ServiceStrategy, &mut object).unwrap();
    texts(ServiceStrategy.validate(&object, None, ""))
}

/// Settlements in short: what is taken and where it goes, what is given back.
fn plan(object: &Value, old: Option<&Value>) -> Vec<String> {
    let short = |settlement: Settlement| match settlement {
        Settlement::Allocate { pool, want: Want::Any, pointers, .. } => {
            format!("{} any {}", pool.name, pointers.join(" "))
        }
        Settlement::Allocate { pool, want: Want::Exactly(value), .. } => format!("{} {value}", pool.name),
        Settlement::Release { pool, value, .. } => format!("{pool} back {value}"),
        other => format!("{other:?}"),
    };
    World::new().settlements(&ServiceStrategy, object, old).into_iter().map(short).collect()
}

#[test]
fn a_new_service_is_the_recorded_one_once_it_has_its_address() {
    let mut object = service(json!({"selector": {"a": "b"}, "ports": [{"port": 80}]}));
    World::new().create(&ServiceStrategy, &mut object).unwrap();
    let recorded = json!({"ports": [{"protocol": "TCP", "port": 80, "targetPort": 80}], "selector": {"a": "b"},
        "type": "ClusterIP", "sessionAffinity": "None", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
        "internalTrafficPolicy": "Cluster"});
    assert_eq!((&object["spec"], &object["status"]), (&recorded, &json!({"loadBalancer": {}})));
    assert!(ServiceStrategy.validate(&object, None, "").is_empty());
    assert_eq!(plan(&object, None), ["service-addresses any /spec/clusterIP /spec/clusterIPs/-"]);
}

#[test]
fn an_address_may_be_asked_for_within_the_range() {
    let first = u32::from(std::net::Ipv4Addr::new(10, 43, 0, 7));
    assert_eq!(plan(&stored(), None), [format!("service-addresses {first}")]);
    assert_eq!(stored()["spec"]["clusterIPs"], json!(["10.43.0.7"]));
    let mut outside = service(json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}));
    assert_eq!(
        World::new().create(&ServiceStrategy, &mut outside).unwrap_err().message,
        "Service \"s1\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.1\"]: failed to allocate IP 10.96.0.1: the \
         provided IP (10.96.0.1) is not in the valid range. The range of valid IPs is 10.43.0.0/16"
    );
    let mut other = service(json!({"clusterIP": "10.43.0.7", "ports": [{"port": 80}]}));
    other["metadata"]["name"] = "s2".into();
    assert_eq!(
        holding().create(&ServiceStrategy, &mut other).unwrap_err().message,
        "Service \"s2\" is invalid: spec.clusterIPs: Invalid value: [\"10.43.0.7\"]: failed to allocate IP 10.43.0.7: provided \
         IP is already allocated"
    );
}

#[test]
fn who_replaces_a_service_keeps_its_address() {
    let old = stored();
    let new = updated(service(json!({"selector": {"a": "c"}, "ports": [{"port": 80}]})), &old);
    assert_eq!(new["spec"]["clusterIPs"], json!(["10.43.0.7"]));
    assert_eq!(new["spec"]["ipFamilies"], json!(["IPv4"]));
    assert!(plan(&new, Some(&old)).is_empty());
    assert!(ServiceStrategy.validate(&new, Some(&old), "").is_empty());
}

#[test]
fn an_address_never_changes() {
    let old = stored();
    let mut new = old.clone();
    new["spec"]["clusterIP"] = "10.43.5.5".into();
    let new = updated(new, &old);
    assert_eq!(
        texts(ServiceStrategy.validate(&new, Some(&old), "")),
        ["spec.clusterIPs[0]: Invalid value: [\"10.43.5.5\"]: may not change once set"]
    );
}

#[test]
fn an_external_name_gives_the_address_back() {
    let old = stored();
    let mut new = old.clone();
    new["spec"]["type"] = "ExternalName".into();
    new["spec"]["externalName"] = "example.com".into();
    let new = updated(new, &old);
    assert_eq!(new["spec"].get("clusterIP"), None);
    let value = u32::from(std::net::Ipv4Addr::new(10, 43, 0, 7));
    assert_eq!(plan(&new, Some(&old)), [format!("service-addresses back {value}")]);
    assert!(ServiceStrategy.validate(&new, Some(&old), "").is_empty());
}

#[test]
fn node_ports_come_and_go_with_the_type() {
    let old = stored();
    let mut new = old.clone();
    new["spec"]["type"] = "NodePort".into();
    let mut new = updated(new, &old);
    assert_eq!(new["spec"]["externalTrafficPolicy"], "Cluster");
    assert_eq!(plan(&new, Some(&old)), ["node-ports any /spec/ports/0/nodePort"]);
    new["spec"]["ports"][0]["nodePort"] = 30_080.into();
    assert_eq!(plan(&new, Some(&old)), ["node-ports 30080"]);
    let mut replaced = new.clone();
    replaced["spec"]["ports"] = json!([{"port": 81}]);
    let replaced = updated(replaced, &new);
    assert_eq!(replaced["spec"]["ports"][0]["nodePort"], 30_080);
    let mut back = new.clone();
    back["spec"]["type"] = "ClusterIP".into();
    let back = updated(back, &new);
    assert_eq!(back["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(plan(&back, Some(&new)), ["node-ports back 30080"]);
    assert!(ServiceStrategy.validate(&back, Some(&new), "").is_empty());
}

#[test]
fn a_node_port_lies_in_the_range_and_is_free() {
    let mut outside = service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}));
    assert!(World::new().create(&ServiceStrategy, &mut outside).unwrap_err().message.ends_with(
        "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is \
         30000-32767"
    ));
    let mut taken = service(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30_080}]}));
    taken["metadata"]["name"] = "s2".into();
    assert_eq!(
        holding().create(&ServiceStrategy, &mut taken).unwrap_err().message,
        "Service \"s2\" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"
    );
}

#[test]
fn a_headless_service_has_no_address() {
    let mut headless = service(json!({"clusterIP": "None"}));
    World::new().create(&ServiceStrategy, &mut headless).unwrap();
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    assert_eq!(headless["spec"]["ipFamilyPolicy"], "RequireDualStack");
    assert!(plan(&headless, None).is_empty());
    assert!(ServiceStrategy.validate(&headless, None, "").is_empty());
}

#[test]
fn ports_are_checked() {
    assert_eq!(wrong(service(json!({}))), ["spec.ports: Required value"]);
    let ports =
        json!([{"port": 0}, {"name": "a", "port": 80, "nodePort": 30000}, {"name": "a", "port": 80, "protocol": "X"}]);
    assert_eq!(
        wrong(service(json!({"ports": ports}))),
        [
            "spec.ports[0].name: Required value",
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[2].name: Duplicate value: \"a\"",
            "spec.ports[2].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "spec.ports[1].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ]
    );
}

#[test]
fn types_and_policies_are_checked() {
    let spec = |extra: Value| {
        let mut spec = json!({"ports": [{"port": 80}]});
        spec.as_object_mut().unwrap().append(&mut extra.as_object().unwrap().clone());
        wrong(service(spec))
    };
    assert_eq!(
        spec(json!({"type": "Odd"}))[0],
        "spec.type: Unsupported value: \"Odd\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \
         \"NodePort\""
    );
    assert_eq!(spec(json!({"type": "ExternalName"})), ["spec.externalName: Required value"]);
    assert_eq!(
        spec(json!({"type": "NodePort", "clusterIP": "None"}))[0],
        "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"
    );
    assert_eq!(
        spec(json!({"externalTrafficPolicy": "Local"})),
        ["spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services"]
    );
    assert_eq!(
        spec(json!({"ipFamilyPolicy": "RequireDualStack"})),
        [
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services"
        ]
    );
    assert_eq!(
        spec(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}})),
        [
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than 86400"
        ]
    );
}

#[test]
fn the_row_shows_addresses_and_ports() {
    assert_eq!(
        cells(&ServiceStrategy, &stored()),
        json!(["s1", "ClusterIP", "10.43.0.7", "<none>", "80/TCP", "<unknown>", "a=b"])
    );
    let mut balanced = stored();
    balanced["spec"]["type"] = "LoadBalancer".into();
    balanced["spec"]["ports"] =
        json!([{"port": 80, "protocol": "TCP", "nodePort": 30080}, {"port": 53, "protocol": "UDP"}]);
    let row = cells(&ServiceStrategy, &balanced);
    assert_eq!((&row[3], &row[4]), (&json!("<pending>"), &json!("80:30080/TCP,53/UDP")));
    balanced["status"]["loadBalancer"]["ingress"] = json!([{"ip": "1.2.3.4"}]);
    assert_eq!(cells(&ServiceStrategy, &balanced)[3], "1.2.3.4");
    let named = service(json!({"type": "ExternalName", "externalName": "example.com"}));
    let row = cells(&ServiceStrategy, &named);
    assert_eq!(
        (&row[2], &row[3], &row[4], &row[6]),
        (&json!("<none>"), &json!("example.com"), &json!("<none>"), &json!("<none>"))
    );
}
