//! Ways in from outside and the cluster's own names: load balancers, DNS, Ingresses, and policies that close some of them.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use crate::harness::{Cluster, Options, eventually, finish, http_get};

/// A pod that serves, one that asks it (`/fetch?NAME`), and Services for them.
fn application(balanced: u16, asking: u16) -> String {
    format!(
        "
apiVersion: v1
kind: ConfigMap
metadata: {{name: database}}
data: {{DB_HOST: db, DB_USER: express, DB_PASSWORD: correct-horse}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: coracle.dev/examples/web:v1
        envFrom: [{{configMapRef: {{name: database}}}}]
        ports: [{{name: http, containerPort: 3000}}]
        readinessProbe: {{httpGet: {{path: /healthz, port: http}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  type: LoadBalancer
  selector: {{app: web}}
  ports: [{{name: http, port: {balanced}, targetPort: http}}]
---
apiVersion: v1
kind: Service
metadata: {{name: backend}}
spec:
  selector: {{app: web}}
  ports: [{{name: http, port: 80, targetPort: http}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: asker, labels: {{app: asker}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: coracle.dev/examples/web:v1
    envFrom: [{{configMapRef: {{name: database}}}}]
    ports: [{{name: http, containerPort: 3000}}]
    readinessProbe: {{httpGet: {{path: /healthz, port: http}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: asker}}
spec:
  type: LoadBalancer
  selector: {{app: asker}}
  ports: [{{name: http, port: {asking}, targetPort: http}}]
---
apiVersion: v1
kind: Service
metadata: {{name: heads}}
spec:
  clusterIP: None
  selector: {{app: web}}
  ports: [{{name: http, port: 3000}}]
"
    )
}

/// A port that nobody has now.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).expect("there is one").port()
}

#[test]
fn services_are_reached_by_load_balancers_dns_and_ingresses_as_policies_allow() {
    let (balanced, asking, http, https) = (free_port(), free_port(), free_port(), free_port());
    let (http, https) = (format!("127.0.0.1:{http}"), format!("127.0.0.1:{https}"));
    let arguments = ["--dns", "127.0.0.1:0", "--ingress-http", &http, "--ingress-https", &https];
    let Some(cluster) = Cluster::with(&Options { memory: true, arguments: &arguments, ..Options::default() }) else {
        return;
    };
    cluster.apply(&application(balanced, asking));
    cluster.kubectl("rollout status deployment web --timeout=60s");
    load_balancers_have_the_nodes_addresses(&cluster, balanced);
    the_dns_answers_for_the_cluster(&cluster);
    ingresses_lead_by_host_and_path(&cluster, &http, &https);
    policies_close_what_they_do_not_open(&cluster, balanced, asking);
}

fn load_balancers_have_the_nodes_addresses(cluster: &Cluster, port: u16) {
    let address = |service: &str| {
        let path = "jsonpath={.status.loadBalancer.ingress[*].ip}";
        cluster.run(&["get", "service", service, "-o", path]).ok()
    };
    eventually("the service has an address", || {
        Some(address("web")).filter(|ip| ip == "127.0.0.1").ok_or_else(|| address("web"))
    });
    let page = eventually("the load balancer answers", || http_get(&format!("127.0.0.1:{port}"), "/"));
    assert!(page.contains("Hello from express-api v1"), "{page}");
    let second = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: second}}\nspec: {{type: LoadBalancer, ports: [{{port: {port}}}]}}\n"
    );
    cluster.apply(&second);
    eventually("the second is told that its port is taken", || {
        let events = cluster.kubectl("get events --field-selector involvedObject.name=second,reason=PortAlreadyTaken");
        if events.contains("default/web") { Ok(()) } else { Err(events) }
    });
    assert_eq!(address("second"), "");
    cluster.kubectl("delete service second");
}

/// A question, as bytes.
fn question(name: &str, kind: u8) -> Vec<u8> {
    let mut packet = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).expect("labels are short"));
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, kind, 0, 1]);
    packet
}

/// The code of an answer, how many records it has, and its last four bytes: an address, where it is an answer with one.
fn read_answer(packet: &[u8]) -> (u8, u16, Ipv4Addr) {
    assert!(packet.len() > 12 && packet[..2] == [0, 7] && packet[2] & 0x80 != 0, "it is an answer: {packet:?}");
    let last: [u8; 4] = packet[packet.len() - 4..].try_into().expect("four bytes");
    (packet[3] & 0x0f, u16::from_be_bytes([packet[6], packet[7]]), last.into())
}

fn by_udp(server: SocketAddr, name: &str, kind: u8) -> (u8, u16, Ipv4Addr) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout can be set");
    eventually("the DNS answers", || {
        socket.send_to(&question(name, kind), server)?;
        let mut buffer = [0; 2048];
        socket.recv(&mut buffer).map(|length| read_answer(&buffer[..length]))
    })
}

fn by_tcp(server: SocketAddr, name: &str, kind: u8) -> (u8, u16, Ipv4Addr) {
    let mut stream = TcpStream::connect(server).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
    let packet = question(name, kind);
    stream.write_all(&u16::try_from(packet.len()).expect("it is short").to_be_bytes()).expect("it is sent");
    stream.write_all(&packet).expect("it is sent");
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("it answers");
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).expect("it answers");
    read_answer(&answer)
}

fn the_dns_answers_for_the_cluster(cluster: &Cluster) {
    let output = cluster.output();
    let line =
        output.lines().find_map(|line| line.strip_prefix("The cluster's DNS is served at ")).expect("it says where");
    let server: SocketAddr = line.trim_end_matches('.').parse().expect("it is an address");
    assert_eq!(cluster.kubectl("get service kube-dns -n kube-system -o jsonpath={.spec.clusterIP}"), "10.43.0.10");
    let address: Ipv4Addr = cluster.kubectl("get service backend -o jsonpath={.spec.clusterIP}").parse().unwrap();
    let pod: Ipv4Addr = cluster.kubectl("get pods -l app=web -o jsonpath={.items[0].status.podIP}").parse().unwrap();
    for ask in [by_udp, by_tcp] {
        assert_eq!(ask(server, "backend.default.svc.cluster.local", 1), (0, 1, address));
        assert_eq!(ask(server, "heads.default.svc.cluster.local", 1), (0, 1, pod));
        let (code, count, _) = ask(server, "gone.default.svc.cluster.local", 1);
        assert_eq!((code, count), (3, 0), "nobody has the name");
        let (code, count, _) = ask(server, "backend.default.svc.cluster.local", 28);
        assert_eq!((code, count), (0, 0), "it has no address of version 6");
    }
    // A flood of what is no question does no harm.
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    for index in 0..5_000_u32 {
        let mut garbage = index.to_be_bytes().repeat(1 + index as usize % 60);
        if index % 2 == 0 && garbage.len() > 2 {
            garbage[2] = 0;
        }
        let _ = socket.send_to(&garbage, server);
    }
    assert_eq!(by_udp(server, "backend.default.svc.cluster.local", 1), (0, 1, address));
}

fn ingresses_lead_by_host_and_path(cluster: &Cluster, http: &str, https: &str) {
    let made = rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()]).expect("a certificate is made");
    cluster.write("tls.crt", &made.cert.pem());
    cluster.write("tls.key", &made.signing_key.serialize_pem());
    cluster.apply(
        "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  tls: [{hosts: [shop.example], secretName: shop-tls}]
  rules:
  - host: shop.example
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: backend, port: {name: http}}}}
      - {path: /gone, pathType: Exact, backend: {service: {name: gone, port: {number: 80}}}}
",
    );
    let event = |reason: &str| {
        eventually("the Ingress is told what it lacks", || {
            let events =
                cluster.kubectl(&format!("get events --field-selector involvedObject.name=shop,reason={reason}"));
            if events.contains(reason) { Ok(()) } else { Err(events) }
        });
    };
    event("SecretNotFound");
    event("ServiceNotFound");
    let curl = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-s", "--max-time", "20", "-o", "-", "-w", "\n%{http_code} %{http_version}"]).args(arguments);
        finish(command).ok()
    };
    let url = |scheme: &str, address: &str, path: &str| {
        let port = address.rsplit_once(':').expect("it has a port").1;
        (format!("{scheme}://shop.example:{port}{path}"), format!("shop.example:{port}:127.0.0.1"))
    };
    let (secure, resolve) = url("https", https, "/");
    eventually("without its Secret a host has a certificate that nobody trusts", || {
        let ran = finish({
            let mut command = Command::new("curl");
            command.args(["-s", "--max-time", "20", "--resolve", &resolve, &secure]);
            command
        });
        if ran.code == Some(60) { Ok(()) } else { Err(ran) }
    });
    let page = curl(&["-k", "--resolve", &resolve, &secure]);
    assert!(page.contains("Hello from express-api v1"), "{page}");
    cluster.kubectl("create secret tls shop-tls --cert=tls.crt --key=tls.key");
    let shown = eventually("the Ingress has an address", || {
        let shown = cluster.kubectl("get ingress shop");
        if shown.contains("127.0.0.1") { Ok(shown) } else { Err(shown) }
    });
    assert!(shown.contains("coracle") && shown.contains("shop.example") && shown.contains("80, 443"), "{shown}");
    let (plain, resolve) = url("http", http, "/");
    let page = eventually("the Ingress answers", || {
        let page = curl(&["--resolve", &resolve, &plain]);
        if page.ends_with("200 1.1") { Ok(page) } else { Err(page) }
    });
    assert!(page.contains("Hello from express-api v1"), "{page}");
    let (gone, _) = url("http", http, "/gone");
    let page = curl(&["--resolve", &resolve, &gone]);
    assert!(page.contains("there is no Service \"gone\"") && page.contains("\n503 "), "{page}");
    let page = curl(&[&format!("http://{http}/")]);
    assert!(page.contains("no Ingress has this host and path") && page.contains("\n404 "), "{page}");
    let (secure, resolve) = url("https", https, "/");
    let authority = cluster.directory().join("tls.crt");
    let page = eventually("the Ingress speaks TLS with its certificate", || {
        let page = finish({
            let mut command = Command::new("curl");
            command.args(["-s", "--max-time", "20", "-w", "\n%{http_code} %{http_version}", "--resolve", &resolve]);
            command.arg("--cacert").arg(&authority).arg(&secure);
            command
        });
        if page.code == Some(0) { Ok(page.stdout) } else { Err(page) }
    });
    assert!(page.contains("Hello from express-api v1") && page.ends_with("200 2"), "{page}");
}

fn policies_close_what_they_do_not_open(cluster: &Cluster, balanced: u16, asking: u16) {
    let (address, asker) = (format!("127.0.0.1:{balanced}"), format!("127.0.0.1:{asking}"));
    let fetched = || http_get(&asker, "/fetch?backend");
    let page = eventually("a pod reaches another by its Service", fetched);
    assert!(page.contains("Hello from express-api v1"), "{page}");
    let policy = |rules: &str| {
        cluster.apply(&format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: closed}}\nspec:\n  podSelector: {{matchLabels: \
             {{app: web}}}}\n  policyTypes: [Ingress]\n  ingress: {rules}\n"
        ));
    };
    policy("[]");
    eventually("a pod is denied by the policy", || match fetched() {
        Err(page) if page.contains("ConnectionRefused") => Ok(()),
        other => Err(other),
    });
    http_get(&address, "/").expect("the node itself is let in");
    policy("[{from: [{podSelector: {matchLabels: {app: asker}}}], ports: [{port: http}]}]");
    eventually("a pod is let in by the rule", fetched);
    let shown = cluster.kubectl("get networkpolicy");
    assert!(shown.contains("app=web"), "{shown}");
}
