//! Messages between members, as they come off a connection.

use coracle_engine::PeerMessage;
use coracle_raft::MemberId;

/// What is read is written again as the same message.
pub fn run(bytes: &[u8]) {
    if let Ok(message) = PeerMessage::decode(bytes) {
        assert_eq!(PeerMessage::decode(&message.encode()).as_ref(), Ok(&message));
    }
}

/// One of each.
pub fn seeds() -> Vec<Vec<u8>> {
    let transactions = vec![(1, crate::transaction("a")), (2, crate::transaction("b"))];
    let messages = [
        PeerMessage::Forward { term: 3, boot: 1 << 40, transactions },
        PeerMessage::Forwarded { boot: 1, term: 2, index: 300, positions: vec![(1, 0), (7, 1)] },
        PeerMessage::Declined { boot: 1, numbers: vec![5, 6] },
        PeerMessage::Heartbeat { nodes: vec!["node-1".into()] },
        PeerMessage::TransferLead(MemberId(3)),
        PeerMessage::Removed,
    ];
    let mut seeds: Vec<Vec<u8>> = messages.iter().map(PeerMessage::encode).collect();
    seeds.extend(crate::member::messages().into_iter().map(|message| PeerMessage::Raft(message).encode()));
    seeds
}
