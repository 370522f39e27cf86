use coracle_api::{ObjectKey, Revision};

use super::*;

fn applied(revision: u64) -> Applied {
    Applied { revision: Revision(revision), objects: Vec::new() }
}

fn refused() -> Outcome {
    Err(Refused::Gone(ObjectKey::new(coracle_api::resources::PODS, "default", "a")))
}

/// Three transactions that went to the leader of term 2.
fn forwards() -> Forwards {
    let mut forwards = Forwards::new(9);
    let transactions = (10..13).map(|id| (ProposalId(id), Transaction::default())).collect();
    let numbers: Vec<u64> =
        forwards.send(Instant::ZERO, 2, transactions).into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers, [0, 1, 2]);
    forwards
}

fn settled(forwards: &mut Forwards) -> Vec<(u64, Settled)> {
    forwards.take_settled().into_iter().map(|(id, settled)| (id.0, settled)).collect()
}

#[test]
fn a_transaction_is_settled_when_its_place_is_applied() {
    let mut forwards = forwards();
    forwards.placed(9, 2, 5, vec![(0, 1), (1, 0)]);
    forwards.applied(4, 2, &[Ok(applied(1))]);
    assert_eq!(settled(&mut forwards), []);
    forwards.applied(5, 2, &[Ok(applied(2)), refused()]);
    assert_eq!(settled(&mut forwards), [(10, Settled::Applied(refused())), (11, Settled::Applied(Ok(applied(2))))]);
}

#[test]
fn the_log_may_be_faster_than_the_leaders_word() {
    let mut forwards = forwards();
    forwards.applied(5, 2, &[Ok(applied(2))]);
    forwards.placed(9, 2, 5, vec![(2, 0)]);
    assert_eq!(settled(&mut forwards), [(12, Settled::Applied(Ok(applied(2))))]);
}

#[test]
fn another_terms_entry_in_its_place_means_that_nothing_was_done() {
    let mut forwards = forwards();
    forwards.placed(9, 2, 5, vec![(0, 0)]);
    forwards.placed(9, 2, 50, vec![(1, 0)]);
    forwards.applied(5, 3, &[]);
    let settled = settled(&mut forwards);
    assert_eq!(settled, [(10, Settled::NotLeader), (11, Settled::NotLeader), (12, Settled::Unknown)]);
}

#[test]
fn what_went_by_in_a_snapshot_is_unknown() {
    let mut forwards = forwards();
    forwards.placed(9, 2, 5, vec![(0, 0)]);
    forwards.installed(7);
    forwards.placed(9, 2, 6, vec![(1, 0)]);
    assert_eq!(settled(&mut forwards), [(10, Settled::Unknown), (11, Settled::Unknown)]);
}

#[test]
fn a_word_that_does_not_come_or_is_not_for_this_start_leaves_it_unknown() {
    let mut forwards = forwards();
    forwards.placed(8, 2, 5, vec![(0, 0)]);
    forwards.declined(8, vec![0]);
    forwards.declined(9, vec![1]);
    forwards.expire(Instant::ZERO + Duration::from_secs(11));
    let settled = settled(&mut forwards);
    assert_eq!(settled, [(11, Settled::NotLeader), (10, Settled::Unknown), (12, Settled::Unknown)]);
}

#[test]
fn a_leader_takes_each_number_of_a_start_once() {
    let (mut accepted, two, three) = (Accepted::default(), MemberId(2), MemberId(3));
    assert!(!accepted.is_new(4, two, 1, 0), "it does not lead in this term");
    accepted.begin(4);
    assert!(accepted.is_new(4, two, 1, 0) && accepted.is_new(4, two, 1, 1) && accepted.is_new(4, three, 1, 0));
    assert!(!accepted.is_new(4, two, 1, 0) && !accepted.is_new(4, two, 1, 1));
    for number in 2..=SEEN_MAX as u64 + 2 {
        assert!(accepted.is_new(4, two, 1, number));
    }
    assert!(!accepted.is_new(4, two, 1, 0), "it is no longer remembered, and older than all that is");
    assert!(accepted.is_new(4, two, 2, 0), "another start");
}
