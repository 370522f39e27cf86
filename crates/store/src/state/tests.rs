//! What transactions do, by example.

use coracle_api::resources::{CONFIG_MAPS, NAMESPACES, PODS, SERVICES};
use coracle_api::{Attributes, ObjectKey, Uid, canonical_json};
use serde_json::{Value, json};

use super::*;
use crate::{Expired, Pool, Precondition, Render, Settlement, Want, Write};

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(CONFIG_MAPS, "default", name)
}

fn put_value(key: ObjectKey, value: &Value) -> Write {
    Write::Put { key, body: canonical_json(value).into(), attributes: Attributes::new() }
}

fn put(name: &str, data: u64) -> Write {
    put_value(key(name), &json!({"metadata": {"name": name, "uid": format!("uid-{name}")}, "data": {"k": data}}))
}

fn delete(name: &str) -> Write {
    Write::Delete { key: key(name) }
}

fn write(writes: impl IntoIterator<Item = Write>) -> Transaction {
    Transaction { writes: writes.into_iter().collect(), ..Transaction::default() }
}

fn at(seconds: i64, transactions: Vec<Transaction>) -> Entry {
    Entry { time: Timestamp::from_secs(seconds), transactions }
}

fn apply(store: &mut Store, transaction: Transaction) -> Result<Applied, Refused> {
    store.apply(1, &at(1, vec![transaction])).remove(0)
}

fn revision(result: Result<Applied, Refused>) -> u64 {
    result.unwrap().revision.0
}

fn changes(view: &View, after: u64) -> Vec<(u64, &'static str, String)> {
    let changes = view.changes_after(&CONFIG_MAPS, Revision(after)).unwrap();
    let kind = |change: &crate::Change| match (&change.old, &change.new) {
        (None, Some(_)) => "added",
        (Some(_), Some(_)) => "modified",
        (Some(_), None) => "deleted",
        (None, None) => "nothing",
    };
    changes.iter().map(|c| (c.revision.0, kind(c), c.object().unwrap().key().name.to_string())).collect()
}

#[test]
fn all_writes_of_a_transaction_share_a_revision() {
    let mut store = Store::new(StoreOptions::default());
    let applied = apply(&mut store, write([put("a", 1), put("b", 1)])).unwrap();
    assert_eq!(applied.revision, Revision(1));
    assert!(applied.objects.iter().flatten().all(|object| object.revision() == Revision(1)));
    assert_eq!(store.view().count(&CONFIG_MAPS, Some("default")), 2);
    assert_eq!(store.view().by_uid(&Uid::from("uid-b")).unwrap().key(), &key("b"));
}

#[test]
fn what_changes_nothing_makes_no_revision() {
    let mut store = Store::new(StoreOptions::default());
    assert_eq!(revision(apply(&mut store, write([put("a", 1)]))), 1);
    let again = apply(&mut store, write([put("a", 1), delete("gone")])).unwrap();
    assert_eq!(again.revision, Revision(1));
    assert_eq!(again.objects[0].as_ref().unwrap().revision(), Revision(1));
    assert_eq!(again.objects[1], None);
    assert_eq!(revision(apply(&mut store, Transaction::default())), 1);
    assert_eq!(changes(&store.view(), 0).len(), 1);
}

#[test]
fn a_transaction_is_refused_whole() {
    let mut store = Store::new(StoreOptions::default());
    apply(&mut store, write([put("a", 1)])).unwrap();
    let before = store.view();
    let with = |precondition| Transaction { preconditions: vec![precondition], ..write([put("b", 1), delete("a")]) };
    let refusals = [
        (with(Precondition::Absent(key("a"))), Refused::Exists(key("a"))),
        (with(Precondition::At(key("x"), Revision(1))), Refused::Gone(key("x"))),
        (with(Precondition::At(key("a"), Revision(7))), Refused::Modified(key("a"))),
        (write([put("b", 1), put("b", 2)]), Refused::Malformed(key("b"))),
        (write([put("b", 1), put_value(key("c"), &json!({}))]), Refused::Malformed(key("c"))),
        (Transaction { term: Some(2), ..write([put("b", 1)]) }, Refused::Term { made: 2, applied: 1 }),
    ];
    for (transaction, refused) in refusals {
        assert_eq!(apply(&mut store, transaction), Err(refused));
    }
    assert_eq!(store.view().snapshot(), before.snapshot());
    assert_eq!(revision(apply(&mut store, with(Precondition::At(key("a"), Revision(1))))), 2);
}

#[test]
fn nothing_is_created_in_what_is_going_away() {
    let mut store = Store::new(StoreOptions::default());
    let namespace = |name: &str| ObjectKey::new(NAMESPACES, "", name);
    let settled =
        |name| Transaction { settlements: vec![Settlement::NotTerminating(namespace(name))], ..write([put("a", 1)]) };
    let going = json!({"metadata": {"name": "going", "deletionTimestamp": "2026-11-22T10:31:34Z"}});
    let staying = json!({"metadata": {"name": "staying"}});
    let both = [put_value(namespace("going"), &going), put_value(namespace("staying"), &staying)];
    apply(&mut store, write(both)).unwrap();
    assert_eq!(apply(&mut store, settled("absent")), Err(Refused::Gone(namespace("absent"))));
    assert_eq!(apply(&mut store, settled("going")), Err(Refused::Terminating(namespace("going"))));
    assert!(apply(&mut store, settled("staying")).is_ok());
}

fn service(name: &str, want: Want) -> Transaction {
    let key = ObjectKey::new(SERVICES, "default", name);
    let settlement = Settlement::Allocate {
        pool: Pool { name: "service-addresses".into(), low: 0x0a2b_0001, high: 0x0a2b_0002 },
        owner: key.clone(),
        want,
        write: 0,
        pointers: vec!["/spec/clusterIP".into(), "/spec/clusterIPs/-".into()],
        render: Render::Ipv4,
        attribute: Some("spec.clusterIP".into()),
    };
    let body = json!({"metadata": {"name": name}, "spec": {}});
    Transaction { settlements: vec![settlement], ..write([put_value(key, &body)]) }
}

#[test]
fn an_address_is_chosen_at_apply_and_given_back_with_its_owner() {
    let mut store = Store::new(StoreOptions::default());
    let a = apply(&mut store, service("a", Want::Any)).unwrap().objects.remove(0).unwrap();
    assert_eq!(
        &a.body()[..],
        br#"{"metadata":{"name":"a"},"spec":{"clusterIP":"10.43.0.1","clusterIPs":["10.43.0.1"]}}"#
    );
    assert_eq!(a.attribute("spec.clusterIP"), "10.43.0.1");
    let taken = Refused::Taken { pool: "service-addresses".into(), value: 0x0a2b_0001 };
    assert_eq!(apply(&mut store, service("b", Want::Exactly(0x0a2b_0001))), Err(taken));
    apply(&mut store, service("b", Want::Any)).unwrap();
    let exhausted = Err(Refused::Exhausted("service-addresses".into()));
    assert_eq!(apply(&mut store, service("c", Want::Any)), exhausted);
    apply(&mut store, write([Write::Delete { key: a.key().clone() }])).unwrap();
    assert_eq!(store.view().allocations("service-addresses").len(), 1);
    let c = apply(&mut store, service("c", Want::Any)).unwrap().objects.remove(0).unwrap();
    assert_eq!(c.attribute("spec.clusterIP"), "10.43.0.1");
}

#[test]
fn keeping_a_value_changes_nothing_and_releasing_it_does() {
    let mut store = Store::new(StoreOptions::default());
    apply(&mut store, service("a", Want::Exactly(0x0a2b_0002))).unwrap();
    assert_eq!(revision(apply(&mut store, service("a", Want::Exactly(0x0a2b_0002)))), 1);
    let owner = ObjectKey::new(SERVICES, "default", "a");
    let release = Settlement::Release { pool: "service-addresses".into(), owner, value: 0x0a2b_0002 };
    let release = Transaction { settlements: vec![release], ..Transaction::default() };
    assert_eq!(revision(apply(&mut store, release.clone())), 2);
    assert_eq!(revision(apply(&mut store, release)), 2);
}

#[test]
fn a_settlement_that_cannot_be_written_is_refused() {
    let mut store = Store::new(StoreOptions::default());
    let malformed = Err(Refused::Malformed(ObjectKey::new(SERVICES, "default", "a")));
    let mut through_text = service("a", Want::Any);
    let mut no_such_write = service("a", Want::Any);
    if let Settlement::Allocate { pointers, .. } = &mut through_text.settlements[0] {
        pointers.push("/metadata/name/x".into());
    }
    if let Settlement::Allocate { write, .. } = &mut no_such_write.settlements[0] {
        *write = 1;
    }
    assert_eq!(apply(&mut store, through_text), malformed);
    assert_eq!(apply(&mut store, no_such_write), malformed);
    assert!(store.view().allocations("service-addresses").is_empty());
}

#[test]
fn a_watcher_is_told_what_happened_after_its_revision() {
    let mut store = Store::new(StoreOptions::default());
    apply(&mut store, write([put("a", 1), put("b", 1)])).unwrap();
    apply(&mut store, write([put("a", 2)])).unwrap();
    apply(&mut store, write([delete("b")])).unwrap();
    let view = store.view();
    let all = [(1, "added", "a"), (1, "added", "b"), (2, "modified", "a"), (3, "deleted", "b")];
    let all: Vec<_> = all.map(|(revision, kind, name)| (revision, kind, name.to_owned())).to_vec();
    assert_eq!(changes(&view, 0), all);
    assert_eq!(changes(&view, 1), all[2..]);
    assert_eq!(changes(&view, 3), []);
    assert_eq!(view.last_change(&CONFIG_MAPS), Revision(3));
    assert_eq!(view.last_change(&PODS), Revision(0));
    let gone = view.changes_after(&CONFIG_MAPS, Revision(2)).unwrap().remove(0);
    assert_eq!(gone.object().unwrap().revision(), Revision(3), "a deletion is told of at its own revision");
}

#[test]
fn earlier_states_are_served_as_long_as_they_are_kept() {
    let mut store = Store::new(StoreOptions { window: Duration::from_secs(10), ..StoreOptions::default() });
    store.apply(1, &at(0, vec![write([put("a", 1)]), write([put("b", 1)])]));
    store.apply(1, &at(9, vec![write([put("c", 1)])]));
    assert_eq!(store.view().at(Revision(1)).unwrap().count(&CONFIG_MAPS, None), 1);
    store.apply(1, &at(11, vec![]));
    let view = store.view();
    assert_eq!(view.at(Revision(1)).unwrap_err(), Expired { asked: Revision(1), oldest: Revision(2) });
    assert_eq!(view.at(Revision(2)).unwrap().count(&CONFIG_MAPS, None), 2);
    assert_eq!(changes(&view, 2), [(3, "added", "c".to_owned())]);
    assert!(view.changes_after(&CONFIG_MAPS, Revision(1)).is_err());
    assert_eq!(view.changes_after(&PODS, Revision(0)), Ok(Vec::new()), "nothing of this resource was trimmed");
}

#[test]
fn the_window_is_bounded_by_bytes() {
    let mut store = Store::new(StoreOptions { window_bytes: 100_000, ..StoreOptions::default() });
    for n in 0..1000 {
        apply(&mut store, write([put("a", n)])).unwrap();
    }
    let kept = changes(&store.view(), 995).len();
    assert_eq!(kept, 5);
    let oldest = store.view().at(Revision(1)).unwrap_err().oldest;
    assert!((970..990).contains(&oldest.0), "{oldest}");
}

#[test]
fn a_bump_forgets_the_past_for_every_resource() {
    let mut store = Store::new(StoreOptions::default());
    apply(&mut store, write([put("a", 1)])).unwrap();
    store.bump(1_000_000_000);
    let bumped = Revision(1_000_000_001);
    for resource in [CONFIG_MAPS, PODS] {
        assert_eq!(store.view().changes_after(&resource, Revision(150)).unwrap_err().oldest, bumped);
        assert_eq!(store.view().last_change(&resource), bumped, "a watcher of old must look");
    }
    assert!(store.view().at(Revision(1)).is_err());
    assert_eq!(revision(apply(&mut store, write([put("b", 1)]))), 1_000_000_002);
    let restored = Store::restore(StoreOptions::default(), &store.view().snapshot()).unwrap();
    assert!(restored.view().changes_after(&PODS, Revision(150)).is_err());
    assert_eq!(changes(&restored.view(), bumped.0).len(), 1);
}

#[test]
fn pods_are_found_by_their_node() {
    let mut store = Store::new(StoreOptions::default());
    let pod = |name: &str, node: &str| Write::Put {
        key: ObjectKey::new(PODS, "default", name),
        body: canonical_json(&json!({"metadata": {"name": name}})).into(),
        attributes: Attributes::from([("spec.nodeName".to_owned(), node.to_owned())]),
    };
    let on = |store: &Store, node: &str| -> Vec<String> {
        let view = store.view();
        let pods = view.by_attribute(&PODS, "spec.nodeName", node).unwrap();
        pods.map(|pod| pod.key().name.to_string()).collect()
    };
    assert!(on(&store, "n1").is_empty());
    apply(&mut store, write([pod("b", "n1"), pod("a", "n1"), pod("c", "")])).unwrap();
    assert_eq!(on(&store, "n1"), ["a", "b"]);
    assert_eq!(on(&store, ""), ["c"]);
    apply(&mut store, write([pod("c", "n1"), Write::Delete { key: ObjectKey::new(PODS, "default", "a") }])).unwrap();
    assert_eq!(on(&store, "n1"), ["b", "c"]);
    assert!(store.view().by_attribute(&PODS, "status.phase", "Running").is_none());
}

#[test]
fn a_page_goes_on_behind_the_last_name() {
    let mut store = Store::new(StoreOptions::default());
    for (namespace, name) in [("a", "1"), ("a", "2"), ("b", "1"), ("c", "1")] {
        let key = ObjectKey::new(CONFIG_MAPS, namespace, name);
        apply(&mut store, write([put_value(key, &json!({"metadata": {"name": name}}))])).unwrap();
    }
    let view = store.view();
    let page = |namespace, after| -> Vec<String> {
        let objects = view.list_after(&CONFIG_MAPS, namespace, after);
        objects.map(|object| format!("{}/{}", object.key().namespace, object.key().name)).collect()
    };
    assert_eq!(page(None, ("", "")), ["a/1", "a/2", "b/1", "c/1"]);
    assert_eq!(page(None, ("a", "1")), ["a/2", "b/1", "c/1"]);
    assert_eq!(page(None, ("aa", "x")), ["b/1", "c/1"]);
    assert_eq!(page(Some("a"), ("a", "1")), ["a/2"]);
    assert_eq!(page(Some("b"), ("a", "9")), ["b/1"]);
    assert!(page(Some("a"), ("b", "0")).is_empty());
}
