//! What the test asked for and what it was told: the base of every statement about acknowledged writes.

use coracle_api::{Method, Response, Status};
use coracle_base::Instant;

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
}

impl Record {
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

    pub(crate) fn begin(&mut self, at: Instant, method: Method, path: &str) -> Ticket {
        let ticket = Ticket(self.records.len() as u64);
        self.records.push(Record { ticket, at, method, path: path.to_owned(), outcome: Outcome::Pending });
        ticket
    }

    pub(crate) fn end(&mut self, ticket: Ticket, outcome: Outcome) {
        self.records[ticket.0 as usize].outcome = outcome;
    }
}
