//! Interfaces beyond WASI's core: configuration, logging, and what a pod is to its program.

use coracle_node::runtime::{PodMetadata, RuntimeCommand};

use crate::support::{POD, World};

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

#[test]
fn a_component_reads_its_containers_environment_as_its_configuration() {
    let world = World::new();
    let id = world.launch_component("settings", |spec| spec.env = pairs([("COLOR", "blue"), ("a.b-c", "1")]));
    assert_eq!(world.exit(&id).code, 0);
    let said = world.log(&id, "stdout");
    for line in [
        "color Ok(Some(\"blue\"))",
        "nothing Ok(None)",
        r#"all Ok([("HOSTNAME", "web-0"), ("COLOR", "blue"), ("a.b-c", "1")])"#,
    ] {
        assert!(said.contains(line), "{line} is not in\n{said}");
    }
}

#[test]
fn what_a_component_logs_is_a_line_each_with_its_level_and_context() {
    let world = World::new();
    let id = world.launch_component("settings", |_| {});
    assert_eq!(world.exit(&id).code, 0);
    assert_eq!(world.log(&id, "stderr"), "WARN tests: two\\nlines\nINFO: no context\n");
}

#[test]
fn a_component_that_asks_for_its_termination_is_told_and_ends_by_itself() {
    let world = World::new();
    let id = world.launch_component("steadfast", |_| {});
    world.wait_for_log(&id, "stdout", "terminating false");
    world.send(RuntimeCommand::StopContainer(id.clone()));
    assert_eq!(world.exit(&id).code, 1);
    assert!(world.log(&id, "stdout").contains("told true true"), "{}", world.log(&id, "stdout"));
}

#[test]
fn a_component_that_is_told_before_it_asks_hears_it_at_once() {
    let world = World::new();
    let id = world.launch_component("steadfast", |_| {});
    world.send(RuntimeCommand::StopContainer(id.clone()));
    assert_eq!(world.exit(&id).code, 1);
}

#[test]
fn a_component_that_was_told_and_goes_on_is_killed() {
    let world = World::new();
    let id = world.launch_component("steadfast", |spec| spec.args = vec!["deaf".to_owned()]);
    world.send(RuntimeCommand::StopContainer(id.clone()));
    world.wait_for_log(&id, "stdout", "told true true");
    world.send(RuntimeCommand::KillContainer(id.clone()));
    assert_eq!(world.exit(&id).code, 137);
}

#[test]
fn a_component_that_asks_for_nothing_ends_at_once() {
    let world = World::new();
    let spins = r#"(component
        (core module $m (func (export "run") (result i32) (loop (br 0)) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $cli (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $cli)))"#;
    let id = world.launch(spins, |_| {});
    world.send(RuntimeCommand::StopContainer(id.clone()));
    assert_eq!(world.exit(&id).code, 143);
}

#[test]
fn a_component_says_whether_it_is_ready_and_a_repetition_is_not_told() {
    let world = World::new();
    let id = world.launch_component("steadfast", |spec| spec.args = vec!["unready".to_owned()]);
    world.wait_for_log(&id, "stdout", "terminating false");
    assert_eq!(world.host.said_ready(), [false]);
    world.send(RuntimeCommand::StopContainer(id.clone()));
    assert_eq!(world.exit(&id).code, 1);
    assert_eq!(world.host.said_ready(), [false, true]);
}

#[test]
fn a_key_value_store_that_does_not_answer_is_an_error_of_the_guests_call() {
    let world = World::new();
    let id = world.launch_component("keys", |spec| spec.args = ["stock", "get", "a"].map(str::to_owned).into());
    assert_eq!(world.exit(&id).code, 0);
    let said = world.log(&id, "stdout");
    assert_eq!(said, "open Error::Other(\"there is no key-value store here\")\n");
}

#[test]
fn a_component_reads_what_its_pod_is() {
    let world = World::new();
    let id = world.launch_component("steadfast", |spec| {
        spec.pod = PodMetadata {
            node: "laptop".to_owned(),
            labels: pairs([("app", "web"), ("tier", "front")]).into_iter().collect(),
            annotations: pairs([("why", "to see")]).into_iter().collect(),
        };
    });
    world.wait_for_log(&id, "stdout", "annotations");
    let said = world.log(&id, "stdout");
    assert!(said.starts_with(&format!("default/{POD} {POD} on laptop at 10.42.0.5\n")), "{said}");
    let maps = r#"labels [("app", "web"), ("tier", "front")] annotations [("why", "to see")]"#;
    assert!(said.contains(maps), "{said}");
}
