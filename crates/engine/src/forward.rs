//! Transactions that one member prepared and another one leads: where they stand on both sides.
//!
//! Nothing is sent twice. What was in the log, or may have been, is settled by this member's own log alone; what never was can be
//! tried again; what cannot be told is said to be unknown.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use coracle_base::Instant;
use coracle_raft::MemberId;
use coracle_store::{Applied, Refused, Transaction};

use crate::{ProposalId, Settled};

/// How many forwarded transactions are on their way at most.
pub(crate) const WAITING_MAX: usize = 16_384;
/// How long the leader's word is waited for: it comes within a round trip or not at all.
const WORD_WAIT: Duration = Duration::from_secs(10);
/// Entries whose results are kept for transactions whose place is not known yet: the log may be faster than the leader's word.
const RECENT_MAX: usize = 1024;
/// How many numbers of one member a leader remembers: what is older than all of these is never taken.
const SEEN_MAX: usize = 16_384;

type Outcome = Result<Applied, Refused>;

/// The transactions that this member forwarded.
#[derive(Debug)]
pub(crate) struct Forwards {
    /// Which start of this member it is: numbers count within it.
    boot: u64,
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    recent: VecDeque<(u64, u64, Vec<Outcome>)>,
    applied: u64,
    settled: Vec<(ProposalId, Settled)>,
}

#[derive(Debug)]
struct Waiting {
    proposal: ProposalId,
    /// The term whose leader it went to.
    term: u64,
    since: Instant,
    /// Index, and place in the entry.
    place: Option<(u64, usize)>,
}

impl Forwards {
    pub(crate) fn new(boot: u64) -> Self {
        Self { boot, next: 0, waiting: BTreeMap::new(), recent: VecDeque::new(), applied: 0, settled: Vec::new() }
    }

    pub(crate) fn boot(&self) -> u64 {
        self.boot
    }

    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }

    /// Numbers what goes to the leader of a term.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        term: u64,
        transactions: Vec<(ProposalId, Transaction)>,
    ) -> Vec<(u64, Transaction)> {
        let mut numbered = Vec::with_capacity(transactions.len());
        for (proposal, transaction) in transactions {
            let number = self.next;
            self.next += 1;
            self.waiting.insert(number, Waiting { proposal, term, since: now, place: None });
            numbered.push((number, transaction));
        }
        numbered
    }

    /// The leader said where transactions stand.
    pub(crate) fn placed(&mut self, boot: u64, term: u64, index: u64, positions: Vec<(u64, u64)>) {
        if boot != self.boot {
            return;
        }
        for (number, position) in positions {
            let Some(waiting) = self.waiting.get_mut(&number).filter(|waiting| waiting.term == term) else { continue };
            let position = usize::try_from(position).unwrap_or(usize::MAX);
            waiting.place = Some((index, position));
            if index > self.applied {
                continue;
            }
            let settled = match self.recent.iter().find(|(recent, ..)| *recent == index) {
                Some((_, applied, outcomes)) => outcome(term, position, *applied, outcomes),
                None => Settled::Unknown,
            };
            self.settle(number, settled);
        }
    }

    /// The leader did not take transactions.
    pub(crate) fn declined(&mut self, boot: u64, numbers: Vec<u64>) {
        if boot != self.boot {
            return;
        }
        for number in numbers {
            if self.waiting.get(&number).is_some_and(|waiting| waiting.place.is_none()) {
                self.settle(number, Settled::NotLeader);
            }
        }
    }

    /// An entry was applied; `outcomes` has one of each of its transactions.
    pub(crate) fn applied(&mut self, index: u64, term: u64, outcomes: &[Outcome]) {
        self.applied = index;
        if self.waiting.is_empty() {
            self.recent.clear();
            return;
        }
        let mut settled = Vec::new();
        for (number, waiting) in &self.waiting {
            let became = match waiting.place {
                Some((place, position)) if place == index => outcome(waiting.term, position, term, outcomes),
                // Terms never fall along a log: behind an entry of a later one nothing of an earlier one comes.
                Some(_) if waiting.term < term => Settled::NotLeader,
                // It may stand before this entry or have gone nowhere.
                None if waiting.term < term => Settled::Unknown,
                _ => continue,
            };
            settled.push((*number, became));
        }
        for (number, became) in settled {
            self.settle(number, became);
        }
        if self.waiting.values().any(|waiting| waiting.place.is_none()) {
            self.recent.push_back((index, term, outcomes.to_vec()));
            if self.recent.len() > RECENT_MAX {
                self.recent.pop_front();
            }
        } else {
            self.recent.clear();
        }
    }

    /// A snapshot took the place of everything up to an index.
    pub(crate) fn installed(&mut self, index: u64) {
        self.applied = index;
        self.recent.clear();
        let passed: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.place.is_some_and(|(place, _)| place <= index))
            .map(|(number, _)| *number)
            .collect();
        for number in passed {
            self.settle(number, Settled::Unknown);
        }
    }

    /// Gives up waiting for a word that does not come.
    pub(crate) fn expire(&mut self, now: Instant) {
        let late = |waiting: &Waiting| waiting.place.is_none() && now.saturating_since(waiting.since) > WORD_WAIT;
        let expired: Vec<u64> =
            self.waiting.iter().filter(|(_, waiting)| late(waiting)).map(|(number, _)| *number).collect();
        for number in expired {
            self.settle(number, Settled::Unknown);
        }
    }

    /// What was settled since this was asked.
    pub(crate) fn take_settled(&mut self) -> Vec<(ProposalId, Settled)> {
        std::mem::take(&mut self.settled)
    }

    fn settle(&mut self, number: u64, settled: Settled) {
        if let Some(waiting) = self.waiting.remove(&number) {
            self.settled.push((waiting.proposal, settled));
        }
    }
}

/// What became of a transaction whose place was reached: another term there means another entry.
fn outcome(term: u64, position: usize, applied: u64, outcomes: &[Outcome]) -> Settled {
    if term != applied {
        return Settled::NotLeader;
    }
    outcomes.get(position).map_or(Settled::Unknown, |outcome| Settled::Applied(outcome.clone()))
}

/// What a leader has taken of each member in its term, so that nothing is taken twice however often it arrives.
#[derive(Debug, Default)]
pub(crate) struct Accepted {
    term: u64,
    seen: BTreeMap<(MemberId, u64), BTreeSet<u64>>,
}

impl Accepted {
    /// This member leads in a new term.
    pub(crate) fn begin(&mut self, term: u64) {
        *self = Self { term, seen: BTreeMap::new() };
    }

    /// Whether a number arrives for the first time. What is for another term than the last in which this member led, and what is
    /// older than everything remembered, may have been taken before.
    pub(crate) fn is_new(&mut self, term: u64, from: MemberId, boot: u64, number: u64) -> bool {
        if term != self.term {
            return false;
        }
        // A start of a member ends every earlier one.
        self.seen.retain(|(member, other), _| *member != from || *other == boot);
        let seen = self.seen.entry((from, boot)).or_default();
        let too_old = seen.len() >= SEEN_MAX && seen.first().is_some_and(|oldest| number < *oldest);
        if too_old || !seen.insert(number) {
            return false;
        }
        if seen.len() > SEEN_MAX {
            seen.pop_first();
        }
        true
    }
}

#[cfg(test)]
mod tests;
