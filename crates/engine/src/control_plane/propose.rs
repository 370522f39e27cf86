//! The way of transactions into the log: packed into entries here, or forwarded to whoever leads.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_base::{Instant, Now};
use coracle_raft::{self as raft, MemberId};
use coracle_store::{Entry, Transaction};

use super::ControlPlane;
use crate::peer::FORWARDED_MAX;
use crate::{Output, PeerMessage, ProposalId, Settled};

/// The most bytes of transactions in one entry, and the most entries of this member that are not committed yet:
/// what comes meanwhile waits and goes out together.
const BATCH_BYTES_MAX: usize = 1 << 20;
const BATCHES_IN_FLIGHT_MAX: usize = 2;
/// The most proposals that wait; more are told that there is no leader and may try again.
const PENDING_MAX: usize = 16_384;
/// How long a transaction waits for somebody to lead: an election takes no longer.
const LEADER_WAIT: Duration = Duration::from_secs(3);

/// Who waits for a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// This member's driver.
    Own(ProposalId),
    /// Another member: its id, its start, and its number for the transaction.
    Peer(MemberId, u64, u64),
}

impl Origin {
    pub(super) fn own(self) -> Option<ProposalId> {
        match self {
            Self::Own(id) => Some(id),
            Self::Peer(..) => None,
        }
    }
}

/// A transaction that is in no entry yet.
#[derive(Debug)]
pub(super) struct Pending {
    origin: Origin,
    transaction: Transaction,
    since: Instant,
}

/// An entry of this member that is not applied yet.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) origins: Vec<Origin>,
    pub(super) entry: Entry,
    /// It is in the log: what becomes of it everybody learns there.
    appended: bool,
}

impl ControlPlane {
    pub(super) fn submit(&mut self, now: Now, id: ProposalId, transaction: Transaction, out: &mut Vec<Output>) {
        // What a controller wants counts in its own lead only.
        let stale = transaction.term.is_some() && transaction.term != self.leading;
        if stale || self.pending.len() >= PENDING_MAX || !self.forwards.has_room() {
            out.push(Output::Settled(id, Settled::NotLeader));
        } else {
            self.pending.push_back(Pending { origin: Origin::Own(id), transaction, since: now.mono });
        }
    }

    /// Transactions of another member, for the leader of a term.
    pub(super) fn forwarded(
        &mut self,
        now: Now,
        (from, boot): (MemberId, u64),
        term: u64,
        transactions: Vec<(u64, Transaction)>,
        out: &mut Vec<Output>,
    ) {
        let mut numbers = Vec::new();
        for (number, transaction) in transactions {
            // The same again gets no answer: the first that came has one.
            if !self.accepted.is_new(term, from, boot, number) {
                continue;
            }
            if self.leading != Some(term) || self.pending.len() >= PENDING_MAX || transaction.term.is_some() {
                numbers.push(number);
            } else {
                let origin = Origin::Peer(from, boot, number);
                self.pending.push_back(Pending { origin, transaction, since: now.mono });
            }
        }
        decline(from, boot, numbers, out);
    }

    /// Brings what waits on its way.
    pub(super) fn propose(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.leading.is_some() {
            self.pack(now, out);
        } else if !self.pending.is_empty() {
            self.forward(now, out);
        }
        self.forwards.expire(now.mono);
        out.extend(self.forwards.take_settled().into_iter().map(|(id, settled)| Output::Settled(id, settled)));
    }

    /// Puts what waits into one entry: while a batch is being made durable the next one fills.
    fn pack(&mut self, now: Now, out: &mut Vec<Output>) {
        while !self.pending.is_empty() && self.batches.len() < BATCHES_IN_FLIGHT_MAX {
            let mut entry = Entry::at(now.wall.max(self.last_time));
            let taken = self.take_pending(usize::MAX);
            let mut origins = Vec::with_capacity(taken.len());
            for Pending { origin, transaction, .. } in taken {
                origins.push(origin);
                entry.transactions.push(transaction);
            }
            let id = raft::ProposalId(self.next_batch);
            self.next_batch += 1;
            let encoded = entry.encode();
            self.batches.insert(id, Batch { origins, entry, appended: false });
            self.step_raft(now, raft::Input::Propose(id, encoded), out);
        }
    }

    /// What waits longest, up to a number and a size; at least one.
    fn take_pending(&mut self, most: usize) -> Vec<Pending> {
        let (mut number, mut bytes) = (0, 0);
        for pending in self.pending.iter().take(most) {
            bytes += pending.transaction.size();
            if number > 0 && bytes > BATCH_BYTES_MAX {
                break;
            }
            number += 1;
        }
        self.pending.drain(..number).collect()
    }

    /// Sends what waits to the leader, once there is one.
    fn forward(&mut self, now: Now, out: &mut Vec<Output>) {
        let term = self.raft.term();
        let Some(to) = self.raft.leader().filter(|leader| *leader != self.options.raft.id) else {
            while let Some(late) =
                self.pending.pop_front_if(|pending| now.mono.saturating_since(pending.since) > LEADER_WAIT)
            {
                give_up(late.origin, out);
            }
            return;
        };
        while !self.pending.is_empty() {
            let taken = self.take_pending(FORWARDED_MAX);
            let own = taken.into_iter().filter_map(|pending| Some((pending.origin.own()?, pending.transaction)));
            let transactions = self.forwards.send(now.mono, term, own.collect());
            let message = PeerMessage::Forward { term, boot: self.forwards.boot(), transactions };
            out.push(Output::Send { to, message, after: None });
        }
    }

    /// The lead is lost: what other members forwarded is theirs again, and what waits here waits for the next leader.
    pub(super) fn give_back(&mut self, out: &mut Vec<Output>) {
        let (stay, go): (Vec<Pending>, Vec<Pending>) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|pending| pending.origin.own().is_some() && pending.transaction.term.is_none());
        self.pending = stay.into();
        for pending in go {
            give_up(pending.origin, out);
        }
    }

    /// A batch is in the log: members that forwarded something in it are told where it stands.
    pub(super) fn appended(&mut self, id: raft::ProposalId, term: u64, index: u64, out: &mut Vec<Output>) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        batch.appended = true;
        let mut places: BTreeMap<(MemberId, u64), Vec<(u64, u64)>> = BTreeMap::new();
        for (position, origin) in (0..).zip(&batch.origins) {
            if let Origin::Peer(member, boot, number) = origin {
                places.entry((*member, *boot)).or_default().push((*number, position));
            }
        }
        for ((to, boot), positions) in places {
            for positions in positions.chunks(FORWARDED_MAX).map(<[_]>::to_vec) {
                let message = PeerMessage::Forwarded { boot, term, index, positions };
                out.push(Output::Send { to, message, after: None });
            }
        }
    }

    /// A batch did not get into the log, or did not stay there, or nobody can tell.
    pub(super) fn dropped(&mut self, id: raft::ProposalId, settled: &Settled, out: &mut Vec<Output>) {
        let Some(batch) = self.batches.remove(&id) else { return };
        for origin in batch.origins {
            match origin {
                Origin::Own(id) => out.push(Output::Settled(id, settled.clone())),
                Origin::Peer(..) if batch.appended => {}
                Origin::Peer(..) => give_up(origin, out),
            }
        }
    }
}

/// A transaction is in no log.
fn give_up(origin: Origin, out: &mut Vec<Output>) {
    match origin {
        Origin::Own(id) => out.push(Output::Settled(id, Settled::NotLeader)),
        Origin::Peer(member, boot, number) => decline(member, boot, vec![number], out),
    }
}

fn decline(to: MemberId, boot: u64, numbers: Vec<u64>, out: &mut Vec<Output>) {
    if !numbers.is_empty() {
        out.push(Output::Send { to, message: PeerMessage::Declined { boot, numbers }, after: None });
    }
}
