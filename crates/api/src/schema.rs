//! The schema table: the shape of every type, which drives strict decoding, merging, apply, protobuf and OpenAPI.
//!
//! The table of the built-in kinds is a compact text in `schema/builtin.tsv`, made by the crate's `generate-schema` example out of
//! the published API documents. A CustomResourceDefinition brings a table of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, OnceLock};

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
    /// Whether an object of a type that is one value elsewhere merges field by field here.
    pub granular: bool,
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
            granular: false,
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
    /// By type: the fields that Go writes even when nothing was given for them.
    written_when_absent: Vec<Vec<String>>,
    nested: Vec<NestedMessage>,
    /// By type: the protobuf numbers. Worked out when the first body in protobuf comes, because starting must be quick.
    proto_members: OnceLock<Vec<BTreeMap<u32, ProtoMember>>>,
}

/// A message that protobuf nests in a type's and JSON does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NestedMessage {
    /// The type it is nested in.
    pub parent: TypeId,
    /// Its number there.
    pub number: u32,
    /// Its own numbers, and which of the parent's fields they are.
    pub members: BTreeMap<u32, String>,
}

impl Schema {
    /// The types of the built-in kinds, read once.
    pub fn builtin() -> Arc<Self> {
        static BUILTIN: LazyLock<Arc<Schema>> = LazyLock::new(|| {
            Arc::new(table::parse(concat!(include_str!("schema/builtin.tsv"), include_str!("schema/metrics.tsv"))))
        });
        BUILTIN.clone()
    }

    /// A table of these types.
    pub fn new(types: Vec<Type>) -> Self {
        Self::with_nested(types, Vec::new())
    }

    /// A table of these types, some of which protobuf nests messages in.
    pub fn with_nested(types: Vec<Type>, nested: Vec<NestedMessage>) -> Self {
        let by_name = types.iter().enumerate().map(|(index, t)| (t.name.clone(), TypeId(index as u32))).collect();
        let absent = |t: &Type| t.fields.values().filter(|f| f.written_when_absent()).map(|f| f.name.clone()).collect();
        let written_when_absent = types.iter().map(absent).collect();
        Self { types, by_name, written_when_absent, nested, proto_members: OnceLock::new() }
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
        self.proto_members(id).get(&number)
    }

    /// Every protobuf field number of a type.
    pub fn proto_members(&self, id: TypeId) -> &BTreeMap<u32, ProtoMember> {
        &self.proto_members.get_or_init(|| self.index_proto_members())[id.0 as usize]
    }

    fn index_proto_members(&self) -> Vec<BTreeMap<u32, ProtoMember>> {
        let member = |field: &Field| (field.proto_number, ProtoMember::Field(field.name.clone()));
        let of_type = |t: &Type| t.fields.values().filter(|f| f.proto_number != 0).map(member).collect();
        let mut all: Vec<BTreeMap<u32, ProtoMember>> = self.types.iter().map(of_type).collect();
        for message in &self.nested {
            all[message.parent.0 as usize].insert(message.number, ProtoMember::Nested(message.members.clone()));
        }
        all
    }

    /// The fields that Go writes even when nothing was given for them.
    pub(crate) fn written_when_absent(&self, id: TypeId) -> &[String] {
        &self.written_when_absent[id.0 as usize]
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
