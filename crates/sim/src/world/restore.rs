//! A cluster that is lost as a whole and begins again from a backup.

use coracle_engine::{MemberRecord, Wants, found_anew};
use coracle_raft::{HardState, Membership, Restored, SnapshotMark, SnapshotPointer};
use coracle_store::Store;

use super::World;
use crate::{Class, Mutation};

/// A state, and where it stood in the log.
#[derive(Clone, Debug)]
pub struct Backup {
    mark: SnapshotMark,
    state: Vec<u8>,
}

impl World {
    /// What a member has.
    #[track_caller]
    pub(crate) fn back_up(&self, m: usize) -> Backup {
        let plane = self.members[m].plane().expect("the member runs");
        let status = plane.status();
        Backup { mark: SnapshotMark { index: status.applied, term: status.term }, state: plane.view().snapshot() }
    }

    /// Every member is lost, and one begins again with a backup and a group of its own.
    pub(crate) fn restore(&mut self, m: usize, backup: &Backup) {
        let terms = self.members.iter().filter_map(|member| Some(member.plane()?.status().term));
        let term = terms.max().unwrap_or_default().max(backup.mark.term) + 1;
        for other in 0..self.members.len() {
            if self.members[other].is_running() {
                self.crash_member(other);
            }
        }
        let id = self.members[m].id;
        let mut store = Store::restore(self.settings.store.clone(), &backup.state).expect("a backup is whole");
        if !self.is_wrong(Mutation::RevisionReused) {
            let name = format!("member-{}", id.0);
            let new = MemberRecord { id, name, addresses: Vec::new(), wants: Wants::Voter, identity: String::new() };
            let survivor = MemberRecord::find(&store.view(), id).unwrap_or(new);
            found_anew(&mut store, term, &MemberRecord { wants: Wants::Voter, ..survivor }, &self.rng.uuid());
        }
        let (mark, membership) = (backup.mark, Membership::of_voters(&[id]));
        let log = Restored {
            hard_state: HardState { term, vote: 0, commit: mark.index },
            snapshot: SnapshotPointer { mark, membership },
            base: mark,
            entries: Vec::new(),
        };
        self.seen = store.view();
        self.members[m].disk.replace(log, self.seen.snapshot());
        for follower in &mut self.followers {
            follower.topic.begins_again(self.seen.revision());
        }
        self.totals.add(Class::Restores, 1);
        self.start_member(m);
    }
}
