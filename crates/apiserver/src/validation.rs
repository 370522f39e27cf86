//! Validation in Kubernetes' words and order: what is the same for every kind, and the parts that several kinds share.
//!
//! A check looks at JSON values that are typed already (strict decoding has seen them); a field of a wrong type counts as absent.
//! Nothing here looks at the state: checks that need it belong to admission.

pub mod field;
pub mod label;
pub mod meta;
pub mod name;

pub(crate) mod container;
pub(crate) mod placement;
pub(crate) mod pod_spec;
pub(crate) mod probe;
pub(crate) mod resources;
pub(crate) mod volume;
