//! Small pure decisions made at apply, in log order, on replicated integers and sets that the store keeps without knowing a kind.

use coracle_api::ObjectKey;
use serde::{Deserialize, Serialize};

/// A named set of integers that owners hold exclusively: service addresses, node ports, pod ranges of nodes.
/// Values are `low..=high`; a pool comes into being with its first settlement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The name, as in `service-addresses`.
    pub name: String,
    /// The lowest value.
    pub low: u64,
    /// The highest value.
    pub high: u64,
}

/// Which value of a pool is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Want {
    /// Any free one.
    Any,
    /// This one, or a refusal. An owner that holds it already keeps it.
    Exactly(u64),
}

/// How a chosen value is written into the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Render {
    /// As a JSON number.
    Number,
    /// As a dotted IPv4 address.
    Ipv4,
    /// As the IPv4 range that starts at the value, with this prefix length: `10.42.0.0/24`.
    Ipv4Range(u8),
}

/// A decision made at apply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Settlement {
    /// The object (mostly a Namespace) is there and not being deleted.
    NotTerminating(ObjectKey),
    /// Takes a value of a pool for an owner and writes it into one of the transaction's objects.
    Allocate {
        /// Which pool.
        pool: Pool,
        /// Who holds the value: released by `Release`, or when the store deletes the object of this key.
        owner: ObjectKey,
        /// Which value.
        want: Want,
        /// The index of the `Put` in the transaction whose body gets the value.
        write: usize,
        /// Where in the body: JSON pointers (RFC 6901); `/-` appends to an array. Missing parents are made as objects.
        pointers: Vec<String>,
        /// In which form.
        render: Render,
        /// Also recorded as this attribute of the object (its rendered text).
        attribute: Option<String>,
    },
    /// Gives back one value that an owner holds, if it holds it.
    Release {
        /// The pool's name.
        pool: String,
        /// The owner.
        owner: ObjectKey,
        /// The value.
        value: u64,
    },
}
