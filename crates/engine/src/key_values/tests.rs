//! Calls against a store of their own, and rows that go with their namespace.

use std::sync::Arc;

use coracle_api::Response;
use coracle_base::Timestamp;
use coracle_raft::Config;
use coracle_store::{Applied, Entry, Refused, Store, StoreOptions};
use serde_json::Value;

use super::*;
use crate::{AutopilotOptions, ControlPlaneOptions, FEATURE_LEVEL, SNAPSHOT_AFTER_BYTES};

fn put(key: ObjectKey, mut body: Value, attributes: &[(&str, &str)]) -> Transaction {
    body["metadata"]["name"] = key.name.to_string().into();
    let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let put = Write::Put { key, body: canonical_json(&body).into(), attributes };
    Transaction { writes: vec![put], ..Transaction::default() }
}

/// A namespace `shop` with a ServiceAccount `till` and a pod of it.
fn shop() -> Vec<Transaction> {
    vec![
        put(ObjectKey::new(NAMESPACES, "", "shop"), json!({"metadata": {"uid": "shop"}}), &[]),
        put(ObjectKey::new(SERVICE_ACCOUNTS, "shop", "till"), json!({"metadata": {"uid": "till"}}), &[]),
        put(
            ObjectKey::new(PODS, "shop", "till-0"),
            json!({"metadata": {"uid": "pod"}}),
            &[("spec.serviceAccountName", "till")],
        ),
    ]
}

struct World {
    store: Store,
}

impl World {
    fn new() -> Self {
        let mut world = Self { store: Store::new(StoreOptions::default()) };
        for transaction in shop() {
            world.apply(transaction).unwrap();
        }
        world
    }

    fn apply(&mut self, transaction: Transaction) -> Result<Applied, Refused> {
        let entry = Entry { transactions: vec![transaction], ..Entry::at(Timestamp::EPOCH) };
        self.store.apply(1, &entry).pop().unwrap()
    }

    fn bucket(&self, name: &str) -> Result<Bucket, KeyValueError> {
        Bucket::of_pod(&self.store.view(), &"pod".into(), name)
    }

    fn prepare(&self, call: &KeyValueCall) -> Result<Prepared, KeyValueError> {
        self.bucket("stock")?.prepare(&self.store.view(), call, Rows::default())
    }

    /// Prepares a call and writes what it comes to.
    fn call(&mut self, call: &KeyValueCall) -> Result<KeyValueAnswer, KeyValueError> {
        match self.prepare(call)? {
            Prepared::Answer(answer) => Ok(answer),
            Prepared::Write { transaction, answer, .. } => {
                self.apply(transaction).unwrap();
                Ok(answer)
            }
        }
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Result<KeyValueAnswer, KeyValueError> {
        self.call(&KeyValueCall::Set(vec![(key.to_owned(), Bytes::copy_from_slice(value))]))
    }

    fn get(&mut self, key: &str) -> Option<Bytes> {
        let Ok(KeyValueAnswer::Values(mut values)) = self.call(&KeyValueCall::Get(vec![key.to_owned()])) else {
            panic!("values are answered")
        };
        values.pop().unwrap()
    }

    fn increment(&mut self, key: &str, delta: u64) -> Result<KeyValueAnswer, KeyValueError> {
        self.call(&KeyValueCall::Increment { key: key.to_owned(), delta })
    }

    /// All keys, page by page, and how many pages there were.
    fn keys(&mut self) -> (Vec<String>, usize) {
        let (mut all, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let Ok(KeyValueAnswer::Keys { keys, next }) = self.call(&KeyValueCall::Keys { after }) else {
                panic!("keys are answered")
            };
            all.extend(keys);
            pages += 1;
            after = next;
            if after.is_none() {
                all.sort();
                return (all, pages);
            }
        }
    }
}

fn large(bytes: usize) -> Vec<u8> {
    vec![0; bytes]
}

#[track_caller]
fn said(result: Result<KeyValueAnswer, KeyValueError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn what_is_set_is_read_whatever_its_bytes_and_its_key() {
    let mut world = World::new();
    assert_eq!(world.get("a/b c"), None);
    world.set("a/b c", &[0, 255, b'"']).unwrap();
    assert_eq!(world.get("a/b c"), Some(Bytes::from_static(&[0, 255, b'"'])));
    world.set("a/b c", b"").unwrap();
    assert_eq!(world.get("a/b c"), Some(Bytes::new()));
    world.call(&KeyValueCall::Delete(vec!["a/b c".into(), "never".into(), "never".into()])).unwrap();
    assert_eq!(world.get("a/b c"), None);
}

#[test]
fn a_batch_is_written_as_a_whole_and_of_a_key_twice_the_last_counts() {
    let mut world = World::new();
    let pairs = [("a", "1"), ("b", "2"), ("a", "3")].map(|(key, value)| (key.to_owned(), Bytes::from(value)));
    world.call(&KeyValueCall::Set(pairs.into())).unwrap();
    assert_eq!((world.get("a"), world.get("b")), (Some("3".into()), Some("2".into())));
    let values = world.call(&KeyValueCall::Get(vec!["b".into(), "c".into(), "a".into()]));
    assert_eq!(values, Ok(KeyValueAnswer::Values(vec![Some("2".into()), None, Some("3".into())])));
}

#[test]
fn an_increment_leans_on_what_it_has_read() {
    let mut world = World::new();
    assert_eq!(world.increment("n", 5), Ok(KeyValueAnswer::Number(5)));
    assert_eq!(world.increment("n", 2), Ok(KeyValueAnswer::Number(7)));
    assert_eq!(world.get("n"), Some("7".into()));
    let prepared = world.prepare(&KeyValueCall::Increment { key: "n".into(), delta: 1 });
    let Ok(Prepared::Write { transaction, .. }) = prepared else { panic!("it is a write") };
    world.increment("n", 1).unwrap();
    assert!(world.apply(transaction).unwrap_err().moved_on(), "another one came first");
    world.set("n", b"many").unwrap();
    assert!(said(world.increment("n", 1)).contains("is no number"));
    world.set("n", u64::MAX.to_string().as_bytes()).unwrap();
    assert!(said(world.increment("n", 1)).contains("overflow"));
}

#[test]
fn buckets_and_accounts_do_not_see_each_other() {
    let mut world = World::new();
    world.set("a", b"1").unwrap();
    let view = world.store.view();
    let other = world.bucket("stock2").unwrap();
    let get = KeyValueCall::Get(vec!["a".into()]);
    let nothing = Ok(Prepared::Answer(KeyValueAnswer::Values(vec![None])));
    assert_eq!(other.prepare(&view, &get, Rows::default()), nothing);
    for account in ["til", "till2"] {
        let other = Bucket { namespace: "shop".into(), account: account.into(), name: "stock".into() };
        assert_eq!(other.prepare(&view, &get, Rows::default()), nothing);
    }
    assert_eq!(world.bucket(""), world.bucket("default"));
}

#[test]
fn a_bucket_has_a_plain_name_and_a_pod_that_is_there() {
    let mut world = World::new();
    for name in ["a/b", "ä", &"x".repeat(64)] {
        assert_eq!(world.bucket(name), Err(KeyValueError::NoSuchStore), "{name}");
    }
    assert_eq!(Bucket::of_pod(&world.store.view(), &"till".into(), "a"), Err(KeyValueError::AccessDenied));
    world
        .apply(Transaction {
            writes: vec![Write::Delete { key: ObjectKey::new(SERVICE_ACCOUNTS, "shop", "till") }],
            ..Transaction::default()
        })
        .unwrap();
    assert_eq!(world.bucket("a"), Err(KeyValueError::AccessDenied));
}

#[test]
fn keys_and_values_have_their_bounds() {
    let mut world = World::new();
    assert!(said(world.set("", b"")).contains("1 to 256 bytes"));
    assert!(said(world.set(&"k".repeat(KEY_BYTES_MAX + 1), b"")).contains("not 257"));
    world.set(&"k".repeat(KEY_BYTES_MAX), &large(VALUE_BYTES_MAX)).unwrap();
    assert!(said(world.set("v", &large(VALUE_BYTES_MAX + 1))).contains("not 65537"));
    let many: Vec<String> = (0..=BATCH_KEYS_MAX).map(|key| key.to_string()).collect();
    assert!(said(world.call(&KeyValueCall::Get(many.clone()))).contains("at most 1000 keys"));
    assert!(said(world.call(&KeyValueCall::Delete(many))).contains("at most 1000 keys"));
    let pairs = (0..17).map(|key| (key.to_string(), large(VALUE_BYTES_MAX).into()));
    assert!(said(world.call(&KeyValueCall::Set(pairs.collect()))).contains("1048576 bytes"));
}

#[test]
fn an_account_has_so_many_keys_and_no_more() {
    let mut world = World::new();
    let pairs = |from: usize, to: usize| (from..to).map(|key| (key.to_string(), Bytes::from("v"))).collect();
    for thousand in 0..4 {
        world.call(&KeyValueCall::Set(pairs(thousand * 1000, (thousand + 1) * 1000))).unwrap();
    }
    world.call(&KeyValueCall::Set(pairs(4000, ACCOUNT_KEYS_MAX))).unwrap();
    assert!(said(world.set("one more", b"v")).contains("ServiceAccount shop/till has as many keys as it may: 4096"));
    world.set("7", b"w").unwrap();
    let (keys, pages) = world.keys();
    assert_eq!((keys.len(), pages), (ACCOUNT_KEYS_MAX, 5));
    world.call(&KeyValueCall::Delete(vec!["7".into()])).unwrap();
    world.set("one more", b"v").unwrap();
}

#[test]
fn an_account_stores_so_many_bytes_and_what_is_under_way_counts() {
    let mut world = World::new();
    let mut stored = 0;
    while world.set(&stored.to_string(), &large(VALUE_BYTES_MAX)).is_ok() {
        stored += 1;
    }
    assert_eq!(stored, 95, "64 KiB take four thirds of that in base64");
    assert!(said(world.set("x", &large(VALUE_BYTES_MAX))).contains("stores as much as it may"));
    let set = KeyValueCall::Set(vec![("small".into(), "v".into())]);
    let reserved = Rows { count: 0, bytes: 2 * VALUE_BYTES_MAX };
    let bucket = world.bucket("stock").unwrap();
    assert!(bucket.prepare(&world.store.view(), &set, reserved).is_err());
    assert!(bucket.prepare(&world.store.view(), &set, Rows::default()).is_ok());
    world.set("0", b"").unwrap();
    world.set("x", b"there is room again").unwrap();
}

#[test]
fn nothing_is_written_into_a_namespace_that_goes() {
    let mut world = World::new();
    let set = KeyValueCall::Set(vec![("a".into(), "1".into())]);
    let Ok(Prepared::Write { transaction, .. }) = world.prepare(&set) else { panic!("it is a write") };
    world.apply(terminating()).unwrap();
    assert!(matches!(world.apply(transaction), Err(Refused::Terminating(_))));
}

#[test]
fn rows_are_in_snapshots() {
    let mut world = World::new();
    world.set("a", b"1").unwrap();
    world.store = Store::restore(StoreOptions::default(), &world.store.view().snapshot()).unwrap();
    assert_eq!(world.get("a"), Some("1".into()));
}

fn terminating() -> Transaction {
    let meta = json!({"metadata": {"uid": "shop", "deletionTimestamp": "2026-11-22T10:00:00Z"}});
    put(ObjectKey::new(NAMESPACES, "", "shop"), meta, &[])
}

/// A control plane that is alone, on a disk that takes no time.
struct Alone {
    plane: ControlPlane,
    now: Now,
}

impl Alone {
    fn new() -> Self {
        let options = ControlPlaneOptions {
            raft: Config::single(coracle_raft::MemberId(1)),
            server: Arc::default(),
            store: StoreOptions::default(),
            controllers: |_, _| Vec::new(),
            seed: 1,
            autopilot: AutopilotOptions::default(),
            snapshot_after: SNAPSHOT_AFTER_BYTES,
            feature_level: FEATURE_LEVEL,
        };
        let now = Now::default();
        let mut alone = Self { plane: ControlPlane::new(now, options, None), now };
        while !alone.plane.is_leading() {
            alone.advance();
        }
        alone
    }

    fn submit(&mut self, transaction: Transaction) {
        self.step(Input::Submit(crate::ProposalId(1), transaction));
    }

    /// Until it is to be woken next, or a second when nothing is waited for.
    fn advance(&mut self) {
        let wait = self.plane.next_wakeup().map(|next| next.saturating_since(self.now.mono));
        self.now = self.now.after(wait.unwrap_or(std::time::Duration::from_secs(1)));
        self.step(Input::Tick);
    }

    fn step(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for output in self.plane.step(self.now, input) {
                match output {
                    Output::Persist(id, _) => inputs.push(Input::Persisted(id)),
                    Output::Prepare { id, .. } => inputs.push(Input::Answered(id, Response::text(500, "not here"))),
                    _ => {}
                }
            }
        }
    }

    fn rows(&self) -> usize {
        self.plane.view().count(&KEY_VALUES, None)
    }
}

#[test]
fn the_rows_of_a_namespace_go_with_it_once_its_pods_are_gone() {
    let mut alone = Alone::new();
    for transaction in shop() {
        alone.submit(transaction);
    }
    let bucket = Bucket::of_pod(alone.plane.view(), &"pod".into(), "stock").unwrap();
    for thousand in 0..3 {
        let pairs = (0..1000).map(|key| (format!("{thousand}-{key}"), Bytes::from("v"))).collect();
        let prepared = bucket.prepare(alone.plane.view(), &KeyValueCall::Set(pairs), Rows::default());
        let Ok(Prepared::Write { transaction, .. }) = prepared else { panic!("it is a write") };
        alone.submit(transaction);
    }
    alone.submit(terminating());
    (0..10).for_each(|_| alone.advance());
    assert_eq!(alone.rows(), 3000, "a pod is there that may use them");
    alone.submit(Transaction {
        writes: vec![Write::Delete { key: ObjectKey::new(PODS, "shop", "till-0") }],
        ..Transaction::default()
    });
    let before = alone.now.mono;
    while alone.rows() > 0 {
        alone.advance();
    }
    assert!(alone.now.mono.saturating_since(before) <= REMOVE_EVERY, "one removal follows the other");
    (0..10).for_each(|_| alone.advance());
    assert_eq!(alone.plane.removal.next_wakeup(), None, "there is nothing left to wait for");
}
