//! `wasi:http` services: the example guest, built for the test.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use coracle_node::runtime::{
    ByteStream, ContainerId, ContainerSpec, Drained, ProbeAction, ProbeResult, RuntimeCommand,
};

use crate::support::{World, spec};

/// The example's first release, built once a test run.
fn web() -> &'static [u8] {
    static WEB: OnceLock<Vec<u8>> = OnceLock::new();
    WEB.get_or_init(|| {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/guests/Cargo.toml");
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("guests");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--release", "--target", "wasm32-wasip2", "--manifest-path", manifest])
            .arg("--target-dir")
            .arg(&target)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .status()
            .unwrap();
        assert!(built.success(), "the example guests do not build");
        std::fs::read(target.join("wasm32-wasip2/release/web-v1.wasm")).unwrap()
    })
}

fn launch(world: &World, password: &str) -> ContainerId {
    world.runtime.import("web:v1", web()).unwrap();
    let env = [("DB_HOST", "db"), ("DB_USER", "express"), ("DB_PASSWORD", password)];
    let spec = ContainerSpec {
        env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ports: vec![3000],
        ..spec("web:v1")
    };
    let id = spec.id.clone();
    world.create(spec).unwrap();
    world.start(&id).unwrap();
    id
}

fn get(path: &str) -> ProbeAction {
    let path = path.to_owned();
    ProbeAction::Http { host: None, port: 3000, path, https: false, headers: Vec::new() }
}

/// Starts the service and waits until it listens.
fn serving(world: &World) -> ContainerId {
    let id = launch(world, "correct-horse");
    while world.probe(ProbeAction::Tcp { host: None, port: 3000 }) != ProbeResult::Success {}
    id
}

/// A whole exchange over a new stream of the runtime's.
fn exchange(world: &World, request: &str) -> String {
    speak(world.open(3000).unwrap(), request)
}

/// Sends a request and reads until the other side ends.
fn speak(mut stream: ByteStream, request: &str) -> String {
    use std::future::poll_fn;
    let exchanged = async {
        let mut sent = 0;
        while sent < request.len() {
            sent += poll_fn(|cx| stream.as_mut().poll_write(cx, &request.as_bytes()[sent..])).await.unwrap();
        }
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match poll_fn(|cx| stream.as_mut().poll_read(cx, &mut buffer)).await.unwrap() {
                0 => break String::from_utf8(answer).unwrap(),
                read => answer.extend_from_slice(&buffer[..read]),
            }
        }
    };
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(exchanged)
}

#[test]
fn a_service_answers_on_its_port_and_logs() {
    let world = World::new();
    let id = serving(&world);
    let answer = exchange(&world, "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("Hello from express-api v1, served by web-0\n"), "{answer}");
    assert!(world.log(&id, "stdout").contains("connected to db as express\n"));
    assert_eq!(world.probe(get("/healthz")), ProbeResult::Success);
    let missing = ProbeResult::Failure("HTTP probe failed with statuscode: 404".to_owned());
    assert_eq!(world.probe(get("/missing")), missing);
}

#[test]
fn a_guests_requests_go_through_the_hosts_dialer() {
    let world = World::new();
    serving(&world);
    let answer = exchange(&world, "GET /fetch?peer:3000 HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n");
    assert!(answer.contains("Hello from express-api v1"), "{answer}");
    let answer = exchange(&world, "GET /fetch?peer:4000 HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(answer.contains("ConnectionRefused") || answer.contains("refused"), "{answer}");
}

#[test]
fn a_service_whose_start_fails_ends_with_its_exit_code_and_never_listens() {
    let world = World::new();
    let id = launch(&world, "wrong");
    assert_eq!(world.exit(&id).code, 1);
    assert!(world.log(&id, "stderr").contains("password authentication failed for user \"express\""));
    let refused = "Get \"http://10.42.0.5:3000/\": dial tcp 10.42.0.5:3000: connect: connection refused";
    assert_eq!(world.probe(get("/")), ProbeResult::Failure(refused.to_owned()));
}

#[test]
fn a_panicking_request_is_500_and_the_service_goes_on() {
    let world = World::new();
    let id = serving(&world);
    let crashed = ProbeResult::Failure("HTTP probe failed with statuscode: 500".to_owned());
    assert_eq!(world.probe(get("/crash")), crashed);
    assert!(world.log(&id, "stderr").contains("asked to crash"));
    assert_eq!(world.probe(get("/")), ProbeResult::Success);
}

#[test]
fn a_stopped_service_refuses_connections_and_exits_with_0() {
    let world = World::new();
    let id = serving(&world);
    world.send(RuntimeCommand::StopContainer(id.clone()));
    assert_eq!(world.exit(&id).code, 0);
    assert!(world.open(3000).is_err());
}

#[test]
fn a_stopped_service_answers_the_requests_that_it_is_at() {
    let world = World::new();
    let id = serving(&world);
    let mut stream = world.open(3000).unwrap();
    let answer =
        std::thread::spawn(move || answer_once(&mut stream, "GET /fetch?gate:5000 HTTP/1.1\r\nhost: web\r\n\r\n"));
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(world.host.gate_reached());
    world.send(RuntimeCommand::StopContainer(id.clone()));
    while world.open(3000).is_ok() {}
    world.host.open_gate();
    let answer = answer.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 502"), "the guest's own answer, not a broken connection: {answer}");
    assert_eq!(world.exit(&id).code, 0);
}

#[test]
fn a_killed_service_is_137() {
    let world = World::new();
    let id = serving(&world);
    world.send(RuntimeCommand::KillContainer(id.clone()));
    assert_eq!(world.exit(&id).code, 137);
}

#[test]
fn a_stopped_service_gives_back_what_it_has_not_begun() {
    let world = World::new();
    let id = serving(&world);
    let mut fresh = world.open(3000).unwrap();
    let mut idle = world.open(3000).unwrap();
    let answer = answer_once(&mut idle, "GET /missing HTTP/1.1\r\nhost: web\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    world.send(RuntimeCommand::StopContainer(id.clone()));
    assert_eq!(world.exit(&id).code, 0);
    for stream in [&mut fresh, &mut idle] {
        let error = read_some(stream).unwrap_err();
        assert!(Drained::is_cause_of(&error), "{error}");
    }
}

fn read_some(stream: &mut ByteStream) -> std::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 4096];
    let read = std::future::poll_fn(|cx| stream.as_mut().poll_read(cx, &mut buffer));
    let count = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(read)?;
    buffer.truncate(count);
    Ok(buffer)
}

/// Sends a request and reads its answer, which is chunked; the stream stays open.
fn answer_once(stream: &mut ByteStream, request: &str) -> String {
    let sent = std::future::poll_fn(|cx| stream.as_mut().poll_write(cx, request.as_bytes()));
    let sent = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(sent).unwrap();
    assert_eq!(sent, request.len());
    let mut answer = String::new();
    while !answer.ends_with("\r\n0\r\n\r\n") {
        let piece = read_some(stream).unwrap();
        assert!(!piece.is_empty(), "the answer ends after {answer:?}");
        answer.push_str(std::str::from_utf8(&piece).unwrap());
    }
    answer
}

#[test]
fn a_request_ends_with_its_client() {
    let world = World::new();
    let id = serving(&world);
    let mut stream = world.open(3000).unwrap();
    let request = b"GET /fetch?gate:5000 HTTP/1.1\r\nhost: web\r\n\r\n";
    let sent = std::future::poll_fn(|cx| stream.as_mut().poll_write(cx, request));
    assert_eq!(crate::support::block_on(sent).unwrap(), request.len());
    crate::support::block_on(world.host.gate_reached());
    drop(stream);
    // The gate stays shut: nothing but the client's end lets the service end.
    world.send(RuntimeCommand::StopContainer(id.clone()));
    assert_eq!(world.exit(&id).code, 0);
}
