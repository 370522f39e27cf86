//! Small pure decisions made at apply, in log order, on replicated integers and sets that the store keeps without knowing a kind.

use std::net::Ipv4Addr;

use coracle_api::ObjectKey;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A named set of integers that owners hold exclusively: service addresses, node ports, pod ranges of nodes.
/// Values are `low..=high`; a pool comes into being with its first settlement. Who settles says the range each time:
/// what lies outside a narrowed range stays held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The name, as in `service-addresses`.
    pub name: String,
    /// The lowest value.
    pub low: u64,
    /// The highest value.
    pub high: u64,
}

/// Which value of a pool is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Want {
    /// Any free one.
    Any,
    /// This one, or a refusal. An owner that holds it already keeps it.
    Exactly(u64),
}

/// How a chosen value is written into the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Render {
    /// As a JSON number.
    Number,
    /// As a dotted IPv4 address.
    Ipv4,
    /// As the IPv4 range that starts at the value, with this prefix length: `10.42.0.0/24`.
    /// The pool then goes in steps of the range's size, and values are first addresses.
    Ipv4Range(u8),
}

/// A decision made at apply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Settlement {
    /// The object (mostly a Namespace) is there and not being deleted, before the transaction's own writes.
    NotTerminating(ObjectKey),
    /// Takes a value of a pool for an owner and writes it into one of the transaction's objects.
    Allocate {
        /// Which pool.
        pool: Pool,
        /// Who holds the value: released by `Release`, or when the store deletes the object of this key.
        owner: ObjectKey,
        /// Which value.
        want: Want,
        /// The index of the `Put` in the transaction whose body gets the value.
        write: usize,
        /// Where in the body: JSON pointers (RFC 6901); `/-` appends to an array. Missing parents are made as objects,
        /// the parent of a `/-` as an array.
        pointers: Vec<String>,
        /// In which form.
        render: Render,
        /// Also recorded as this attribute of the object (its rendered text).
        attribute: Option<String>,
    },
    /// Gives back one value that an owner holds, if it holds it.
    Release {
        /// The pool's name.
        pool: String,
        /// The owner.
        owner: ObjectKey,
        /// The value.
        value: u64,
    },
}

impl Render {
    /// How far the values of a pool lie apart; `None` when the prefix is no IPv4 prefix.
    pub(crate) fn step(self) -> Option<u64> {
        match self {
            Self::Number | Self::Ipv4 => Some(1),
            Self::Ipv4Range(prefix) => Some(1 << 32_u32.checked_sub(prefix.into())?),
        }
    }

    /// The value as JSON; `None` when it is no IPv4 address.
    pub(crate) fn value(self, value: u64) -> Option<Value> {
        let address = || u32::try_from(value).ok().map(Ipv4Addr::from);
        match self {
            Self::Number => Some(value.into()),
            Self::Ipv4 => Some(address()?.to_string().into()),
            Self::Ipv4Range(prefix) => Some(format!("{}/{prefix}", address()?).into()),
        }
    }
}

/// Writes a value at a JSON pointer, making missing parents; `None` when the pointer leads through something else.
pub(crate) fn write_at(target: &mut Value, pointer: &str, value: Value) -> Option<()> {
    let mut target = target;
    for token in pointer.strip_prefix('/')?.split('/') {
        let token = token.replace("~1", "/").replace("~0", "~");
        if target.is_null() {
            *target = if token == "-" { Value::Array(Vec::new()) } else { Value::Object(Map::new()) };
        }
        target = match target {
            Value::Object(map) => map.entry(token).or_insert(Value::Null),
            Value::Array(items) => {
                let index = if token == "-" { items.len() } else { token.parse().ok()? };
                if index == items.len() {
                    items.push(Value::Null);
                }
                items.get_mut(index)?
            }
            _ => return None,
        };
    }
    *target = value;
    Some(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn written(mut target: Value, pointer: &str) -> Option<Value> {
        write_at(&mut target, pointer, json!(7))?;
        Some(target)
    }

    #[test]
    fn a_value_is_written_at_a_pointer_and_missing_parents_are_made() {
        assert_eq!(written(json!({"a": {}}), "/a/b/c"), Some(json!({"a": {"b": {"c": 7}}})));
        assert_eq!(written(json!({"a": 1}), "/a"), Some(json!({"a": 7})));
        assert_eq!(written(json!({}), "/a~1b~01"), Some(json!({"a/b~1": 7})));
        assert_eq!(written(json!({"p": [{"x": 1}]}), "/p/0/n"), Some(json!({"p": [{"x": 1, "n": 7}]})));
    }

    #[test]
    fn a_dash_appends_to_an_array() {
        assert_eq!(written(json!({"a": [1]}), "/a/-"), Some(json!({"a": [1, 7]})));
        assert_eq!(written(json!({}), "/a/-"), Some(json!({"a": [7]})));
    }

    #[test]
    fn a_pointer_that_leads_nowhere_is_refused() {
        for pointer in ["", "a", "/a/b", "/l/5", "/l/x"] {
            assert_eq!(written(json!({"a": "text", "l": [1]}), pointer), None, "{pointer}");
        }
    }

    #[test]
    fn values_are_rendered_in_their_form() {
        let address = u64::from(u32::from(Ipv4Addr::new(10, 42, 3, 0)));
        assert_eq!(Render::Number.value(30_000), Some(json!(30_000)));
        assert_eq!(Render::Ipv4.value(address), Some(json!("10.42.3.0")));
        assert_eq!(Render::Ipv4Range(24).value(address), Some(json!("10.42.3.0/24")));
        assert_eq!(Render::Ipv4Range(24).step(), Some(256));
        assert_eq!(Render::Ipv4Range(33).step(), None);
        assert_eq!(Render::Ipv4.value(1 << 32), None);
    }
}
