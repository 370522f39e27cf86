//! The rows of guests' key-value store: an object each, of a resource of Coracle's own, in the same store as everything else.
//!
//! So they are replicated, forwarded and kept in snapshots without anything that is for them alone. Nobody serves them; guests reach
//! them through the node's port, and this module says what a call comes to in a view. Each ServiceAccount has buckets of its own: a
//! row's namespace is the account's, its name `<account>/<bucket>/<key>`. What the rows of a namespace need to go with it, the leader
//! does ([`ControlPlane`]): no request could.
//!
//! The bounds hold where a write is prepared. What other members have under way at that moment is not seen, so an account may go over
//! them by what each of those lets it write at once.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use coracle_api::resources::{KEY_VALUES, NAMESPACES, PODS, SERVICE_ACCOUNTS};
use coracle_api::{Attributes, Object, ObjectKey, Revision, Uid, canonical_json};
use coracle_base::{Instant, Now};
use coracle_node::runtime::{KeyValueAnswer, KeyValueCall, KeyValueError};
use coracle_store::{Precondition, Settlement, Transaction, View, Write};
use serde_json::json;

use crate::control_plane::ControlPlane;
use crate::feature_level::OWN_PROPOSAL;
use crate::{Input, Output};

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 256;
/// The longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 64 << 10;
/// The most keys of a ServiceAccount, in all of its buckets.
pub const ACCOUNT_KEYS_MAX: usize = 4096;
/// The most bytes that the rows of a ServiceAccount take as they are stored: a value takes four thirds of its length, and a row about
/// 40 bytes and its name.
pub const ACCOUNT_BYTES_MAX: usize = 8 << 20;
/// The most keys of one call, and the most bytes of values that it writes.
pub const BATCH_KEYS_MAX: usize = 1000;
/// See [`BATCH_KEYS_MAX`].
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// The most bytes of values that one call answers.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// The keys of one page of a list.
const PAGE_KEYS: usize = 1000;
/// The longest name of a bucket.
const BUCKET_CHARS_MAX: usize = 63;
/// The bucket that an empty name stands for.
const DEFAULT_BUCKET: &str = "default";
/// Rows that are removed at a time with their namespace, and how often that is tried while there are some.
const REMOVED_MAX: usize = 256;
const REMOVE_EVERY: std::time::Duration = std::time::Duration::from_millis(500);

/// A bucket of a ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    namespace: String,
    account: String,
    name: String,
}

/// How much rows take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// How many there are.
    pub count: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// What a call comes to in a view.
#[derive(Clone, Debug, PartialEq)]
pub enum Prepared {
    /// The answer, if the view is new enough.
    Answer(KeyValueAnswer),
    /// This is to be written, and then the answer is that.
    Write {
        /// What to write. Where it says that something moved on, the call is to be prepared again.
        transaction: Transaction,
        /// The answer then.
        answer: KeyValueAnswer,
        /// What the account's rows take more, once it is written.
        growth: Rows,
    },
}

impl Bucket {
    /// The bucket of this name that a pod has by its ServiceAccount. An empty name is `default`.
    ///
    /// # Errors
    ///
    /// No such store where a bucket cannot be called so; access denied where the pod or its ServiceAccount is gone.
    pub fn of_pod(view: &View, pod: &Uid, name: &str) -> Result<Self, KeyValueError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.len() > BUCKET_CHARS_MAX || !name.chars().all(plain) {
            return Err(KeyValueError::NoSuchStore);
        }
        let pod = view.by_uid(pod).filter(|pod| pod.key().resource == PODS).ok_or(KeyValueError::AccessDenied)?;
        let account = match pod.attribute("spec.serviceAccountName") {
            "" => "default",
            account => account,
        };
        let namespace = &pod.key().namespace;
        if view.object(&ObjectKey::new(SERVICE_ACCOUNTS, namespace, account)).is_none() {
            return Err(KeyValueError::AccessDenied);
        }
        let name = if name.is_empty() { DEFAULT_BUCKET } else { name };
        Ok(Self { namespace: namespace.to_string(), account: account.to_owned(), name: name.to_owned() })
    }

    /// The namespace and the name of the ServiceAccount.
    pub fn account(&self) -> (&str, &str) {
        (&self.namespace, &self.account)
    }

    fn row(&self, key: &str) -> ObjectKey {
        ObjectKey::new(KEY_VALUES, &self.namespace, &format!("{}/{}/{key}", self.account, self.name))
    }

    /// What a call comes to. `reserved` is what other writes that are under way add to the account's rows.
    ///
    /// # Errors
    ///
    /// The sentence says which bound the call is beyond, or what is wrong with the value that it is about.
    pub fn prepare(&self, view: &View, call: &KeyValueCall, reserved: Rows) -> Result<Prepared, KeyValueError> {
        match call {
            KeyValueCall::Open => Ok(Prepared::Answer(KeyValueAnswer::Done)),
            KeyValueCall::Get(keys) => self.values(view, keys).map(Prepared::Answer),
            KeyValueCall::Keys { after } => Ok(Prepared::Answer(self.keys(view, *after))),
            KeyValueCall::Set(pairs) => self.set(view, pairs, reserved),
            KeyValueCall::Delete(keys) => {
                check_batch(keys.len(), 0)?;
                let rows: BTreeMap<&str, Write> =
                    keys.iter().map(|key| (key.as_str(), Write::Delete { key: self.row(key) })).collect();
                let transaction = Transaction { writes: rows.into_values().collect(), ..Transaction::default() };
                Ok(Prepared::Write { transaction, answer: KeyValueAnswer::Done, growth: Rows::default() })
            }
            KeyValueCall::Increment { key, delta } => self.increment(view, key, *delta, reserved),
        }
    }

    fn values(&self, view: &View, keys: &[String]) -> Result<KeyValueAnswer, KeyValueError> {
        check_batch(keys.len(), 0)?;
        let (mut values, mut bytes) = (Vec::with_capacity(keys.len()), 0);
        for key in keys {
            let value = view.object(&self.row(key)).map(|row| value_of(row)).transpose()?;
            bytes += value.as_ref().map_or(0, Bytes::len);
            if bytes > ANSWER_BYTES_MAX {
                return Err(other(format!("the values are more than {ANSWER_BYTES_MAX} bytes together")));
            }
            values.push(value);
        }
        Ok(KeyValueAnswer::Values(values))
    }

    /// A page of the keys, in the order of their hashes: a cursor then stays where it is, whatever is written between two pages.
    fn keys(&self, view: &View, after: Option<u64>) -> KeyValueAnswer {
        let prefix = format!("{}/{}/", self.account, self.name);
        let rows = below(view, &self.namespace, &prefix).map(|row| &row.key().name[prefix.len()..]);
        let mut keys: Vec<(u64, &str)> = rows.map(|key| (hash(key), key)).collect();
        keys.retain(|(hash, _)| after.is_none_or(|after| *hash > after));
        keys.sort_unstable();
        let last = keys.get(PAGE_KEYS - 1).map(|(hash, _)| *hash);
        let next = last.filter(|last| keys.last().is_some_and(|(hash, _)| hash > last));
        let page = keys.into_iter().take_while(|(hash, _)| next.is_none_or(|next| *hash <= next));
        KeyValueAnswer::Keys { keys: page.map(|(_, key)| key.to_owned()).collect(), next }
    }

    fn set(&self, view: &View, pairs: &[(String, Bytes)], reserved: Rows) -> Result<Prepared, KeyValueError> {
        check_batch(pairs.len(), pairs.iter().map(|(_, value)| value.len()).sum())?;
        // Of a key that is there twice the last counts.
        let pairs: BTreeMap<&str, &Bytes> = pairs.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let mut writes = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            writes.push(self.put(key, value)?);
        }
        self.write(view, Vec::new(), writes, KeyValueAnswer::Done, reserved)
    }

    fn increment(&self, view: &View, key: &str, delta: u64, reserved: Rows) -> Result<Prepared, KeyValueError> {
        let row = self.row(key);
        let (before, precondition) = match view.object(&row) {
            None => (0_u64, Precondition::Absent(row)),
            Some(found) => {
                let value = value_of(found)?;
                let number = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
                let not_a_number = || other(format!("the value of {key:?} is no number that could be incremented"));
                (number.ok_or_else(not_a_number)?, Precondition::At(row, found.revision()))
            }
        };
        let after: u64 =
            before.checked_add(delta).ok_or_else(|| other(format!("the value of {key:?} would overflow")))?;
        let put = self.put(key, after.to_string().as_bytes())?;
        self.write(view, vec![precondition], vec![put], KeyValueAnswer::Number(after), reserved)
    }

    fn put(&self, key: &str, value: &[u8]) -> Result<Write, KeyValueError> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(other(format!("a key has 1 to {KEY_BYTES_MAX} bytes, not {}", key.len())));
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(other(format!("a value has at most {VALUE_BYTES_MAX} bytes, not {}", value.len())));
        }
        let key = self.row(key);
        let body = canonical_json(&json!({"metadata": {"name": &*key.name}, "value": STANDARD.encode(value)}));
        Ok(Write::Put { key, body: body.into(), attributes: Attributes::new() })
    }

    fn write(
        &self,
        view: &View,
        preconditions: Vec<Precondition>,
        writes: Vec<Write>,
        answer: KeyValueAnswer,
        reserved: Rows,
    ) -> Result<Prepared, KeyValueError> {
        let growth = self.growth(view, &writes, reserved)?;
        let settlements = vec![Settlement::NotTerminating(ObjectKey::new(NAMESPACES, "", &self.namespace))];
        let transaction = Transaction { preconditions, writes, settlements, term: None };
        Ok(Prepared::Write { transaction, answer, growth })
    }

    /// What these writes add to the account's rows, if that is within its bounds.
    fn growth(&self, view: &View, writes: &[Write], reserved: Rows) -> Result<Rows, KeyValueError> {
        let mut growth = Rows::default();
        for write in writes {
            let Write::Put { key, body, .. } = write else { continue };
            let before = view.object(key).map(|row| row.body().len());
            growth.count += usize::from(before.is_none());
            growth.bytes += body.len().saturating_sub(before.unwrap_or(0));
        }
        if growth == Rows::default() {
            return Ok(growth);
        }
        let mut all = Rows { count: growth.count + reserved.count, bytes: growth.bytes + reserved.bytes };
        for row in below(view, &self.namespace, &format!("{}/", self.account)) {
            all.count += 1;
            all.bytes += row.body().len();
        }
        let owner = format!("ServiceAccount {}/{}", self.namespace, self.account);
        if growth.count > 0 && all.count > ACCOUNT_KEYS_MAX {
            return Err(other(format!("{owner} has as many keys as it may: {ACCOUNT_KEYS_MAX}")));
        }
        if growth.bytes > 0 && all.bytes > ACCOUNT_BYTES_MAX {
            return Err(other(format!("{owner} stores as much as it may: {ACCOUNT_BYTES_MAX} bytes")));
        }
        Ok(growth)
    }
}

/// The rows of a namespace whose names begin so.
fn below<'a>(view: &'a View, namespace: &str, prefix: &str) -> impl Iterator<Item = &'a Object> {
    let rows = view.list_after(&KEY_VALUES, Some(namespace), (namespace, prefix));
    let prefix = prefix.to_owned();
    rows.map(|row| &**row).take_while(move |row| row.key().name.starts_with(&prefix))
}

fn value_of(row: &Object) -> Result<Bytes, KeyValueError> {
    let value = row.value(None);
    let text = value["value"].as_str().unwrap_or_default();
    let damaged = |error| other(format!("the stored value cannot be read: {error}"));
    STANDARD.decode(text).map(Bytes::from).map_err(damaged)
}

fn check_batch(keys: usize, bytes: usize) -> Result<(), KeyValueError> {
    if keys > BATCH_KEYS_MAX {
        return Err(other(format!("a call is about at most {BATCH_KEYS_MAX} keys, not {keys}")));
    }
    if bytes > BATCH_BYTES_MAX {
        return Err(other(format!("a call writes at most {BATCH_BYTES_MAX} bytes of values, not {bytes}")));
    }
    Ok(())
}

fn other(why: String) -> KeyValueError {
    KeyValueError::Other(why)
}

/// FNV-1a: spreads keys; that somebody finds two alike makes a page longer and nothing else.
fn hash(key: &str) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What the leader knows of rows whose namespace is deleted.
#[derive(Debug, Default)]
pub(crate) struct Removal {
    /// The last changes of namespaces and of rows that were looked at.
    seen: Option<[Revision; 2]>,
    /// There are such rows: when they are looked at again if nothing changes.
    again: Option<Instant>,
}

impl Removal {
    pub(crate) fn next_wakeup(&self) -> Option<Instant> {
        self.again
    }
}

impl ControlPlane {
    /// Removes rows whose namespace is deleted, once no pod is left there that could use them.
    pub(crate) fn look_at_rows(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.is_leading() {
            self.removal = Removal::default();
            return;
        }
        let seen = Some([&NAMESPACES, &KEY_VALUES].map(|resource| self.view().last_change(resource)));
        // While no namespace is deleted that has rows, those that are written are of no interest.
        let changed = match self.removal.again {
            None => self.removal.seen.map(|seen| seen[0]) != seen.map(|seen| seen[0]),
            Some(again) => self.removal.seen != seen || again <= now.mono,
        };
        if !changed {
            return;
        }
        self.removal.seen = seen;
        let (waiting, transaction) = removal(self.view());
        self.removal.again = waiting.then(|| now.mono + REMOVE_EVERY);
        if let Some(transaction) = transaction {
            let transaction = Transaction { term: self.lead_term(), ..transaction };
            self.take(now, Input::Submit(OWN_PROPOSAL, transaction), out);
        }
    }
}

/// Whether there are rows in namespaces that are deleted, and what removes some of them.
fn removal(view: &View) -> (bool, Option<Transaction>) {
    let deleted = view.list(&NAMESPACES, None).filter(|namespace| namespace.metadata().deletion_timestamp.is_some());
    let mut waiting = false;
    for namespace in deleted {
        let name = Some(&*namespace.key().name);
        if view.count(&KEY_VALUES, name) == 0 {
            continue;
        }
        waiting = true;
        if view.count(&PODS, name) > 0 {
            continue;
        }
        let rows = view.list(&KEY_VALUES, name).take(REMOVED_MAX);
        // Another namespace of the same name has a revision of its own.
        let transaction = Transaction {
            preconditions: vec![Precondition::At(namespace.key().clone(), namespace.revision())],
            writes: rows.map(|row| Write::Delete { key: row.key().clone() }).collect(),
            ..Transaction::default()
        };
        return (true, Some(transaction));
    }
    (waiting, None)
}

#[cfg(test)]
mod tests;
