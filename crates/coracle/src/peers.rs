//! How members reach each other. Those of one process hand messages over as values: nothing is encoded, and what finds a full
//! queue or nobody there is lost, as on a network. Those on other machines are reached over one ([`Network`]).

mod bulk;
pub(crate) mod credentials;
mod frame;
mod network;
mod passage;
mod roster;
pub(crate) mod snapshot;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use bytes::Bytes;
use coracle_apiserver::NodeUsage;
use coracle_engine::{MemberRecord, PeerMessage};
use coracle_node::runtime::{ByteStream, OpenError};
use coracle_raft::{MemberId, SnapshotMark, Status};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::brain::Message;
use crate::dialer::PodPort;

pub(crate) use network::Network;

/// How long a member has to say how it stands.
const STATUS_WAIT: Duration = Duration::from_secs(2);

/// The members that this process knows, by id: its own, and those behind its network.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    inputs: RwLock<BTreeMap<MemberId, mpsc::Sender<Message>>>,
    network: OnceLock<Arc<Network>>,
}

/// A state on its way from one member to another.
#[derive(Debug)]
pub(crate) struct SentSnapshot {
    pub(crate) from: MemberId,
    /// What consensus is told when the state is there.
    pub(crate) message: coracle_raft::Message,
    pub(crate) mark: SnapshotMark,
    pub(crate) state: Bytes,
}

/// How a member stands, and what runs there.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct MemberReport {
    pub(crate) status: Status,
    /// The version of Coracle.
    pub(crate) version: String,
}

impl Peers {
    /// A member is there.
    pub(crate) fn join(&self, id: MemberId, inputs: mpsc::Sender<Message>) {
        self.inputs.write().expect("nothing panics while it holds the lock").insert(id, inputs);
    }

    /// A member is gone: nobody hears it, and it hears nobody.
    pub(crate) fn leave(&self, id: MemberId) {
        let mut inputs = self.inputs.write().expect("nothing panics while it holds the lock");
        inputs.remove(&id);
        for others in inputs.values() {
            // Who has no room for it finds out by silence.
            let _ = others.try_send(Message::Gone(id));
        }
    }

    /// Others are on other machines.
    pub(crate) fn connect(&self, network: Arc<Network>) {
        let _ = self.network.set(network);
    }

    /// The way to other machines, if this process has one.
    pub(crate) fn network(&self) -> Option<&Arc<Network>> {
        self.network.get()
    }

    /// The list of members is this now.
    pub(crate) fn list(&self, records: Vec<MemberRecord>) {
        if let Some(network) = self.network.get() {
            network.roster.update(records);
            network.connect_ahead();
        }
    }

    /// Sends a message without waiting; false when it is lost for certain.
    pub(crate) fn send(&self, from: MemberId, to: MemberId, message: PeerMessage) -> bool {
        if let Some(inputs) = self.inputs_of(from, to) {
            return inputs.try_send(Message::Peer(from, message)).is_ok();
        }
        self.network.get().is_some_and(|network| network.send(to, message))
    }

    /// Sends a whole state; false when it did not arrive.
    pub(crate) async fn send_snapshot(&self, to: MemberId, snapshot: SentSnapshot) -> bool {
        if let Some(inputs) = self.inputs_of(snapshot.from, to) {
            return inputs.send(Message::Snapshot(Box::new(snapshot))).await.is_ok();
        }
        match self.network.get() {
            Some(network) => network.send_state(to, snapshot).await,
            None => false,
        }
    }

    /// How a member stands; `None` when it does not run or does not answer in time.
    pub(crate) async fn report(&self, id: MemberId) -> Option<MemberReport> {
        let inputs = self.inputs.read().expect("nothing panics while it holds the lock").get(&id).cloned();
        let Some(inputs) = inputs else { return self.network.get()?.report(id).await };
        let (reply, status) = oneshot::channel();
        inputs.try_send(Message::Status(reply)).ok()?;
        let status = tokio::time::timeout(STATUS_WAIT, status).await.ok()?.ok()?;
        Some(MemberReport { status, version: env!("CARGO_PKG_VERSION").into() })
    }

    /// What the nodes of the members on other machines use, as far as they answer in time.
    pub(crate) async fn usage(&self) -> Vec<NodeUsage> {
        let Some(network) = self.network.get() else { return Vec::new() };
        let asked = network.roster.others(network.me).into_iter().map(|member| network.usage(member));
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// The member on another machine that a node belongs to, and the way there.
    pub(crate) fn elsewhere(&self, node: &str) -> Option<(Arc<Network>, MemberId)> {
        let network = self.network.get()?;
        let member = network.roster.of_node(node).filter(|member| *member != network.me)?;
        Some((Arc::clone(network), member))
    }

    /// Whether a node is on another machine that does not answer at the moment.
    pub(crate) fn is_silent(&self, node: &str) -> bool {
        self.elsewhere(node).is_some_and(|(network, member)| network.is_silent(member))
    }

    /// A connection to a port of a pod on another machine; `None` when its node is none of another member.
    pub(crate) async fn dial(&self, to: &PodPort) -> Option<Result<ByteStream, OpenError>> {
        let (network, member) = self.elsewhere(&to.node)?;
        Some(network.dial(member, to).await)
    }

    fn inputs_of(&self, from: MemberId, to: MemberId) -> Option<mpsc::Sender<Message>> {
        let inputs = self.inputs.read().expect("nothing panics while it holds the lock");
        // Who was stopped may still have something to say, and is not heard.
        inputs.contains_key(&from).then(|| inputs.get(&to).cloned()).flatten()
    }
}
