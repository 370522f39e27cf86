//! At most one instance of a container runs, whatever restarts, crashes and agents that come back do.

use std::collections::BTreeMap;

use coracle_api::Uid;
use coracle_node::runtime::RuntimeEvent;

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
