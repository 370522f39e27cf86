//! How members reach each other. Those of one process hand messages over as values: nothing is encoded, and what finds a full
//! queue or nobody there is lost, as on a network.

use std::collections::BTreeMap;
use std::sync::RwLock;
use std::time::Duration;

use bytes::Bytes;
use coracle_engine::PeerMessage;
use coracle_raft::{MemberId, SnapshotMark, Status};
use tokio::sync::{mpsc, oneshot};

use crate::brain::Message;

/// How long a member has to say how it stands.
const STATUS_WAIT: Duration = Duration::from_secs(2);

/// The members of a process, by id.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    inputs: RwLock<BTreeMap<MemberId, mpsc::Sender<Message>>>,
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

impl Peers {
    /// A member is there.
    pub(crate) fn join(&self, id: MemberId, inputs: mpsc::Sender<Message>) {
        self.inputs.write().expect("nothing panics while it holds the lock").insert(id, inputs);
    }

    /// A member is gone: nobody hears it, and it hears nobody.
    pub(crate) fn leave(&self, id: MemberId) {
        self.inputs.write().expect("nothing panics while it holds the lock").remove(&id);
    }

    /// Sends a message without waiting; false when it is lost for certain.
    pub(crate) fn send(&self, from: MemberId, to: MemberId, message: PeerMessage) -> bool {
        self.inputs_of(from, to).is_some_and(|inputs| inputs.try_send(Message::Peer(from, message)).is_ok())
    }

    /// Sends a whole state; false when it did not arrive.
    pub(crate) async fn send_snapshot(&self, to: MemberId, snapshot: SentSnapshot) -> bool {
        match self.inputs_of(snapshot.from, to) {
            Some(inputs) => inputs.send(Message::Snapshot(Box::new(snapshot))).await.is_ok(),
            None => false,
        }
    }

    /// How a member of this process stands; `None` when it does not run or does not answer in time.
    pub(crate) async fn status(&self, id: MemberId) -> Option<Status> {
        let inputs = self.inputs.read().expect("nothing panics while it holds the lock").get(&id).cloned()?;
        let (reply, status) = oneshot::channel();
        inputs.try_send(Message::Status(reply)).ok()?;
        tokio::time::timeout(STATUS_WAIT, status).await.ok()?.ok()
    }

    fn inputs_of(&self, from: MemberId, to: MemberId) -> Option<mpsc::Sender<Message>> {
        let inputs = self.inputs.read().expect("nothing panics while it holds the lock");
        // Who was stopped may still have something to say, and is not heard.
        inputs.contains_key(&from).then(|| inputs.get(&to).cloned()).flatten()
    }
}
