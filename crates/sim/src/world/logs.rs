//! What a node's containers wrote, within bounds as in production.

use std::collections::BTreeMap;

use coracle_node::runtime::{ContainerId, Exit, LOG_TAIL_BYTES, LOG_TAIL_LINES, RuntimeEvent};

/// Bytes of one instance's log that are kept; the oldest go first.
const INSTANCE_BYTES_MAX: usize = 1 << 20;
/// The latest instances of a container whose logs are kept.
const INSTANCES_KEPT: u32 = 5;

/// The logs of a node.
#[derive(Debug, Default)]
pub(crate) struct Logs(BTreeMap<ContainerId, Vec<u8>>);

impl Logs {
    pub(super) fn append(&mut self, container: &ContainerId, bytes: &[u8]) {
        if !self.0.contains_key(container) {
            self.0.retain(|kept, _| {
                let same = kept.pod == container.pod && kept.container == container.container;
                !same || kept.instance + INSTANCES_KEPT > container.instance
            });
        }
        let log = self.0.entry(container.clone()).or_default();
        log.extend_from_slice(bytes);
        let surplus = log.len().saturating_sub(INSTANCE_BYTES_MAX);
        log.drain(..surplus);
    }

    /// What one instance wrote.
    pub(crate) fn read(&self, container: &ContainerId) -> String {
        self.0.get(container).map(|log| String::from_utf8_lossy(log).into_owned()).unwrap_or_default()
    }

    /// An event as the agent hears it: an end without a message comes with the end of the log.
    pub(super) fn explain(&self, event: RuntimeEvent) -> RuntimeEvent {
        match event {
            RuntimeEvent::ContainerExited { id, exit } if exit.message.is_none() && exit.code != 0 => {
                let exit = Exit { log_tail: self.tail(&id), ..exit };
                RuntimeEvent::ContainerExited { id, exit }
            }
            other => other,
        }
    }

    fn tail(&self, container: &ContainerId) -> Option<String> {
        let log = self.0.get(container).filter(|log| !log.is_empty())?;
        let log = &log[log.len().saturating_sub(LOG_TAIL_BYTES)..];
        let text = String::from_utf8_lossy(log);
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        Some(lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].concat())
    }
}
