//! What surrounds a node's runtime: events go to the loop, output to the logs, connections to the dialer.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use coracle_api::Uid;
use coracle_base::Timestamp;
use coracle_node::runtime::{
    Connecting, ContainerId, Destination, FindingLogins, KeyValueAnswering, KeyValueCall, KeyValueError,
    LOG_TAIL_BYTES, LOG_TAIL_LINES, LogStream, OpenError, Resolving, RuntimeEvent, RuntimeHost,
};
use tokio::sync::mpsc;

use super::News;
use crate::dialer;
use crate::key_values;
use crate::logs::LogStore;
use crate::process::Process;

/// The host of one node's runtime. It knows the process weakly: the process knows the runtime.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) node: String,
    pub(crate) news: mpsc::UnboundedSender<News>,
    pub(crate) logs: Arc<LogStore>,
    pub(crate) process: Weak<Process>,
}

impl Host {
    fn process(&self) -> Result<Arc<Process>, OpenError> {
        self.process.upgrade().ok_or_else(|| OpenError("the node is stopping".into()))
    }
}

impl RuntimeHost for Host {
    fn event(&self, mut event: RuntimeEvent) {
        match &mut event {
            RuntimeEvent::ContainerStarted { id, result: Ok(()) } => self.logs.started(id),
            RuntimeEvent::ContainerExited { id, exit } => {
                self.logs.ended(id, exit.code != 0);
                if exit.message.is_none() && exit.code != 0 {
                    exit.log_tail = self.logs.tail(id, LOG_TAIL_LINES, LOG_TAIL_BYTES);
                }
            }
            RuntimeEvent::Existing(existing) => {
                existing.iter().filter(|found| found.exit.is_none()).for_each(|found| self.logs.resumed(&found.id));
            }
            RuntimeEvent::SandboxRemoved { pod } => self.logs.sandbox_removed(pod),
            _ => {}
        }
        // The loop is gone only when the process is.
        let _ = self.news.send(News::Runtime(self.node.clone(), event));
    }

    fn log(&self, container: &ContainerId, stream: LogStream, bytes: &[u8]) {
        if let Ok(process) = self.process() {
            self.logs.append(container, stream, bytes, process.now().wall);
        }
    }

    fn log_at(&self, container: &ContainerId, stream: LogStream, at: Timestamp, bytes: &[u8]) {
        self.logs.append(container, stream, bytes, at);
    }

    fn logged_until(&self, container: &ContainerId) -> Option<Timestamp> {
        self.logs.written_until(container)
    }

    fn connect(&self, from: &Uid, to: Destination) -> Connecting {
        let (process, from) = (self.process(), from.clone());
        Box::pin(async move {
            let process = process?;
            dialer::dial_from_pod(&process, &from, &to).await
        })
    }

    fn logins(&self, image: &str) -> FindingLogins {
        let image = image.to_owned();
        Box::pin(async move { crate::registries::user_logins(&image).await })
    }

    fn key_value(&self, from: &Uid, bucket: &str, call: KeyValueCall) -> KeyValueAnswering {
        let (process, from, bucket) = (self.process(), from.clone(), bucket.to_owned());
        Box::pin(async move {
            let process = process.map_err(|error| KeyValueError::Other(error.0))?;
            key_values::answer(&process, &from, &bucket, &call).await
        })
    }

    fn datagrams(&self, from: &Uid, port: u16, to: SocketAddr) -> Connecting {
        let (process, from) = (self.process(), from.clone());
        Box::pin(async move { dialer::datagrams_from_pod(&process?, &from, port, to).await })
    }

    fn resolve(&self, from: &Uid, name: &str) -> Resolving {
        let (process, from, name) = (self.process(), from.clone(), name.to_owned());
        Box::pin(async move { dialer::resolve(&*process?, &from, &name).await })
    }
}
