//! Sockets of guests over a whole cluster: services by name, datagrams and policies, with a program of the standard library.

use std::process::Command;

use super::*;

/// The program that the runtime's own tests run.
fn program() -> Vec<u8> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../runtime-wasm/tests/programs/sockets.rs");
    let folder = tempfile::tempdir().unwrap();
    let built = folder.path().join("sockets.wasm");
    let flags = ["--edition", "2024", "--target", "wasm32-wasip2", "-C", "opt-level=1", "-C", "strip=symbols"];
    let status = Command::new("rustc").args(flags).arg(source).arg("-o").arg(&built).status().unwrap();
    assert!(status.success(), "the program does not build");
    std::fs::read(built).unwrap()
}

async fn cluster() -> Cluster {
    virtual_cluster().nodes(1).image("example.com/sockets:1", program()).start().await.unwrap()
}

async fn run(cluster: &Cluster, name: &str, args: &[&str], restart: &str) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": restart,
            "containers": [{"name": "main", "image": "example.com/sockets:1", "args": args}],
        },
    });
    cluster.apply(&pod.to_string()).await.unwrap();
}

async fn serve(cluster: &Cluster, name: &str, args: &[&str], protocol: &str) {
    run(cluster, name, args, "Always").await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {
            "selector": {"app": name},
            "ports": [{"port": 80, "targetPort": 7000, "protocol": protocol}],
        },
    });
    cluster.apply(&service.to_string()).await.unwrap();
    cluster.wait_for(&format!("pod/{name}"), "Ready", Duration::from_mins(1)).await.unwrap();
}

/// Waits until a pod has ended, and answers its last word.
async fn said(cluster: &Cluster, name: &str, phase: &str) -> String {
    let ended = cluster.wait_for(&format!("pod/{name}"), &format!("phase={phase}"), Duration::from_mins(2)).await;
    let pod = read(cluster, &format!("/api/v1/namespaces/default/pods/{name}")).await;
    assert!(ended.is_ok(), "{ended:?}, {pod:#}");
    let terminated = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    terminated["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(start_paused = true)]
async fn guests_find_a_service_by_name_and_are_told_who_asks() {
    let cluster = cluster().await;
    serve(&cluster, "web", &["serve", "0.0.0.0:7000"], "TCP").await;
    run(&cluster, "client", &["insist", "web:80", "hello"], "Never").await;
    let heard = said(&cluster, "client", "Succeeded").await;
    let address = read(&cluster, "/api/v1/namespaces/default/pods/client").await["status"]["podIP"].clone();
    let expected = format!("web heard \"hello\" from {}", address.as_str().unwrap());
    assert!(heard.ends_with(&expected), "{heard} is not {expected}");
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn guests_send_datagrams_to_a_service() {
    let cluster = cluster().await;
    serve(&cluster, "names", &["udp-serve", "0.0.0.0:7000"], "UDP").await;
    run(&cluster, "client", &["udp-insist", "names.default.svc:80", "hello"], "Never").await;
    let heard = said(&cluster, "client", "Succeeded").await;
    assert!(heard.starts_with("heard \"hello\", 5 bytes, from 10."), "{heard}");
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_refuses_a_guests_connection() {
    let cluster = cluster().await;
    serve(&cluster, "web", &["serve", "0.0.0.0:7000"], "TCP").await;
    run(&cluster, "before", &["insist", "web:80", "hello"], "Never").await;
    said(&cluster, "before", "Succeeded").await;
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "closed"},
        "spec": {"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"]},
    });
    cluster.apply(&policy.to_string()).await.unwrap();
    run(&cluster, "client", &["ask", "web:80", "hello"], "Never").await;
    assert_eq!(said(&cluster, "client", "Failed").await, "error ConnectionRefused");
    run(&cluster, "after", &["ask", "web:80", "hello"], "Never").await;
    said(&cluster, "after", "Succeeded").await;
    cluster.shutdown().await;
}

/// The runtime's guests for WASI 0.3.
fn wasi3(name: &str) -> Vec<u8> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../runtime-wasm/tests/programs/wasi3/Cargo.toml");
    let target = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("wasi3");
    let arguments =
        ["build", "--quiet", "--locked", "--release", "--examples", "--target", "wasm32-wasip2", "--manifest-path"];
    let status = Command::new(env!("CARGO"))
        .args(arguments)
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .unwrap();
    assert!(status.success(), "the guests do not build");
    std::fs::read(target.join("wasm32-wasip2/release/examples").join(name).with_extension("wasm")).unwrap()
}

#[tokio::test(start_paused = true)]
async fn guests_of_the_newest_wasi_sleep_for_an_hour_of_the_tests_time_and_find_services() {
    let images = virtual_cluster().nodes(1).image("example.com/sockets:1", wasi3("command"));
    let images = images.image("example.com/service:1", wasi3("service"));
    let cluster = images.start().await.unwrap();
    let started = cluster.now();
    run(&cluster, "sleeper", &["sleep", "3600"], "Never").await;
    cluster.wait_for("pod/sleeper", "phase=Succeeded", Duration::from_hours(2)).await.unwrap();
    let passed = cluster.now().duration_since(started).unwrap();
    assert!((3600..3610).contains(&passed.as_secs()), "{passed:?}");
    serve(&cluster, "web", &["serve", "7000"], "TCP").await;
    // The endpoints may be a moment behind the pod.
    run(&cluster, "client", &["insist", "web", "80", "hello"], "Never").await;
    said(&cluster, "client", "Succeeded").await;
    let probe = json!({"httpGet": {"path": "/count", "port": 8080}, "periodSeconds": 1});
    let service = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "service"},
        "spec": {"containers": [{"name": "main", "image": "example.com/service:1", "readinessProbe": probe}]},
    });
    cluster.apply(&service.to_string()).await.unwrap();
    cluster.wait_for("pod/service", "Ready", Duration::from_mins(1)).await.unwrap();
    cluster.shutdown().await;
}
