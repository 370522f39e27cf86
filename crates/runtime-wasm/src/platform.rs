//! Interfaces beyond WASI's core that components may import: configuration, a key-value store, logging, and what a pod is to its program.
//!
//! Each is linked by hand: they are small, and wasmtime compares their types with a component's when it is linked. What is here holds
//! no rule of a pod's life: what a guest says of itself is an event for the agent.

mod config;
mod key_value;
mod lifecycle;
mod logging;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use coracle_node::runtime::{ContainerId, ContainerSpec, LogStream, RuntimeHost, Sandbox};
use tokio::sync::watch;
use wasmtime::component::Linker;

use crate::container::Ending;
use crate::guest::Guest;
use crate::stdio::{Log, Outputs};

pub(crate) use lifecycle::{INTERFACE as LIFECYCLE, TERMINATION};

/// What the instances of a container share of these interfaces.
pub(crate) struct Platform {
    pub(crate) container: ContainerId,
    pub(crate) host: Arc<dyn RuntimeHost>,
    /// The container's environment.
    env: Arc<Vec<(String, String)>>,
    /// The container's log, whatever an instance's own streams are.
    log: Log,
    /// What was asked of the container.
    pub(crate) ending: watch::Sender<Ending>,
    pod: Pod,
    readiness: lifecycle::Readiness,
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Platform").field("container", &self.container).finish_non_exhaustive()
    }
}

/// What a pod may know of itself.
#[derive(Clone, Debug, Default)]
struct Pod {
    name: String,
    namespace: String,
    uid: String,
    node: String,
    address: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

impl Platform {
    /// For a new container. Labels and annotations are kept only where the program can ask for them.
    pub(crate) fn new(
        host: &Arc<dyn RuntimeHost>,
        sandbox: &Sandbox,
        spec: &ContainerSpec,
        env: &Arc<Vec<(String, String)>>,
        outputs: &Arc<Outputs>,
        asks_for_pod: bool,
    ) -> Self {
        let pod = if asks_for_pod { Pod::of(sandbox, spec) } else { Pod::default() };
        Self {
            container: spec.id.clone(),
            host: Arc::clone(host),
            env: Arc::clone(env),
            log: Log::new(Arc::clone(host), spec.id.clone(), LogStream::Stderr, Arc::clone(outputs)),
            ending: watch::Sender::new(Ending::No),
            pod,
            readiness: lifecycle::Readiness::default(),
        }
    }
}

impl Pod {
    fn of(sandbox: &Sandbox, spec: &ContainerSpec) -> Self {
        Self {
            name: sandbox.name.clone(),
            namespace: sandbox.namespace.clone(),
            uid: sandbox.pod.to_string(),
            node: spec.pod.node.clone(),
            address: sandbox.address.to_string(),
            labels: spec.pod.labels.clone(),
            annotations: spec.pod.annotations.clone(),
        }
    }
}

/// Puts the interfaces into a linker; `offers.rs` names them.
pub(crate) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    config::link(linker)?;
    key_value::link(linker)?;
    logging::link(linker)?;
    lifecycle::link(linker)
}
