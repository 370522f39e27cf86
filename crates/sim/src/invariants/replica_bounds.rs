//! A ReplicaSet never has more pods than it was asked for, not even after a crash in the middle of making them.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_api::resources::{PODS, REPLICA_SETS};
use coracle_api::{Object, Uid};
use coracle_base::Instant;
use coracle_store::{Change, View};

use super::{Broken, Checked};

/// How long what was asked for before still counts: what was decided then may be on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// The replicas that ReplicaSets were asked for.
#[derive(Debug, Default)]
pub(super) struct ReplicaBounds {
    /// By uid: the number, and larger ones from before with the time at which they no longer count.
    wanted: BTreeMap<Uid, Wanted>,
}

#[derive(Debug, Default)]
struct Wanted {
    now: u64,
    before: Vec<(Instant, u64)>,
}

impl ReplicaBounds {
    pub(super) fn changed(&mut self, at: Instant, view: &View, changes: &[Change]) -> Checked {
        for change in changes {
            match (&change.old, &change.new) {
                (_, Some(set)) if set.key().resource == REPLICA_SETS => self.note(at, set),
                (Some(set), None) if set.key().resource == REPLICA_SETS => {
                    self.wanted.retain(|uid, _| set.metadata().uid.as_ref() != Some(uid));
                }
                (None, Some(pod)) if pod.key().resource == PODS => self.check(at, view, pod)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn note(&mut self, at: Instant, set: &Object) {
        let Some(uid) = set.metadata().uid.clone() else { return };
        let replicas = set.value(None)["spec"]["replicas"].as_u64().unwrap_or(1);
        let wanted = self.wanted.entry(uid).or_default();
        wanted.before.retain(|(until, _)| *until > at);
        if replicas < wanted.now {
            wanted.before.push((at + ON_ITS_WAY, wanted.now));
        }
        wanted.now = replicas;
    }

    /// Looks at a new pod's ReplicaSet.
    fn check(&self, at: Instant, view: &View, pod: &Object) -> Checked {
        let Some(owner) = pod.metadata().owner_references.iter().find(|owner| owner.controller == Some(true)) else {
            return Ok(());
        };
        let Some(wanted) = self.wanted.get(&owner.uid) else { return Ok(()) };
        let before = wanted.before.iter().filter(|(until, _)| *until > at).map(|(_, replicas)| *replicas);
        let most = before.fold(wanted.now, u64::max);
        let active = view.owned_by(&owner.uid).filter(|pod| is_active(pod)).count() as u64;
        if active > most {
            let why = format!("ReplicaSet {} has {active} pods and wants {most}", owner.name);
            return Err(Broken { property: "replica bounds", why });
        }
        Ok(())
    }
}

/// Whether it is a pod that runs or will.
pub(super) fn is_active(pod: &Object) -> bool {
    let ended = matches!(pod.attribute("status.phase"), "Succeeded" | "Failed");
    pod.key().resource == PODS && pod.metadata().deletion_timestamp.is_none() && !ended
}
