//! The words that every other crate shares: time as a value, seeded randomness, back-off, timers, and the pieces of binary encodings.
//!
//! This crate reads no clock, no file, no socket and no generator of the operating system:
//! a [`Now`] is always an argument, and an [`Rng`] always has a seed.

mod backoff;
mod delay_queue;
mod rng;
mod time;
pub mod wire;

pub use backoff::Backoff;
pub use delay_queue::DelayQueue;
pub use rng::Rng;
pub use time::{Instant, Now, ParseTimestampError, Timestamp, human_duration};
