//! What members make of time: when they wake, whom they doubt, and when they stand.

use super::*;

#[test]
fn a_leader_that_is_gone_is_followed_within_a_few_heartbeats() {
    let mut group = Group::new(3);
    group.run_until(|group| group.leader().is_some());
    let old = group.leader().unwrap();
    group.pass(10);
    group.down.push(old);
    for id in [1, 2, 3].map(MemberId).into_iter().filter(|id| *id != old) {
        group.step(id, Input::Gone(old));
    }
    // Two heartbeats of 100 ms, and a round of messages: the shortest silence would be 600 ms.
    group.pass(21);
    assert!(group.leader().is_some_and(|leader| leader != old));
}

#[test]
fn a_wrong_word_that_the_leader_is_gone_leaves_it_the_lead() {
    let mut group = Group::new(3);
    group.run_until(|group| group.leader().is_some());
    let leader = group.leader().unwrap();
    let term = group.members[&leader].term();
    let other = [1, 2, 3].map(MemberId).into_iter().find(|id| *id != leader).unwrap();
    group.step(other, Input::Gone(leader));
    group.pass(300);
    assert_eq!(group.leader(), Some(leader), "the third member hears it and grants no vote");
    assert_eq!(group.members[&leader].term(), term);
}

#[test]
fn members_wake_for_what_is_due_and_for_nothing_else() {
    let mut group = Group::new(3);
    group.run_until(|group| group.leader().is_some());
    group.pass(100);
    let leader = group.leader().unwrap();
    let mut woken = BTreeMap::<MemberId, u32>::new();
    let end = group.now.mono + Duration::from_secs(10);
    while group.now.mono < end {
        let due = |(id, member): (&MemberId, &Member)| Some((member.next_wakeup()?, *id));
        let (due, id) = group.members.iter().filter_map(due).min().unwrap();
        group.now = group.now.after(due.saturating_since(group.now.mono));
        *woken.entry(id).or_default() += 1;
        group.step(id, Input::Tick);
    }
    assert_eq!(group.leader(), Some(leader), "nobody falls silent");
    assert_eq!(woken, BTreeMap::from([(leader, woken[&leader])]), "who hears its leader has nothing to wake for");
    assert!((99..=101).contains(&woken[&leader]), "once a heartbeat: {woken:?}");
}

#[test]
fn a_follower_whose_process_stood_still_hears_the_leader_before_it_doubts_it() {
    let mut group = Group::new(3);
    group.run_until(|group| group.leader().is_some());
    group.pass(10);
    let leader = group.leader().unwrap();
    let term = group.members[&leader].term();
    let still = [1, 2, 3].map(MemberId).into_iter().find(|id| *id != leader).unwrap();
    for _ in 0..20 {
        // It sleeps for a second, while what the leader says waits for it.
        for _ in 0..100 {
            group.now = group.now.after(Duration::from_millis(10));
            for id in [1, 2, 3].map(MemberId).into_iter().filter(|id| *id != still) {
                group.cut = vec![(leader, still)];
                group.step(id, Input::Tick);
            }
        }
        group.cut.clear();
        let heartbeat = group.members[&leader].next_wakeup().unwrap();
        group.now = group.now.after(heartbeat.saturating_since(group.now.mono));
        group.step(leader, Input::Tick);
        group.step(still, Input::Tick);
        assert_eq!(group.members[&still].leader(), Some(leader));
    }
    assert_eq!(group.members[&leader].term(), term);
}
