//! Recording Events: equal ones are counted together, similar ones combined, and a flood is dropped.
//!
//! The recorder is a value that answers with what to write; it writes nothing and reads no clock.
//! The rules are those of client-go's legacy recorder (`k8s.io/client-go/tools/record`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use coracle_base::{Now, Rng, Timestamp};
use serde_json::{Value, json};

use crate::resources::kind_of;
use crate::{ObjectKey, Uid};

/// How many events, groups of similar events, and sources are remembered: client-go's bound.
const REMEMBERED_MAX: usize = 4096;
/// How many different messages of one reason are recorded one by one within [`SIMILAR_WITHIN`].
const SIMILAR_MAX: usize = 10;
/// A group of similar events that was quiet for this long begins anew.
const SIMILAR_WITHIN: Duration = Duration::from_mins(10);
/// How many events of one source about one object may come at once.
const BURST: f64 = 25.0;
/// And how many a second after that: one in five minutes.
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;
/// An event that was last written this long ago may be gone (they live for an hour), so it is created anew.
const COUNTED_WITHIN: Duration = Duration::from_mins(55);
/// What the message of a combined event begins with.
const COMBINED: &str = "(combined from similar events): ";

/// The type of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventType {
    /// Something happened as it should.
    Normal,
    /// Something needs attention.
    Warning,
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        })
    }
}

/// An Event to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// What it is about.
    pub regarding: ObjectKey,
    /// The uid of what it is about (a node's own name for a node's events, as kubelets do).
    pub uid: Option<Uid>,
    /// The part of the object that it is about, as in `spec.containers{web}`.
    pub field_path: Option<String>,
    /// Normal or warning.
    pub event_type: EventType,
    /// One CamelCase word.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl EventRecord {
    /// An event about a whole object.
    pub fn new(
        regarding: &ObjectKey,
        uid: Option<&Uid>,
        event_type: EventType,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        let message = message.into();
        Self { regarding: regarding.clone(), uid: uid.cloned(), field_path: None, event_type, reason, message }
    }
}

/// What to write for an Event.
#[derive(Clone, Debug, PartialEq)]
pub enum EventWrite {
    /// POST this `v1` Event to this namespace.
    Create {
        /// The namespace.
        namespace: String,
        /// The Event, with `kind` and `apiVersion`.
        object: Value,
    },
    /// PATCH (merge) an Event that was written before.
    Count {
        /// The namespace.
        namespace: String,
        /// The Event's name.
        name: String,
        /// The patch.
        patch: Value,
    },
}

/// Who records, about what: what the spam filter counts by.
type Source = (Arc<str>, Option<Arc<str>>, ObjectKey, Option<Uid>);
/// What similar events share.
type Group = (Source, Option<String>, EventType, &'static str);
/// What equal events share; combined ones have no message of their own.
type Identity = (Group, Option<String>);

#[derive(Debug)]
struct Similar {
    messages: BTreeSet<String>,
    last: Timestamp,
}

#[derive(Debug)]
struct Written {
    name: String,
    count: u64,
    last: Timestamp,
}

#[derive(Debug)]
struct Tokens {
    left: f64,
    at: Timestamp,
}

/// Turns what happened into writes of Events. What it remembers is bounded, and may be lost without harm.
#[derive(Debug, Default)]
pub struct EventRecorder {
    similar: Recent<Group, Similar>,
    written: Recent<Identity, Written>,
    tokens: Recent<Source, Tokens>,
    /// The number in the last name: names rise, so that a list in the order of names tells a story in its order.
    last_number: u64,
}

impl EventRecorder {
    /// Decides what to write for one event of `component` (on `host`, for a node's agent); `None` when its source is flooding.
    pub fn record(
        &mut self,
        component: &str,
        host: Option<&str>,
        record: &EventRecord,
        now: Now,
        rng: &mut Rng,
    ) -> Option<EventWrite> {
        let source: Source = (component.into(), host.map(Arc::from), record.regarding.clone(), record.uid.clone());
        let group: Group = (source.clone(), record.field_path.clone(), record.event_type, record.reason);
        let combined = self.is_one_too_many(&group, &record.message, now.wall);
        let message = if combined { format!("{COMBINED}{}", record.message) } else { record.message.clone() };
        let identity: Identity = (group, (!combined).then(|| record.message.clone()));
        if !self.take_token(source, now.wall) {
            return None;
        }
        let namespace = namespace_of(record).to_owned();
        if let Some(written) = self.written.get(&identity)
            && now.wall.saturating_since(written.last) < COUNTED_WITHIN
        {
            written.count += 1;
            written.last = now.wall;
            let patch = json!({"count": written.count, "lastTimestamp": now.wall.rfc3339(), "message": message});
            return Some(EventWrite::Count { namespace, name: written.name.clone(), patch });
        }
        let name = self.event_name(record, now.wall, rng);
        let object = event_object(component, host, record, &name, &message, now.wall);
        self.written.insert(identity, Written { name, count: 1, last: now.wall });
        Some(EventWrite::Create { namespace, object })
    }

    /// An Event that [`EventWrite::Count`] named is gone: the next equal one is created anew.
    pub fn forget(&mut self, name: &str) {
        self.written.retain(|written| written.name != name);
    }

    fn is_one_too_many(&mut self, group: &Group, message: &str, now: Timestamp) -> bool {
        let Some(similar) = self.similar.get(group) else {
            let messages = BTreeSet::from([message.to_owned()]);
            self.similar.insert(group.clone(), Similar { messages, last: now });
            return false;
        };
        if now.saturating_since(similar.last) > SIMILAR_WITHIN {
            similar.messages.clear();
        }
        similar.last = now;
        if similar.messages.contains(message) {
            return false;
        }
        if similar.messages.len() >= SIMILAR_MAX {
            return true;
        }
        similar.messages.insert(message.to_owned());
        false
    }

    /// `<object>.<nanoseconds in hexadecimal>`. The last 16 bits (about 65 microseconds) are drawn, because other components
    /// record too, and virtual time stands still.
    fn event_name(&mut self, record: &EventRecord, now: Timestamp, rng: &mut Rng) -> String {
        let drawn = now.as_nanos().cast_unsigned() & !0xffff | rng.below(1 << 16);
        self.last_number = drawn.max(self.last_number.saturating_add(1));
        format!("{}.{:x}", record.regarding.name, self.last_number)
    }

    fn take_token(&mut self, source: Source, now: Timestamp) -> bool {
        let Some(tokens) = self.tokens.get(&source) else {
            self.tokens.insert(source, Tokens { left: BURST - 1.0, at: now });
            return true;
        };
        let refill = now.saturating_since(tokens.at).as_secs_f64() * REFILL_PER_SECOND;
        tokens.left = (tokens.left + refill).min(BURST);
        tokens.at = now;
        if tokens.left < 1.0 {
            return false;
        }
        tokens.left -= 1.0;
        true
    }
}

/// Events about cluster-scoped objects live in `default`.
fn namespace_of(record: &EventRecord) -> &str {
    if record.regarding.namespace.is_empty() { "default" } else { &record.regarding.namespace }
}

fn event_object(
    component: &str,
    host: Option<&str>,
    record: &EventRecord,
    name: &str,
    message: &str,
    now: Timestamp,
) -> Value {
    let mut regarding = json!({"name": &*record.regarding.name});
    if let Some(gvk) = kind_of(&record.regarding.resource) {
        regarding["kind"] = gvk.kind.as_ref().into();
        regarding["apiVersion"] = gvk.api_version().into();
    }
    if !record.regarding.namespace.is_empty() {
        regarding["namespace"] = (*record.regarding.namespace).into();
    }
    if let Some(uid) = &record.uid {
        regarding["uid"] = uid.as_str().into();
    }
    if let Some(path) = &record.field_path {
        regarding["fieldPath"] = path.as_str().into();
    }
    let mut source = json!({"component": component});
    if let Some(host) = host {
        source["host"] = host.into();
    }
    json!({
        "kind": "Event",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": namespace_of(record)},
        "involvedObject": regarding,
        "reason": record.reason,
        "message": message,
        "source": source,
        "firstTimestamp": now.rfc3339(),
        "lastTimestamp": now.rfc3339(),
        "count": 1,
        "type": record.event_type.to_string(),
        "eventTime": null,
        "reportingComponent": component,
        "reportingInstance": host.unwrap_or_default(),
    })
}

/// A map of at most [`REMEMBERED_MAX`] entries that forgets what was used the longest ago.
#[derive(Debug)]
struct Recent<K, V> {
    entries: BTreeMap<K, (u64, V)>,
    by_use: BTreeMap<u64, K>,
    uses: u64,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), by_use: BTreeMap::new(), uses: 0 }
    }
}

impl<K: Ord + Clone, V> Recent<K, V> {
    fn get(&mut self, key: &K) -> Option<&mut V> {
        let (used, value) = self.entries.get_mut(key)?;
        let key = self.by_use.remove(used)?;
        self.uses += 1;
        *used = self.uses;
        self.by_use.insert(self.uses, key);
        Some(value)
    }

    fn insert(&mut self, key: K, value: V) {
        self.uses += 1;
        if let Some((used, _)) = self.entries.insert(key.clone(), (self.uses, value)) {
            self.by_use.remove(&used);
        }
        self.by_use.insert(self.uses, key);
        if self.entries.len() > REMEMBERED_MAX
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.entries.remove(&oldest);
        }
    }

    fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        self.entries.retain(|_, (_, value)| keep(value));
        self.by_use.retain(|_, key| self.entries.contains_key(key));
    }
}

#[cfg(test)]
mod tests;
