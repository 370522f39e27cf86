//! What is planned loses no request: an update, fewer copies, a machine that is drained and stopped, under load by every way to the Service.
//! A machine that dies takes with it what it was asked at that moment, and nothing later.

use serde_json::{Value, json};

use crate::harness::machines::{ADDRESSES, leader};
use crate::harness::{Answers, Client, Cluster, Connections, Load, Runs, eventually};

const DEPLOYMENT: &str = include_str!("../../examples/web/deployment.yaml");
const CONFIG: &str = include_str!("../../examples/web/configmap.yaml");
/// How long a machine may be silent.
const NODE_GRACE: &str = "4s";

#[test]
fn what_is_planned_loses_no_request_of_wasm() {
    what_is_planned_loses_no_request(&Runs::Wasm, [30_986, 30_987]);
}

#[test]
fn what_is_planned_loses_no_request_of_containers() {
    let Some(runs) = Runs::containers() else { return };
    what_is_planned_loses_no_request(&runs, [30_988, 30_989]);
}

#[test]
fn a_machine_that_dies_takes_only_its_own_requests_of_wasm_with_it() {
    a_machine_that_dies_takes_only_its_own_requests_with_it(&Runs::Wasm, [30_990, 30_991]);
}

#[test]
fn a_machine_that_dies_takes_only_its_own_requests_of_containers_with_it() {
    let Some(runs) = Runs::containers() else { return };
    a_machine_that_dies_takes_only_its_own_requests_with_it(&runs, [30_992, 30_993]);
}

fn what_is_planned_loses_no_request(runs: &Runs, ports: [u16; 2]) {
    let Some(mut machines) = runs.machines() else { return };
    deploy(runs, &machines, 0, ports);
    let kubectl = |arguments: &str| machines[0].kubectl(arguments);
    let rolled_out = || kubectl("rollout status deployment express-api-deployment --timeout=60s");
    let all = [0, 1, 2];
    nothing_fails("an update", clients(runs, &all, ports), || {
        let image = runs.image("v2");
        kubectl(&format!("set image deployment/express-api-deployment express-api-container={image}"));
        rolled_out();
    });
    kubectl("scale deployment express-api-deployment --replicas=6");
    rolled_out();
    nothing_fails("fewer copies", clients(runs, &all, ports), || {
        kubectl("scale deployment express-api-deployment --replicas=2");
        pods_are(&machines[0], 2, "");
    });
    kubectl("scale deployment express-api-deployment --replicas=4");
    rolled_out();
    let drained = runs.node(2);
    nothing_fails("a drain", clients(runs, &all, ports), || {
        kubectl(&format!("drain {drained} --timeout=60s"));
        rolled_out();
        pods_are(&machines[0], 4, drained);
    });
    // Nobody asks the machine itself any more.
    let load = Load::begin(clients(runs, &all[..2], ports));
    assert!(machines[2].signal("INT").success());
    none_failed("the stop of a drained machine", &load.end(""));
}

fn a_machine_that_dies_takes_only_its_own_requests_with_it(runs: &Runs, ports: [u16; 2]) {
    let Some(mut machines) = runs.machines() else { return };
    machines[0].coracle(&["settings", "--node-grace", NODE_GRACE]).ok();
    // The worst to lose: nothing is decided until the others have elected one of them.
    let lost = leader(&machines, 0);
    let [one, other] = [(lost + 1) % 3, (lost + 2) % 3];
    deploy(runs, &machines, one, ports);
    let load = Load::begin(clients(runs, &[one, other], ports));
    runs.lose(&mut machines, lost);
    pods_are(&machines[one], 4, runs.node(lost));
    for answers in load.end("") {
        assert!(answers.failures.len() <= 1, "more than what was asked at that moment: {answers:?}");
    }
}

/// The examples' application with its Service, and a pod on a machine that asks it by its name (`/fetch?express-api`) with one, too.
fn deploy(runs: &Runs, machines: &[Cluster; 3], asking: usize, ports: [u16; 2]) {
    let cluster = &machines[asking];
    let deployment = DEPLOYMENT.replace("coracle.dev/examples/web:v1", &runs.image("v1"));
    let service = |name: &str, app: &str, node_port: u16| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {
            "type": "NodePort", "selector": {"app": app},
            "ports": [{"port": 80, "targetPort": 3000, "nodePort": node_port}]}})
    };
    let asker = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "asker", "labels": {"app": "asker"}}, "spec": {
        "nodeSelector": {"kubernetes.io/hostname": runs.node(asking)},
        "containers": [{"name": "asker", "image": Runs::Wasm.image("v1"), "ports": [{"containerPort": 3000}],
            "envFrom": [{"configMapRef": {"name": "express-api-config"}}]}]}});
    let (service, asked) = (service("express-api", "express-api", ports[0]), service("asker", "asker", ports[1]));
    cluster.apply(&[CONFIG, &deployment, &service.to_string(), &asked.to_string(), &asker.to_string()].join("\n---\n"));
    cluster.kubectl("rollout status deployment express-api-deployment --timeout=60s");
    cluster.kubectl("wait pod/asker --for=condition=Ready --timeout=60s");
}

/// Clients of some machines' node ports, of requests that take a moment, and, by the first, of the Service's name in the cluster.
fn clients(runs: &Runs, machines: &[usize], ports: [u16; 2]) -> Vec<Client> {
    let kept = if matches!(runs, Runs::Wasm) { Connections::KeptAlive } else { Connections::MadeAnew };
    let client = |machine: usize, port: u16, path: &'static str, connections: Connections| Client {
        address: format!("{}:{port}", ADDRESSES[machine]),
        path,
        connections,
    };
    let mut clients = vec![client(machines[0], ports[1], "/fetch?express-api", Connections::OneARequest)];
    for machine in machines {
        clients.push(client(*machine, ports[0], "/", Connections::OneARequest));
        clients.push(client(*machine, ports[0], "/", kept));
        clients.push(client(*machine, ports[0], "/wait/200", Connections::OneARequest));
        clients.push(client(*machine, ports[0], "/wait/200", kept));
    }
    clients
}

#[track_caller]
fn nothing_fails(what: &str, clients: Vec<Client>, planned: impl FnOnce()) {
    let load = Load::begin(clients);
    planned();
    none_failed(what, &load.end(""));
}

#[track_caller]
fn none_failed(what: &str, answers: &[Answers]) {
    let failures: Vec<_> = answers.iter().flat_map(|answers| &answers.failures).collect();
    let answered: u64 = answers.iter().map(|answers| answers.count).sum();
    assert!(failures.is_empty(), "{what} failed {} requests beside {answered}: {failures:#?}", failures.len());
}

/// Waits until there are so many ready copies, none of them on this machine, and none on its way out on another.
#[track_caller]
fn pods_are(cluster: &Cluster, count: usize, away_from: &str) {
    eventually("the pods are as they should", || {
        let list = cluster.get("/api/v1/namespaces/default/pods?labelSelector=app%3Dexpress-api");
        let pods = list["items"].as_array().expect("a list has items");
        // What ran on a machine that is gone is on its way out until somebody says that the machine does not come back.
        let is_left =
            |pod: &&Value| pod["spec"]["nodeName"] != away_from || pod["metadata"]["deletionTimestamp"].is_null();
        let is_good = |pod: &Value| {
            pod["status"]["containerStatuses"][0]["ready"] == true && pod["spec"]["nodeName"] != away_from
        };
        let left: Vec<&Value> = pods.iter().filter(is_left).collect();
        if left.len() == count && left.into_iter().all(is_good) { Ok(()) } else { Err(list.clone()) }
    });
}
