//! What a member hears that no member would say: it goes on as if it had not.

use super::*;

struct Forged {
    what: &'static str,
    message: eraftpb::Message,
}

fn forged(what: &'static str, kind: MessageType, change: impl FnOnce(&mut eraftpb::Message)) -> Forged {
    let mut message = eraftpb::Message::default();
    message.set_msg_type(kind);
    change(&mut message);
    Forged { what, message }
}

fn entry(index: u64, term: u64) -> Entry {
    Entry { index, term, ..Entry::default() }
}

/// What is wrong whatever the state: `last` is the end of the log, `term` the term.
fn always_wrong(term: u64, last: u64) -> Vec<Forged> {
    let change = |data: &[u8]| {
        let data = Bytes::copy_from_slice(data);
        vec![crate::message::to_raft(&crate::LogEntry {
            index: last + 1,
            term,
            kind: crate::EntryKind::Membership,
            data,
        })]
    };
    vec![
        forged("asks for a vote in no term", MessageType::MsgRequestPreVote, |m| m.term = 0),
        forged("stands in no term", MessageType::MsgRequestVote, |m| m.term = 0),
        forged("stands behind all terms", MessageType::MsgRequestVote, |m| m.term = u64::MAX),
        forged("stands with another right", MessageType::MsgRequestPreVote, |m| (m.term, m.priority) = (term, -1)),
        forged("appends in no term", MessageType::MsgAppend, |m| m.commit = 1_000),
        forged("appends behind a falling term", MessageType::MsgAppend, |m| {
            (m.term, m.index, m.log_term) = (term, last, term + 1);
        }),
        forged("appends what a committed entry forbids", MessageType::MsgAppend, |m| {
            (m.term, m.index, m.log_term) = (term, last, 0);
            m.set_entries(vec![entry(last + 1, 0)].into());
        }),
        forged("appends a gap", MessageType::MsgAppend, |m| {
            (m.term, m.index, m.log_term) = (term, last, term);
            m.set_entries(vec![entry(last + 2, term)].into());
        }),
        forged("changes the group unreadably", MessageType::MsgAppend, |m| {
            (m.term, m.index, m.log_term, m.commit) = (term, last, term, last + 1);
            m.set_entries(change(b"?").into());
        }),
        forged("ends a change that nobody began", MessageType::MsgAppend, |m| {
            (m.term, m.index, m.log_term, m.commit) = (term, last, term, last + 1);
            m.set_entries(change(&Step::leave().encode()).into());
        }),
        forged("knows of more than there is", MessageType::MsgHeartbeat, |m| (m.term, m.commit) = (term, 1_000)),
        forged("has taken more than there is", MessageType::MsgAppendResponse, |m| (m.term, m.index) = (term, 1_000)),
        forged("hints beyond all numbers", MessageType::MsgAppendResponse, |m| {
            (m.term, m.reject, m.reject_hint) = (term, true, u64::MAX);
        }),
        forged("wants a snapshot by number", MessageType::MsgAppendResponse, |m| {
            (m.term, m.reject, m.request_snapshot) = (term, true, 1_000);
        }),
        forged("forwards a read of nothing", MessageType::MsgReadIndex, |_| {}),
        forged("forwards a read of a term", MessageType::MsgReadIndex, |m| {
            m.term = term;
            m.set_entries(vec![entry(0, 0)].into());
        }),
        forged("hands the lead over from outside", MessageType::MsgTransferLeader, |m| m.term = term),
        forged("is local", MessageType::MsgHup, |m| m.term = term),
    ]
}

#[test]
fn what_no_member_would_say_changes_nothing() {
    let mut group = Group::new(3);
    group.run_until(|group| group.leader().is_some());
    group.propose(1, "a");
    group.run_until(|group| (1..=3).all(|id| group.applied(MemberId(id)) == ["a"]));
    let leader = group.leader().unwrap();
    let follower = [1, 2, 3].map(MemberId).into_iter().find(|id| *id != leader).unwrap();
    let (term, last) = (group.members[&leader].term(), group.members[&leader].status().last);
    for (from, to) in [(leader, follower), (follower, leader)] {
        for Forged { what, mut message } in always_wrong(term, last) {
            (message.from, message.to) = (from.0, to.0);
            let outputs = group.members.get_mut(&to).unwrap().step(group.now, Input::Message(from, Message(message)));
            assert!(outputs.is_empty(), "member {to:?} was told what {what}, and answers {outputs:?}");
        }
    }
    assert_eq!(group.leader(), Some(leader));
    group.propose(2, "b");
    group.run_until(|group| (1..=3).all(|id| group.applied(MemberId(id)) == ["a", "b"]));
    assert_eq!(group.members[&leader].term(), term, "nobody stood");
}

#[test]
fn what_another_says_in_a_members_name_is_ignored() {
    let mut group = Group::new(3);
    group.run_until(|group| group.leader().is_some());
    let leader = group.leader().unwrap();
    let [one, two] = [1, 2, 3].map(MemberId).into_iter().filter(|id| *id != leader).collect::<Vec<_>>()[..] else {
        panic!("two of three follow");
    };
    let term = group.members[&leader].term();
    for (from, to) in [(leader, one), (two, leader)] {
        let said = forged("stands", MessageType::MsgRequestVote, |m| (m.term, m.from, m.to) = (term + 1, from.0, to.0));
        let outputs = group.members.get_mut(&one).unwrap().step(group.now, Input::Message(two, Message(said.message)));
        assert!(outputs.is_empty(), "{outputs:?}");
    }
    assert_eq!(group.members[&one].term(), term);
}
