//! A node's Events on their way to the API server: one after the other, so that none is counted before it is made.

use std::collections::VecDeque;

use coracle_api::events::{EventRecord, EventRecorder, EventType, EventWrite};
use coracle_api::resources::EVENTS;
use coracle_api::{Method, Request, UserInfo};
use coracle_base::{Now, Rng};

/// The writes that may wait: what comes beyond is dropped, as by the production driver.
const QUEUE_MAX: usize = 1024;

/// The write that is under way.
#[derive(Debug, Default, PartialEq)]
enum UnderWay {
    #[default]
    Nothing,
    /// An Event is being made.
    Create,
    /// The Event of this name is being counted.
    Count(String),
}

/// What counts and writes a node's Events.
#[derive(Debug, Default)]
pub(super) struct EventWriter {
    recorder: EventRecorder,
    waiting: VecDeque<EventWrite>,
    under_way: UnderWay,
}

impl EventWriter {
    /// Takes an Event; it waits for its turn.
    pub(super) fn record(&mut self, node: &str, record: coracle_node::EventRecord, now: Now, rng: &mut Rng) {
        let record = EventRecord {
            regarding: record.regarding,
            uid: record.uid,
            field_path: record.field_path,
            event_type: match record.event_type {
                coracle_node::EventType::Normal => EventType::Normal,
                coracle_node::EventType::Warning => EventType::Warning,
            },
            reason: record.reason,
            message: record.message,
        };
        let write = self.recorder.record("kubelet", Some(node), &record, now, rng);
        self.waiting.extend(write.filter(|_| self.waiting.len() < QUEUE_MAX));
    }

    /// The next request, unless one is under way.
    pub(super) fn next(&mut self, node: &str) -> Option<Request> {
        if self.under_way != UnderWay::Nothing {
            return None;
        }
        let (user, events) = (UserInfo::node(node), &EVENTS.resource);
        Some(match self.waiting.pop_front()? {
            EventWrite::Create { namespace, object } => {
                self.under_way = UnderWay::Create;
                Request::new(Method::Post, format!("/api/v1/namespaces/{namespace}/{events}"), user).json(object)
            }
            EventWrite::Count { namespace, name, patch } => {
                let path = format!("/api/v1/namespaces/{namespace}/{events}/{name}");
                self.under_way = UnderWay::Count(name);
                Request::new(Method::Patch, path, user).content_type("application/merge-patch+json").json(patch)
            }
        })
    }

    /// What was under way came to its end; an Event that could not be counted is made anew the next time.
    pub(super) fn written(&mut self, success: bool) {
        if let UnderWay::Count(name) = std::mem::take(&mut self.under_way)
            && !success
        {
            self.recorder.forget(&name);
        }
    }
}
