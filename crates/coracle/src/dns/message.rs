//! Questions and answers as bytes. It knows no names and asks nobody.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Record};
use hickory_proto::serialize::binary::{BinEncodable as _, BinEncoder};

/// The largest answer over UDP to who says nothing of what it can take (RFC 1035).
const UDP_MAX: u16 = 512;
/// The largest over UDP at all: what no link has to take apart (the DNS flag day of 2020).
const UDP_EDNS_MAX: u16 = 1232;
/// The bytes of a header: who sends fewer is no DNS client.
const HEADER_BYTES: usize = 12;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// A question that can be answered.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) query: Query,
    id: u16,
    recursion_desired: bool,
    has_edns: bool,
    bytes_max: u16,
}

/// What becomes of a packet.
#[derive(Debug)]
pub(crate) enum Read {
    /// It asks something.
    Question(Box<Question>),
    /// It is answered at once, with these bytes.
    Reply(Vec<u8>),
    /// It is none of ours: no answer, lest two servers talk to each other for ever.
    Drop,
}

/// Reads a packet.
pub(crate) fn read(packet: &[u8], transport: Transport) -> Read {
    // The third byte's highest bit says that it is an answer.
    if packet.len() < HEADER_BYTES || packet[2] & 0x80 != 0 {
        return Read::Drop;
    }
    let id = u16::from_be_bytes([packet[0], packet[1]]);
    let Ok(message) = Message::from_vec(packet) else {
        return refuse(id, OpCode::Query, ResponseCode::FormErr, None);
    };
    let edns = message.edns.as_ref();
    let query = match message.queries.as_slice() {
        _ if message.metadata.op_code != OpCode::Query => {
            return refuse(id, message.metadata.op_code, ResponseCode::NotImp, None);
        }
        [query] => query,
        _ => return refuse(id, OpCode::Query, ResponseCode::FormErr, None),
    };
    if edns.is_some_and(|edns| edns.version() > 0) {
        return refuse(id, OpCode::Query, ResponseCode::BADVERS, Some(query));
    }
    if query.query_class() != DNSClass::IN {
        return refuse(id, OpCode::Query, ResponseCode::Refused, Some(query));
    }
    let bytes_max = match (transport, edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, Some(edns)) => edns.max_payload().clamp(UDP_MAX, UDP_EDNS_MAX),
        (Transport::Udp, None) => UDP_MAX,
    };
    Read::Question(Box::new(Question {
        query: query.clone(),
        id,
        recursion_desired: message.metadata.recursion_desired,
        has_edns: edns.is_some(),
        bytes_max,
    }))
}

fn refuse(id: u16, op_code: OpCode, code: ResponseCode, query: Option<&Query>) -> Read {
    let mut message = Message::error_msg(id, op_code, code);
    message.add_queries(query.cloned());
    if code.high() > 0 {
        message.set_edns(edns());
    }
    message.to_vec().map_or(Read::Drop, Read::Reply)
}

fn edns() -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_EDNS_MAX);
    edns
}

/// What a question is answered with.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) code: ResponseCode,
    pub(crate) authoritative: bool,
    pub(crate) answers: Vec<Record>,
    pub(crate) authorities: Vec<Record>,
    pub(crate) additionals: Vec<Record>,
}

impl Question {
    /// The answer as bytes; what does not fit is left out, and the answer says so.
    pub(crate) fn reply(&self, reply: Reply) -> Option<Vec<u8>> {
        let mut message = Message::new(self.id, MessageType::Response, OpCode::Query);
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.authoritative = reply.authoritative;
        message.metadata.response_code = reply.code;
        message.add_query(self.query.clone());
        message.insert_answers(reply.answers);
        message.insert_authorities(reply.authorities);
        message.insert_additionals(reply.additionals);
        if self.has_edns {
            message.set_edns(edns());
        }
        let whole = self.encode(&message)?;
        if !is_truncated(&whole) || message.additionals.is_empty() {
            return Some(whole);
        }
        // What is only helpful goes first: without it the answer may be whole.
        message.additionals.clear();
        self.encode(&message)
    }

    fn encode(&self, message: &Message) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::from(self.bytes_max.min(UDP_EDNS_MAX)));
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(self.bytes_max);
        message.emit(&mut encoder).ok()?;
        Some(bytes)
    }
}

fn is_truncated(bytes: &[u8]) -> bool {
    bytes.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

#[cfg(test)]
mod tests;
