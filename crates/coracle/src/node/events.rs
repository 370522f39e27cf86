//! Writes a node's Events: those about one Event object in the order in which they were recorded, the others side by side.
//!
//! It is in nobody's way: what does not fit into the queue is dropped, and a failure is nothing but a lost Event.

use std::collections::BTreeSet;
use std::sync::Arc;

use coracle_api::events::EventWrite;
use coracle_api::resources::EVENTS;
use coracle_api::{Method, Request, UserInfo};
use futures_util::future::join_all;
use tokio::sync::mpsc;

use super::News;
use crate::process::Process;

/// The writes that may wait: a burst of a full node's pods, twice over.
const QUEUE_MAX: usize = 1024;
/// The writes that are under way at a time.
const WAVE_MAX: usize = 64;

/// The writer of one node.
#[derive(Debug)]
pub(super) struct EventWriter {
    queue: mpsc::Sender<EventWrite>,
}

impl EventWriter {
    /// Starts the node's writer. It ends with this value.
    pub(super) fn start(process: Arc<Process>, news: mpsc::UnboundedSender<News>, node: &str) -> Self {
        let (queue, mut waiting) = mpsc::channel(QUEUE_MAX);
        let node = node.to_owned();
        tokio::spawn(async move {
            let mut taken = Vec::new();
            while waiting.recv_many(&mut taken, WAVE_MAX).await > 0 {
                for wave in waves(std::mem::take(&mut taken)) {
                    join_all(wave.into_iter().map(|write| put(&process, &news, &node, write))).await;
                }
            }
        });
        Self { queue }
    }

    /// Writes it soon, or drops it when too much waits already.
    pub(super) fn write(&self, write: EventWrite) {
        if self.queue.try_send(write).is_err() {
            tracing::debug!("an event was dropped: too many wait");
        }
    }
}

async fn put(process: &Process, news: &mpsc::UnboundedSender<News>, node: &str, write: EventWrite) {
    let (user, events) = (UserInfo::node(node), &EVENTS.resource);
    let (counted, request) = match write {
        EventWrite::Create { namespace, object } => {
            (None, Request::new(Method::Post, format!("/api/v1/namespaces/{namespace}/{events}"), user).json(object))
        }
        EventWrite::Count { namespace, name, patch } => {
            let path = format!("/api/v1/namespaces/{namespace}/{events}/{name}");
            let request = Request::new(Method::Patch, path, user).content_type("application/merge-patch+json");
            (Some(name), request.json(patch))
        }
    };
    if let Some(status) = process.respond(request).await.failure() {
        tracing::debug!(node, %status, "an event was not recorded");
        if let Some(name) = counted {
            let _ = news.send(News::EventGone(node.to_owned(), name));
        }
    }
}

/// The writes in runs that have no Event twice.
fn waves(writes: Vec<EventWrite>) -> Vec<Vec<EventWrite>> {
    let mut waves = vec![Vec::new()];
    let mut names = BTreeSet::new();
    for write in writes {
        if !names.insert(name_of(&write)) {
            waves.push(Vec::new());
            names = BTreeSet::from([name_of(&write)]);
        }
        if let Some(wave) = waves.last_mut() {
            wave.push(write);
        }
    }
    waves
}

fn name_of(write: &EventWrite) -> (String, String) {
    match write {
        EventWrite::Create { namespace, object } => {
            (namespace.clone(), object["metadata"]["name"].as_str().unwrap_or_default().to_owned())
        }
        EventWrite::Count { namespace, name, .. } => (namespace.clone(), name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_not_counted_before_it_is_made() {
        let create = |name: &str| EventWrite::Create {
            namespace: "default".into(),
            object: json!({"metadata": {"name": name}}),
        };
        let count = |name: &str| EventWrite::Count {
            namespace: "default".into(),
            name: name.into(),
            patch: json!({"count": 2}),
        };
        let waves = waves(vec![create("a"), create("b"), count("a"), create("c"), count("a"), count("b")]);
        let names: Vec<Vec<String>> =
            waves.iter().map(|wave| wave.iter().map(|write| name_of(write).1).collect()).collect();
        assert_eq!(names, [vec!["a", "b"], vec!["a", "c"], vec!["a", "b"]]);
    }
}
