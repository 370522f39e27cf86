//! At most one instance of a container runs, and a pod is on one node only, whatever restarts, crashes and agents that come back do.

use std::collections::BTreeMap;

use coracle_api::Uid;
use coracle_api::resources::PODS;
use coracle_node::runtime::RuntimeEvent;
use coracle_store::Change;

use super::{Broken, Checked};

/// The instances that run: by pod and container, on which node.
#[derive(Debug, Default)]
pub(super) struct OneInstance {
    running: BTreeMap<(Uid, String), (String, u32)>,
}

impl OneInstance {
    pub(super) fn runtime(&mut self, node: &str, event: &RuntimeEvent) -> Checked {
        match event {
            RuntimeEvent::ContainerStarted { id, result: Ok(()) } => {
                let key = (id.pod.clone(), id.container.clone());
                if let Some((other, instance)) = self.running.insert(key, (node.to_owned(), id.instance)) {
                    let why = format!("{id} started on {node} while instance {instance} runs on {other}");
                    return Err(Broken { property: "one instance of a container", why });
                }
                let elsewhere = self.running.range((id.pod.clone(), String::new())..);
                let mut elsewhere = elsewhere.take_while(|((pod, _), _)| *pod == id.pod);
                if let Some(((_, container), (other, _))) = elsewhere.find(|(_, (other, _))| other != node) {
                    let why = format!("{id} started on {node} while {container} of its pod runs on {other}");
                    return Err(Broken { property: "one node of a pod", why });
                }
            }
            RuntimeEvent::ContainerExited { id, .. } => {
                self.running.remove(&(id.pod.clone(), id.container.clone()));
            }
            RuntimeEvent::SandboxRemoved { pod } => self.running.retain(|(owner, _), _| owner != pod),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn node_lost(&mut self, node: &str) {
        self.running.retain(|_, (running_on, _)| running_on != node);
    }
}

/// A pod that has a node keeps it.
pub(super) fn changed(changes: &[Change]) -> Checked {
    for change in changes {
        let (Some(old), Some(new)) = (&change.old, &change.new) else { continue };
        if new.key().resource != PODS || old.metadata().uid != new.metadata().uid {
            continue;
        }
        let (before, now) = (old.attribute("spec.nodeName"), new.attribute("spec.nodeName"));
        if !before.is_empty() && before != now {
            let why = format!("{} went from {before} to {now:?}", new.key());
            return Err(Broken { property: "one node of a pod", why });
        }
    }
    Ok(())
}
