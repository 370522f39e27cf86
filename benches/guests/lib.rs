//! What both guests answer.

/// The whole answer.
pub const ANSWER: &[u8] = b"hello";
