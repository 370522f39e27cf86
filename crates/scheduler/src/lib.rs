//! Pod placement: filter, score and decide, purely.
//!
//! `schedule` is told everything it needs and returns decisions; it reads no clock, keeps no state and writes nothing.
