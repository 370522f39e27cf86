//! The verbs: what each does with a resource, from its options to a step.
//!
//! A verb looks at the view it is given and proposes; it is run again from a later view when its transaction is refused.

pub(crate) mod apply;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod delete_collection;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod patch;
pub(crate) mod update;
pub(crate) mod watch;
