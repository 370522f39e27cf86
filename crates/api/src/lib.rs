//! The Kubernetes vocabulary: keys, metadata, the kind registry, the schema table, selectors, quantities, patches, codecs,
//! and requests, responses and `Status` as plain values.
//!
//! This crate does no IO and knows no store, no controller and no transport.
//! Typed kinds come from `k8s-openapi` and are read-only views: what is stored comes from JSON values through the schema table,
//! because the embedder chooses `k8s-openapi`'s version feature and a typed round trip would drop fields.

pub mod apply;
mod canonical;
pub mod decode;
pub mod events;
mod fields;
mod go_json;
mod key;
mod metadata;
mod object;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod registry;
mod request;
pub mod resources;
pub mod schema;
pub mod selector;
pub mod settings;
mod status;
pub mod yaml;

pub use canonical::{canonical_json, write_canonical_json};
pub use fields::Fields;
pub use key::{GroupResource, GroupVersion, Gvk, ObjectKey, Revision, Uid};
pub use metadata::{Metadata, OwnerReference};
pub use object::{Attributes, DecodeError, Object, WatchEvent};
pub use quantity::Quantity;
pub use registry::{Registry, Resource, Subresource};
pub use request::{Body, Method, Request, Response, UserInfo};
pub use selector::{FieldSelector, LabelSelector};
pub use status::{Cause, Reason, Status, StatusDetails};
