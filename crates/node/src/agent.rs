//! The agent of one node: a pure machine that runs the pods bound to it.

use coracle_base::{Instant, Now, Rng};

use crate::{Checkpoint, Input, NodeConfig, Output};

/// The agent of one node.
#[derive(Debug)]
pub struct NodeAgent {
    _private: (),
}

#[expect(unused_variables, clippy::todo, reason = "being written")]
impl NodeAgent {
    /// An agent that starts from what it kept, or from nothing. Give it an [`Input::Tick`] right away.
    pub fn new(config: NodeConfig, checkpoint: Option<Checkpoint>, rng: Rng) -> Self {
        todo!()
    }

    /// Takes one input and says what to do.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Output> {
        todo!()
    }

    /// When to give the next [`Input::Tick`].
    pub fn next_wakeup(&self) -> Option<Instant> {
        todo!()
    }
}
