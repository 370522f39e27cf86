//! How Go's `fmt` prints a decoded JSON value with `%v`: some messages of Kubernetes quote values that way.

use std::fmt::Write;

use serde_json::Value;

/// A value as `fmt.Sprintf("%v", value)` prints it: `map[a:1 b:[x y]]`, keys sorted, texts bare, null as `<nil>`.
pub fn go_print(value: &Value) -> String {
    let mut out = String::new();
    write_value(value, &mut out);
    out
}

fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => write_number(number, out),
        Value::String(text) => out.push_str(text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                write_value(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            out.push_str("map[");
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                out.push_str(key);
                out.push(':');
                write_value(value, out);
            }
            out.push(']');
        }
    }
}

/// Whole numbers stay whole; others take Go's `%v`: the shortest digits, with an exponent below 1e-4 and from 1e21 on.
fn write_number(number: &serde_json::Number, out: &mut String) {
    let float = match number.as_f64() {
        Some(float) if number.is_f64() => float,
        _ => return out.push_str(&number.to_string()),
    };
    let size = float.abs();
    if size != 0.0 && !(1e-4..1e21).contains(&size) {
        let text = format!("{float:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{digits}e{sign}{:02}", exponent.abs());
    } else {
        let _ = write!(out, "{float}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_print_as_go_prints_them() {
        let cases = [
            (json!({"image": "x"}), "map[image:x]"),
            (json!({"spec": {"foo": 1, "a": [true, null, "b c"]}}), "map[spec:map[a:[true <nil> b c] foo:1]]"),
            (json!({}), "map[]"),
            (json!([]), "[]"),
            (json!([1.5, 2.0, 1e30, 0.00001, -7]), "[1.5 2 1e+30 1e-05 -7]"),
        ];
        for (value, text) in cases {
            assert_eq!(go_print(&value), text);
        }
    }
}
