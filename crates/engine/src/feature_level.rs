//! The level of what a cluster's members understand: new commands, settlements and encodings are used only once all of them do.
//!
//! Every member says in the cluster's record what its program knows. The leader raises the cluster's level to the least of these, one
//! record at a time, and never lowers it. A program that knows less than the cluster uses must not go on: it would misread the log.

use std::time::Duration;

use coracle_api::Revision;
use coracle_base::Now;

use crate::cluster_record::{CLUSTERS, ClusterRecord};
use crate::control_plane::ControlPlane;
use crate::members::{MemberRecord, Wants};
use crate::{Input, Output, ProposalId};

/// What this program knows. It rises with every version that writes what the one before cannot read.
pub const FEATURE_LEVEL: u32 = 1;
/// How often a member says its level until the record has it, and the leader looks at the others'.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The proposal of a member itself: nobody waits for it.
pub(crate) const OWN_PROPOSAL: ProposalId = ProposalId(u64::MAX);

/// What a member has seen of the cluster's level.
#[derive(Debug, Default)]
pub(crate) struct Levels {
    /// The level that everybody understands.
    level: u32,
    /// The revision of the record that was looked at.
    seen: Option<Revision>,
    next_look: coracle_base::Instant,
}

impl ControlPlane {
    /// The level that every member of the cluster understands: what is newer must not be written.
    pub fn feature_level(&self) -> u32 {
        if self.has_list() { self.levels.level } else { self.options.feature_level }
    }

    /// Looks whether the cluster has become too new, and says this member's level where it is not known.
    pub(crate) fn look_at_levels(&mut self, now: Now, out: &mut Vec<Output>) {
        let changed = self.view().last_change(&CLUSTERS);
        if self.levels.seen != Some(changed) {
            self.levels.seen = Some(changed);
            self.levels.level = ClusterRecord::of(self.view()).feature_level;
            if self.levels.level > self.options.feature_level {
                out.push(Output::Outdated { cluster: self.levels.level, own: self.options.feature_level });
            }
        }
        // From a view that is late nothing comes: what it proposes has been changed by others, and is refused.
        if now.mono < self.levels.next_look || !self.has_list() {
            return;
        }
        self.levels.next_look = now.mono + LOOK_EVERY;
        if let Some(record) = self.wanted_record() {
            let transaction = record.update(self.view());
            self.take(now, Input::Submit(OWN_PROPOSAL, transaction), out);
        }
    }

    /// The record as it should be, if it is another.
    fn wanted_record(&self) -> Option<ClusterRecord> {
        let before = ClusterRecord::of(self.view());
        let mut record = before.clone();
        let id = self.options.raft.id;
        let members = MemberRecord::all(self.view());
        let stays = |record: &&MemberRecord| record.wants != Wants::Removed;
        if members.iter().filter(stays).any(|member| member.id == id) {
            record.levels.insert(id, self.options.feature_level);
        }
        if self.is_leading() {
            record.levels.retain(|id, _| members.iter().filter(stays).any(|member| member.id == *id));
            let levels: Option<Vec<u32>> =
                members.iter().filter(stays).map(|member| record.levels.get(&member.id).copied()).collect();
            if let Some(least) = levels.and_then(|levels| levels.into_iter().min()) {
                record.feature_level = record.feature_level.max(least);
            }
        }
        (record != before).then_some(record)
    }

    /// Nobody waits for what a member proposed of its own accord.
    pub(crate) fn forget_own(out: &mut Vec<Output>) {
        out.retain(|output| !matches!(output, Output::Settled(OWN_PROPOSAL, _)));
    }
}

#[cfg(test)]
mod tests;
