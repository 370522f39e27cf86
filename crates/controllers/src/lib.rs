//! One pure reconciler per controller, and the queue that feeds them.
//!
//! A controller reads a [`coracle_store::View`] and returns [`Action`]s: it cannot write, wait or read a clock.
//! The engine passes its actions through the API server like any client's, as `system:controller:<name>`.

mod controller;
mod manager;
mod queue;

pub use controller::{Action, Context, Controller, Failure, Outcome, Patch, Verb, Watch, Watched};
pub use coracle_api::events::{EventRecord, EventRecorder, EventType, EventWrite};
pub use manager::{Manager, Work, WorkId};
