//! A DELETE of a collection on its way: many small transactions, a round of them under way at one time.
//!
//! It knows no view between rounds: each round is worked out on the newest one, and what was written meanwhile is tried again.

use std::collections::VecDeque;

use coracle_api::{ObjectKey, Response, Status};
use coracle_store::{Refused, Transaction};

use super::{Proposed, RETRIES_MAX};
use crate::error;
use crate::route::{self, Routed, Run};

/// How many of a collection's deletions are proposed at one time: enough for one entry of the log, and few enough that other
/// requests on the same thread do not wait for long.
const ROUND_MAX: usize = 512;

/// An object that is to be deleted.
#[derive(Debug)]
struct Doomed {
    key: ObjectKey,
    /// How often its deletion was refused because it had been written in between.
    retries: u32,
}

/// What is still to be deleted, and the answer that follows.
#[derive(Debug)]
pub(super) struct Collection {
    routed: Routed,
    left: VecDeque<Doomed>,
    proposed: Vec<Doomed>,
    response: Response,
}

impl Collection {
    pub(super) fn new(routed: Routed, keys: Vec<ObjectKey>, response: Response) -> Self {
        let left = keys.into_iter().map(|key| Doomed { key, retries: 0 }).collect();
        Self { routed, left, proposed: Vec::new(), response }
    }

    /// The next round; it is empty when everything is done.
    pub(super) fn next(&mut self, run: &mut Run<'_>) -> Result<Vec<Transaction>, Status> {
        let mut transactions = Vec::new();
        while transactions.len() < ROUND_MAX
            && let Some(doomed) = self.left.pop_front()
        {
            match route::delete_one(run, &self.routed, &doomed.key) {
                Ok(Some(proposal)) => {
                    transactions.push(proposal.transaction);
                    self.proposed.push(doomed);
                }
                Ok(None) => {}
                Err(status) if transactions.is_empty() => return Err(status),
                // Those before it go first: it is refused again when its turn comes.
                Err(_) => {
                    self.left.push_front(doomed);
                    break;
                }
            }
        }
        Ok(transactions)
    }

    /// Takes note of what became of a round.
    pub(super) fn settled(&mut self, outcomes: Vec<Proposed>) -> Result<(), Status> {
        let proposed = std::mem::take(&mut self.proposed);
        assert_eq!(proposed.len(), outcomes.len(), "each transaction has one outcome");
        for (doomed, outcome) in proposed.into_iter().zip(outcomes) {
            match outcome {
                Proposed::Settled(Ok(_)) => {}
                Proposed::Settled(Err(refused)) => self.refused(doomed, refused)?,
                Proposed::Unsettled(status) => return Err(status),
            }
        }
        Ok(())
    }

    fn refused(&mut self, doomed: Doomed, refused: Refused) -> Result<(), Status> {
        if refused.moved_on() && doomed.retries < RETRIES_MAX {
            self.left.push_back(Doomed { retries: doomed.retries + 1, ..doomed });
            return Ok(());
        }
        Err(error::refused(self.routed.resource(), &doomed.key, refused))
    }

    /// The answer, once nothing is left.
    pub(super) fn into_response(self) -> Response {
        self.response
    }
}
