use expect_test::expect;

use super::*;
use crate::testing::{check, key_of, run};

fn controller() -> EndpointSliceController {
    EndpointSliceController::new(Rng::seeded(1))
}

fn endpoints(world: &crate::testing::World) -> Vec<String> {
    let view = world.view();
    let one = |e: &Value| {
        format!(
            "{} ready={} terminating={}",
            text(&e["addresses"][0]),
            e["conditions"]["ready"],
            e["conditions"]["terminating"]
        )
    };
    view.list(&ENDPOINT_SLICES, None)
        .flat_map(|slice| list(&slice.value(None)["endpoints"]).iter().map(one).collect::<Vec<_>>())
        .collect()
}

#[test]
fn a_service_without_pods_has_an_empty_slice() {
    let world = check(
        controller(),
        "service/web",
        "service/web",
        expect![[r#"
        # round 0
        create EndpointSlice/web-wsj4b
    "#]],
    );
    assert_eq!(
        world.field("slice/web-wsj4b", "metadata.labels").matches("\"kubernetes.io/service-name\":\"web\"").count(),
        1
    );
}

#[test]
fn pods_with_an_address_are_endpoints_and_only_ready_ones_count_as_ready() {
    let mut world = check(
        controller(),
        "service/web",
        "
        service/web
        pod/a  label=app:web ip=10.42.0.1 ready=true node=n1
        pod/b  label=app:web ip=10.42.0.2 ready=false
        pod/c  label=app:web
        pod/d  label=app:web ip=10.42.0.4 phase=Failed
        pod/e  label=app:web ip=10.42.0.5 ready=true going=now
        pod/f  label=app:db ip=10.42.0.6 ready=true
        ",
        expect![[r#"
            # round 0
            create EndpointSlice/web-wsj4b
        "#]],
    );
    assert_eq!(
        endpoints(&world),
        [
            "10.42.0.1 ready=true terminating=false",
            "10.42.0.2 ready=false terminating=false",
            "10.42.0.5 ready=false terminating=true",
        ]
    );
    assert_eq!(world.field("slice/web-wsj4b", "ports"), r#"[{"name":"","port":8080,"protocol":"TCP"}]"#);
    world.apply_line("pod/b ready=true");
    world.remove("pod/a");
    run(&mut controller(), "service/web", &mut world);
    assert_eq!(endpoints(&world), ["10.42.0.2 ready=true terminating=false", "10.42.0.5 ready=false terminating=true"]);
}

#[test]
fn slices_hold_a_hundred_and_a_change_rewrites_one() {
    let pods: Vec<String> = (0..150).map(|n| format!("pod/p{n:03} label=app:web ip=10.42.1.{n} ready=true")).collect();
    let pods = pods.join("\n");
    let mut world = check(
        controller(),
        "service/web",
        &format!("service/web\n{pods}"),
        expect![[r#"
        # round 0
        create EndpointSlice/web-wsj4b
        create EndpointSlice/web-425vg
    "#]],
    );
    world.log.clear();
    world.apply_line("pod/p010 ready=false");
    run(&mut controller(), "service/web", &mut world);
    assert_eq!(world.log.lines().count(), 2);
    assert_eq!(endpoints(&world).len(), 150);
}

#[test]
fn the_placeholder_gives_way_to_the_first_real_slice() {
    let mut world = check(
        controller(),
        "service/web",
        "service/web",
        expect![[r#"
        # round 0
        create EndpointSlice/web-wsj4b
    "#]],
    );
    world.apply_line("pod/a label=app:web ip=10.42.0.1 ready=true");
    let mut other = EndpointSliceController::new(Rng::seeded(2));
    run(&mut other, "service/web", &mut world);
    assert_eq!(world.names(&ENDPOINT_SLICES).len(), 1);
    assert!(world.view().object(&key_of("slice/web-wsj4b")).is_none());
}

#[test]
fn a_service_without_a_selector_is_its_users() {
    check(controller(), "service/web", "service/web spec.selector=null", expect![[""]]);
}

#[test]
fn endpoints_say_for_whom_they_are_where_the_service_asks_for_it() {
    let fixture = "
        node/n1 label=topology.kubernetes.io/zone:east
        service/web spec.trafficDistribution=PreferSameNode
        pod/a label=app:web ip=10.42.0.1 ready=true node=n1
        pod/b label=app:web ip=10.42.0.2 ready=false node=n1
        ";
    let mut world = crate::testing::World::new(fixture);
    run(&mut controller(), "service/web", &mut world);
    let hints = |world: &crate::testing::World| -> Vec<String> {
        let slice = world.view().list(&ENDPOINT_SLICES, None).next().unwrap().value(None);
        list(&slice["endpoints"]).iter().map(|endpoint| endpoint["hints"].to_string()).collect()
    };
    let both = r#"{"forNodes":[{"name":"n1"}],"forZones":[{"name":"east"}]}"#;
    assert_eq!(hints(&world), [both, "null"]);
    world.apply_line("service/web spec.trafficDistribution=PreferClose");
    run(&mut controller(), "service/web", &mut world);
    assert_eq!(hints(&world), [r#"{"forZones":[{"name":"east"}]}"#, "null"]);
}
