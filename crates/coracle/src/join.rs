//! How a machine joins a cluster: who lets others in, and who wants to.
//!
//! The token that is carried by hand says which cluster is meant, by the SHA-256 of its authority's certificate, and that its bearer is
//! let in. The machine that joins looks at the certificate first: to another cluster, or to somebody in between, it sends nothing.

mod client;
mod gate;
mod token;

pub(crate) use client::{JoinOptions, join};
pub(crate) use gate::Gate;
pub(crate) use token::{create, list, revoke};

use coracle_engine::MemberRecord;
use coracle_raft::MemberId;
use serde::{Deserialize, Serialize};

use crate::identity::IdentityFiles;

/// Where the authority's certificate is read, and where a machine asks to join.
pub(crate) const CA_PATH: &str = "/coracle/v1/ca";
pub(crate) const JOIN_PATH: &str = "/coracle/v1/join";

/// What a machine says that wants to join.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Application {
    /// The token's part behind `::`.
    credential: String,
    /// The name that its node is to have.
    name: String,
    /// Where it listens.
    addresses: Vec<String>,
    /// The SHA-256 of its public key.
    identity: String,
    /// Whether it asks for no vote.
    worker: bool,
}

/// What it is given.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Admission {
    id: MemberId,
    /// Its name: what it asked for, or another where that is taken.
    name: String,
    members: Vec<MemberRecord>,
    /// What the cluster proves itself with.
    identity: IdentityFiles,
}
