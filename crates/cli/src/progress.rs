//! How what was applied comes up: a line that changes on a terminal, a line a change elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::connection::Connection;
use crate::terminal::{is_lively, say};

/// How often the state is looked at.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long a state without any change is waited for before the user is told that it goes on without him waiting.
const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until every Deployment and Pod among the objects is ready, or nothing has changed for a minute.
pub(crate) async fn until_ready(
    connection: &Connection,
    objects: &[Value],
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let watched: Vec<&Value> = objects
        .iter()
        .filter(|object| matches!(object["kind"].as_str(), Some("Deployment" | "Pod" | "ReplicaSet")))
        .collect();
    if watched.is_empty() {
        return Ok(());
    }
    let bar = is_lively().then(spinner);
    let mut stop = std::pin::pin!(stop);
    let (mut last, mut changed) = (BTreeMap::new(), tokio::time::Instant::now());
    loop {
        let mut states = BTreeMap::new();
        let mut ready = true;
        for object in &watched {
            let state = state(connection, object).await?;
            ready &= state.ready;
            states.insert(state.title, state.text);
        }
        if states != last {
            changed = tokio::time::Instant::now();
            show(bar.as_ref(), &states, &last);
            last = states;
        }
        if ready || changed.elapsed() > PATIENCE {
            if let Some(bar) = &bar {
                bar.finish_and_clear();
                for (title, text) in &last {
                    say(&format!("{title}: {text}"));
                }
            }
            if !ready {
                say("Not everything is ready yet; `kubectl describe pods` says why.");
            }
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = stop.as_mut() => return Ok(()),
        }
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn show(bar: Option<&ProgressBar>, states: &BTreeMap<String, String>, last: &BTreeMap<String, String>) {
    if let Some(bar) = bar {
        let lines: Vec<String> = states.iter().map(|(title, text)| format!("{title}: {text}")).collect();
        bar.set_message(lines.join("; "));
        return;
    }
    for (title, text) in states.iter().filter(|(title, text)| last.get(*title) != Some(text)) {
        say(&format!("{title}: {text}"));
    }
}

struct State {
    title: String,
    text: String,
    ready: bool,
}

async fn state(connection: &Connection, object: &Value) -> Result<State> {
    let path = coracle::object_path(object)?;
    let now = connection.get(&path).await?;
    let name = now["metadata"]["name"].as_str().unwrap_or_default();
    let title = format!("{}/{name}", object["kind"].as_str().unwrap_or_default().to_lowercase());
    if object["kind"] == "Pod" {
        let ready = now["status"]["conditions"].as_array().is_some_and(|conditions| {
            conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        });
        let done = now["status"]["phase"] == "Succeeded";
        let text = if ready { "ready".to_owned() } else { waiting(std::slice::from_ref(&now)) };
        return Ok(State { title, text, ready: ready || done });
    }
    let (spec, status) = (&now["spec"], &now["status"]);
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let (wanted, available) = (number(&spec["replicas"]), number(&status["availableReplicas"]));
    let current = number(&status["observedGeneration"]) >= number(&now["metadata"]["generation"]);
    let updated = object["kind"] != "Deployment" || number(&status["updatedReplicas"]) == wanted;
    let ready = current && updated && available == wanted && number(&status["replicas"]) == wanted;
    let mut text = format!("{available}/{wanted} ready");
    if !ready {
        let why = waiting(&pods_of(connection, &now).await?);
        if !why.is_empty() {
            text = format!("{text} ({why})");
        }
    }
    Ok(State { title, text, ready })
}

async fn pods_of(connection: &Connection, owner: &Value) -> Result<Vec<Value>> {
    let namespace = owner["metadata"]["namespace"].as_str().unwrap_or("default");
    let labels = owner["spec"]["selector"]["matchLabels"].as_object();
    let pairs = labels.into_iter().flatten().filter_map(|(key, value)| Some(format!("{key}%3D{}", value.as_str()?)));
    let selector = pairs.collect::<Vec<_>>().join("%2C");
    let list = connection.get(&format!("/api/v1/namespaces/{namespace}/pods?labelSelector={selector}")).await?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

/// What the containers of pods wait for, each reason once.
fn waiting(pods: &[Value]) -> String {
    let mut reasons: Vec<&str> = Vec::new();
    for pod in pods {
        let statuses = ["initContainerStatuses", "containerStatuses"]
            .into_iter()
            .flat_map(|list| pod["status"][list].as_array().into_iter().flatten());
        for reason in statuses.filter_map(|status| status["state"]["waiting"]["reason"].as_str()) {
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
    }
    reasons.join(", ")
}
