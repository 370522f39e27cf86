//! The beginner's guide on three machines, from the first `kubectl apply` to the loss of a machine, walked with WebAssembly and with containers.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::machines::ADDRESSES;
use crate::harness::{Client, Cluster, Connections, Load, PASSWORD, Registry, Runs, USER, count_answers, eventually};
use crate::kill_loop::name;

const DEPLOYMENT: &str = include_str!("../../examples/web/deployment.yaml");
const CONFIG: &str = include_str!("../../examples/web/configmap.yaml");
const PODS: &str = "/api/v1/namespaces/default/pods";
/// How many requests show that the copies share the work.
const REQUESTS: usize = 10_000;

#[test]
fn the_guide_is_walked_with_wasm() {
    walk(&Runs::Wasm, 30_984);
}

#[test]
fn the_guide_is_walked_with_containers() {
    let Some(runs) = Runs::containers() else { return };
    walk(&runs, 30_985);
}

fn walk(runs: &Runs, node_port: u16) {
    let Some(registry) = Registry::private() else { return };
    let Some(machines) = runs.machines() else { return };
    let mut walk = Walk { runs, machines, node_port };
    walk.four_copies_are_spread_over_the_machines();
    walk.the_service_shares_the_requests_out();
    walk.a_deleted_copy_is_replaced();
    walk.a_copy_that_dies_comes_back();
    walk.a_copy_that_takes_too_much_memory_is_killed_and_started_again();
    walk.an_update_under_load_drops_nothing();
    walk.a_private_image_is_denied_until_its_secret_is_there(&registry);
    walk.a_wrong_password_loops_and_the_right_one_heals();
    walk.what_a_lost_machine_ran_is_run_by_the_others();
}

struct Walk<'a> {
    runs: &'a Runs,
    machines: [Cluster; 3],
    node_port: u16,
}

impl Walk<'_> {
    /// The machine that is talked to.
    fn cluster(&self) -> &Cluster {
        &self.machines[0]
    }

    fn kubectl(&self, arguments: &str) -> String {
        self.cluster().kubectl(arguments)
    }

    fn rolled_out(&self) {
        self.kubectl("rollout status deployment express-api-deployment --timeout=60s");
    }

    /// `kubectl rollout restart`, which writes down the second and refuses to do so twice in one.
    #[track_caller]
    fn restart(&self) {
        eventually("kubectl restarts the Deployment", || {
            let ran = self.cluster().run(&["rollout", "restart", "deployment", "express-api-deployment"]);
            if ran.code != Some(0) && ran.stderr.contains("within the past second") { Err(ran) } else { Ok(ran) }
        })
        .ok();
    }

    /// The pods that are not on their way out.
    fn pods(&self) -> Vec<Value> {
        let list = self.cluster().get(PODS);
        let pods = list["items"].as_array().expect("a list has items").iter();
        pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).cloned().collect()
    }

    /// Waits until there are four copies, all ready and as `holds` says.
    #[track_caller]
    fn four_ready(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Vec<Value> {
        eventually(what, || {
            let pods = self.pods();
            let is_good = |pod: &Value| is_ready(pod) && holds(pod);
            if pods.len() == 4 && pods.iter().all(is_good) { Ok(pods) } else { Err(pods) }
        })
    }

    /// Waits until a pod's container waits for this reason.
    #[track_caller]
    fn waiting(&self, reason: &str) -> String {
        eventually(&format!("a pod waits: {reason}"), || {
            let pods = self.pods();
            let waits = pods.iter().find(|pod| container(pod)["state"]["waiting"]["reason"] == reason);
            waits.map(name).ok_or(pods)
        })
    }

    /// Where the service is reached on each machine.
    fn addresses(&self) -> [String; 3] {
        ADDRESSES.map(|address| format!("{address}:{}", self.node_port))
    }

    fn four_copies_are_spread_over_the_machines(&self) {
        let deployment = DEPLOYMENT.replace("coracle.dev/examples/web:v1", &self.runs.image("v1"));
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "express-api"}, "spec": {
            "type": "NodePort", "selector": {"app": "express-api"},
            "ports": [{"port": 80, "targetPort": 3000, "nodePort": self.node_port}]}});
        self.cluster().apply(&format!("{CONFIG}\n---\n{deployment}\n---\n{service}"));
        self.rolled_out();
        let pods = self.four_ready("four copies run", |_| true);
        let nodes: BTreeSet<&str> = pods.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
        assert_eq!(nodes, (0..3).map(|machine| self.runs.node(machine)).collect(), "every machine has some");
    }

    fn the_service_shares_the_requests_out(&self) {
        let pods: BTreeSet<String> = self.pods().iter().map(name).collect();
        // Two clients of each machine's node port.
        let addresses: Vec<String> = self.addresses().into_iter().cycle().take(6).collect();
        let counts = count_answers(&addresses, REQUESTS);
        assert_eq!(counts.keys().cloned().collect::<BTreeSet<_>>(), pods, "all of them answer");
        let mean = REQUESTS / pods.len();
        for (pod, count) in &counts {
            assert!(count.abs_diff(mean) <= mean / 10, "{pod} has too many or too few: {counts:?}");
        }
    }

    fn a_deleted_copy_is_replaced(&self) {
        let deleted = name(&self.pods()[0]);
        self.kubectl(&format!("delete pod {deleted} --wait=false"));
        self.four_ready("four copies run without the deleted one", |pod| name(pod) != deleted);
    }

    /// Behind Kubernetes' back: a container is killed with its process. A Wasm guest has none: what dies there is the instance that
    /// answers a request.
    fn a_copy_that_dies_comes_back(&self) {
        let pod = self.pods().remove(0);
        let died = name(&pod);
        if let Runs::Containers(dockers) = self.runs {
            let label = format!("coracle.dev/pod={died}");
            let found = dockers.iter().flat_map(|docker| docker.containers(&label));
            let is_it = |id: &String| dockers[0].inspect(id, "{{.Name}}").contains("_express-api-container_");
            let id = found.into_iter().find(is_it).expect("it runs");
            dockers[0].run(&["kill", &id]).ok();
            self.four_ready("the killed copy runs again", |pod| name(pod) != died || restarts(pod) == 1);
        } else {
            let answer = self.cluster().http().get(&format!("{PODS}/{died}:3000/proxy/crash"));
            assert_eq!(answer.code, 500, "{answer:?}");
            self.four_ready("four copies run as before", |pod| restarts(pod) == 0);
        }
    }

    fn a_copy_that_takes_too_much_memory_is_killed_and_started_again(&self) {
        let pod = self.pods().remove(1);
        let (greedy, before) = (name(&pod), restarts(&pod));
        let answer = self.cluster().http().get(&format!("{PODS}/{greedy}:3000/proxy/memory/400"));
        assert_eq!(answer.code, 200, "this much it may have: {answer:?}");
        // By kubectl, which asks once: other clients ask again when nobody answers, and would kill it again.
        self.cluster().run(&["get", "--raw", &format!("{PODS}/{greedy}:3000/proxy/memory/600")]).fails();
        let pods = self.four_ready("the killed copy runs again", |pod| name(pod) != greedy || restarts(pod) > before);
        let again = pods.iter().find(|pod| name(pod) == greedy).expect("it is one of the four");
        let end = &container(again)["lastState"]["terminated"];
        assert_eq!((&end["reason"], &end["exitCode"]), (&json!("OOMKilled"), &json!(137)), "{again}");
    }

    fn an_update_under_load_drops_nothing(&self) {
        let kept = if matches!(self.runs, Runs::Wasm) { Connections::KeptAlive } else { Connections::MadeAnew };
        let clients = self.addresses().into_iter().flat_map(|address| {
            let client = |connections| Client { address: address.clone(), path: "/", connections };
            [client(Connections::OneARequest), client(kept)]
        });
        let load = Load::begin(clients);
        self.set_image(&self.runs.image("v2"));
        self.rolled_out();
        for answers in load.end(" v2, ") {
            assert!(answers.failures.is_empty(), "{answers:?}");
            assert!(answers.first.contains(" v1, ") && answers.last.contains(" v2, "), "{answers:?}");
        }
    }

    fn set_image(&self, image: &str) {
        self.kubectl(&format!("set image deployment/express-api-deployment express-api-container={image}"));
    }

    fn a_private_image_is_denied_until_its_secret_is_there(&self, registry: &Registry) {
        let image = self.runs.push(registry, "express-api:v2.1.1");
        self.set_image(&image);
        let pod = self.waiting("ImagePullBackOff");
        let described = self.kubectl(&format!("describe pod {pod}"));
        let (_, events) = described.split_once("Events:").expect("there are some");
        assert!(events.contains(&format!("Failed to pull image \"{image}\"")), "{events}");
        assert!(events.contains("pull access denied"), "{events}");
        let ready = self.pods().iter().filter(|pod| is_ready(pod)).count();
        assert!(ready >= 3, "the old version serves on: {ready} are ready");
        self.kubectl(&format!(
            "create secret docker-registry registry --docker-server={} --docker-username={USER} --docker-password={PASSWORD}",
            registry.host
        ));
        let secrets = json!({"imagePullSecrets": [{"name": "registry"}]}).to_string();
        self.cluster().run(&["patch", "serviceaccount", "default", "-p", &secrets]).ok();
        // Pods have the secrets that their account had when they were made.
        let denied = self.pods().iter().filter(|pod| !is_ready(pod)).map(name).collect::<Vec<_>>().join(" ");
        self.kubectl(&format!("delete pod {denied} --wait=false"));
        self.rolled_out();
        self.four_ready("the new version runs", |pod| container(pod)["image"] == image.as_str());
    }

    fn a_wrong_password_loops_and_the_right_one_heals(&self) {
        self.cluster().apply(&CONFIG.replace("correct-horse", "wrong-horse"));
        self.restart();
        let pod = self.waiting("CrashLoopBackOff");
        let printed = self.kubectl(&format!("logs {pod} --previous"));
        let why = "DatabaseConnectionError: db.example.internal: password authentication failed for user \"express\"";
        assert!(printed.contains(why), "{printed}");
        self.cluster().apply(CONFIG);
        self.restart();
        self.rolled_out();
        self.four_ready("four stable copies run", |pod| restarts(pod) == 0);
    }

    fn what_a_lost_machine_ran_is_run_by_the_others(&mut self) {
        self.cluster().coracle(&["settings", "--node-grace", "4s"]).ok();
        let lost = self.runs.node(2).to_owned();
        assert!(self.pods().iter().any(|pod| pod["spec"]["nodeName"] == lost.as_str()), "it runs some");
        self.runs.lose(&mut self.machines, 2);
        let pods = self.four_ready("four copies run on the others", |pod| pod["spec"]["nodeName"] != lost.as_str());
        let counts = count_answers(&self.addresses()[..2], 200);
        assert_eq!(counts.keys().cloned().collect::<BTreeSet<_>>(), pods.iter().map(name).collect());
    }
}

fn container(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

fn restarts(pod: &Value) -> u64 {
    container(pod)["restartCount"].as_u64().unwrap_or_default()
}

fn is_ready(pod: &Value) -> bool {
    container(pod)["ready"] == true
}
