//! Whether an applied configuration fits the schema; the texts are those of Kubernetes' structured-merge-diff.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value};

use super::path::PathElement;
use super::typed::{Parts, Spec};
use crate::patch::go_print;
use crate::schema::{Schema, Shape};

/// What does not fit, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The path, as messages show it.
    path: String,
    /// What is wrong.
    message: String,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.path.is_empty() { "" } else { ": " };
        write!(f, "{}{colon}{}", self.path, self.message)
    }
}

/// Everything that does not fit; nothing is looked for behind a field that is not declared, nor behind an item without keys.
pub(super) fn check(schema: &Schema, spec: Spec<'_>, value: &Value) -> Vec<Misfit> {
    let mut checker = Checker { schema, path: Vec::new(), misfits: Vec::new() };
    checker.check(spec, value);
    checker.misfits
}

struct Checker<'s> {
    schema: &'s Schema,
    path: Vec<PathElement>,
    misfits: Vec<Misfit>,
}

impl<'s> Checker<'s> {
    fn refuse(&mut self, message: String) {
        let path = self.path.iter().map(ToString::to_string).collect();
        self.misfits.push(Misfit { path, message });
    }

    fn within(&mut self, element: PathElement, check: impl FnOnce(&mut Self)) {
        self.path.push(element);
        check(self);
        self.path.pop();
    }

    fn check(&mut self, spec: Spec<'s>, value: &Value) {
        match (spec.shape, value) {
            (_, Value::Null) | (Shape::Any, _) => {}
            (Shape::Object(id), Value::Object(map)) => {
                let t = self.schema.get(*id);
                if !t.fields.is_empty() {
                    self.fields(Parts::Fields(t), map);
                }
            }
            (Shape::Map(values), Value::Object(map)) => {
                for (name, value) in map {
                    self.within(PathElement::Field(name.clone()), |this| this.check(Spec::of_type(values), value));
                }
            }
            (Shape::List(items), Value::Array(list)) => self.list(spec, items, list),
            (Shape::Object(_) | Shape::Map(_), other) => self.refuse(format!("expected map, got {}", go_value(other))),
            (Shape::List(_), other) => self.refuse(format!("expected list, got {}", go_value(other))),
            (shape, scalar) => self.scalar(shape, scalar),
        }
    }

    fn fields(&mut self, parts: Parts<'s>, map: &Map<String, Value>) {
        for (name, value) in map {
            let child = parts.child(name);
            let declared = child.field.is_some();
            self.within(PathElement::Field(name.clone()), |this| {
                if declared {
                    this.check(child.spec, value);
                } else {
                    this.refuse("field not declared in schema".to_owned());
                }
            });
            if !declared {
                return;
            }
        }
    }

    fn list(&mut self, spec: Spec<'s>, items: &'s Shape, list: &[Value]) {
        let parts = spec.parts(self.schema, &Value::Null);
        let mut seen = BTreeSet::new();
        for (index, item) in list.iter().enumerate() {
            let element = match parts {
                Parts::Members | Parts::Items(..) => match parts.element(self.schema, item) {
                    Ok(element) => element,
                    Err(why) => return self.refuse(format!("element {index}: {why}")),
                },
                _ => PathElement::Index(index),
            };
            if !seen.insert(element.clone()) {
                self.refuse(format!("duplicate entries for key {element}"));
            }
            self.within(element, |this| this.check(Spec::of_type(items), item));
        }
    }

    fn scalar(&mut self, shape: &Shape, value: &Value) {
        let is_scalar = !value.is_array() && !value.is_object();
        let message = match shape {
            Shape::Integer { .. } | Shape::Number if !value.is_number() => {
                format!("expected numeric (int or float), got {}", go_type(value))
            }
            Shape::Boolean if !value.is_boolean() => format!("expected boolean, got {}", go_value(value)),
            Shape::Quantity | Shape::IntOrString if !is_scalar => {
                format!("expected any scalar, got {}", go_value(value))
            }
            Shape::String | Shape::Bytes | Shape::Time | Shape::MicroTime | Shape::Duration if !value.is_string() => {
                format!("expected string, got {}", go_value(value))
            }
            _ => return,
        };
        self.refuse(message);
    }
}

/// How Go prints the wrapper that the library keeps a value in.
fn go_value(value: &Value) -> String {
    format!("&{{{}}}", go_print(value))
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
