//! Memory, CPU and fuel.

use coracle_node::runtime::RuntimeCommand;

use crate::support::World;

/// Grows by 16 pages (1 MiB) until it has grown `steps` times.
fn grows(steps: u32) -> String {
    format!(
        r#"(module (memory 0) (func (export "_start") (local $i i32)
            (loop $again
                (drop (memory.grow (i32.const 16)))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $i) (i32.const {steps}))))))"#
    )
}

const SPIN: &str = r#"(module (func (export "_start") (loop (br 0))))"#;

#[test]
fn a_guest_one_step_past_its_memory_is_oom_killed_and_one_just_under_runs() {
    let world = World::new();
    let run = |steps, instance| {
        world.run(&grows(steps), |spec| {
            spec.limits.memory = Some(64 << 20);
            spec.id.instance = instance;
        })
    };
    assert_eq!(run(64, 0).code, 0);
    let exit = run(65, 1);
    assert_eq!((exit.code, exit.reason.as_deref()), (137, Some("OOMKilled")));
}

#[test]
fn a_guest_whose_first_memory_is_too_much_is_oom_killed() {
    let world = World::new();
    let exit = world.run(r#"(module (memory 32) (func (export "_start")))"#, |spec| spec.limits.memory = Some(1 << 20));
    assert_eq!((exit.code, exit.reason.as_deref()), (137, Some("OOMKilled")));
}

#[test]
fn a_guest_that_used_up_its_fuel_ends_and_one_with_enough_does_not() {
    let world = World::new();
    let exit = world.run(SPIN, |spec| spec.limits.fuel = Some(1_000_000));
    assert_eq!((exit.code, exit.reason.as_deref()), (137, Some("FuelExhausted")));
    let exit = world.run(&grows(3), |spec| {
        spec.limits.fuel = Some(1_000_000);
        spec.id.instance = 1;
    });
    assert_eq!(exit.code, 0);
}

#[test]
fn a_rate_of_fuel_slows_a_guest_and_does_not_end_it() {
    let world = World::new();
    // Some 100 million instructions at 500 million a second; what a slice of a millisecond takes too much is waited for.
    let counts = r#"(module (func (export "_start") (local $i i32)
        (loop $again
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $i) (i32.const 20000000))))))"#;
    let start = std::time::Instant::now();
    let exit = world.run(counts, |spec| spec.limits.fuel_per_second = Some(500_000_000));
    assert_eq!(exit.code, 0);
    assert!(start.elapsed().as_millis() > 100, "{:?}", start.elapsed());
}

#[test]
fn a_limited_spinner_gets_its_share_of_time() {
    let world = World::new();
    let id = world.launch(SPIN, |spec| spec.limits.cpu_millis = Some(250));
    let start = std::time::Instant::now();
    // A quarter of a core for 200 ms of CPU takes 800 ms; a busy machine may only make it longer.
    let used = loop {
        world.send(RuntimeCommand::Stats);
        let cpu = world.host.take_cpu_nanos();
        if cpu >= 200_000_000 {
            break cpu;
        }
        std::thread::yield_now();
    };
    let share = used as f64 / start.elapsed().as_nanos() as f64;
    assert!(share < 0.33, "{share}");
    world.send(RuntimeCommand::KillContainer(id.clone()));
    assert_eq!(world.exit(&id).code, 137);
}
