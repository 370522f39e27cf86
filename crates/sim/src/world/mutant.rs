//! What deliberate faults do, beyond a line in the place that they break: see [`Mutation`].

use std::time::Duration;

use coracle_engine::PeerMessage;
use coracle_store::{Applied, Entry, Refused, Store, StoreOptions, Transaction, View, Write};

use super::{Event, World};
use crate::Mutation;

/// How much later something is forwarded again.
const AGAIN_MICROS: (u64, u64) = (200_000, 3_000_000);
/// One of so many events of watches gets lost.
const LOST_OF: u64 = 40;

impl World {
    /// Forwards again later what is forwarded now.
    pub(super) fn note_forward(&mut self, from: usize, message: &PeerMessage) {
        let PeerMessage::Forward { boot, transactions, .. } = message else { return };
        if self.is_wrong(Mutation::ForwardedTwice) {
            let delay = Duration::from_micros(AGAIN_MICROS.0 + self.mutant.below(AGAIN_MICROS.1));
            let (transactions, boot) = (transactions.clone(), *boot);
            self.schedule(delay, Event::ForwardAgain { from, transactions, boot });
        }
    }

    /// Does later what a leader's controllers want now, whoever leads by then.
    pub(super) fn note_work(&mut self, from: usize, number: u64, transaction: &Transaction) {
        if transaction.term.is_some() && self.is_wrong(Mutation::OldLeaderActs) {
            let delay = Duration::from_micros(AGAIN_MICROS.0 + self.mutant.below(AGAIN_MICROS.1));
            let transactions = vec![(number, Transaction { term: None, ..transaction.clone() })];
            let boot = self.members[from].boot;
            self.schedule(delay, Event::ForwardAgain { from, transactions, boot });
        }
    }

    pub(super) fn forward_again(&mut self, from: usize, transactions: Vec<(u64, Transaction)>, boot: u64) {
        let Some(to) = self.leader(|_| true) else { return };
        let Some(term) = self.members[to].plane().and_then(coracle_engine::ControlPlane::lead_term) else { return };
        // Under other numbers, or the leader would see that it has them already.
        let transactions = transactions.into_iter().map(|(number, transaction)| (number + (1 << 40), transaction));
        let bytes = PeerMessage::Forward { term, boot, transactions: transactions.collect() }.encode();
        if to != from {
            self.schedule(Duration::ZERO, Event::Peer { from, to, bytes });
        }
    }

    /// Whether an event of a watch gets lost.
    pub(super) fn loses_event(&mut self) -> bool {
        self.is_wrong(Mutation::LostWatchEvent) && self.mutant.below(LOST_OF) == 0
    }
}

/// What would become of a transaction if nothing came between.
pub(super) fn foretell(view: &View, transaction: &Transaction) -> Result<Applied, Refused> {
    let mut store = copy(view);
    let entry = Entry { transactions: vec![transaction.clone()], ..Entry::at(view.time()) };
    store.apply(transaction.term.unwrap_or(0), &entry).pop().expect("a result of each")
}

/// A state without half of its objects.
pub(super) fn half(whole: &Store) -> Store {
    let view = whole.view();
    let mut store = copy(&view);
    let objects = view
        .resources()
        .into_iter()
        .flat_map(|resource| view.list(&resource, None).map(|object| object.key().clone()).collect::<Vec<_>>());
    let writes = objects.step_by(2).map(|key| Write::Delete { key }).collect();
    let transactions = vec![Transaction { writes, ..Transaction::default() }];
    store.apply(0, &Entry { transactions, ..Entry::at(view.time()) });
    store
}

fn copy(view: &View) -> Store {
    Store::restore(StoreOptions::default(), &view.snapshot()).expect("a state is read as it was written")
}
