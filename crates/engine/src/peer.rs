//! What members say to each other, and its encoding: Raft's messages, and what goes to the leader beside them.
//!
//! Plain data. A member is known by its connection, so no message says who sent it.

use coracle_base::Timestamp;
use coracle_base::wire::{Damage, Reader, Writer};
use coracle_raft::{MemberId, Message};
use coracle_store::{Entry, Transaction};

const FORMAT: u8 = 1;
/// The longest message: an entry of one transaction is as large as a request's body, and others are cut before.
pub const PEER_MESSAGE_BYTES_MAX: usize = 16 << 20;
/// How many transactions one message forwards, and how many heartbeats it carries.
pub(crate) const FORWARDED_MAX: usize = 4096;
const NODES_MAX: usize = 4096;
/// The longest name of a node that Kubernetes allows.
const NODE_NAME_BYTES_MAX: usize = 253;

/// A message from one member to another.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PeerMessage {
    /// Consensus.
    Raft(Message),
    /// To the leader of `term`, and to nobody else: transactions that another member prepared.
    Forward {
        /// The term whose leader is meant. In any other nothing is done.
        term: u64,
        /// Which start of the sender this is.
        boot: u64,
        /// The transactions, each with a number that the sender uses once in this start.
        transactions: Vec<(u64, Transaction)>,
    },
    /// Where forwarded transactions stand in the log. They are settled when that index is applied.
    Forwarded {
        /// The start of the receiver that forwarded them.
        boot: u64,
        /// The entry's term.
        term: u64,
        /// The entry's index.
        index: u64,
        /// The number of each transaction, and its place in the entry.
        positions: Vec<(u64, u64)>,
    },
    /// Forwarded transactions that are not, and never will be, in the log.
    Declined {
        /// The start of the receiver that forwarded them.
        boot: u64,
        /// Their numbers.
        numbers: Vec<u64>,
    },
    /// To the leader: the agents of these nodes are alive. Without any, to voters: am I still one of you?
    Heartbeat {
        /// The nodes' names.
        nodes: Vec<String>,
    },
    /// To the leader: another member is to lead.
    TransferLead(MemberId),
    /// The receiver was removed from the cluster, and may not have heard of it.
    Removed,
}

impl PeerMessage {
    /// The bytes that travel, with a format version.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.byte(FORMAT);
        match self {
            Self::Raft(message) => {
                w.byte(0);
                w.raw(&message.encode());
            }
            Self::Forward { term, boot, transactions } => {
                w.byte(1);
                w.number(*term);
                w.number(*boot);
                w.list(transactions, |w, (number, _)| w.number(*number));
                let transactions = transactions.iter().map(|(_, transaction)| transaction.clone()).collect();
                w.raw(&Entry { time: Timestamp::EPOCH, transactions }.encode());
            }
            Self::Forwarded { boot, term, index, positions } => {
                w.byte(2);
                for number in [*boot, *term, *index] {
                    w.number(number);
                }
                w.list(positions, |w, (number, position)| {
                    w.number(*number);
                    w.number(*position);
                });
            }
            Self::Declined { boot, numbers } => {
                w.byte(3);
                w.number(*boot);
                w.list(numbers, |w, number| w.number(*number));
            }
            Self::Heartbeat { nodes } => {
                w.byte(4);
                w.list(nodes, |w, node| w.text(node));
            }
            Self::TransferLead(member) => {
                w.byte(5);
                w.number(member.0);
            }
            Self::Removed => w.byte(6),
        }
        w.finish()
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    ///
    /// On damaged bytes, on those of another version, and beyond the bounds of this module.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        if bytes.len() > PEER_MESSAGE_BYTES_MAX {
            return Err(format!("{} bytes are more than a message may have", bytes.len()).into());
        }
        let r = &mut Reader::new(bytes);
        r.version(FORMAT)?;
        let message = match r.byte()? {
            0 => return Message::decode(r.rest()).map(Self::Raft),
            1 => return read_forward(r),
            2 => Self::Forwarded {
                boot: r.number()?,
                term: r.number()?,
                index: r.number()?,
                positions: bounded(r.list(|r| Ok((r.number()?, r.number()?)))?, FORWARDED_MAX)?,
            },
            3 => Self::Declined { boot: r.number()?, numbers: bounded(r.list(Reader::number)?, FORWARDED_MAX)? },
            4 => Self::Heartbeat { nodes: bounded(r.list(read_node)?, NODES_MAX)? },
            5 => Self::TransferLead(MemberId(r.number()?)),
            6 => Self::Removed,
            other => return Err(format!("{other} is no message between members").into()),
        };
        r.finish()?;
        Ok(message)
    }
}

fn read_forward(r: &mut Reader<'_>) -> Result<PeerMessage, Damage> {
    let (term, boot) = (r.number()?, r.number()?);
    let numbers = bounded(r.list(Reader::number)?, FORWARDED_MAX)?;
    let entry = Entry::decode(r.rest()).map_err(|error| error.to_string())?;
    if entry.transactions.len() != numbers.len() {
        return Err("it does not have as many transactions as numbers".into());
    }
    Ok(PeerMessage::Forward { term, boot, transactions: numbers.into_iter().zip(entry.transactions).collect() })
}

fn read_node(r: &mut Reader<'_>) -> Result<String, Damage> {
    match r.text()? {
        node if node.len() <= NODE_NAME_BYTES_MAX => Ok(node.to_owned()),
        _ => Err("the name of a node is too long".into()),
    }
}

fn bounded<T>(list: Vec<T>, most: usize) -> Result<Vec<T>, Damage> {
    if list.len() <= most {
        Ok(list)
    } else {
        Err(format!("a list has {} elements, not at most {most}", list.len()).into())
    }
}

#[cfg(test)]
mod tests {
    use coracle_api::ObjectKey;
    use coracle_api::resources::CONFIG_MAPS;
    use coracle_base::Rng;
    use coracle_store::Write;

    use super::*;

    fn messages() -> Vec<PeerMessage> {
        let key = ObjectKey::new(CONFIG_MAPS, "default", "a");
        let transaction = Transaction { writes: vec![Write::Delete { key }], ..Transaction::default() };
        vec![
            PeerMessage::Forward {
                term: 3,
                boot: u64::MAX,
                transactions: vec![(1, transaction.clone()), (7, transaction)],
            },
            PeerMessage::Forwarded { boot: 1, term: 2, index: 300, positions: vec![(1, 0), (7, 1)] },
            PeerMessage::Declined { boot: 1, numbers: vec![5, 6] },
            PeerMessage::Heartbeat { nodes: vec!["node-1".into(), "node-2".into()] },
            PeerMessage::TransferLead(MemberId(3)),
            PeerMessage::Removed,
        ]
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        for message in messages() {
            assert_eq!(PeerMessage::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn a_damaged_message_is_an_error_or_another_message() {
        let mut rng = Rng::seeded(1);
        for good in messages().iter().map(PeerMessage::encode) {
            for length in 0..good.len() {
                assert!(PeerMessage::decode(&good[..length]).is_err(), "{length} bytes");
            }
            for _ in 0..500 {
                let mut bad = good.clone();
                bad[rng.below(good.len() as u64) as usize] = rng.next_u64() as u8;
                let _ = PeerMessage::decode(&bad);
            }
            let mut longer = good;
            longer.push(0);
            assert!(PeerMessage::decode(&longer).is_err());
        }
    }

    #[test]
    fn what_is_beyond_its_bounds_is_refused() {
        let long = PeerMessage::Heartbeat { nodes: vec!["n".repeat(254)] };
        let many = PeerMessage::Declined { boot: 1, numbers: vec![0; FORWARDED_MAX + 1] };
        let huge = vec![FORMAT; PEER_MESSAGE_BYTES_MAX + 1];
        for bytes in [long.encode(), many.encode(), huge] {
            PeerMessage::decode(&bytes).unwrap_err();
        }
        assert!(PeerMessage::decode(&[2, 6]).unwrap_err().to_string().contains("format version is 2"));
        assert!(PeerMessage::decode(&[FORMAT, 99]).unwrap_err().to_string().contains("99 is no message"));
    }
}
