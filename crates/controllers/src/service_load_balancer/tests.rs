use super::*;
use crate::testing::{World, run};

const NODES_OF_TWO: &str = r#"
    node/n1 Ready=True status.addresses=[{"type":"InternalIP","address":"192.0.2.1"}]
    node/n2 Ready=True status.addresses=[{"type":"InternalIP","address":"192.0.2.2"}]
    node/n3 Ready=False status.addresses=[{"type":"InternalIP","address":"192.0.2.3"}]
    node/f  Ready=True status.addresses=[{"type":"InternalIP","address":"192.0.2.4"}] metadata.annotations={"kwok.x-k8s.io/node":"fake"}
"#;

/// The addresses that a service is given in a world.
#[track_caller]
fn ingress(world: &mut World, service: &str) -> Vec<String> {
    run(&mut ServiceLoadBalancerController, service, world);
    let text = world.field(service, "status.loadBalancer");
    let balancer: Value = serde_json::from_str(&text).unwrap_or_default();
    list(&balancer["ingress"]).iter().map(|ingress| super::text(&ingress["ip"]).to_owned()).collect()
}

#[test]
fn the_nodes_that_are_ready_are_the_load_balancer() {
    let mut world = World::new(&format!("{NODES_OF_TWO}\nservice/web spec.type=LoadBalancer"));
    assert_eq!(ingress(&mut world, "service/web"), ["192.0.2.1", "192.0.2.2"]);
    world.apply_line("node/n1 Ready=False");
    assert_eq!(ingress(&mut world, "service/web"), ["192.0.2.2"]);
    world.apply_line("node/n2 Ready=False");
    assert_eq!(ingress(&mut world, "service/web"), [""; 0]);
}

#[test]
fn addresses_outside_are_told_rather_than_those_inside() {
    let outside = r#"status.addresses=[{"type":"InternalIP","address":"192.0.2.9"},{"type":"ExternalIP","address":"198.51.100.1"}]"#;
    let mut world =
        World::new(&format!("{NODES_OF_TWO}\nnode/n4 Ready=True {outside}\nservice/web spec.type=LoadBalancer"));
    assert_eq!(ingress(&mut world, "service/web"), ["198.51.100.1"]);
}

#[test]
fn a_service_that_stays_local_is_told_of_the_nodes_that_have_it() {
    let slice = r#"slice/web-1 label=kubernetes.io/service-name:web endpoints=[{"nodeName":"n2","conditions":{"ready":true}},{"nodeName":"n1","conditions":{"ready":false}}]"#;
    let service = "service/web spec.type=LoadBalancer spec.externalTrafficPolicy=Local";
    let mut world = World::new(&format!("{NODES_OF_TWO}\n{service}\n{slice}"));
    assert_eq!(ingress(&mut world, "service/web"), ["192.0.2.2"]);
}

#[test]
fn of_two_that_want_a_port_the_older_has_it_and_the_other_when_it_is_free() {
    let mut world =
        World::new(&format!("{NODES_OF_TWO}\nservice/a spec.type=LoadBalancer\nservice/b spec.type=LoadBalancer"));
    assert_eq!(ingress(&mut world, "service/a").len(), 2);
    assert_eq!(ingress(&mut world, "service/b").len(), 0);
    world.remove("service/a");
    assert_eq!(ingress(&mut world, "service/b").len(), 2);
}

#[test]
fn a_service_of_another_class_or_type_is_left_alone() {
    let mut world = World::new(&format!(
        "{NODES_OF_TWO}\nservice/a spec.type=LoadBalancer spec.loadBalancerClass=example.com/lb\nservice/b spec.type=NodePort"
    ));
    assert_eq!(ingress(&mut world, "service/a").len(), 0);
    assert_eq!(ingress(&mut world, "service/b").len(), 0);
}
