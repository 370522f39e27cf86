//! Ten thousand pods on one node, in a process of its own, with its state on the disk.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use super::Guests;
use crate::load::Api;
use crate::members::{Extras, Member, WasmNode, free_address};
use crate::objects::deployment;
use crate::{Report, Target};

const PODS: usize = 10_000;
/// Those that serve, in the place of as many that sleep.
const SERVING: usize = 1_000;
/// How long it is looked what they cost when nothing happens, and how long nothing happens before.
const IDLE: Duration = Duration::from_secs(20);
const SETTLED: Duration = Duration::from_secs(5);
/// Requests that are on their way at one time.
const CONCURRENCY: usize = 32;
const LOOK: Duration = Duration::from_millis(100);
/// How long a Deployment is waited for.
const PATIENCE: Duration = Duration::from_mins(3);
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const SLEEPS_IMAGE: &str = "example.com/sleeps:1";
const HELLO_IMAGE: &str = "example.com/hello:1";

/// Sleeps for ever, an hour at a time.
const SLEEPS: &str = r#"(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 144) (i32.const 1))
    (i64.store (i32.const 152) (i64.const 3600000000000))
    (loop $again (drop (call $poll (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 320))) (br $again))))"#;

/// A Deployment of sleeping pods, which have no token, until all of them are Ready, what they cost then, and a thousand pods of a service that answer once each.
pub(super) async fn measure(report: &mut Report, guests: &Guests) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let sleeps = directory.path().join("sleeps.wat");
    std::fs::write(&sleeps, SLEEPS)?;
    let images = vec![(SLEEPS_IMAGE.to_owned(), sleeps), (HELLO_IMAGE.to_owned(), guests.hello2.clone())];
    let node = WasmNode { pods: u32::try_from(PODS)?, images };
    let extras = Extras { wasm: Some(node), ..Extras::default() };
    let member = Member::start(&directory.path().join("one"), free_address()?, None, &extras)?;
    let api = member.api();
    // The first one compiles, and makes what all of them share.
    deploy(&api, "first", SLEEPS_IMAGE, 1).await?;
    until_ready(&api, "first", 1).await?;
    scale(&api, "first", 0).await?;
    until_gone(&api, "first").await?;
    let before = member.resident()?;
    let cpu = member.cpu()?;
    let began = Instant::now();
    deploy(&api, "sleeps", SLEEPS_IMAGE, PODS).await?;
    until_ready(&api, "sleeps", PODS).await?;
    let rate = PODS as f64 / began.elapsed().as_secs_f64();
    report.figure(
        &format!("a Deployment of {PODS} pods until all are Ready, fsync"),
        rate,
        "/s",
        Target::AtLeast(300.0),
    );
    let used = member.cpu()?.saturating_sub(cpu).as_secs_f64() * 1e3 / PODS as f64;
    report.figure("  the process's time for each", used, "ms", Target::None);
    tokio::time::sleep(SETTLED).await;
    let each = member.resident()?.saturating_sub(before) as f64 / PODS as f64 / 1024.0;
    report.figure("  resident memory for each, everything counted", each, "KiB", Target::AtMost(150.0));
    let (cpu, began) = (member.cpu()?, Instant::now());
    tokio::time::sleep(IDLE).await;
    let share = member.cpu()?.saturating_sub(cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    report.figure("  the process's share of a core while they are idle", share * 100.0, "%", Target::AtMost(5.0));
    services(report, &api).await
}

/// Services in the place of some that sleep; each pod is asked through the API server.
async fn services(report: &mut Report, api: &Api) -> anyhow::Result<()> {
    scale(api, "sleeps", PODS - SERVING).await?;
    deploy(api, "hello", HELLO_IMAGE, SERVING).await?;
    until_ready(api, "hello", SERVING).await?;
    let pods = api.json("GET", "/api/v1/namespaces/default/pods?labelSelector=app%3Dhello", &Value::Null).await?;
    let names: Vec<String> = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
        .collect();
    ensure!(names.len() == SERVING, "{} pods that serve", names.len());
    let began = Instant::now();
    let answers: Vec<bool> = stream::iter(names)
        .map(|name| async move {
            let path = format!("/api/v1/namespaces/default/pods/{name}:8080/proxy/");
            anyhow::Ok(&api.bytes("GET", &path, &Value::Null).await?[..] == b"hello")
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await?;
    let took = began.elapsed();
    let answered = answers.into_iter().filter(|answered| *answered).count();
    let what = format!("{SERVING} of {PODS} pods serve HTTP: those that answer");
    report.figure(&what, answered as f64, "", Target::AtLeast(SERVING as f64));
    report.time("  all of them, through the API server, a connection for each", took, Target::None);
    Ok(())
}

/// Pods without a token: each folder that a guest may open is a descriptor of the node's process, and a machine may not have twice as many
/// as there are pods.
async fn deploy(api: &Api, name: &str, image: &str, replicas: usize) -> anyhow::Result<()> {
    let mut deployment = deployment(name, image, replicas);
    deployment["spec"]["template"]["spec"]["automountServiceAccountToken"] = false.into();
    api.json("POST", DEPLOYMENTS, &deployment).await.map(drop)
}

async fn scale(api: &Api, name: &str, replicas: usize) -> anyhow::Result<()> {
    let scale = json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas},
    });
    api.json("PUT", &format!("{DEPLOYMENTS}/{name}/scale"), &scale).await.map(drop)
}

async fn until_ready(api: &Api, name: &str, replicas: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = api.json("GET", &format!("{DEPLOYMENTS}/{name}"), &Value::Null).await?;
        let ready = found["status"]["readyReplicas"].as_u64().unwrap_or(0);
        if ready == replicas as u64 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{ready} of {replicas} pods of {name} are Ready after {PATIENCE:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until a Deployment has no pods, ending ones included.
async fn until_gone(api: &Api, name: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let path = format!("/api/v1/namespaces/default/pods?labelSelector=app%3D{name}");
    loop {
        let pods = api.json("GET", &path, &Value::Null).await?;
        if pods["items"].as_array().context("a list has items")?.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the pods of {name} do not go");
        tokio::time::sleep(LOOK).await;
    }
}
