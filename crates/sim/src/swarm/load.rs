//! What clients and people ask of a cluster while it is tried.

use coracle_api::resources::REPLICA_SETS;

use super::Run;
use crate::{MemberId, Propagation};

/// The Deployments that come and go.
pub(super) const DEPLOYMENTS: [&str; 2] = ["web", "api"];

impl Run<'_> {
    /// A client reads, writes or deletes a register through some member.
    pub(super) fn operate(&mut self) {
        let members = self.c.member_ids();
        let (member, register) = (self.pick(&members), format!("r{}", self.rng.below(self.plan.registers)));
        self.operations += 1;
        let drawn = self.rng.below(1000);
        if drawn < self.plan.reads {
            self.c.via(member).read(&register);
        } else if drawn < self.plan.reads + self.plan.deletions {
            self.c.via(member).delete(&register);
        } else {
            self.value += 1;
            self.c.via(member).put(&register, self.value);
        }
    }

    /// Somebody wants more of a Deployment through this member.
    pub(super) fn scale_up(&mut self, via: MemberId, replicas: u64) {
        let name = self.pick(&DEPLOYMENTS);
        let asked = self.c.apply_via(via, &format!("deployment/{name} replicas={replicas}"));
        self.tickets.extend(asked);
    }

    /// Whether a ReplicaSet has not all of its pods yet.
    pub(super) fn is_short_of_pods(&self) -> bool {
        let view = self.c.view();
        view.list(&REPLICA_SETS, None).any(|set| {
            let wanted = set.value(None)["spec"]["replicas"].as_u64().unwrap_or_default();
            let pods = set.metadata().uid.as_ref().map_or(0, |uid| view.owned_by(uid).count());
            wanted > pods as u64
        })
    }

    /// Somebody changes what the cluster runs.
    pub(super) fn work(&mut self) {
        if self.plan.nodes == 0 {
            return;
        }
        let (members, name) = (self.c.member_ids(), self.pick(&DEPLOYMENTS));
        let member = self.pick(&members);
        let object = format!("deployment/{name}");
        let image = self.pick(&["v1", "v2"]);
        let replicas = 1 + self.rng.below(4);
        if self.c.get(&object).is_none() {
            let lines = format!("{object} replicas={replicas} image={image} probe=1 maxSurge=1 maxUnavailable=1");
            return self.tickets.extend(self.c.apply_via(member, &lines));
        }
        let asked = match self.rng.below(5) {
            0 => {
                let how = self.pick(&[Propagation::Foreground, Propagation::Background]);
                vec![self.c.delete_via(member, &object, how)]
            }
            1 | 2 => self.c.apply_via(member, &format!("{object} image={image}")),
            _ => self.c.apply_via(member, &format!("{object} replicas={replicas}")),
        };
        self.tickets.extend(asked);
    }
}
