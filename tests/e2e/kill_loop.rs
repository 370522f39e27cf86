//! Killed at random moments under load: every write that was answered is there, and so is every pod, once.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};

use crate::harness::{Cluster, Http, Token, eventually};

/// How often the process is killed.
const KILLS: usize = 20;
/// The longest that it lives under load.
const LIFE_MAX: Duration = Duration::from_millis(600);
const WRITERS: u64 = 3;
pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/default/deployments/express-api-deployment";
pub(crate) const EXAMPLE: &str = concat!(
    include_str!("../../examples/web/configmap.yaml"),
    "\n---\n",
    include_str!("../../examples/web/deployment.yaml")
);

#[test]
fn a_process_killed_again_and_again_loses_no_answered_write_and_doubles_no_pod() {
    let seed =
        std::env::var("CORACLE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let Some(mut cluster) = Cluster::up() else { return };
    let _ = writeln!(std::io::stderr(), "CORACLE_SEED={seed} chooses these moments again");
    let mut rng = Rng::with_seed(seed);
    let address = cluster.address();
    cluster.apply(EXAMPLE);
    let (stop, number) = (AtomicBool::new(false), AtomicU64::new(0));
    let kubeconfig = cluster.kubeconfig();
    let answered: BTreeSet<String> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| scope.spawn(|| write(&Http::new(&kubeconfig, Token::Admin), &number, &stop)))
            .collect();
        let stopping = StopOnDrop(&stop);
        for _ in 0..KILLS {
            // Not to wait for anything: the moment is what the test is about.
            std::thread::sleep(LIFE_MAX.mul_f64(rng.f64()));
            cluster.signal("KILL");
            cluster.start(&["--listen", &address]);
        }
        drop(stopping);
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer does not panic")).collect()
    });
    assert!(answered.len() > KILLS, "there was load: {} writes", answered.len());
    let list = cluster.get(CONFIG_MAPS);
    let items = list["items"].as_array().expect("a list has items");
    let there: BTreeSet<String> = items.iter().filter(|item| whole(item)).map(name).collect();
    let lost: Vec<_> = answered.difference(&there).collect();
    assert!(lost.is_empty(), "of {} answered writes these are lost: {lost:?}", answered.len());
    pods_are_there_once(&cluster);
}

pub(crate) struct StopOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Creates objects one after the other until told to stop; returns the names of those that were answered.
pub(crate) fn write(http: &Http, number: &AtomicU64, stop: &AtomicBool) -> Vec<String> {
    let mut answered = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let name = format!("write-{}", number.fetch_add(1, Ordering::Relaxed));
        let body = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"name": name}});
        match http.send("POST", CONFIG_MAPS, "application/json", body.to_string().into_bytes()) {
            Ok(answer) if answer.code == 201 => answered.push(name),
            Ok(_) => {}
            // Nobody listens: a moment later somebody may.
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    answered
}

pub(crate) fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().expect("an object has a name").to_owned()
}

pub(crate) fn whole(object: &Value) -> bool {
    object["data"]["name"] == object["metadata"]["name"]
}

fn pods_are_there_once(cluster: &Cluster) {
    cluster.wait("the Deployment is ready again", DEPLOYMENT, |deployment| {
        let status = &deployment["status"];
        status["readyReplicas"] == 4 && status["replicas"] == 4 && status["observedGeneration"] == 1
    });
    eventually("there are four pods, with an address each", || {
        let list = cluster.get("/api/v1/namespaces/default/pods");
        let pods = list["items"].as_array().expect("a list has items").clone();
        let addresses: BTreeSet<String> = pods.iter().map(|pod| pod["status"]["podIP"].to_string()).collect();
        if pods.len() == 4 && addresses.len() == 4 { Ok(()) } else { Err(pods) }
    });
    let sets = cluster.get("/apis/apps/v1/namespaces/default/replicasets");
    assert_eq!(sets["items"].as_array().map(Vec::len), Some(1), "{sets}");
}
