//! Sockets of guests on the virtual network: a program of the standard library in several pods and containers.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::OnceLock;

use coracle_node::runtime::{
    ContainerId, ContainerSpec, Limits, ProbeAction, ProbeResult, Runtime as _, RuntimeCommand, StreamSpec,
};

use crate::support::{OTHER_POD, POD, World, block_on, exchange_over, spec};

/// `tests/programs/sockets.rs`, built once in each process that runs tests.
fn program() -> &'static [u8] {
    static PROGRAM: OnceLock<Vec<u8>> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/sockets.rs");
        let folder = tempfile::tempdir().unwrap();
        let built = folder.path().join("sockets.wasm");
        let flags = ["--edition", "2024", "--target", "wasm32-wasip2", "-C", "opt-level=1", "-C", "strip=symbols"];
        let status = Command::new("rustc").args(flags).arg(source).arg("-o").arg(&built).status().unwrap();
        assert!(status.success(), "the program does not build");
        std::fs::read(built).unwrap()
    })
}

fn world() -> World {
    let world = World::new();
    world.add_other_pod();
    world.runtime.import("sockets", program()).unwrap();
    world
}

/// Starts the program in a container.
fn start(world: &World, pod: &str, container: &str, args: &[&str]) -> ContainerId {
    start_with(world, pod, container, args, Limits::default())
}

fn start_with(world: &World, pod: &str, container: &str, args: &[&str], limits: Limits) -> ContainerId {
    let id = ContainerId { pod: pod.into(), container: container.to_owned(), instance: 0 };
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    world.create(ContainerSpec { id: id.clone(), args, limits, ..spec("sockets") }).unwrap();
    world.start(&id).unwrap();
    id
}

/// Runs the program to its end, and answers what it said.
#[track_caller]
fn run(world: &World, pod: &str, container: &str, args: &[&str]) -> String {
    let id = start(world, pod, container, args);
    let exit = world.exit(&id);
    let (said, complained) = (world.log(&id, "stdout"), world.log(&id, "stderr"));
    let expected = i32::from(said.starts_with("error "));
    assert_eq!(exit.code, expected, "{said:?}, {complained:?}, {exit:?}");
    said
}

/// Starts the program and waits until it has its port.
fn serving(world: &World, pod: &str, container: &str, args: &[&str]) -> ContainerId {
    let id = start(world, pod, container, args);
    world.wait_for_output(&id);
    id
}

#[test]
fn a_guest_listens_at_a_port_that_it_names_and_answers_whoever_comes() {
    let world = world();
    let id = serving(&world, POD, "main", &["serve", "0.0.0.0:7000"]);
    assert_eq!(world.log(&id, "stdout"), "listening at 0.0.0.0:7000\n");
    assert_eq!(world.probe(ProbeAction::Tcp { host: None, port: 7000 }), ProbeResult::Success);
    let from = Some(SocketAddr::from(([192, 0, 2, 7], 0)));
    let stream = block_on(world.runtime.open(StreamSpec::Port { pod: POD.into(), port: 7000, from })).unwrap();
    assert_eq!(exchange_over(stream, "hello\n"), "web-0 heard \"hello\" from 192.0.2.7\n");
    assert!(world.open(7001).is_err());
}

#[test]
fn pods_listen_on_the_same_port_and_find_each_other_by_name_and_address() {
    let world = world();
    serving(&world, POD, "main", &["serve", "10.42.0.5:7000"]);
    serving(&world, OTHER_POD, "main", &["serve", "0.0.0.0:7000"]);
    let said = run(&world, POD, "client", &["ask", "other.test:7000", "hi"]);
    assert_eq!(said, "from 10.42.0.6:7000 at 10.42.0.5: other-0 heard \"hi\" from 10.42.0.5\n");
    let said = run(&world, OTHER_POD, "client", &["ask", "10.42.0.5:7000", "hi"]);
    assert_eq!(said, "from 10.42.0.5:7000 at 10.42.0.6: web-0 heard \"hi\" from 10.42.0.6\n");
}

#[test]
fn containers_of_a_pod_share_its_ports_and_its_loopback() {
    let world = world();
    serving(&world, POD, "main", &["serve", "0.0.0.0:7000"]);
    assert_eq!(run(&world, POD, "again", &["serve", "0.0.0.0:7000"]), "error AddrInUse\n");
    assert_eq!(run(&world, POD, "beside", &["serve", "127.0.0.1:7000"]), "error AddrInUse\n");
    let said = run(&world, POD, "client", &["ask", "127.0.0.1:7000", "hi"]);
    assert_eq!(said, "from 127.0.0.1:7000 at 127.0.0.1: web-0 heard \"hi\" from 127.0.0.1\n");
    let said = run(&world, POD, "by-address", &["ask", "10.42.0.5:7000", "hi"]);
    assert!(said.ends_with("from 10.42.0.5\n"), "{said}");
    assert_eq!(run(&world, POD, "foreign", &["serve", "10.42.0.6:7001"]), "error AddrNotAvailable\n");
    assert_eq!(run(&world, POD, "refused", &["ask", "127.0.0.1:7001", "hi"]), "error ConnectionRefused\n");
}

#[test]
fn what_listens_on_loopback_is_reached_from_inside_alone() {
    let world = world();
    serving(&world, POD, "main", &["serve", "127.0.0.1:7000"]);
    assert!(world.open(7000).is_err());
    assert_eq!(run(&world, OTHER_POD, "client", &["ask", "10.42.0.5:7000", "hi"]), "error ConnectionRefused\n");
    assert!(run(&world, POD, "client", &["ask", "localhost:7000", "hi"]).contains("heard \"hi\""));
    // As port-forwards come.
    let from = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let stream = block_on(world.runtime.open(StreamSpec::Port { pod: POD.into(), port: 7000, from })).unwrap();
    assert_eq!(exchange_over(stream, "hello\n"), "web-0 heard \"hello\" from 127.0.0.1\n");
}

#[test]
fn megabytes_arrive_whole_however_slowly_they_are_taken() {
    let world = world();
    let id = serving(&world, POD, "main", &["pour", "0.0.0.0:7000", "3000000"]);
    let stream = world.open(7000).unwrap();
    crate::support::echo(stream);
    assert_eq!(world.exit(&id).code, 0);
    assert!(world.log(&id, "stdout").ends_with("poured 3000000, back 3000000, the same: true\n"));
}

#[test]
fn datagrams_go_between_pods_and_come_back_to_the_port_that_sent_them() {
    let world = world();
    serving(&world, OTHER_POD, "main", &["udp-serve", "0.0.0.0:7000"]);
    let said = run(&world, POD, "client", &["udp-ask", "other.test:7000", "hi"]);
    assert_eq!(said, "heard \"hi\", 2 bytes, from 10.42.0.5:6000\n");
    let said = run(&world, POD, "long", &["udp-ask", "10.42.0.6:7000", "long:60000"]);
    assert!(said.contains(", 60000 bytes,"), "{said}");
    let said = run(&world, OTHER_POD, "inside", &["udp-ask", "127.0.0.1:7000", "hi"]);
    assert_eq!(said, "heard \"hi\", 2 bytes, from 127.0.0.1:6000\n");
    assert_eq!(run(&world, OTHER_POD, "again", &["udp-serve", "0.0.0.0:7000"]), "error AddrInUse\n");
    // A port for streams is another.
    serving(&world, OTHER_POD, "streams", &["serve", "0.0.0.0:7000"]);
}

#[test]
fn names_are_the_nodes() {
    let world = world();
    assert_eq!(run(&world, POD, "known", &["lookup", "other.test"]), "other.test is [10.42.0.6]\n");
    assert!(run(&world, POD, "unknown", &["lookup", "nobody.test"]).starts_with("error "));
}

#[test]
fn a_stopped_guest_that_waits_for_connections_ends_and_gives_its_port_back() {
    let world = world();
    let id = serving(&world, POD, "main", &["serve", "0.0.0.0:7000"]);
    world.send(RuntimeCommand::StopContainer(id.clone()));
    assert_eq!(world.exit(&id).code, 143);
    assert!(world.open(7000).is_err());
    serving(&world, POD, "again", &["serve", "0.0.0.0:7000"]);
}

#[test]
fn connections_count_as_memory_of_who_opens_them() {
    let world = world();
    serving(&world, OTHER_POD, "main", &["hold", "0.0.0.0:7000"]);
    let limits = |memory: u64| Limits { memory: Some(memory), ..Limits::default() };
    let few = start_with(&world, POD, "few", &["take", "10.42.0.6:7000", "20"], limits(8 << 20));
    assert_eq!((world.exit(&few).code, world.log(&few, "stdout").as_str()), (0, "took 20\n"));
    let greedy = start_with(&world, POD, "greedy", &["take", "10.42.0.6:7000", "1000"], limits(8 << 20));
    let exit = world.exit(&greedy);
    assert_eq!((exit.code, exit.reason.as_deref()), (137, Some("OOMKilled")));
    // Who was connected to goes on.
    assert!(run(&world, POD, "after", &["take", "10.42.0.6:7000", "1"]).ends_with("took 1\n"));
}

#[test]
fn connections_that_a_full_container_has_no_memory_for_are_refused() {
    let world = world();
    let limits = Limits { memory: Some(4 << 20), ..Limits::default() };
    let server = start_with(&world, OTHER_POD, "main", &["hold", "0.0.0.0:7000"], limits);
    world.wait_for_output(&server);
    assert_eq!(run(&world, POD, "client", &["take", "10.42.0.6:7000", "200"]), "error ConnectionRefused\n");
    // What others send has not ended it.
    world.send(RuntimeCommand::StopContainer(server.clone()));
    assert_eq!(world.exit(&server).code, 143);
}

#[test]
fn a_pod_has_a_thousand_sockets_and_no_more() {
    let world = world();
    let said = run(&world, POD, "main", &["many"]);
    assert_eq!(said, "1024 sockets, then true\n");
    assert!(run(&world, POD, "after", &["lookup", "other.test"]).contains("10.42.0.6"));
}
