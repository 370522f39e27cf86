//! What guests ask of the cluster's key-value store, and what they are answered: plain data, carried by the host.

use std::pin::Pin;

use bytes::Bytes;

/// A call of one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyValueCall {
    /// Whether there is such a bucket for the pod: [`KeyValueAnswer::Done`].
    Open,
    /// The values of these keys, in this order: [`KeyValueAnswer::Values`].
    Get(Vec<String>),
    /// Writes all of them or none: [`KeyValueAnswer::Done`]. Of a key that is there twice the last counts.
    Set(Vec<(String, Bytes)>),
    /// Removes all of them; what is not there is nothing to remove: [`KeyValueAnswer::Done`].
    Delete(Vec<String>),
    /// The next keys behind a cursor that an earlier answer gave: [`KeyValueAnswer::Keys`].
    Keys {
        /// The cursor; `None`: from the first on.
        after: Option<u64>,
    },
    /// Adds to the number that is there in decimal, or to 0: [`KeyValueAnswer::Number`], what it is then.
    Increment {
        /// The key.
        key: String,
        /// What is added.
        delta: u64,
    },
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyValueAnswer {
    /// It is done, durably.
    Done,
    /// A value for each key that was asked for; `None`: it is not there.
    Values(Vec<Option<Bytes>>),
    /// Some of the keys.
    Keys {
        /// In no particular order.
        keys: Vec<String>,
        /// Where the next are; `None`: there are no more.
        next: Option<u64>,
    },
    /// The number.
    Number(u64),
}

/// Why a call came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyValueError {
    /// There cannot be a bucket of this name.
    #[error("no such store")]
    NoSuchStore,
    /// The pod may not use it.
    #[error("access denied")]
    AccessDenied,
    /// Anything else; the sentence is what the guest is told.
    #[error("{0}")]
    Other(String),
}

/// A call that is being answered.
pub type KeyValueAnswering = Pin<Box<dyn Future<Output = Result<KeyValueAnswer, KeyValueError>> + Send>>;
