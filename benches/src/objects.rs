//! Objects and requests that the benches make.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use coracle::Cluster;
use coracle::api::{Method, Request, Response, UserInfo};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

/// How many requests are on their way at one time.
const CONCURRENCY: usize = 256;
/// How long anything is waited for.
const WAIT: Duration = Duration::from_mins(2);

pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";

pub(crate) async fn send(cluster: &Cluster, request: Request) -> anyhow::Result<Response> {
    let what = format!("{:?} {}", request.method, request.path);
    let response = cluster.request(request).await;
    match response.failure() {
        Some(status) => Err(anyhow::anyhow!("{status}").context(what)),
        None => Ok(response),
    }
}

pub(crate) fn get(path: &str) -> Request {
    Request::new(Method::Get, path, UserInfo::default())
}

pub(crate) fn post(path: &str, object: Value) -> Request {
    Request::new(Method::Post, path, UserInfo::default()).json(object)
}

/// A pod of about two and a half kilobytes once it is stored, as pods of a Deployment are.
pub(crate) fn pod(number: usize, spec: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("pod-{number:05}"),
            "labels": {"app": "bench", "pod-template-hash": "5d4f7c9b66"},
        },
        "spec": {"containers": [{
            "name": "main", "image": "example.com/app:1",
            "ports": [{"containerPort": 8080}],
            "env": [{"name": "MODE", "value": "production"}, {"name": "LEVEL", "value": "info"}],
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        }]},
    });
    for (field, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][field] = value.clone();
    }
    pod
}

pub(crate) async fn create_pods(cluster: &Cluster, count: usize, spec: &Value) -> anyhow::Result<()> {
    stream::iter(0..count)
        .map(|number| send(cluster, post(PODS, pod(number, spec))))
        .buffer_unordered(CONCURRENCY)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
}

pub(crate) fn deployment(name: &str, image: &str, replicas: usize) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "main", "image": image}],
                },
            },
        },
    })
}

/// How many objects a collection has, without reading them all. With a selector the server does not count beyond a page:
/// then it is whether there is any, 0 or 1.
pub(crate) async fn count(cluster: &Cluster, path: &str, selector: (&str, &str)) -> anyhow::Result<usize> {
    let mut request = get(path).query("limit", "1");
    if !selector.0.is_empty() {
        request = request.query(selector.0, selector.1);
    }
    let list = send(cluster, request).await?.value();
    let items = list["items"].as_array().context("a list has items")?.len();
    Ok(items + list["metadata"]["remainingItemCount"].as_u64().unwrap_or(0) as usize)
}

/// Asks again until a collection has so many objects.
pub(crate) async fn until_count(
    cluster: &Cluster,
    path: &str,
    selector: (&str, &str),
    wanted: usize,
) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let found = count(cluster, path, selector).await?;
        if found == wanted {
            return Ok(());
        }
        ensure!(started.elapsed() < WAIT, "{path} has {found} objects and not {wanted}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Asks again until an object is gone.
pub(crate) async fn until_gone(cluster: &Cluster, path: &str) -> anyhow::Result<()> {
    let started = Instant::now();
    while cluster.request(get(path)).await.status != 404 {
        ensure!(started.elapsed() < WAIT, "{path} does not go");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}
