use coracle_raft::Role;

use super::*;

/// A leader, member 1, its group, and the list of members; ids are numbers.
struct Setting {
    autopilot: Autopilot,
    options: AutopilotOptions,
    records: Vec<MemberRecord>,
    status: Status,
    now: Instant,
}

impl Setting {
    fn new(voters: &[u64], learners: &[u64], records: &[(u64, Wants)]) -> Self {
        let ids = |ids: &[u64]| ids.iter().copied().map(MemberId).collect::<Vec<_>>();
        let membership = Membership { learners: ids(learners), ..Membership::of_voters(&ids(voters)) };
        let peer = |id: &MemberId| PeerStatus { id: *id, matched: 100, lag: 0, active: true, snapshot: false };
        let peers = membership.members().iter().filter(|id| id.0 != 1).map(peer).collect();
        let leader = MemberId(1);
        let status = Status {
            id: leader,
            role: Role::Leader,
            term: 1,
            leader: Some(leader),
            commit: 100,
            applied: 100,
            last: 100,
            membership,
            peers,
        };
        let record = |(id, wants): &(u64, Wants)| MemberRecord {
            id: MemberId(*id),
            name: String::new(),
            addresses: Vec::new(),
            wants: *wants,
            identity: String::new(),
        };
        let records = records.iter().map(record).collect();
        let options = AutopilotOptions::default();
        Self { autopilot: Autopilot::default(), options, records, status, now: Instant::ZERO }
    }

    fn peer(&mut self, id: u64) -> &mut PeerStatus {
        self.status.peers.iter_mut().find(|peer| peer.id.0 == id).unwrap()
    }

    /// What it wants after some time in which everything stayed as it is.
    fn after(&mut self, time: Duration) -> String {
        self.look();
        self.now = self.now + time;
        self.look()
    }

    fn look(&mut self) -> String {
        match self.autopilot.look(self.now, &self.options, &self.records, &self.status) {
            None => "nothing".into(),
            Some(Step::TransferLead(to)) => format!("transfer to {}", to.0),
            Some(Step::Change(change)) => {
                let each = change.0.iter().map(|(id, place)| format!("{} {place:?}", id.0));
                each.collect::<Vec<_>>().join(", ")
            }
        }
    }
}

const AUTO: Wants = Wants::Auto;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn who_is_in_the_list_joins_as_a_learner() {
    let mut setting = Setting::new(&[1], &[], &[(1, AUTO), (2, AUTO), (3, Wants::Worker)]);
    assert_eq!(setting.look(), "2 Learner");
    let mut setting = Setting::new(&[1], &[2], &[(1, AUTO), (2, AUTO), (3, Wants::Worker)]);
    assert_eq!(setting.look(), "3 Learner");
}

#[test]
fn the_second_member_stays_a_learner_and_with_the_third_both_become_voters() {
    let mut setting = Setting::new(&[1], &[2], &[(1, AUTO), (2, AUTO)]);
    assert_eq!(setting.after(secs(3600)), "nothing");
    let mut setting = Setting::new(&[1], &[2, 3], &[(1, AUTO), (2, AUTO), (3, AUTO)]);
    setting.peer(3).lag = 1000;
    assert_eq!(setting.after(secs(3600)), "nothing", "the third has not caught up");
    setting.peer(3).lag = 1;
    assert_eq!(setting.after(secs(4)), "nothing", "it has only just caught up");
    assert_eq!(setting.after(secs(1)), "2 Voter, 3 Voter");
}

#[test]
fn workers_and_spares_do_not_vote_unless_they_are_asked_to() {
    let mut setting = Setting::new(&[1], &[2, 3], &[(1, AUTO), (2, AUTO), (3, Wants::Worker)]);
    assert_eq!(setting.after(secs(3600)), "nothing");
    let mut setting = Setting::new(&[1, 2, 3], &[4], &[(1, AUTO), (2, AUTO), (3, AUTO), (4, AUTO)]);
    assert_eq!(setting.after(secs(3600)), "nothing");
    setting.records[3].wants = Wants::Voter;
    assert_eq!(setting.after(secs(5)), "4 Voter");
    let mut setting = Setting::new(&[1], &[2], &[(1, AUTO), (2, Wants::Voter)]);
    assert_eq!(setting.after(secs(5)), "2 Voter");
    let mut setting = Setting::new(&[1, 2, 3], &[], &[(1, AUTO), (2, Wants::Worker), (3, AUTO)]);
    assert_eq!(setting.look(), "2 Learner");
}

#[test]
fn a_voter_that_is_silent_for_a_day_gives_its_place_to_a_spare() {
    let mut setting = Setting::new(&[1, 2, 3], &[4], &[(1, AUTO), (2, AUTO), (3, AUTO), (4, AUTO)]);
    setting.peer(2).active = false;
    assert_eq!(setting.after(secs(86_399)), "nothing");
    assert_eq!(setting.after(secs(1)), "2 Learner, 4 Voter");
    setting.peer(2).active = true;
    assert_eq!(setting.look(), "nothing");
    setting.peer(2).active = false;
    assert_eq!(setting.after(secs(100)), "nothing", "it was heard of meanwhile");
    setting.peer(4).active = false;
    assert_eq!(setting.after(secs(86_400)), "nothing", "the spare is silent too");
}

#[test]
fn who_was_removed_goes_and_a_leader_hands_over_first() {
    let gone = Wants::Removed;
    let mut setting = Setting::new(&[1, 2, 3], &[4], &[(1, AUTO), (2, gone), (3, AUTO), (4, gone)]);
    assert_eq!(setting.look(), "2 Outside");
    let mut setting = Setting::new(&[1, 2, 3], &[], &[(1, gone), (2, AUTO), (3, AUTO)]);
    setting.peer(2).matched = 90;
    assert_eq!(setting.look(), "transfer to 3");
    let mut setting = Setting::new(&[1, 2, 3], &[], &[(1, AUTO), (2, gone), (3, AUTO)]);
    setting.peer(3).active = false;
    assert_eq!(setting.look(), "nothing", "one of two would be awake");
    let mut setting = Setting::new(&[1], &[2], &[(1, gone), (2, AUTO)]);
    assert_eq!(setting.look(), "nothing", "nobody would vote");
}

#[test]
fn a_change_under_way_is_waited_for() {
    let mut setting = Setting::new(&[1, 2, 3], &[], &[(1, AUTO), (2, Wants::Removed), (3, AUTO)]);
    setting.status.membership.outgoing = vec![MemberId(1), MemberId(2), MemberId(3)];
    assert_eq!(setting.look(), "nothing");
}
