//! A cluster as a part of a program: starts, restarts, mistakes.

use std::time::{Duration, Instant};

use coracle::api::{Method, Request, UserInfo};
use coracle::{Cluster, ClusterBuilder, ErrorKind};
use serde_json::{Value, json};

const SHORT: Duration = Duration::from_millis(50);

fn without_nodes() -> ClusterBuilder {
    Cluster::builder().nodes(0)
}

async fn read(cluster: &Cluster, path: &str) -> Value {
    cluster.request(Request::new(Method::Get, path, UserInfo::default())).await.value()
}

fn config_map(name: &str, value: &str) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}}).to_string()
}

#[tokio::test]
async fn a_restart_keeps_every_object_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = without_nodes().data_dir(directory.path()).start().await.unwrap();
    for number in 0..100 {
        cluster.apply(&config_map(&format!("map-{number}"), "first")).await.unwrap();
    }
    cluster.apply(&config_map("map-7", "second")).await.unwrap();
    let before = read(&cluster, "/api/v1/namespaces/default/configmaps").await;
    let (token, authority) = (cluster.token().to_owned(), cluster.ca_certificate().to_owned());
    cluster.shutdown().await;

    let cluster = without_nodes().data_dir(directory.path()).start().await.unwrap();
    let after = read(&cluster, "/api/v1/namespaces/default/configmaps").await;
    assert_eq!(before["items"].as_array().unwrap().len(), 101, "the hundred, and kube-root-ca.crt");
    assert_eq!(before["items"], after["items"]);
    assert_eq!((cluster.token(), cluster.ca_certificate()), (token.as_str(), authority.as_str()));
    cluster.apply(&config_map("map-7", "third")).await.unwrap();
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_data_directory_belongs_to_one_cluster_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let first = without_nodes().data_dir(directory.path()).start().await.unwrap();
    let error = without_nodes().data_dir(directory.path()).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataDirectory);
    assert_eq!(error.to_string(), format!("{} is in use by another process", directory.path().display()));
    first.shutdown().await;
    without_nodes().data_dir(directory.path()).start().await.unwrap().shutdown().await;
}

#[tokio::test]
async fn a_shutdown_gives_the_address_back() {
    let cluster = without_nodes().listen(([127, 0, 0, 1], 0).into()).start().await.unwrap();
    let address = cluster.address().unwrap();
    let taken = without_nodes().listen(address).start().await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Listen);
    assert!(taken.to_string().starts_with(&format!("cannot listen on {address}")), "{taken}");
    cluster.shutdown().await;
    let again = without_nodes().listen(address).start().await.unwrap();
    assert_eq!(again.address(), Some(address));
    again.shutdown().await;
}

#[tokio::test]
async fn two_clusters_in_one_program_know_nothing_of_each_other() {
    let one = without_nodes().start().await.unwrap();
    let other = without_nodes().start().await.unwrap();
    one.apply(&config_map("mine", "1")).await.unwrap();
    assert_eq!(read(&one, "/api/v1/namespaces/default/configmaps/mine").await["data"]["value"], "1");
    assert_eq!(read(&other, "/api/v1/namespaces/default/configmaps/mine").await["code"], 404);
    assert_ne!(one.token(), other.token());
}

#[tokio::test]
async fn waiting_says_what_did_not_happen() {
    let cluster = without_nodes().start().await.unwrap();
    let waited = |object: &'static str, condition: &'static str| cluster.wait_for(object, condition, SHORT);
    let error = waited("namespace/default", "phase=Terminating").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.to_string(), "namespace/default is not phase=Terminating within 0.05 s");
    let error = waited("shop/deployment/web", "Available").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let error = waited("deploymint/web", "Available").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(error.to_string(), "the server doesn't have a resource type \"deploymint\"");
    let error = waited("web", "Available").await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Invalid, "\"web\" is not KIND/NAME"));
    waited("ns/default", "phase=Active").await.unwrap();
}

#[tokio::test]
async fn a_bad_manifest_is_refused_and_what_came_before_stays() {
    let cluster = without_nodes().start().await.unwrap();
    let refused = async |manifest: &str| {
        let error = cluster.apply(manifest).await.unwrap_err();
        (error.kind(), error.to_string())
    };
    let (kind, message) = refused("a: b: c").await;
    assert_eq!(kind, ErrorKind::Invalid, "{message}");
    assert!(!message.contains('\n'), "{message:?}");
    let nameless = "an object of the manifest has no apiVersion, no kind or no metadata.name";
    assert_eq!(refused("{apiVersion: v1, kind: ConfigMap}").await, (ErrorKind::Invalid, nameless.into()));
    let unknown = "no matches for kind \"Gadget\" in version \"example.com/v1\"";
    assert_eq!(
        refused("{apiVersion: example.com/v1, kind: Gadget, metadata: {name: a}}").await,
        (ErrorKind::Api, unknown.into())
    );
    let two = format!(
        "{}\n---\n{}",
        config_map("good", "1"),
        r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "Bad"}}"#
    );
    let (kind, message) = refused(&two).await;
    assert_eq!(kind, ErrorKind::Api);
    assert!(message.starts_with("ConfigMap \"Bad\" is invalid: metadata.name: Invalid value: \"Bad\""), "{message}");
    assert_eq!(read(&cluster, "/api/v1/namespaces/default/configmaps/good").await["data"]["value"], "1");
    let (kind, message) =
        refused(r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "odd"}, "colour": "red"}"#).await;
    assert_eq!(kind, ErrorKind::Api);
    assert!(message.contains("colour"), "{message}");
}

#[tokio::test]
async fn a_cluster_without_a_wasm_node_takes_no_image() {
    let cluster = without_nodes().fake_nodes(1).start().await.unwrap();
    let error = cluster.add_image("example.com/a:1", b"\0asm\x01\0\0\0").unwrap_err();
    assert_eq!(error.to_string(), "this process has no node that keeps images");
}

#[test]
fn a_cluster_cannot_be_started_outside_of_a_runtime() {
    let mut start = std::pin::pin!(without_nodes().start());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Err(error)) = start.as_mut().poll(&mut context) else { panic!("it started") };
    assert_eq!(error.to_string(), "a cluster is started within a tokio runtime");
}

#[tokio::test]
async fn a_dropped_cluster_stops() {
    let cluster = without_nodes().listen(([127, 0, 0, 1], 0).into()).start().await.unwrap();
    let address = cluster.address().unwrap();
    drop(cluster);
    let given_up = Instant::now() + Duration::from_secs(10);
    while let Err(error) = tokio::net::TcpListener::bind(address).await {
        assert!(Instant::now() < given_up, "{error}");
        tokio::task::yield_now().await;
    }
}
