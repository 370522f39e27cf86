//! The list of members: who belongs to the cluster, where it is reached, and what it is to be.
//!
//! It is an object each, of a resource of Coracle's own, in the same store as everything else: so it is replicated, forwarded, kept
//! in snapshots, compared between replicas and watched without anything that is for it alone. Consensus knows ids only; the leader
//! brings its group to what this list asks for ([`crate::Autopilot`]). A removed member stays in the list, so that its id is never
//! given to another and what it still says is recognized.

use coracle_api::{Attributes, GroupResource, Object, ObjectKey, canonical_json};
use coracle_raft::MemberId;
use coracle_store::{Precondition, Transaction, View, Write};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The resource of the list.
pub const MEMBERS: GroupResource = GroupResource::builtin("coracle.dev", "members");
/// How many members the list has at most, removed ones among them.
pub const MEMBERS_MAX: usize = 1000;

/// What a member is to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wants {
    /// A voter where the cluster needs one.
    #[default]
    Auto,
    /// A voter, whatever the cluster needs.
    Voter,
    /// It runs pods and serves requests, and has no vote.
    Worker,
    /// It is gone for good.
    Removed,
}

/// A member, as the list has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Its id.
    pub id: MemberId,
    /// Its name, for people.
    pub name: String,
    /// Where it may be reached: hints, the newest first.
    pub addresses: Vec<String>,
    /// What it is to be.
    pub wants: Wants,
    /// Its public key as its certificate has it, in whatever form the driver compares.
    pub identity: String,
}

impl MemberRecord {
    /// A voter of which nothing else is known yet.
    pub fn voter(id: MemberId) -> Self {
        Self { id, name: String::new(), addresses: Vec::new(), wants: Wants::Voter, identity: String::new() }
    }

    /// The list, by id.
    pub fn all(view: &View) -> Vec<Self> {
        let mut all: Vec<Self> = view.list(&MEMBERS, None).filter_map(|object| Self::read(object)).collect();
        all.sort_by_key(|record| record.id);
        all
    }

    /// One member of the list.
    pub fn find(view: &View, id: MemberId) -> Option<Self> {
        Self::read(view.object(&key(id))?)
    }

    /// The id of a member that is to be added. With [`Self::create`] two that choose the same do not both succeed.
    pub fn next_id(view: &View) -> MemberId {
        let last = Self::all(view).last().map_or(0, |record| record.id.0);
        MemberId(last + 1)
    }

    /// Adds the member, unless its id is taken; none when the list is full.
    pub fn create(&self, view: &View) -> Option<Transaction> {
        let full = view.list(&MEMBERS, None).count() >= MEMBERS_MAX;
        (!full).then(|| self.write(Precondition::Absent(key(self.id))))
    }

    /// Changes the member from what the view has; none when it is not in the list or was removed.
    pub fn update(&self, view: &View) -> Option<Transaction> {
        let before = view.object(&key(self.id))?;
        let removed = Self::read(before).is_none_or(|record| record.wants == Wants::Removed);
        (!removed).then(|| self.write(Precondition::At(key(self.id), before.revision())))
    }

    /// Puts the member into the list, whatever the list has of it: for a cluster that is founded anew, where nobody else writes.
    pub(crate) fn replace(&self) -> Transaction {
        Transaction { preconditions: Vec::new(), ..self.write(Precondition::Absent(key(self.id))) }
    }

    fn write(&self, precondition: Precondition) -> Transaction {
        let body = json!({"metadata": {"name": self.id.0.to_string()}, "spec": self});
        let put = Write::Put { key: key(self.id), body: canonical_json(&body).into(), attributes: Attributes::new() };
        Transaction { preconditions: vec![precondition], writes: vec![put], ..Transaction::default() }
    }

    fn read(object: &Object) -> Option<Self> {
        serde_json::from_value(object.value(None).get("spec")?.clone()).ok()
    }
}

fn key(id: MemberId) -> ObjectKey {
    ObjectKey::new(MEMBERS, "", &id.0.to_string())
}

#[cfg(test)]
mod tests {
    use coracle_base::Timestamp;
    use coracle_store::{Entry, Store, StoreOptions};

    use super::*;

    #[test]
    fn members_are_added_changed_and_kept_when_they_are_removed() {
        let mut store = Store::new(StoreOptions::default());
        let mut apply = |transaction: Transaction| {
            let entry = Entry { transactions: vec![transaction], ..Entry::at(Timestamp::EPOCH) };
            let result = store.apply(1, &entry).pop().unwrap();
            (store.view(), result.is_ok())
        };
        let record = |id, wants| MemberRecord {
            id: MemberId(id),
            name: format!("laptop-{id}"),
            addresses: vec!["192.0.2.1:6443".into()],
            wants,
            identity: "key".into(),
        };
        let (view, _) = apply(Transaction::default());
        assert_eq!(MemberRecord::next_id(&view), MemberId(1));
        let first = record(1, Wants::Auto);
        assert!(apply(first.create(&view).unwrap()).1);
        let (view, taken) = apply(record(1, Wants::Worker).create(&view).unwrap());
        assert!(!taken, "the id is taken");
        let (view, _) = apply(record(10, Wants::Voter).create(&view).unwrap());
        let (view, _) = apply(record(1, Wants::Removed).update(&view).unwrap());
        assert_eq!(MemberRecord::all(&view), [record(1, Wants::Removed), record(10, Wants::Voter)]);
        assert_eq!(MemberRecord::next_id(&view), MemberId(11));
        assert_eq!(first.update(&view), None, "who was removed does not come back");
        assert_eq!(record(2, Wants::Auto).update(&view), None);
    }
}
