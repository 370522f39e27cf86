//! A cluster that begins again with one member: from a backup, or from what a survivor has when the majority is lost for good.

use coracle_store::{Entry, Store};

use crate::cluster_record::ClusterRecord;
use crate::members::{MemberRecord, Wants};

/// How far the revision jumps: more than a cluster can have made between a backup and its loss, so that no client sees time go back.
pub const REVISION_JUMP: u64 = 1_000_000_000;

/// Makes a state that of a one-member cluster: `survivor` is the one that is left, every other member of the list is removed, the
/// cluster has another incarnation, and everything up to here counts as compacted, so that clients list again. A list that is empty
/// stays so.
pub fn found_anew(store: &mut Store, term: u64, survivor: &MemberRecord, incarnation: &str) {
    let view = store.view();
    let records = MemberRecord::all(&view);
    let mut entry = Entry::at(view.time());
    if !records.is_empty() {
        entry.transactions.push(survivor.replace());
    }
    for record in records.into_iter().filter(|record| record.id != survivor.id && record.wants != Wants::Removed) {
        entry.transactions.push(MemberRecord { wants: Wants::Removed, ..record }.replace());
    }
    let mut record = ClusterRecord::of(&view);
    incarnation.clone_into(&mut record.incarnation);
    entry.transactions.push(record.replace());
    for result in store.apply(term, &entry) {
        result.expect("a transaction without preconditions and settlements is applied");
    }
    store.bump(REVISION_JUMP);
}

#[cfg(test)]
mod tests {
    use coracle_api::Revision;
    use coracle_base::Timestamp;
    use coracle_raft::MemberId;
    use coracle_store::StoreOptions;

    use super::*;
    use crate::members::MEMBERS;

    fn record(id: u64, wants: Wants) -> MemberRecord {
        MemberRecord {
            id: MemberId(id),
            name: format!("laptop-{id}"),
            addresses: vec![format!("192.0.2.{id}:6443")],
            wants,
            identity: "key".into(),
        }
    }

    fn with_members(members: &[MemberRecord]) -> Store {
        let mut store = Store::new(StoreOptions::default());
        for member in members {
            let transactions = vec![member.create(&store.view()).unwrap()];
            store.apply(1, &Entry { transactions, ..Entry::at(Timestamp::from_secs(7)) });
        }
        store
    }

    #[test]
    fn one_member_is_left_and_everybody_else_is_removed() {
        let mut store = with_members(&[record(1, Wants::Voter), record(2, Wants::Auto), record(3, Wants::Worker)]);
        let survivor = MemberRecord { wants: Wants::Voter, ..record(2, Wants::Auto) };
        found_anew(&mut store, 9, &survivor, "second life");
        let view = store.view();
        assert_eq!(MemberRecord::all(&view), [record(1, Wants::Removed), survivor, record(3, Wants::Removed)]);
        assert_eq!(ClusterRecord::of(&view).incarnation, "second life");
        assert_eq!(view.time(), Timestamp::from_secs(7), "no time has passed");
    }

    #[test]
    fn the_revision_jumps_and_what_was_before_is_forgotten() {
        let mut store = with_members(&[record(1, Wants::Voter)]);
        let before = store.view().revision();
        found_anew(&mut store, 2, &record(1, Wants::Voter), "a");
        let view = store.view();
        assert!(view.revision() > Revision(before.0 + REVISION_JUMP));
        view.at(before).unwrap_err();
        view.changes_after(&MEMBERS, before).unwrap_err();
        assert_eq!(view.changes_after(&MEMBERS, view.revision()).unwrap(), []);
        // And again from there: no revision is used twice.
        found_anew(&mut store, 3, &record(1, Wants::Voter), "b");
        assert!(store.view().revision() > Revision(view.revision().0 + REVISION_JUMP));
    }

    #[test]
    fn a_cluster_without_a_list_of_members_gets_none() {
        let mut store = with_members(&[]);
        found_anew(&mut store, 1, &record(1, Wants::Voter), "a");
        assert_eq!(MemberRecord::all(&store.view()), []);
    }
}
