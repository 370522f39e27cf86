//! The replicated state: transactions applied in log order, revisions, indexes, the watch window, snapshots, and the [`View`]
//! that everybody reads.
//!
//! Applying an entry reads no clock, no randomness and no configuration: time, ids and addresses travel in the entry.
//! The store knows metadata and attributes, never a kind's spec.

mod apply;
mod cache;
mod codec;
mod pools;
mod root;
mod settlement;
mod state;
mod sweep;
mod transaction;
mod view;
mod window;

pub use settlement::{Pool, Render, Settlement, Want};
pub use state::{CodecError, Store, StoreOptions};
pub use sweep::Sweep;
pub use transaction::{Applied, Entry, Precondition, Refused, Transaction, Write};
pub use view::{Change, Expired, View};
