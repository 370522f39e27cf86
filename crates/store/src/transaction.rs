//! What is proposed: the reads a write depends on, the writes, and the settlements made when it is applied.

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::{Attributes, Object, ObjectKey, Revision};
use coracle_base::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Settlement;

/// What a write depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precondition {
    /// There is no such object.
    Absent(ObjectKey),
    /// The object is there and was last written at this revision.
    At(ObjectKey, Revision),
}

/// One change. The bytes are canonical JSON as [`Object::body`] has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// Creates or replaces.
    Put {
        /// The object's key.
        key: ObjectKey,
        /// Its canonical body, without `kind`, `apiVersion` and `resourceVersion`.
        body: Bytes,
        /// Its selectable fields.
        attributes: Attributes,
    },
    /// Removes; nothing happens when it is not there.
    Delete {
        /// The object's key.
        key: ObjectKey,
    },
}

impl Write {
    /// What is written.
    pub fn key(&self) -> &ObjectKey {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// All or nothing: either every precondition and settlement holds and every write is done, or nothing happens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// What must hold.
    pub preconditions: Vec<Precondition>,
    /// What is written, each key once. A `Put` of the same bytes and attributes that are there changes nothing and makes
    /// no revision.
    pub writes: Vec<Write>,
    /// What is settled at apply, in order.
    pub settlements: Vec<Settlement>,
    /// A controller's transaction carries the term of the leader that made it and is refused in any other.
    pub term: Option<u64>,
}

impl Transaction {
    /// Roughly how many bytes it takes in the log.
    pub fn size(&self) -> usize {
        let put = |write: &Write| match write {
            Write::Put { body, .. } => body.len() + 128,
            Write::Delete { .. } => 128,
        };
        64 * (1 + self.preconditions.len() + self.settlements.len()) + self.writes.iter().map(put).sum::<usize>()
    }
}

/// What the log carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The leader's wall time, never less than that of the entry before.
    pub time: Timestamp,
    /// The transactions of one batch, applied one after the other.
    pub transactions: Vec<Transaction>,
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The store's revision after it. When nothing changed it is the revision before.
    pub revision: Revision,
    /// For each write, the object after it (`Put`, settlements' results included) or before it (`Delete`; `None`: it was not there).
    pub objects: Vec<Option<Arc<Object>>>,
}

/// Why a transaction was refused; nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// An object that must be absent is there.
    #[error("{0} exists")]
    Exists(ObjectKey),
    /// An object that must be there is not.
    #[error("{0} is gone")]
    Gone(ObjectKey),
    /// An object was written since it was read.
    #[error("{0} was modified")]
    Modified(ObjectKey),
    /// An object that must not be going away (a Namespace, for what is created in it) is going away.
    #[error("{0} is being deleted")]
    Terminating(ObjectKey),
    /// A pool has nothing left.
    #[error("pool {0} is exhausted")]
    Exhausted(String),
    /// A value that was asked for belongs to another owner.
    #[error("{value} of pool {pool} is taken")]
    Taken {
        /// The pool.
        pool: String,
        /// The value.
        value: u64,
    },
    /// A value that was asked for is outside the pool's range.
    #[error("{value} is outside pool {pool}")]
    OutOfRange {
        /// The pool.
        pool: String,
        /// The value.
        value: u64,
    },
    /// The transaction itself is wrong: it writes a key twice, a body is no object, or a settlement names a place that
    /// cannot be written. Who prepared it has a defect; every member refuses it alike.
    #[error("the write of {0} is malformed")]
    Malformed(ObjectKey),
    /// The transaction was made in another term.
    #[error("made in term {made}, applied in term {applied}")]
    Term {
        /// The term it was made in.
        made: u64,
        /// The term it reached the log in.
        applied: u64,
    },
}

impl Refused {
    /// Whether the state has moved on since the transaction was prepared: prepared again it may be applied, or finds out
    /// itself what is wrong.
    pub fn moved_on(&self) -> bool {
        matches!(self, Self::Exists(_) | Self::Gone(_) | Self::Modified(_) | Self::Taken { .. })
    }
}
