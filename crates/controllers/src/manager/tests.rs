use std::time::Duration;

use coracle_api::resources::CONFIG_MAPS;
use serde_json::json;

use super::*;
use crate::testing::{World, key_of};
use crate::{Outcome, Patch};

/// Patches every ConfigMap that has no `data.done`, `count` times at once.
#[derive(Debug)]
struct Marker {
    count: usize,
    rest: Duration,
}

impl Controller for Marker {
    fn name(&self) -> &'static str {
        "marker"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::own(CONFIG_MAPS)]
    }

    fn reconcile(&mut self, context: Context<'_>, key: &ObjectKey) -> Outcome {
        let done = context.view.object(key).is_none_or(|object| !object.value(None)["data"]["done"].is_null());
        let patch = Patch::Merge(json!({"data": {"done": "yes"}}));
        let action = Action::Patch { key: key.clone(), subresource: None, patch };
        let actions = if done { Vec::new() } else { vec![action; self.count] };
        Outcome { actions, requeue_after: None, rest: self.rest }
    }
}

fn manager(count: usize, rest: Duration, fixture: &str) -> (Manager, World) {
    let world = World::new(fixture);
    let mut manager = Manager::new(vec![Box::new(Marker { count, rest })]);
    manager.resync(&world.view());
    (manager, world)
}

/// A change of a ConfigMap, as the store reports it.
fn touch(manager: &mut Manager, world: &mut World, line: &str) {
    let before = world.view().revision();
    world.apply_line(line);
    let view = world.view();
    for change in view.changes_after(&CONFIG_MAPS, before).unwrap() {
        manager.observe(&view, &change);
    }
}

#[test]
fn a_key_is_left_alone_until_its_actions_are_settled() {
    let (mut manager, mut world) = manager(1, Duration::ZERO, "cm/a");
    let view = world.view();
    let works = manager.next(&view, world.now, 10);
    assert_eq!(works.len(), 1);
    touch(&mut manager, &mut world, "cm/a data.x=1");
    assert!(manager.next(&world.view(), world.now, 10).is_empty());
    manager.settled(world.now, works[0].id, vec![Ok(())]);
    assert_eq!(manager.next(&world.view(), world.now, 10).len(), 1);
}

#[test]
fn a_budget_and_a_hundred_actions_bound_a_step() {
    let (mut manager, world) = manager(150, Duration::ZERO, "cm/a\ncm/b");
    let works = manager.next(&world.view(), world.now, 1);
    assert_eq!((works.len(), works[0].actions.len()), (1, 100));
    assert_eq!(manager.next_wakeup(), Some(Instant::ZERO));
    // What was cut off is asked for again.
    manager.next(&world.view(), world.now, 10);
    manager.settled(world.now, works[0].id, vec![Ok(()); 100]);
    assert_eq!(manager.next(&world.view(), world.now, 10).len(), 1);
}

#[test]
fn failures_wait_longer_and_longer_and_a_success_forgets_them() {
    let (mut manager, mut world) = manager(1, Duration::ZERO, "cm/a");
    let conflict = || Err(Status::conflict(&CONFIG_MAPS, "a", "changed"));
    for wait in [5, 10, 20] {
        let works = manager.next(&world.view(), world.now, 10);
        manager.settled(world.now, works[0].id, vec![conflict()]);
        assert!(manager.next(&world.view(), world.now, 10).is_empty());
        world.now = world.now.after(Duration::from_millis(wait));
        assert_eq!(manager.next_wakeup(), Some(world.now.mono));
    }
    let works = manager.next(&world.view(), world.now, 10);
    manager.settled(world.now, works[0].id, vec![Ok(())]);
    touch(&mut manager, &mut world, "cm/a data.x=1");
    let works = manager.next(&world.view(), world.now, 10);
    manager.settled(world.now, works[0].id, vec![conflict()]);
    assert_eq!(manager.next_wakeup(), Some(world.now.mono + Duration::from_millis(5)));
}

#[test]
fn a_key_that_rests_takes_many_changes_at_once() {
    let (mut manager, mut world) = manager(1, Duration::from_millis(10), "cm/a data.done=yes");
    assert!(manager.next(&world.view(), world.now, 10).is_empty());
    for n in 0..5 {
        touch(&mut manager, &mut world, &format!("cm/a data={{\"n\":{n}}}"));
    }
    assert!(manager.next(&world.view(), world.now, 10).is_empty());
    world.now = world.now.after(Duration::from_millis(10));
    assert_eq!(manager.next(&world.view(), world.now, 10).len(), 1);
    assert!(world.view().object(&key_of("cm/a")).is_some());
}
