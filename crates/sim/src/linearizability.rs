//! Whether what clients saw of a register could have happened one after the other, each operation at some moment between its call
//! and its answer.
//!
//! The search is that of Wing and Gong with Lowe's memory of what was tried: from any operation that no other was over before, on and
//! on, until all answered ones are placed. An operation without an answer may have happened at any time after its call, or never.

use std::collections::BTreeSet;

use coracle_base::Instant;

/// The most operations on one register, and the most states that are tried.
const OPERATIONS_MAX: usize = 128;
const STATES_MAX: usize = 1_000_000;

/// What a client did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// What it left there; nothing: it deleted the register.
    Write(Option<u64>),
    /// What it read; nothing: the register is not there.
    Read(Option<u64>),
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) called: Instant,
    /// `None`: its outcome is not known.
    pub(crate) answered: Option<Instant>,
    pub(crate) action: Action,
}

/// Whether there is an order. An operation that is not known to have happened must be a write, and no value but nothing is written
/// twice.
pub(crate) fn is_linearizable(operations: &[Operation]) -> bool {
    // A write without an answer that nobody read might as well not have happened.
    let read = |value| operations.iter().any(|operation| operation.action == Action::Read(value));
    let counts = |operation: &&Operation| match operation.action {
        Action::Write(value) => operation.answered.is_some() || read(value),
        Action::Read(_) => true,
    };
    let operations: Vec<&Operation> = operations.iter().filter(counts).collect();
    assert!(operations.len() <= OPERATIONS_MAX, "{} operations on one register", operations.len());
    let must = operations.iter().enumerate().filter(|(_, operation)| operation.answered.is_some());
    let must: u128 = must.map(|(index, _)| 1 << index).sum();
    let mut tried = BTreeSet::new();
    let mut stack = vec![(0_u128, None)];
    while let Some((done, value)) = stack.pop() {
        if done & must == must {
            return true;
        }
        if tried.insert((done, value)) {
            assert!(tried.len() < STATES_MAX, "the history of a register is too tangled to be checked");
            next(&operations, done, value, &mut stack);
        }
    }
    false
}

/// What can come next: an operation that was called before any other that is left was answered.
fn next(operations: &[&Operation], done: u128, value: Option<u64>, stack: &mut Vec<(u128, Option<u64>)>) {
    let rest = || operations.iter().enumerate().filter(move |(index, _)| done & (1 << index) == 0);
    let first_answer = rest().filter_map(|(_, operation)| operation.answered).min();
    let mut candidates = rest().filter(|(_, operation)| first_answer.is_none_or(|answer| operation.called <= answer));
    // A read that fits changes nothing: it can only come now or be harder to place later.
    if let Some((index, _)) = candidates.clone().find(|(_, operation)| operation.action == Action::Read(value)) {
        return stack.push((done | (1 << index), value));
    }
    for (index, operation) in candidates.by_ref() {
        if let Action::Write(written) = operation.action {
            stack.push((done | (1 << index), written));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(second)
    }

    fn done(called: u64, answered: u64, action: Action) -> Operation {
        Operation { called: at(called), answered: Some(at(answered)), action }
    }

    #[test]
    fn a_read_sees_the_write_before_it() {
        let write = done(0, 1, Action::Write(Some(1)));
        assert!(is_linearizable(&[write.clone(), done(2, 3, Action::Read(Some(1)))]));
        assert!(!is_linearizable(&[write.clone(), done(2, 3, Action::Read(None))]), "it is stale");
        assert!(!is_linearizable(&[write, done(2, 3, Action::Read(Some(2)))]), "nobody wrote it");
    }

    #[test]
    fn what_happens_at_once_may_have_any_order_but_one_order() {
        let writes = [done(0, 10, Action::Write(Some(1))), done(0, 10, Action::Write(Some(2)))];
        let read = |from, value| done(from, from + 1, Action::Read(Some(value)));
        let with = |reads: [Operation; 2]| [writes.to_vec(), reads.to_vec()].concat();
        assert!(is_linearizable(&with([read(2, 1), read(4, 2)])));
        assert!(is_linearizable(&with([read(2, 2), read(4, 1)])));
        assert!(!is_linearizable(&with([read(12, 1), read(14, 2)])), "one of them was the last");
    }

    #[test]
    fn a_write_without_an_answer_happens_late_or_never_and_not_twice() {
        let lost = Operation { called: at(0), answered: None, action: Action::Write(Some(1)) };
        let write = done(1, 2, Action::Write(Some(2)));
        let read = |from, value| done(from, from + 1, Action::Read(Some(value)));
        assert!(is_linearizable(&[lost.clone(), write.clone(), read(3, 2)]));
        assert!(is_linearizable(&[lost.clone(), write.clone(), read(3, 2), read(5, 1)]));
        assert!(!is_linearizable(&[lost, write, read(3, 1), read(5, 2)]));
    }

    #[test]
    fn a_register_is_gone_after_a_deletion_and_not_before() {
        let history = |value| {
            let deletion = done(2, 3, Action::Write(None));
            [done(0, 1, Action::Write(Some(1))), deletion, done(4, 5, Action::Read(value))]
        };
        assert!(is_linearizable(&history(None)));
        assert!(!is_linearizable(&history(Some(1))), "it came back");
    }
}
