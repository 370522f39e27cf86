//! Who the members are, as this one knows: whom to let in, and where others may be reached.
//!
//! What counts is the replicated list. Addresses are hints beside it, learned from whoever connects.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::RwLock;

use coracle_engine::{MemberRecord, Wants};
use coracle_raft::MemberId;

/// How many addresses of a member are remembered beside those that the list has.
const HINTS_MAX: usize = 4;
/// Why locks are not poisoned.
const UNBROKEN: &str = "nothing panics while it holds the lock";

/// What is known of a member that shows a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It belongs to the cluster.
    Known,
    /// It belonged to it.
    Removed,
    /// Nobody here has heard of it, or it has another key.
    Unknown,
}

/// The members.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    records: RwLock<BTreeMap<MemberId, MemberRecord>>,
    hints: RwLock<BTreeMap<MemberId, Vec<String>>>,
}

impl Roster {
    /// The list has these. What was known beside stays: a state that is not up to date yet knows less than who let this member in.
    pub(crate) fn update(&self, list: Vec<MemberRecord>) {
        let mut records = self.records.write().expect(UNBROKEN);
        for record in list {
            // Nobody comes back who was removed.
            if records.get(&record.id).is_none_or(|known| known.wants != Wants::Removed) {
                records.insert(record.id, record);
            }
        }
    }

    /// Whether a member with this key is let in.
    pub(crate) fn verdict(&self, id: MemberId, identity: &str) -> Verdict {
        match self.records.read().expect(UNBROKEN).get(&id) {
            Some(record) if record.wants == Wants::Removed => Verdict::Removed,
            Some(record) if record.identity == identity => Verdict::Known,
            _ => Verdict::Unknown,
        }
    }

    /// Whether a member is gone for good.
    pub(crate) fn is_removed(&self, id: MemberId) -> bool {
        self.records.read().expect(UNBROKEN).get(&id).is_some_and(|record| record.wants == Wants::Removed)
    }

    /// A member was seen at an address.
    pub(crate) fn saw(&self, id: MemberId, address: SocketAddr) {
        let address = address.to_string();
        let mut hints = self.hints.write().expect(UNBROKEN);
        let of_member = hints.entry(id).or_default();
        of_member.retain(|known| *known != address);
        of_member.insert(0, address);
        of_member.truncate(HINTS_MAX);
    }

    /// Where a member may be reached, the likeliest first.
    pub(crate) fn addresses(&self, id: MemberId) -> Vec<String> {
        let mut addresses = self.hints.read().expect(UNBROKEN).get(&id).cloned().unwrap_or_default();
        let records = self.records.read().expect(UNBROKEN);
        for address in records.get(&id).into_iter().flat_map(|record| &record.addresses) {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses
    }

    /// Others that may vote, to whom a connection is there before it is needed; not more than `most`.
    pub(crate) fn electorate(&self, me: MemberId, most: usize) -> Vec<MemberId> {
        let records = self.records.read().expect(UNBROKEN);
        let votes = |record: &&MemberRecord| record.id != me && matches!(record.wants, Wants::Auto | Wants::Voter);
        records.values().filter(votes).map(|record| record.id).take(most).collect()
    }

    /// All others that are in the cluster.
    pub(crate) fn others(&self, me: MemberId) -> Vec<MemberId> {
        let records = self.records.read().expect(UNBROKEN);
        let other = |record: &&MemberRecord| record.id != me && record.wants != Wants::Removed;
        records.values().filter(other).map(|record| record.id).collect()
    }

    /// The member whose node has this name.
    pub(crate) fn of_node(&self, node: &str) -> Option<MemberId> {
        let records = self.records.read().expect(UNBROKEN);
        let of_node = |record: &&MemberRecord| record.wants != Wants::Removed && record.name == node;
        records.values().find(of_node).map(|record| record.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u64, wants: Wants) -> MemberRecord {
        MemberRecord {
            id: MemberId(id),
            name: format!("laptop-{id}"),
            addresses: vec![format!("192.0.2.{id}:6443")],
            wants,
            identity: format!("key {id}"),
        }
    }

    #[test]
    fn only_members_with_their_own_key_are_let_in() {
        let roster = Roster::default();
        assert_eq!(roster.verdict(MemberId(1), "key 1"), Verdict::Unknown);
        roster.update(vec![record(1, Wants::Auto), record(2, Wants::Removed)]);
        roster.update(Vec::new());
        assert_eq!(roster.verdict(MemberId(1), "key 1"), Verdict::Known);
        assert_eq!(roster.verdict(MemberId(1), "key 2"), Verdict::Unknown);
        roster.update(vec![record(2, Wants::Auto)]);
        assert_eq!(roster.verdict(MemberId(2), "key 2"), Verdict::Removed, "an older list changes nothing");
        assert_eq!(roster.electorate(MemberId(3), 9), [MemberId(1)]);
        assert_eq!(roster.of_node("laptop-1"), Some(MemberId(1)));
        assert_eq!(roster.of_node("laptop-2"), None, "it is gone");
    }

    #[test]
    fn the_address_that_was_seen_last_is_tried_first() {
        let roster = Roster::default();
        roster.update(vec![record(1, Wants::Auto)]);
        for port in 1..=6 {
            roster.saw(MemberId(1), SocketAddr::from(([198, 51, 100, 1], port)));
        }
        roster.saw(MemberId(1), SocketAddr::from(([198, 51, 100, 1], 5)));
        let addresses = roster.addresses(MemberId(1));
        assert_eq!(addresses.first().map(String::as_str), Some("198.51.100.1:5"));
        assert_eq!(addresses.last().map(String::as_str), Some("192.0.2.1:6443"));
        assert_eq!(addresses.len(), HINTS_MAX + 1);
    }
}
