//! Members of two levels work together, and what is new comes when the last of the old ones is gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_api::Response;
use coracle_raft::{Config, MemberId, PersistId};
use coracle_store::StoreOptions;

use super::*;
use crate::{AutopilotOptions, ControlPlaneOptions, PeerMessage, Restored, SNAPSHOT_AFTER_BYTES};

/// Three members on a network that loses nothing.
struct Group {
    now: Now,
    planes: BTreeMap<MemberId, ControlPlane>,
    logs: BTreeMap<MemberId, coracle_raft::Restored>,
    waiting: Vec<(MemberId, MemberId, PeerMessage)>,
    outdated: Vec<(MemberId, u32)>,
}

fn options(id: MemberId, level: u32) -> ControlPlaneOptions {
    ControlPlaneOptions {
        raft: Config { voters: (1..=3).map(MemberId).collect(), ..Config::single(id) },
        server: Arc::default(),
        store: StoreOptions::default(),
        controllers: |_, _| Vec::new(),
        seed: id.0,
        autopilot: AutopilotOptions::default(),
        snapshot_after: SNAPSHOT_AFTER_BYTES,
        feature_level: level,
    }
}

impl Group {
    fn of_levels(levels: [u32; 3]) -> Self {
        let mut group = Self {
            now: Now::default(),
            planes: BTreeMap::new(),
            logs: BTreeMap::new(),
            waiting: Vec::new(),
            outdated: Vec::new(),
        };
        for (id, level) in (1..).map(MemberId).zip(levels) {
            group.planes.insert(id, ControlPlane::new(group.now, options(id, level), None));
            group.logs.insert(id, coracle_raft::Restored::default());
        }
        group.run();
        let leader = group.leader();
        for id in (1..=3).map(MemberId) {
            let record = MemberRecord::voter(id);
            let transaction = record.create(group.planes[&leader].view()).unwrap();
            group.step(leader, Input::Submit(ProposalId(id.0), transaction));
            group.run();
        }
        group
    }

    fn leader(&self) -> MemberId {
        self.planes.iter().find(|(_, plane)| plane.is_leading()).map(|(id, _)| *id).expect("one leads")
    }

    /// The process of a member is stopped, and started as a program of another level with the log that it has.
    fn restart(&mut self, id: MemberId, level: u32) {
        let restored = Restored { store: None, raft: self.logs[&id].clone() };
        self.planes.insert(id, ControlPlane::new(self.now, options(id, level), Some(restored)));
        self.run();
    }

    /// Ten seconds.
    fn run(&mut self) {
        for _ in 0..200 {
            self.now = self.now.after(Duration::from_millis(50));
            for id in (1..=3).map(MemberId) {
                self.step(id, Input::Tick);
            }
            for (from, to, message) in std::mem::take(&mut self.waiting) {
                self.step(to, Input::Peer(from, message));
            }
        }
    }

    fn step(&mut self, id: MemberId, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let Some(plane) = self.planes.get_mut(&id) else { return };
            for output in plane.step(self.now, input) {
                match output {
                    Output::Persist(number, batch) => {
                        self.logs.get_mut(&id).expect("every member has a log").write(batch);
                        inputs.push(Input::Persisted(PersistId(number.0)));
                    }
                    Output::Send { to, message, .. } => self.waiting.push((id, to, message)),
                    // The objects that every cluster has are not what this is about.
                    Output::Prepare { id, .. } => inputs.push(Input::Answered(id, Response::text(500, "not here"))),
                    Output::Outdated { cluster, .. } => self.outdated.push((id, cluster)),
                    _ => {}
                }
            }
        }
    }

    #[track_caller]
    fn check(&self, level: u32) {
        for (id, plane) in &self.planes {
            assert_eq!(plane.feature_level(), level, "member {}", id.0);
        }
    }
}

#[test]
fn members_of_two_levels_work_together_and_the_level_rises_when_the_last_old_one_is_gone() {
    let mut group = Group::of_levels([1, 1, 1]);
    group.run();
    group.check(1);
    for (id, level) in [(1, 1), (2, 1), (3, 2)] {
        group.restart(MemberId(id), 2);
        group.check(level);
        group.leader();
    }
    assert_eq!(group.outdated, []);
}

#[test]
fn a_member_that_is_older_than_what_the_cluster_uses_is_told_so_and_the_level_does_not_fall() {
    let mut group = Group::of_levels([2, 2, 2]);
    group.run();
    group.check(2);
    group.restart(MemberId(2), 1);
    assert!(group.outdated.contains(&(MemberId(2), 2)), "{:?}", group.outdated);
    group.check(2);
}

#[test]
fn a_removed_member_holds_nobody_back() {
    let mut group = Group::of_levels([1, 2, 2]);
    group.run();
    group.check(1);
    let leader = group.leader();
    let view = group.planes[&leader].view().clone();
    let gone = MemberRecord { wants: Wants::Removed, ..MemberRecord::find(&view, MemberId(1)).unwrap() };
    group.step(leader, Input::Submit(ProposalId(9), gone.update(&view).unwrap()));
    group.run();
    group.planes.remove(&MemberId(1));
    group.run();
    group.check(2);
}
