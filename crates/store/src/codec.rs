//! Snapshot and entry encodings.
