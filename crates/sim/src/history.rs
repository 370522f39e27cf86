//! What the test asked for and what it was told: the base of every statement about acknowledged writes.

use std::collections::BTreeMap;

use coracle_api::{Method, Response, Status};
use coracle_base::Instant;
use serde_json::Value;

use crate::linearizability::{Action, Operation, is_linearizable};

/// Which of the history's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(crate) u64);

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is on its way.
    Pending,
    /// It was answered with a success: what it wrote must never be lost.
    Acknowledged(Response),
    /// It was answered with a failure: it wrote nothing.
    Refused(Status),
    /// The member was gone before it answered: it may have written or not.
    Unknown,
}

/// One request of the test.
#[derive(Clone, Debug)]
pub struct Record {
    /// Which.
    pub ticket: Ticket,
    /// When it was made.
    pub at: Instant,
    /// The method.
    pub method: Method,
    /// The path.
    pub path: String,
    /// What became of it.
    pub outcome: Outcome,
    /// When it ended.
    pub ended: Option<Instant>,
    /// What it did to a register, if it was about one.
    pub(crate) register: Option<(String, Access)>,
}

/// What a request does to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Put(u64),
    Delete,
    Read,
}

impl Record {
    /// What it means for its register; nothing where it certainly did nothing.
    fn operation(&self) -> Option<Operation> {
        let (_, access) = self.register.as_ref()?;
        let written = match access {
            Access::Put(value) => Some(Some(*value)),
            Access::Delete => Some(None),
            Access::Read => None,
        };
        let (answered, action) = match (&self.outcome, written) {
            (Outcome::Acknowledged(_), Some(value)) => (self.ended, Action::Write(value)),
            (Outcome::Pending | Outcome::Unknown, Some(value)) => (None, Action::Write(value)),
            (Outcome::Acknowledged(response), None) => (self.ended, Action::Read(value_of(response))),
            // Who finds nothing to delete has read that there is nothing.
            (Outcome::Refused(status), _) if status.code == 404 => (self.ended, Action::Read(None)),
            _ => return None,
        };
        Some(Operation { called: self.at, answered, action })
    }

    /// Whether it wrote something and was told so.
    pub fn is_acknowledged_write(&self) -> bool {
        let writes = matches!(self.method, Method::Post | Method::Put | Method::Patch | Method::Delete);
        writes && matches!(self.outcome, Outcome::Acknowledged(_))
    }
}

/// Every request of the test, in order.
#[derive(Debug, Default)]
pub struct History {
    records: Vec<Record>,
}

impl History {
    /// Every request.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The writes that were acknowledged.
    pub fn acknowledged(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| record.is_acknowledged_write())
    }

    /// What became of one.
    pub fn outcome(&self, ticket: Ticket) -> &Outcome {
        &self.records[ticket.0 as usize].outcome
    }

    /// Whether every register was one to its clients: each operation took place at a moment between its call and its answer.
    ///
    /// # Panics
    ///
    /// When there is a register whose history has no such order.
    #[track_caller]
    pub fn check_linearizable(&self) {
        let mut registers: BTreeMap<&str, Vec<Operation>> = BTreeMap::new();
        for record in &self.records {
            if let (Some((name, _)), Some(operation)) = (&record.register, record.operation()) {
                registers.entry(name).or_default().push(operation);
            }
        }
        for (name, operations) in registers {
            assert!(is_linearizable(&operations), "register {name} is none: {operations:#?}");
        }
    }

    pub(crate) fn begin(
        &mut self,
        at: Instant,
        method: Method,
        path: &str,
        register: Option<(String, Access)>,
    ) -> Ticket {
        let ticket = Ticket(self.records.len() as u64);
        let path = path.to_owned();
        self.records.push(Record { ticket, at, method, path, outcome: Outcome::Pending, ended: None, register });
        ticket
    }

    /// The first end counts: who gave up waiting does not hear of a later answer.
    pub(crate) fn end(&mut self, at: Instant, ticket: Ticket, outcome: Outcome) {
        // Requests from before the history was begun anew.
        let Some(record) = self.records.get_mut(ticket.0 as usize) else { return };
        if record.outcome == Outcome::Pending {
            record.outcome = outcome;
            record.ended = Some(at);
        }
    }
}

/// The value of a register that was read.
pub(crate) fn value_of(response: &Response) -> Option<u64> {
    let bytes = response.body.concat();
    let body: Value = serde_json::from_slice(&bytes).ok()?;
    body["data"]["value"].as_str()?.parse().ok()
}
