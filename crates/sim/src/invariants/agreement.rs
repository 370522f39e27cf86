//! Members agree: at most one leads in a term, equal places of two logs hold the same, and equal revisions are equal states.

use std::collections::BTreeMap;

use coracle_api::Revision;
use coracle_raft::{LogEntry, MemberId};
use coracle_store::{Change, View};
use sha2::{Digest as _, Sha256};

use super::{Broken, Checked};

/// Every so many revisions the whole state is compared, not only what changed.
const WHOLE_EVERY: u64 = 32;

type Hash = [u8; 32];

/// What members were seen to do, by whoever was first.
#[derive(Debug, Default)]
pub(crate) struct Agreement {
    leaders: BTreeMap<u64, MemberId>,
    /// By index and term: what the entry holds, and the term before it where that was seen.
    log: BTreeMap<(u64, u64), (Hash, Option<u64>)>,
    changes: BTreeMap<Revision, Hash>,
    states: BTreeMap<Revision, Hash>,
}

impl Agreement {
    /// How many terms had a leader.
    pub(crate) fn elections(&self) -> usize {
        self.leaders.len()
    }

    /// A member leads in a term.
    pub(crate) fn leads(&mut self, member: MemberId, term: u64) -> Checked {
        let other = *self.leaders.entry(term).or_insert(member);
        if other == member {
            return Ok(());
        }
        let why = format!("members {} and {} lead in term {term}", other.0, member.0);
        Err(Broken { property: "one leader a term", why })
    }

    /// A member hands entries to its disk.
    pub(crate) fn appended(&mut self, member: MemberId, entries: &[LogEntry]) -> Checked {
        let mut before: Option<u64> = None;
        for entry in entries {
            let mut hash = Sha256::new();
            hash.update([entry.kind.number()]);
            hash.update(&entry.data);
            let hash: Hash = hash.finalize().into();
            let known = self.log.entry((entry.index, entry.term)).or_insert((hash, before));
            let other_before = before.is_some() && known.1.is_some() && known.1 != before;
            if known.0 != hash || other_before {
                let why = format!("entry {} of term {} is another one on member {}", entry.index, entry.term, member.0);
                return Err(Broken { property: "log matching", why });
            }
            known.1 = known.1.or(before);
            before = Some(entry.term);
        }
        Ok(())
    }

    /// A member's state moved on by these changes, in the order of revisions.
    pub(crate) fn changed(&mut self, member: MemberId, view: &View, changes: &[Change]) -> Checked {
        let broken = |revision: Revision| {
            let why = format!("revision {revision} is another one on member {}", member.0);
            Err(Broken { property: "state machine safety", why })
        };
        for group in changes.chunk_by(|a, b| a.revision == b.revision) {
            let mut each: Vec<Hash> = group.iter().map(hash_of).collect();
            each.sort_unstable();
            let hash: Hash = Sha256::digest(each.concat()).into();
            if *self.changes.entry(group[0].revision).or_insert(hash) != hash {
                return broken(group[0].revision);
            }
        }
        if view.revision().0.is_multiple_of(WHOLE_EVERY) { self.whole(member, view) } else { Ok(()) }
    }

    /// Compares a member's whole state.
    pub(crate) fn whole(&mut self, member: MemberId, view: &View) -> Checked {
        let digest = view.digest();
        if *self.states.entry(view.revision()).or_insert(digest) == digest {
            return Ok(());
        }
        let why = format!("the state of revision {} is another one on member {}", view.revision(), member.0);
        Err(Broken { property: "state machine safety", why })
    }
}

fn hash_of(change: &Change) -> Hash {
    let mut hash = Sha256::new();
    for object in [&change.old, &change.new] {
        match object {
            None => hash.update([0]),
            Some(object) => {
                hash.update([1]);
                hash.update(object.key().to_string());
                hash.update(object.revision().0.to_le_bytes());
                hash.update(object.body());
            }
        }
    }
    hash.finalize().into()
}
