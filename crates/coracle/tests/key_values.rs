//! Guests' key-value store on three members: what one guest writes every other reads, wherever it runs.
#![cfg(feature = "wasm")]

#[path = "support/component.rs"]
mod component;

use std::time::Duration;

use coracle::api::{Method, Request, UserInfo};
use coracle::{Cluster, ClusterClock};
use serde_json::{Value, json};

use component::component;

const IMAGE: &str = "example.com/keys:1";
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_mins(2);

async fn three() -> Cluster {
    Cluster::builder().members(3).seed(1).image(IMAGE, component("keys")).start().await.unwrap()
}

async fn ask(cluster: &Cluster, method: Method, path: &str) -> Value {
    cluster.request(Request::new(method, path, UserInfo::default())).await.value()
}

/// The names of the nodes, once there are three.
async fn nodes(cluster: &Cluster) -> Vec<String> {
    let there = async {
        loop {
            let list = ask(cluster, Method::Get, "/api/v1/nodes").await;
            let names = list["items"].as_array().into_iter().flatten();
            let names: Vec<String> =
                names.filter_map(|node| node["metadata"]["name"].as_str().map(str::to_owned)).collect();
            if names.len() == 3 {
                return names;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, there).await.expect("three nodes")
}

/// A pod that does something with a bucket.
struct Caller<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    account: &'a str,
}

impl Caller<'_> {
    async fn start(&self, name: &str, node: &str, words: &str) {
        let args: Vec<&str> = words.split_whitespace().collect();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "nodeName": node, "restartPolicy": "Never", "serviceAccountName": self.account,
                "containers": [{"name": "main", "image": IMAGE, "args": args}],
            },
        });
        // The ServiceAccount of a new namespace is there a moment later.
        let applied = async {
            while self.cluster.apply(&pod.to_string()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, applied).await.expect("the pod is taken");
    }

    /// What it said when it was done.
    async fn said(&self, name: &str) -> String {
        let done = async {
            loop {
                let pod =
                    ask(self.cluster, Method::Get, &format!("/api/v1/namespaces/{}/pods/{name}", self.namespace)).await;
                let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
                if ended.is_object() {
                    return ended["message"].as_str().unwrap_or_default().to_owned();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, done).await.expect("the pod ends")
    }

    async fn call(&self, name: &str, node: &str, words: &str) -> String {
        self.start(name, node, words).await;
        self.said(name).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_read_on_every_member_and_increments_at_once_are_all_counted() {
    let cluster = three().await;
    let nodes = nodes(&cluster).await;
    let caller = Caller { cluster: &cluster, namespace: "default", account: "default" };
    let said = caller.call("writer", &nodes[0], "stock set a 1 -- get a -- set-many b=2 c=3 -- delete c -- keys").await;
    assert_eq!(
        said,
        "set a 1 Ok(())\nget a Ok(Some(\"1\"))\nset-many b=2 c=3 Ok(())\ndelete c Ok(())\nkeys Ok([\"a\", \"b\"])\n"
    );
    for (name, node) in ["two", "three"].into_iter().zip(&nodes[1..]) {
        let said = caller.call(name, node, "stock get-many b x a -- exists a -- exists c").await;
        assert_eq!(
            said,
            "get-many b x a Ok([Some((\"b\", \"2\")), None, Some((\"a\", \"1\"))])\nexists a Ok(true)\nexists c Ok(false)\n"
        );
    }
    for node in &nodes {
        caller.start(&format!("counts-{node}"), node, "stock count n 50").await;
    }
    for node in &nodes {
        let said = caller.said(&format!("counts-{node}")).await;
        assert!(said.starts_with("count n 50 Ok("), "{said}");
    }
    assert_eq!(caller.call("sum", &nodes[0], "stock increment n 0").await, "increment n 0 Ok(150)\n");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_have_buckets_of_their_own_and_a_namespace_takes_them_with_it() {
    let cluster = three().await;
    let nodes = nodes(&cluster).await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}).to_string();
    cluster.apply(&namespace).await.unwrap();
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "till", "namespace": "shop"}});
    cluster.apply(&account.to_string()).await.unwrap();
    let till = Caller { cluster: &cluster, namespace: "shop", account: "till" };
    let other = Caller { cluster: &cluster, namespace: "shop", account: "default" };
    assert_eq!(till.call("sells", &nodes[0], "stock set apples 7").await, "set apples 7 Ok(())\n");
    assert_eq!(other.call("looks", &nodes[1], "stock get apples -- keys").await, "get apples Ok(None)\nkeys Ok([])\n");
    assert_eq!(till.call("names", &nodes[1], "a/b get x").await, "open Error::NoSuchStore\n");
    let too_long = till.call("fills", &nodes[2], "stock set-bytes k 65536 -- set-bytes k 65537").await;
    assert!(too_long.starts_with("set-bytes k 65536 Ok(())\nset-bytes k 65537 Err("), "{too_long}");
    assert!(too_long.contains("a value has at most 65536 bytes, not 65537"), "{too_long}");

    ask(&cluster, Method::Delete, "/api/v1/namespaces/shop").await;
    let gone = async {
        while ask(&cluster, Method::Get, "/api/v1/namespaces/shop").await["code"] != 404 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the namespace goes");
    cluster.apply(&namespace).await.unwrap();
    cluster.apply(&account.to_string()).await.unwrap();
    assert_eq!(till.call("anew", &nodes[0], "stock keys").await, "keys Ok([])\n");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_the_leader() {
    let cluster = three().await;
    let nodes = nodes(&cluster).await;
    let caller = Caller { cluster: &cluster, namespace: "default", account: "default" };
    let lost = cluster.leader().unwrap();
    let at = |id: u64| nodes[usize::try_from(id).unwrap() - 1].clone();
    let others: Vec<u64> = cluster.members().into_iter().filter(|id| *id != lost).collect();
    assert_eq!(caller.call("before", &at(lost), "stock count n 20").await, "count n 20 Ok(20)\n");
    // It goes on while the leader is killed: a call whose outcome nobody knows is told so, and no other is lost.
    caller.start("meanwhile", &at(others[0]), "stock set a kept -- count n 20").await;
    let kept = caller.call("kept", &at(others[1]), "stock wait a").await;
    assert_eq!(kept, "wait a Ok(Some(\"kept\"))\n");
    cluster.member(lost).kill();
    let told = async {
        while cluster.leader().is_none_or(|leader| leader == lost) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("another one leads");
    cluster.member(lost).start().await.unwrap();
    assert_eq!(caller.call("after", &at(others[1]), "stock get a").await, "get a Ok(Some(\"kept\"))\n");
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_under_virtual_time_has_the_store_too() {
    let cluster = Cluster::builder().clock(ClusterClock::Virtual).nodes(1).seed(1).image(IMAGE, component("keys"));
    let cluster = cluster.start().await.unwrap();
    let caller = Caller { cluster: &cluster, namespace: "default", account: "default" };
    let said = caller.call("one", "coracle", "stock increment n 2 -- increment n 3 -- get n").await;
    assert_eq!(said, "increment n 2 Ok(2)\nincrement n 3 Ok(5)\nget n Ok(Some(\"5\"))\n");
    cluster.shutdown().await;
}
