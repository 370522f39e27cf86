//! The schema table: the shape of every type, which drives strict decoding, merging, apply, protobuf and OpenAPI.
//!
//! The table of the built-in kinds is a compact text in `schema/builtin.tsv`, made by the crate's `generate-schema` example out of
//! the published API documents. A CustomResourceDefinition brings a table of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

mod table;
#[cfg(test)]
mod tests;

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
    /// Whether the Go field is a pointer.
    pub pointer: bool,
    /// Whether the Go field has `omitempty`.
    pub omit_empty: bool,
    /// Whether the Go field has `omitzero`: a zero struct or time is left out rather than written.
    pub omit_zero: bool,
}

impl Field {
    /// An optional field of this shape with nothing special about it: as Go has it with `omitempty`, atomic if it is a list.
    pub fn new(name: &str, shape: Shape) -> Self {
        Self {
            name: name.to_owned(),
            shape,
            required: false,
            default: None,
            list_type: ListType::Atomic,
            atomic: false,
            patch_strategy: PatchStrategy::default(),
            merge_key: None,
            enumeration: Vec::new(),
            proto_number: 0,
            pointer: false,
            omit_empty: true,
            omit_zero: false,
        }
    }
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

/// What a protobuf field number of a type leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProtoMember {
    /// The field of this name.
    Field(String),
    /// A message that JSON does not nest (an embedded Go struct): its own numbers and the names of this type's fields.
    Nested(BTreeMap<u32, String>),
}

/// A table of types.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    types: Vec<Type>,
    by_name: BTreeMap<String, TypeId>,
    indexes: Vec<TypeIndex>,
}

/// What is worked out of a type once, for the decoders.
#[derive(Clone, Debug, Default)]
struct TypeIndex {
    by_number: BTreeMap<u32, ProtoMember>,
    written_when_absent: Vec<String>,
}

impl Schema {
    /// The types of the built-in kinds, read once.
    pub fn builtin() -> Arc<Self> {
        static BUILTIN: LazyLock<Arc<Schema>> =
            LazyLock::new(|| Arc::new(table::parse(include_str!("schema/builtin.tsv"))));
        BUILTIN.clone()
    }

    /// A table of these types.
    pub fn new(types: Vec<Type>) -> Self {
        Self::with_nested(types, Vec::new())
    }

    /// A table of these types, where some have members that protobuf nests and JSON does not: type, number, members.
    pub fn with_nested(types: Vec<Type>, nested: Vec<(TypeId, u32, BTreeMap<u32, String>)>) -> Self {
        let by_name = types.iter().enumerate().map(|(index, t)| (t.name.clone(), TypeId(index as u32))).collect();
        let mut indexes: Vec<TypeIndex> = types.iter().map(TypeIndex::new).collect();
        for (id, number, members) in nested {
            indexes[id.0 as usize].by_number.insert(number, ProtoMember::Nested(members));
        }
        Self { types, by_name, indexes }
    }

    /// The type of an id, which must be one of this table's.
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

    /// What a protobuf field number of a type leads to.
    pub fn proto_member(&self, id: TypeId, number: u32) -> Option<&ProtoMember> {
        self.indexes[id.0 as usize].by_number.get(&number)
    }

    /// Every protobuf field number of a type.
    pub fn proto_members(&self, id: TypeId) -> &BTreeMap<u32, ProtoMember> {
        &self.indexes[id.0 as usize].by_number
    }

    /// The fields that Go writes even when nothing was given for them.
    pub(crate) fn written_when_absent(&self, id: TypeId) -> &[String] {
        &self.indexes[id.0 as usize].written_when_absent
    }
}

impl TypeIndex {
    fn new(t: &Type) -> Self {
        let numbered = t.fields.values().filter(|field| field.proto_number != 0);
        Self {
            by_number: numbered.map(|field| (field.proto_number, ProtoMember::Field(field.name.clone()))).collect(),
            written_when_absent: t
                .fields
                .values()
                .filter(|f| f.written_when_absent())
                .map(|f| f.name.clone())
                .collect(),
        }
    }
}

impl Field {
    /// Go's `omitempty` leaves out nil, zero scalars and empty lists and maps, but no structs.
    fn written_when_absent(&self) -> bool {
        let is_struct =
            matches!(self.shape, Shape::Object(_) | Shape::Time | Shape::MicroTime | Shape::Quantity | Shape::Any);
        !self.omit_zero && (!self.omit_empty || (!self.pointer && is_struct))
    }
}
