//! What runs a node's containers: scripts, or guests that are real.

use std::time::Duration;

use coracle_base::{Instant, Now};
use coracle_node::NodeConfig;
use coracle_node::fake::{FakeRuntime, Script};
use coracle_node::runtime::{ContainerId, RuntimeCommand, RuntimeEvent};
#[cfg(feature = "wasm")]
use coracle_runtime_wasm::simulated::SimulatedRuntime;

use super::World;

impl World {
    /// The runtime of a new node: fake ones run data, whatever the others run.
    #[cfg(feature = "wasm")]
    pub(super) fn runtime(&mut self, config: &NodeConfig) -> Runtime {
        match &self.images {
            Some(images) if !config.container_runtime_version.starts_with("fake://") => {
                let (images, memory) = (images.clone(), config.capacity.memory);
                Runtime::Guests(Box::new(SimulatedRuntime::new(images, memory, self.rng.fork())))
            }
            _ => Runtime::Scripted(FakeRuntime::new()),
        }
    }

    /// The runtime of a new node.
    #[cfg(not(feature = "wasm"))]
    #[expect(clippy::unused_self, reason = "with guests it is the world that has their images")]
    pub(super) fn runtime(&mut self, _config: &NodeConfig) -> Runtime {
        Runtime::Scripted(FakeRuntime::new())
    }
}

/// A node's runtime.
#[derive(Debug)]
pub(crate) enum Runtime {
    /// Containers are data and follow the scripts of their images.
    Scripted(FakeRuntime),
    /// Containers are modules, run by wasmtime.
    #[cfg(feature = "wasm")]
    Guests(Box<SimulatedRuntime>),
}

impl Runtime {
    /// Says how containers of an image behave from now on; guests do what they do.
    pub(crate) fn script(&mut self, image: &str, script: Script) {
        match self {
            Self::Scripted(runtime) => runtime.script(image, script),
            #[cfg(feature = "wasm")]
            Self::Guests(_) => {}
        }
    }

    /// Whether its containers end with the process of the agent, as Wasm ones do; scripted ones are like Docker's.
    pub(super) fn ends_with_agent(&self) -> bool {
        !matches!(self, Self::Scripted(_))
    }

    pub(super) fn lose_containers(&mut self) {
        match self {
            Self::Scripted(runtime) => runtime.lose_containers(),
            #[cfg(feature = "wasm")]
            Self::Guests(runtime) => runtime.lose_containers(),
        }
    }

    pub(super) fn running(&self) -> usize {
        match self {
            Self::Scripted(runtime) => runtime.running(),
            #[cfg(feature = "wasm")]
            Self::Guests(runtime) => runtime.running(),
        }
    }

    /// Takes a command; what comes of it, each event after its delay.
    pub(super) fn command(&mut self, command: &RuntimeCommand, now: Now) -> Vec<(Duration, RuntimeEvent)> {
        match self {
            Self::Scripted(runtime) => runtime.command(command, now),
            #[cfg(feature = "wasm")]
            Self::Guests(runtime) => {
                runtime.command(command, now).into_iter().map(|event| (Duration::ZERO, event)).collect()
            }
        }
    }

    /// Whether an event still happens when its time has come.
    pub(super) fn is_current(&mut self, event: &RuntimeEvent) -> bool {
        match self {
            Self::Scripted(runtime) => runtime.is_current(event),
            #[cfg(feature = "wasm")]
            Self::Guests(_) => true,
        }
    }

    /// When its guests are to run on.
    pub(super) fn next_wakeup(&self) -> Option<Instant> {
        match self {
            Self::Scripted(_) => None,
            #[cfg(feature = "wasm")]
            Self::Guests(runtime) => runtime.next_wakeup(),
        }
    }

    /// Lets its guests run on; what happened, and what containers wrote.
    #[cfg_attr(not(feature = "wasm"), expect(unused_variables, reason = "only guests need the time"))]
    pub(super) fn run(&mut self, now: Now) -> (Vec<RuntimeEvent>, Vec<(ContainerId, Vec<u8>)>) {
        match self {
            Self::Scripted(_) => (Vec::new(), Vec::new()),
            #[cfg(feature = "wasm")]
            Self::Guests(runtime) => {
                let events = runtime.run(now);
                let output = runtime.take_output().into_iter();
                (events, output.map(|output| (output.container, output.bytes)).collect())
            }
        }
    }
}
