//! Names from outside the cluster, asked through to a real resolver; and what a Service or an Ingress cannot be, or leads nowhere.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use crate::harness::{Cluster, Options, eventually, finish};

const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);

/// A resolver of the test's own. `NAME.example` has an address, `silent.NAME.example` is never answered, `garbage.example` with bytes that
/// are no answer, and all else is not there.
struct Resolver {
    address: SocketAddr,
    asked: Arc<Mutex<BTreeMap<String, usize>>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Resolver {
    fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout can be set");
        let address = socket.local_addr().expect("it has an address");
        let (asked, stopped) = (Arc::<Mutex<BTreeMap<_, _>>>::default(), Arc::new(AtomicBool::new(false)));
        let (counts, ends) = (Arc::clone(&asked), Arc::clone(&stopped));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !ends.load(Ordering::Acquire) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let question = &buffer[..length];
                let name = name_in(question);
                *counts.lock().expect("nothing panics with it").entry(name.clone()).or_default() += 1;
                let answer = match name.as_str() {
                    name if name.starts_with("silent.") => continue,
                    name if name.starts_with("garbage.") => b"\x00\x01garbage that is no answer".to_vec(),
                    name => answer_to(question, name.ends_with(".example")),
                };
                let _ = socket.send_to(&answer, from);
            }
        });
        Self { address, asked, stopped, thread: Some(thread) }
    }

    /// How often it was asked for a name.
    fn asked(&self, name: &str) -> usize {
        self.asked.lock().expect("nothing panics with it").get(name).copied().unwrap_or_default()
    }

    /// How many names that begin so it was asked for.
    fn names(&self, prefix: &str) -> usize {
        self.asked.lock().expect("nothing panics with it").keys().filter(|name| name.starts_with(prefix)).count()
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The name that a packet asks for, in lower case.
fn name_in(packet: &[u8]) -> String {
    let (mut at, mut labels) = (12, Vec::new());
    while let Some(&length) = packet.get(at).filter(|length| **length > 0) {
        let end = (at + 1 + usize::from(length)).min(packet.len());
        labels.push(String::from_utf8_lossy(&packet[at + 1..end]).to_lowercase());
        at = end;
    }
    labels.join(".")
}

/// The answer: an address for a minute, or that there is no such name.
fn answer_to(question: &[u8], is_there: bool) -> Vec<u8> {
    let mut end = 12;
    while question.get(end).is_some_and(|length| *length > 0) {
        end += 1 + usize::from(question[end]);
    }
    let is_a = question.get(end + 1..end + 3) == Some(&[0, 1]);
    let has = u8::from(is_there && is_a);
    let mut answer = vec![question[0], question[1], 0x81, if is_there { 0x80 } else { 0x83 }, 0, 1, 0, has, 0, 0, 0, 0];
    answer.extend_from_slice(&question[12..end + 5]);
    if has == 1 {
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend_from_slice(&OUTSIDE.octets());
    }
    answer
}

/// A question for an address, with this number.
fn question(id: u16, name: &str) -> Vec<u8> {
    let mut packet = id.to_be_bytes().to_vec();
    packet.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).expect("labels are short"));
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, 1, 0, 1]);
    packet
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(15))).expect("a timeout can be set");
    socket
}

/// The code of the answer, and the address in it.
#[track_caller]
fn ask(server: SocketAddr, name: &str) -> (u8, Option<Ipv4Addr>) {
    let socket = socket();
    eventually(&format!("the DNS answers for {name}"), || {
        socket.send_to(&question(7, name), server)?;
        let mut buffer = [0; 2048];
        socket.recv(&mut buffer).map(|length| read(&buffer[..length]))
    })
}

fn read(packet: &[u8]) -> (u8, Option<Ipv4Addr>) {
    let last: Option<[u8; 4]> = packet[packet.len() - 4..].try_into().ok();
    (packet[3] & 0x0f, last.filter(|_| packet[7] > 0).map(Ipv4Addr::from))
}

#[test]
fn names_from_outside_are_asked_for_once_and_a_resolver_that_is_gone_harms_nobody() {
    let resolver = Resolver::start();
    let upstream = resolver.address.to_string();
    let arguments = ["--dns", "127.0.0.1:0", "--dns-upstream", &upstream];
    let Some(cluster) = Cluster::with(&Options { memory: true, arguments: &arguments, ..Options::default() }) else {
        return;
    };
    let output = cluster.output();
    let line =
        output.lines().find_map(|line| line.strip_prefix("The cluster's DNS is served at ")).expect("it says where");
    let server: SocketAddr = line.trim_end_matches('.').parse().expect("it is an address");
    let inside = || assert_eq!(ask(server, "kubernetes.default.svc.cluster.local").0, 0);

    assert_eq!(ask(server, "www.example"), (0, Some(OUTSIDE)));
    assert_eq!(ask(server, "WWW.example"), (0, Some(OUTSIDE)));
    assert_eq!(resolver.asked("www.example"), 1, "what was answered is kept");
    assert_eq!(ask(server, "nobody.invalid-zone"), (NXDOMAIN, None));
    assert_eq!(ask(server, "gone.default.svc.cluster.local"), (NXDOMAIN, None));
    assert_eq!(resolver.names("gone.default"), 0, "the cluster's own names are never asked for outside");
    assert_eq!(ask(server, "garbage.example"), (SERVFAIL, None));
    inside();
    // More questions than are asked at a time, which nobody answers: each fails, most at once, and names of the cluster are answered.
    let asking = socket();
    for number in 0..800_u16 {
        asking.send_to(&question(number, &format!("silent.n{number}.example")), server).expect("it is sent");
        if number % 100 == 99 {
            inside();
        }
    }
    inside();
    let mut buffer = [0; 2048];
    let length = asking.recv(&mut buffer).expect("questions beyond the bound fail at once");
    assert_eq!(read(&buffer[..length]).0, SERVFAIL);
    assert!(resolver.names("silent.") <= 512, "{} questions were asked outside", resolver.names("silent."));
    // Connections that say nothing, or something that is no question, are in nobody's way.
    let silent: Vec<TcpStream> = (0..300).filter_map(|_| TcpStream::connect(server).ok()).collect();
    for (index, mut stream) in silent.iter().enumerate() {
        let _ = stream.write_all(&[0, 2, 0xff, u8::try_from(index % 256).unwrap_or(0)][..index % 5]);
    }
    inside();
    drop(silent);

    eventually("names from outside are found again when the unanswered questions have been given up", || {
        match ask(server, "kept.example") {
            (0, Some(OUTSIDE)) => Ok(()),
            other => Err(other),
        }
    });
    drop(resolver);
    assert_eq!(ask(server, "kept.example"), (0, Some(OUTSIDE)), "what was kept is still answered");
    assert_eq!(ask(server, "other.example"), (SERVFAIL, None));
    inside();
    assert!(!cluster.output().contains("panicked"), "{}", cluster.output());
}

const SERVICES: &str = "/api/v1/namespaces/default/services";
const INGRESSES: &str = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";

fn service(name: &str, spec: Value) -> Value {
    json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": name}, "spec": spec})
}

/// The fields of a refusal, and what it says.
#[track_caller]
fn refused(cluster: &Cluster, path: &str, body: &Value, expected: Expect) {
    let answer = cluster.http().json("POST", path, body);
    assert_eq!(answer.code, 422, "{answer:?}");
    let status = answer.json();
    let causes = status["details"]["causes"].as_array().cloned().unwrap_or_default();
    let line = |cause: &Value| {
        let text = |field: &str| cause[field].as_str().unwrap_or_default().to_owned();
        format!("{} {}: {}\n", text("reason"), text("field"), text("message"))
    };
    expected.assert_eq(&causes.iter().map(line).collect::<String>());
}

#[test]
fn services_and_ingresses_that_cannot_be_are_refused_by_field_and_those_that_lead_nowhere_say_so() {
    let options = Options {
        arguments: &["--ingress-http", "127.0.0.1:0", "--ingress-https", "127.0.0.1:0"],
        memory: true,
        ..Options::default()
    };
    let Some(cluster) = Cluster::with(&options) else { return };
    services_that_cannot_be(&cluster);
    ingresses_that_cannot_be(&cluster);
    a_service_without_endpoints_refuses(&cluster);
}

fn services_that_cannot_be(cluster: &Cluster) {
    let node_port = |port: u64| json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    let first = service(
        "first",
        json!({"type": "NodePort", "clusterIP": "10.43.7.7", "ports": [{"port": 80, "nodePort": 31777}]}),
    );
    assert_eq!(cluster.http().json("POST", SERVICES, &first).code, 201);
    refused(
        cluster,
        SERVICES,
        &service("s", node_port(31777)),
        expect![[r"
            FieldValueInvalid spec.ports[0].nodePort: Invalid value: 31777: provided port is already allocated
        "]],
    );
    refused(
        cluster,
        SERVICES,
        &service("s", node_port(80)),
        expect![[r"
            FieldValueInvalid spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767
        "]],
    );
    refused(
        cluster,
        SERVICES,
        &service("s", json!({"clusterIP": "10.43.7.7", "ports": [{"port": 80}]})),
        expect![[r#"
            FieldValueInvalid spec.clusterIPs: Invalid value: ["10.43.7.7"]: failed to allocate IP 10.43.7.7: provided IP is already allocated
        "#]],
    );
    refused(
        cluster,
        SERVICES,
        &service("s", json!({"clusterIP": "192.168.1.1", "ports": [{"port": 80}]})),
        expect![[r#"
            FieldValueInvalid spec.clusterIPs: Invalid value: ["192.168.1.1"]: failed to allocate IP 192.168.1.1: the provided IP (192.168.1.1) is not in the valid range. The range of valid IPs is 10.43.0.0/16
        "#]],
    );
    refused(
        cluster,
        SERVICES,
        &service("s", json!({"clusterIP": "not-an-ip", "ports": [{"port": 80}]})),
        expect![[r#"
            FieldValueInvalid spec.clusterIPs[0]: Invalid value: "not-an-ip": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
        "#]],
    );
    let twice = json!({"type": "NodePort", "ports": [
        {"name": "a", "port": 80, "nodePort": 31778}, {"name": "b", "port": 81, "nodePort": 31778}]});
    refused(
        cluster,
        SERVICES,
        &service("s", twice),
        expect![[r"
            FieldValueDuplicate spec.ports[1].nodePort: Duplicate value: 31778
        "]],
    );
    assert_eq!(cluster.http().get(&format!("{SERVICES}/s")).code, 404, "nothing was written");
    // What a refused one asked for is free.
    assert_eq!(cluster.http().json("POST", SERVICES, &service("second", node_port(31778))).code, 201);
}

fn ingress(spec: Value) -> Value {
    json!({"kind": "Ingress", "apiVersion": "networking.k8s.io/v1", "metadata": {"name": "i"}, "spec": spec})
}

fn ingresses_that_cannot_be(cluster: &Cluster) {
    let rule = |path: &str, kind: Value| {
        let backend = json!({"service": {"name": "first", "port": {"number": 80}}});
        ingress(json!({"rules": [{"http": {"paths": [{"path": path, "pathType": kind, "backend": backend}]}}]}))
    };
    refused(
        cluster,
        INGRESSES,
        &rule("api", json!("Prefix")),
        expect![[r#"
            FieldValueInvalid spec.rules[0].http.paths[0].path: Invalid value: "api": must be an absolute path
        "#]],
    );
    refused(
        cluster,
        INGRESSES,
        &rule("/a/../b", json!("Exact")),
        expect![[r#"
            FieldValueInvalid spec.rules[0].http.paths[0].path: Invalid value: "/a/../b": must not contain '/../'
        "#]],
    );
    refused(
        cluster,
        INGRESSES,
        &rule("/a", json!("Regex")),
        expect![[r#"
            FieldValueNotSupported spec.rules[0].http.paths[0].pathType: Unsupported value: "Regex": supported values: "Exact", "ImplementationSpecific", "Prefix"
        "#]],
    );
    refused(
        cluster,
        INGRESSES,
        &rule("/a", Value::Null),
        expect![[r"
            FieldValueRequired spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified
        "]],
    );
    // A regular expression where others take one is a prefix here, and its Ingress is told so.
    let expression = rule("/(a|b", json!("ImplementationSpecific"));
    assert_eq!(cluster.http().json("POST", INGRESSES, &expression).code, 201);
    eventually("the Ingress is told what its path is", || {
        let events = cluster.kubectl("get events --field-selector involvedObject.name=i");
        if events.contains("/(a|b") { Ok(()) } else { Err(events) }
    });
}

fn a_service_without_endpoints_refuses(cluster: &Cluster) {
    let nothing = service(
        "nothing",
        json!({"type": "NodePort", "selector": {"app": "nobody"}, "ports": [{"port": 80, "nodePort": 31779}]}),
    );
    assert_eq!(cluster.http().json("POST", SERVICES, &nothing).code, 201);
    assert!(cluster.kubectl("get endpoints nothing").contains("<none>"));
    eventually("its port is open and ends at once", || {
        let mut curl = std::process::Command::new("curl");
        let ran = finish({
            curl.args(["-s", "--max-time", "20", "http://127.0.0.1:31779/"]);
            curl
        });
        // 7, 52 and 56: not connected, no answer, reset; 28 would be silence.
        if matches!(ran.code, Some(7 | 52 | 56)) { Ok(()) } else { Err(ran) }
    });
    let proxied = cluster.kubectl_fails("get --raw /api/v1/namespaces/default/services/nothing/proxy/");
    assert!(proxied.contains("no endpoints available for service \"nothing\""), "{proxied}");
}
