//! Images of registries, open and private: the guide's new version that nobody may pull at first.

use serde_json::json;

use crate::harness::{Cluster, Guest, PASSWORD, Registry, USER, eventually};

/// A program that says its version and stays.
fn version(version: &str) -> String {
    Guest::new().print(&format!("express {version} runs\n")).sleep(3_600_000).wat()
}

fn deployment(image: &str) -> String {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "express"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "express"}},
        "template": {"metadata": {"labels": {"app": "express"}}, "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "express", "image": image}]}}}})
    .to_string()
}

#[test]
fn a_private_version_rolls_out_once_its_secret_is_there() {
    let (Some(open), Some(private)) = (Registry::open(), Registry::private()) else { return };
    let Some(cluster) = Cluster::up() else { return };
    let (old, new) = (format!("{}/express:v2.1.0", open.host), format!("{}/express:v2.1.1", private.host));
    let pushed = open.push("express:v2.1.0", &version("v2.1.0")).ok();
    assert!(pushed.contains("pushed (sha256:"), "{pushed}");
    let pushed = private.push("express:v2.1.1", &version("v2.1.1")).ok();
    let digest = pushed.split(['(', ')']).nth(1).expect("the digest of what was pushed is told").to_owned();

    cluster.apply(&deployment(&old));
    cluster.kubectl("rollout status deployment express --timeout=60s");
    the_events_tell_of_the_pull(&cluster, &old);

    cluster.kubectl(&format!("set image deployment/express express={new}"));
    let waiting = |reason: &'static str| {
        cluster.wait(reason, "/api/v1/namespaces/default/pods", |pods| {
            let pods = pods["items"].as_array().into_iter().flatten();
            let mut statuses = pods.flat_map(|pod| pod["status"]["containerStatuses"].as_array().into_iter().flatten());
            statuses.any(|status| status["state"]["waiting"]["reason"] == reason)
        })
    };
    waiting("ImagePullBackOff");
    let events = cluster.kubectl("get events --field-selector reason=Failed -o jsonpath={.items[*].message}");
    let denied = format!("pull access denied for {}/express", private.host);
    assert!(events.contains(&denied) && events.contains("unauthorized"), "{events}");
    assert!(events.contains("Error: ErrImagePull"), "{events}");

    let secret = format!(
        "create secret docker-registry registry --docker-server={} --docker-username={USER} --docker-password={PASSWORD}",
        private.host
    );
    cluster.kubectl(&secret);
    let patch = json!({"spec": {"template": {"spec": {"imagePullSecrets": [{"name": "registry"}]}}}}).to_string();
    cluster.run(&["patch", "deployment", "express", "-p", &patch]).ok();
    cluster.kubectl("rollout status deployment express --timeout=60s");
    let ids = cluster.kubectl("get pods -l app=express -o jsonpath={.items[*].status.containerStatuses[*].imageID}");
    let expected = format!("{}/express@{digest}", private.host);
    assert!(ids.split(' ').any(|id| id == expected), "{ids} has no {expected}");
    assert!(cluster.kubectl("logs deployment/express").contains("express v2.1.1 runs"));
}

fn the_events_tell_of_the_pull(cluster: &Cluster, image: &str) {
    let of = |reason: &str| {
        cluster.kubectl(&format!("get events --field-selector reason={reason} -o jsonpath={{.items[*].message}}"))
    };
    assert!(of("Pulling").contains(&format!("Pulling image \"{image}\"")));
    let pulled = of("Pulled");
    assert!(pulled.contains(&format!("Successfully pulled image \"{image}\" in ")), "{pulled}");
    assert!(pulled.contains("including waiting). Image size: "), "{pulled}");
    let images = cluster.coracle(&["image", "ls"]).ok();
    assert!(images.contains(image), "{images}");
    let found = cluster.coracle(&["image", "inspect", image]).ok();
    assert!(found.contains("a WASI 0.1 command") && found.contains("wasi_snapshot_preview1.fd_write"), "{found}");
    assert!(found.contains("Manifest:        sha256:"), "{found}");
}

#[test]
fn a_service_accounts_secret_opens_a_registry_and_a_missing_one_is_named() {
    let Some(private) = Registry::private() else { return };
    let Some(cluster) = Cluster::up() else { return };
    private.push("tool:1", &Guest::new().print("it runs\n").wat()).ok();
    let image = format!("{}/tool:1", private.host);
    let run = |name: &str| cluster.kubectl(&format!("run {name} --image={image} --restart=Never"));
    cluster.run(&["patch", "serviceaccount", "default", "-p", r#"{"imagePullSecrets": [{"name": "registry"}]}"#]).ok();
    run("before");
    eventually("the missing secret is named", || {
        let reason = "reason=FailedToRetrieveImagePullSecret";
        let events =
            cluster.kubectl(&format!("get events --field-selector {reason} -o jsonpath={{.items[*].message}}"));
        if events.contains("Unable to retrieve some image pull secrets (registry)") { Ok(()) } else { Err(events) }
    });
    cluster.kubectl(&format!(
        "create secret docker-registry registry --docker-server=http://{} --docker-username={USER} --docker-password={PASSWORD}",
        private.host
    ));
    run("after");
    for pod in ["before", "after"] {
        let path = format!("/api/v1/namespaces/default/pods/{pod}");
        cluster.wait("the pod has run", &path, |pod| pod["status"]["phase"] == "Succeeded");
    }
}

#[test]
fn mirrors_of_the_registries_file_are_asked_first() {
    let Some(open) = Registry::open() else { return };
    let file = tempfile::NamedTempFile::new().expect("there is room for a file");
    let mirrors = format!(
        "mirrors:\n  r.example.com:\n    endpoint: ['http://{}']\n    rewrite: {{'^team/(.*)': 'mirrored/$1'}}\n",
        open.host
    );
    std::fs::write(file.path(), mirrors).expect("a file is written");
    let path = file.path().display().to_string();
    let options = crate::harness::Options { arguments: &["--registries", &path], ..Default::default() };
    let Some(cluster) = Cluster::with(&options) else { return };
    open.push("mirrored/tool:1", &Guest::new().print("it runs\n").wat()).ok();
    cluster.kubectl("run tool --image=r.example.com/team/tool:1 --restart=Never");
    let path = "/api/v1/namespaces/default/pods/tool";
    let pod = cluster.wait("the pod has run", path, |pod| pod["status"]["phase"] == "Succeeded");
    let id = pod["status"]["containerStatuses"][0]["imageID"].as_str().unwrap_or_default().to_owned();
    assert!(id.starts_with("r.example.com/team/tool@sha256:"), "{id}");
}

#[test]
fn an_image_that_is_not_there_is_not_found() {
    let Some(open) = Registry::open() else { return };
    let Some(cluster) = Cluster::up() else { return };
    open.push("tool:1", &Guest::new().wat()).ok();
    cluster.kubectl(&format!("run tool --image={}/tool:2 --restart=Never", open.host));
    let path = "/api/v1/namespaces/default/pods/tool";
    let pod = cluster.wait("the pull failed", path, |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].is_string()
    });
    let message = pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].to_string();
    assert!(message.contains(&format!("{}/tool:2: not found", open.host)), "{message}");
}
