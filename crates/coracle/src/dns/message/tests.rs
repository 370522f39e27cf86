//! Packets, good and bad.

use std::net::Ipv4Addr;

use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, RecordType};
use proptest::prelude::*;

use super::*;

fn question(payload: Option<u16>) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii("web.shop.svc.cluster.local.").unwrap(), RecordType::A));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message
}

#[track_caller]
fn asked(message: &Message, transport: Transport) -> Question {
    match read(&message.to_vec().unwrap(), transport) {
        Read::Question(question) => *question,
        other => panic!("it is a question, not {other:?}"),
    }
}

#[track_caller]
fn refused(packet: &[u8]) -> ResponseCode {
    match read(packet, Transport::Udp) {
        Read::Reply(bytes) => {
            let message = Message::from_vec(&bytes).unwrap();
            assert_eq!((message.metadata.id, message.metadata.message_type), (7, MessageType::Response));
            message.metadata.response_code
        }
        other => panic!("it is refused, not {other:?}"),
    }
}

fn records(count: u8) -> Vec<Record> {
    let name = Name::from_ascii("web.shop.svc.cluster.local.").unwrap();
    let record = |last| Record::from_rdata(name.clone(), 5, RData::A(A(Ipv4Addr::new(10, 42, 0, last))));
    (0..count).map(record).collect()
}

#[test]
fn what_is_malformed_or_asks_for_something_else_is_told_so() {
    let good = question(None).to_vec().unwrap();
    assert_eq!(refused(&good[..good.len() - 3]), ResponseCode::FormErr);
    let mut none = question(None);
    none.queries.clear();
    assert_eq!(refused(&none.to_vec().unwrap()), ResponseCode::FormErr);
    let mut two = question(None);
    two.add_query(two.queries[0].clone());
    assert_eq!(refused(&two.to_vec().unwrap()), ResponseCode::FormErr);
    let mut update = question(None);
    update.metadata.op_code = OpCode::Update;
    assert_eq!(refused(&update.to_vec().unwrap()), ResponseCode::NotImp);
    let mut chaos = question(None);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(refused(&chaos.to_vec().unwrap()), ResponseCode::Refused);
    let mut later = question(Some(1232));
    later.edns.as_mut().unwrap().set_version(1);
    // The number that BADSIG has, too.
    assert_eq!(u16::from(refused(&later.to_vec().unwrap())), 16);
}

#[test]
fn answers_and_scraps_are_dropped() {
    let mut answer = question(None);
    answer.metadata.message_type = MessageType::Response;
    assert!(matches!(read(&answer.to_vec().unwrap(), Transport::Udp), Read::Drop));
    assert!(matches!(read(&[], Transport::Udp), Read::Drop));
    assert!(matches!(read(&[0; 11], Transport::Tcp), Read::Drop));
}

#[test]
fn an_answer_is_as_long_as_the_client_can_take_and_says_when_something_is_left_out() {
    let cases = [
        (None, Transport::Udp, 20, false),
        (None, Transport::Udp, 60, true),
        (Some(1232), Transport::Udp, 60, false),
        // More than links take whole is not sent, whatever the client says.
        (Some(4096), Transport::Udp, 120, true),
        (None, Transport::Tcp, 255, false),
    ];
    for (payload, transport, count, truncated) in cases {
        let question = asked(&question(payload), transport);
        let bytes = question.reply(Reply { answers: records(count), ..Reply::default() }).unwrap();
        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!(message.metadata.truncation, truncated, "{payload:?} {transport:?} {count}");
        assert_eq!(message.answers.len() == usize::from(count), !truncated);
        assert_eq!(message.edns.is_some(), payload.is_some());
        assert!(bytes.len() <= usize::from(question.bytes_max));
        assert_eq!((message.metadata.id, message.metadata.recursion_available), (7, true));
    }
}

#[test]
fn what_is_only_helpful_is_left_out_first() {
    let question = asked(&question(None), Transport::Udp);
    let reply = Reply { answers: records(20), additionals: records(40), ..Reply::default() };
    let message = Message::from_vec(&question.reply(reply).unwrap()).unwrap();
    assert!(!message.metadata.truncation && message.answers.len() == 20 && message.additionals.is_empty());
}

proptest! {
    #[test]
    fn no_packet_does_harm(packet in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Read::Question(question) = read(&packet, Transport::Udp) {
            let reply = question.reply(Reply { answers: records(3), ..Reply::default() });
            prop_assert!(reply.is_some());
        }
    }

    #[test]
    fn no_damage_to_a_question_does_harm(at in 0_usize..60, byte in any::<u8>()) {
        let mut packet = question(Some(1232)).to_vec().unwrap();
        let length = packet.len();
        packet[at % length] = byte;
        if let Read::Question(question) = read(&packet, Transport::Udp) {
            let reply = question.reply(Reply { answers: records(3), ..Reply::default() });
            prop_assert!(reply.is_some());
        }
    }
}
