//! The schema table: the shape of every type, which drives strict decoding, merging, apply, protobuf and OpenAPI.
//!
//! The table of the built-in kinds is a compact text in `schema/builtin.tsv`, made by the crate's `generate-schema` example out of
//! the published API documents. A CustomResourceDefinition brings a table of its own.

use std::collections::BTreeMap;

use serde_json::Value;

/// A type in a [`Schema`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u32);

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Text.
    String,
    /// Base64 text (`[]byte`).
    Bytes,
    /// A whole number of 32 or 64 bits.
    Integer {
        /// How many bits.
        bits: u8,
    },
    /// Any number.
    Number,
    /// True or false.
    Boolean,
    /// `resource.Quantity`: a text, or a number that becomes one.
    Quantity,
    /// `intstr.IntOrString`.
    IntOrString,
    /// `metav1.Time`.
    Time,
    /// `metav1.MicroTime`.
    MicroTime,
    /// `metav1.Duration`: a text.
    Duration,
    /// An object of a named type.
    Object(TypeId),
    /// A list.
    List(Box<Shape>),
    /// A map from text.
    Map(Box<Shape>),
    /// Anything: RawExtension, FieldsV1, JSON.
    Any,
}

/// How a list merges under server-side apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// As a whole.
    #[default]
    Atomic,
    /// As a set of scalars.
    Set,
    /// By these keys of its items.
    Map(Vec<String>),
}

/// How a list merges under strategic merge patch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// `merge`: a list merges by key (or as a set, when it has none); otherwise it is replaced.
    pub merge: bool,
    /// `retainKeys`.
    pub retain_keys: bool,
    /// `replace`: an object is replaced as a whole.
    pub replace: bool,
}

/// One field of a type.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// The JSON name.
    pub name: String,
    /// What it holds.
    pub shape: Shape,
    /// Whether the published schema says it is required.
    pub required: bool,
    /// The schema's default: for the keys of server-side apply only.
    pub default: Option<Value>,
    /// How it merges under apply, for lists.
    pub list_type: ListType,
    /// Whether a map or object is one value under apply.
    pub atomic: bool,
    /// How it merges under strategic merge patch.
    pub patch_strategy: PatchStrategy,
    /// The key of a list that merges under strategic merge patch.
    pub merge_key: Option<String>,
    /// The values of an enumeration; empty where it is none.
    pub enumeration: Vec<String>,
    /// The protobuf field number; zero where it has none.
    pub proto_number: u32,
    /// The protobuf type, as the table gives it (`string`, `repeated Foo`, `map<string, bytes>`).
    pub proto_type: String,
    /// Whether the Go field is a pointer.
    pub pointer: bool,
    /// Whether the Go field has `omitempty`.
    pub omit_empty: bool,
}

/// One type.
#[derive(Clone, Debug, PartialEq)]
pub struct Type {
    /// The full name, as in `io.k8s.api.core.v1.Pod`.
    pub name: String,
    /// The fields by name.
    pub fields: BTreeMap<String, Field>,
    /// Whether objects of it are one value under apply wherever they stand.
    pub atomic: bool,
}

impl Type {
    /// The last part of its name: the Go struct's.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }
}

/// A table of types.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    types: Vec<Type>,
    by_name: BTreeMap<String, TypeId>,
}

impl Schema {
    /// The type of an id.
    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// The id of a full name.
    pub fn find(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    /// Every type.
    pub fn types(&self) -> impl Iterator<Item = (TypeId, &Type)> {
        self.types.iter().enumerate().map(|(index, t)| (TypeId(index as u32), t))
    }

    /// A table of these types.
    pub fn new(types: Vec<Type>) -> Self {
        let by_name = types.iter().enumerate().map(|(index, t)| (t.name.clone(), TypeId(index as u32))).collect();
        Self { types, by_name }
    }
}
