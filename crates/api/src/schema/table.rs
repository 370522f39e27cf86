//! Reads the compact table of the built-in types, `builtin.tsv`.
//!
//! A line that starts at the margin is a type: its name (`core.v1.Pod`, without `io.k8s.api.`), and `a` in a second column where
//! objects of it are one value under apply. The lines under it start with a tab and are its fields, one a line, in columns:
//!
//! 1. the JSON name, or `+` for a message that protobuf nests and JSON does not (then: its number, and `number=name,...`)
//! 2. the shape: `string`, `bytes`, `int32`, `int64`, `number`, `boolean`, `quantity`, `int-or-string`, `time`, `micro-time`,
//!    `any`, the name of a type, `[shape]` a list, `{shape}` a map
//! 3. letters: `r` required, `p` a pointer in Go, `o` omitempty, `z` omitzero, `a` one value under apply, `g` not so
//!    here, whatever the type says
//! 4. the protobuf number
//! 5. how a list merges under apply: `set`, or `map:` and its keys; empty for atomic
//! 6. how it merges under strategic merge patch: `merge`, `retainKeys`, `replace`, and `:` and the merge key
//! 7. the default, as JSON
//! 8. the values of an enumeration, joined by commas

use std::collections::BTreeMap;

use super::{Field, ListType, NestedMessage, PatchStrategy, Schema, Shape, Type, TypeId};

/// Reads the table, which is part of the program: what does not read is a broken build, so it panics.
pub(super) fn parse(text: &str) -> Schema {
    let lines = || text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let names = lines().filter(|line| !line.starts_with('\t')).map(|line| line.split('\t').next().unwrap_or(line));
    let ids: BTreeMap<&str, TypeId> = names.enumerate().map(|(index, name)| (name, TypeId(index as u32))).collect();
    let (mut types, mut nested): (Vec<Type>, Vec<_>) = (Vec::with_capacity(ids.len()), Vec::new());
    let mut fields: Vec<(String, Field)> = Vec::new();
    for line in lines() {
        let Some(row) = line.strip_prefix('\t') else {
            finish(&mut types, &mut fields);
            let (name, flag) = line.split_once('\t').unwrap_or((line, ""));
            types.push(Type { name: full_name(name), fields: BTreeMap::new(), atomic: flag == "a" });
            continue;
        };
        let mut cells = row.split('\t');
        let mut cell = || cells.next().unwrap_or_default();
        match cell() {
            "+" => {
                let parent = TypeId(types.len() as u32 - 1);
                nested.push(NestedMessage { parent, number: number(cell()), members: members(cell()) });
            }
            name => fields
                .push((name.to_owned(), field(name, [cell(), cell(), cell(), cell(), cell(), cell(), cell()], &ids))),
        }
    }
    finish(&mut types, &mut fields);
    Schema::with_nested(types, nested)
}

fn finish(types: &mut [Type], fields: &mut Vec<(String, Field)>) {
    if let Some(last) = types.last_mut() {
        last.fields = fields.drain(..).collect();
    }
}

fn full_name(short: &str) -> String {
    if short.starts_with("meta.") {
        format!("io.k8s.apimachinery.pkg.apis.{short}")
    } else {
        format!("io.k8s.api.{short}")
    }
}

fn number(text: &str) -> u32 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no field number"))
}

fn members(text: &str) -> BTreeMap<u32, String> {
    text.split(',')
        .map(|member| {
            let (of, name) = member.split_once('=').unwrap_or_else(|| panic!("{member:?} is no member"));
            (number(of), name.to_owned())
        })
        .collect()
}

fn field(name: &str, cells: [&str; 7], ids: &BTreeMap<&str, TypeId>) -> Field {
    let [shape_text, flags, proto_number, list, patch, default, values] = cells;
    let (strategy, merge_key) = patch.split_once(':').unwrap_or((patch, ""));
    Field {
        name: name.to_owned(),
        shape: shape(shape_text, ids),
        required: flags.contains('r'),
        default: (!default.is_empty())
            .then(|| serde_json::from_str(default).unwrap_or_else(|_| panic!("{default:?} is no JSON"))),
        list_type: match list.split_once(':') {
            Some((_, keys)) => ListType::Map(keys.split(',').map(str::to_owned).collect()),
            None if list == "set" => ListType::Set,
            None => ListType::Atomic,
        },
        atomic: flags.contains('a'),
        granular: flags.contains('g'),
        patch_strategy: PatchStrategy {
            merge: strategy.contains("merge"),
            retain_keys: strategy.contains("retainKeys"),
            replace: strategy.contains("replace"),
        },
        merge_key: (!merge_key.is_empty()).then(|| merge_key.to_owned()),
        enumeration: if values.is_empty() { Vec::new() } else { values.split(',').map(str::to_owned).collect() },
        proto_number: if proto_number.is_empty() { 0 } else { number(proto_number) },
        pointer: flags.contains('p'),
        omit_empty: flags.contains('o'),
        omit_zero: flags.contains('z'),
    }
}

fn shape(text: &str, ids: &BTreeMap<&str, TypeId>) -> Shape {
    let inner = |open, close| text.strip_prefix(open).and_then(|rest: &str| rest.strip_suffix(close));
    if let Some(item) = inner('[', ']') {
        return Shape::List(Box::new(shape(item, ids)));
    }
    if let Some(item) = inner('{', '}') {
        return Shape::Map(Box::new(shape(item, ids)));
    }
    match text {
        "string" => Shape::String,
        "bytes" => Shape::Bytes,
        "int32" => Shape::Integer { bits: 32 },
        "int64" => Shape::Integer { bits: 64 },
        "number" => Shape::Number,
        "boolean" => Shape::Boolean,
        "quantity" => Shape::Quantity,
        "int-or-string" => Shape::IntOrString,
        "time" => Shape::Time,
        "micro-time" => Shape::MicroTime,
        "any" => Shape::Any,
        name => Shape::Object(*ids.get(name).unwrap_or_else(|| panic!("no type {name:?} in the table"))),
    }
}
