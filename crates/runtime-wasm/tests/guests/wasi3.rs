//! Guests of WASI 0.3: commands, and services whose instances answer many requests.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use coracle_node::runtime::{ContainerId, ContainerSpec, Exit, Limits, ProbeAction, ProbeResult, RuntimeCommand};
use coracle_runtime_wasm::WasmOptions;

use crate::support::{OTHER_POD, POD, World, block_on, exchange_over, spec};

/// `tests/programs/wasi3`, built once in each process that runs tests.
fn guest(name: &str) -> Vec<u8> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/wasi3/Cargo.toml");
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("wasi3");
        let status = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--locked",
                "--release",
                "--examples",
                "--target",
                "wasm32-wasip2",
                "--manifest-path",
                manifest,
            ])
            .arg("--target-dir")
            .arg(&target)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .status()
            .unwrap();
        assert!(status.success(), "the guests do not build");
        target.join("wasm32-wasip2/release/examples")
    });
    std::fs::read(built.join(name).with_extension("wasm")).unwrap()
}

fn world() -> World {
    let world = World::new();
    world.add_other_pod();
    world.runtime.import("command", &guest("command")).unwrap();
    world.runtime.import("service", &guest("service")).unwrap();
    world
}

fn start(world: &World, pod: &str, container: &str, args: &[&str], limits: Limits) -> ContainerId {
    let id = ContainerId { pod: pod.into(), container: container.to_owned(), instance: 0 };
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    world.create(ContainerSpec { id: id.clone(), args, limits, ..spec("command") }).unwrap();
    world.start(&id).unwrap();
    id
}

/// Runs a command to its end.
fn run(world: &World, container: &str, args: &[&str], limits: Limits) -> (Exit, String) {
    let id = start(world, POD, container, args, limits);
    (world.exit(&id), world.log(&id, "stdout"))
}

/// Starts the service and waits until it listens.
fn serving(world: &World, limits: Limits) -> ContainerId {
    let service = ContainerSpec { limits, ..spec("service") };
    let id = service.id.clone();
    world.create(service).unwrap();
    world.start(&id).unwrap();
    while world.probe(ProbeAction::Tcp { host: None, port: 8080 }) != ProbeResult::Success {}
    id
}

/// Asks the service on a connection of its own; its answer without the head's other lines.
fn get(world: &World, path: &str) -> (u16, String) {
    split(&exchange_over(world.open(8080).unwrap(), &request(path)))
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: web:8080\r\nconnection: close\r\n\r\n")
}

fn split(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    // One chunk, and the last one.
    let body = match body.split_once("\r\n") {
        Some((_, chunk)) if head.contains("chunked") => chunk.trim_end_matches("0\r\n\r\n").trim_end_matches("\r\n"),
        _ => body,
    };
    (status, body.to_owned())
}

#[test]
fn a_command_prints_and_ends_with_its_own_code() {
    let world = world();
    let (exit, said) = run(&world, "hello", &["hello", "world"], Limits::default());
    assert_eq!((exit.code, said.as_str()), (0, "hello world\n"));
    assert_eq!(run(&world, "fail", &["fail"], Limits::default()).0.code, 1);
    assert_eq!(run(&world, "exit", &["exit", "7"], Limits::default()).0.code, 7);
    assert_eq!(run(&world, "trap", &["trap"], Limits::default()).0.code, 134);
}

#[test]
fn a_command_ends_when_it_is_asked_to_even_while_it_spins() {
    let world = world();
    let id = start(&world, POD, "spin", &["spin"], Limits::default());
    world.send(RuntimeCommand::StopContainer(id.clone()));
    assert_eq!(world.exit(&id).code, 143);
    let id = start(&world, POD, "sleep", &["sleep", "3600"], Limits::default());
    world.send(RuntimeCommand::KillContainer(id.clone()));
    assert_eq!(world.exit(&id).code, 137);
}

#[test]
fn the_limits_of_a_command_hold() {
    let world = world();
    let memory = Limits { memory: Some(16 << 20), ..Limits::default() };
    let (exit, _) = run(&world, "grow", &["grow"], memory);
    assert_eq!((exit.code, exit.reason.as_deref()), (137, Some("OOMKilled")));
    let fuel = Limits { fuel: Some(50_000_000), ..Limits::default() };
    let (exit, _) = run(&world, "fuel", &["spin"], fuel);
    assert_eq!((exit.code, exit.reason.as_deref()), (137, Some("FuelExhausted")));
}

#[test]
fn sockets_are_the_pods() {
    let world = world();
    let server = start(&world, OTHER_POD, "main", &["serve", "7000"], Limits::default());
    world.wait_for_output(&server);
    let (_, said) = run(&world, "ask", &["ask", "other.test", "7000", "hello"], Limits::default());
    assert_eq!(said, "heard \"hello\"\n");
    let long = "x".repeat(100_000);
    let (_, said) = run(&world, "long", &["ask", "other.test", "7000", &long], Limits::default());
    assert_eq!(said.len(), long.len() + "heard \"\"\n".len());
    let (_, said) = run(&world, "refused", &["ask", "other.test", "7001", "hello"], Limits::default());
    assert_eq!(said, "error ErrorCode::ConnectionRefused\n");
    let datagrams = start(&world, OTHER_POD, "datagrams", &["udp-serve", "7000"], Limits::default());
    world.wait_for_output(&datagrams);
    let (_, said) = run(&world, "udp", &["udp-ask", "other.test", "7000", "hello"], Limits::default());
    assert_eq!(said, "heard \"hello\"\n");
    assert_eq!(exchange_over(world.open_other(7000), "hello"), "hello");
}

#[test]
fn an_instance_answers_many_requests_and_another_comes_after_its_last() {
    let world = world();
    let id = serving(&world, Limits::default());
    for number in 1..=128 {
        assert_eq!(get(&world, "/count"), (200, format!("request {number} of this instance\n")));
    }
    assert_eq!(get(&world, "/count"), (200, "request 1 of this instance\n".to_owned()));
    assert_eq!(get(&world, "/log").0, 200);
    assert_eq!(world.log(&id, "stdout"), "asked 2 times\n");
    assert_eq!(get(&world, "/nothing").0, 404);
}

#[test]
fn an_instance_answers_a_request_while_another_one_waits() {
    // With more it could be another that answers.
    let mut options = WasmOptions::default();
    options.max_instances = 1;
    let world = World::with(options);
    world.runtime.import("service", &guest("service")).unwrap();
    serving(&world, Limits::default());
    let stream = world.open(8080).unwrap();
    let waiting = std::thread::spawn(move || exchange_over(stream, &request("/fetch?gate:5000")));
    block_on(world.host.gate_reached());
    assert_eq!(get(&world, "/count"), (200, "request 2 of this instance\n".to_owned()));
    world.host.open_gate();
    assert_eq!(split(&waiting.join().unwrap()).0, 502);
}

#[test]
fn requests_of_a_guest_go_through_the_hosts_dialer() {
    let world = world();
    serving(&world, Limits::default());
    assert_eq!(get(&world, "/fetch?peer:8080"), (200, "peer:8080 says 200\n".to_owned()));
    let (status, why) = get(&world, "/fetch?peer:4000");
    assert!(status == 502 && why.contains("ConnectionRefused"), "{status} {why}");
}

#[test]
fn a_body_is_given_back_as_it_comes() {
    let world = world();
    serving(&world, Limits::default());
    let body = "y".repeat(40_000);
    let head = format!("POST /echo HTTP/1.0\r\nhost: web\r\ncontent-length: {}\r\n\r\n", body.len());
    let answer = exchange_over(world.open(8080).unwrap(), &(head + &body));
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{}", &answer[..60]);
    assert_eq!(answer.split_once("\r\n\r\n").unwrap().1.len(), body.len());
}

#[test]
fn a_trap_is_500_for_those_it_was_at_and_the_service_goes_on() {
    let world = world();
    let id = serving(&world, Limits::default());
    assert_eq!(get(&world, "/count").0, 200);
    assert_eq!(get(&world, "/trap").0, 500);
    world.wait_for_log(&id, "stderr", "a request failed");
    assert_eq!(get(&world, "/error").0, 500);
    world.wait_for_log(&id, "stderr", "answered with an error");
    assert_eq!(get(&world, "/count").0, 200);
}

#[test]
fn a_request_that_spins_ends_with_its_client() {
    let world = world();
    let id = serving(&world, Limits::default());
    let mut spinning = world.open(8080).unwrap();
    block_on(std::future::poll_fn(|cx| spinning.as_mut().poll_write(cx, request("/spin").as_bytes()))).unwrap();
    assert_eq!(get(&world, "/count").0, 200);
    drop(spinning);
    // It would hold the container's end up for ever.
    world.send(RuntimeCommand::StopContainer(id.clone()));
    assert_eq!(world.exit(&id).code, 0);
}

#[test]
fn the_limits_of_a_service_hold_for_all_its_instances() {
    let world = world();
    let id = serving(&world, Limits { memory: Some(16 << 20), ..Limits::default() });
    assert_eq!(get(&world, "/count").0, 200);
    assert_eq!(get(&world, "/grow").0, 500);
    let exit = world.exit(&id);
    assert_eq!((exit.code, exit.reason.as_deref()), (137, Some("OOMKilled")));
}
