//! A program of the standard library under virtual time, and in production.

use std::process::Command;
use std::sync::OnceLock;

use bytes::Bytes;
use coracle_base::{Instant, Now, Rng, Timestamp};
use coracle_node::runtime::{
    ContainerSpec, Exit, Mount, Propagation, RuntimeCommand, RuntimeEvent, VolumeFile, VolumeSource,
};
use coracle_runtime_wasm::simulated::{SimulatedImages, SimulatedRuntime};

use crate::support::{POD, World, sandbox, spec};

/// `tests/programs/everything.rs`, built once in each process that runs tests.
fn everything() -> &'static [u8] {
    static PROGRAM: OnceLock<Vec<u8>> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/everything.rs");
        let folder = tempfile::tempdir().unwrap();
        let built = folder.path().join("everything.wasm");
        let status = Command::new("rustc")
            .args([
                "--edition",
                "2024",
                "--target",
                "wasm32-wasip1",
                "-C",
                "opt-level=1",
                "-C",
                "strip=symbols",
                source,
                "-o",
            ])
            .arg(&built)
            .status()
            .unwrap();
        assert!(status.success(), "the program does not build");
        std::fs::read(built).unwrap()
    })
}

fn volume(name: &str, source: VolumeSource) -> RuntimeCommand {
    RuntimeCommand::WriteVolume { pod: POD.into(), volume: name.to_owned(), source }
}

fn mount(volume: &str) -> Mount {
    Mount {
        volume: volume.to_owned(),
        path: format!("/{volume}"),
        sub_path: None,
        read_only: false,
        propagation: Propagation::None,
    }
}

fn given() -> RuntimeCommand {
    let word = VolumeFile { path: "sub/word".to_owned(), contents: Bytes::from_static(b"swordfish"), mode: 0o644 };
    volume("given", VolumeSource::Files(vec![word]))
}

fn own() -> RuntimeCommand {
    volume("own", VolumeSource::EmptyDir { size_limit: None, in_memory: false })
}

fn container(wait: u64) -> ContainerSpec {
    ContainerSpec {
        args: vec!["--all".to_owned()],
        env: vec![("WAIT".to_owned(), wait.to_string())],
        mounts: vec![mount("given"), mount("own")],
        ..spec("everything")
    }
}

/// Runs the program to its end: what it printed, how it ended, and how many seconds that took.
fn run(seed: u64, wait: u64) -> (String, Exit, u64) {
    let images = SimulatedImages::new().unwrap();
    images.import("everything", everything()).unwrap();
    let mut runtime = SimulatedRuntime::new(images, 1 << 30, Rng::seeded(seed));
    let mut now = Now { mono: Instant::ZERO, wall: Timestamp::from_secs(1_000_000_000) };
    let spec = container(wait);
    let start = RuntimeCommand::StartContainer(spec.id.clone());
    let create = RuntimeCommand::CreateContainer(Box::new(spec));
    for command in [RuntimeCommand::CreateSandbox(sandbox()), given(), own(), create, start] {
        runtime.command(&command, now);
    }
    let mut printed = String::new();
    loop {
        let due = runtime.next_wakeup().expect("the program has not ended");
        now = now.after(due.saturating_since(now.mono));
        let events = runtime.run(now);
        for output in runtime.take_output() {
            printed.push_str(&String::from_utf8(output.bytes).unwrap());
        }
        if let Some(RuntimeEvent::ContainerExited { exit, .. }) = events.into_iter().next() {
            return (printed, exit, now.mono.as_nanos() / 1_000_000_000);
        }
    }
}

/// What is printed before anything that is drawn.
fn steady(printed: &str) -> Vec<&str> {
    printed.lines().take_while(|line| !line.starts_with("drawn")).collect()
}

#[test]
fn a_program_of_the_standard_library_finds_what_it_finds_in_production() {
    let (printed, exit, _) = run(1, 0);
    let world = World::new();
    world.runtime.import("everything", everything()).unwrap();
    world.send(given());
    world.send(own());
    let spec = container(0);
    let id = spec.id.clone();
    world.create(spec).unwrap();
    world.start(&id).unwrap();
    assert_eq!(world.exit(&id), exit);
    assert_eq!(steady(&printed), steady(&world.log(&id, "stdout")));
    assert_eq!((exit.code, exit.message.as_deref()), (3, Some("done")), "{printed}");
    assert!(printed.contains("moved Ok(\"hello!\")"), "{printed}");
}

#[test]
fn its_hour_of_sleep_is_an_hour_of_both_clocks_and_what_it_draws_is_the_seeds() {
    let (printed, exit, seconds) = run(1, 3600);
    assert_eq!(seconds, 3600);
    assert!(printed.contains("slept 3600 s, 3600 s by the wall"), "{printed}");
    let other = run(2, 3600).0;
    assert_eq!(steady(&other), steady(&printed));
    assert_ne!(other, printed);
    assert_eq!(run(1, 3600), (printed, exit, seconds));
}
