//! What differs from run to run is masked before answers are compared: uids, times, revisions, random names, addresses.

use base64::Engine as _;
use coracle_base::Timestamp;
use serde_json::Value;

/// Masks a value in place.
pub(crate) fn mask(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                match key.as_str() {
                    "uid" if value.as_str().is_some_and(is_uuid) => *value = "UID".into(),
                    "resourceVersion" if value.as_str().is_some_and(|text| text.parse::<u64>().is_ok()) => {
                        *value = "RV".into();
                    }
                    "continue" => *value = "CONTINUE".into(),
                    "remainingItemCount" => *value = "COUNT".into(),
                    "cells" => mask_cells(value),
                    _ => mask(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(mask),
        Value::String(text) => *text = masked(text),
        _ => {}
    }
}

fn mask_cells(cells: &mut Value) {
    for cell in cells.as_array_mut().into_iter().flatten() {
        let age = cell.as_str().is_some_and(|text| {
            text.ends_with(|c: char| "smhdy".contains(c)) && text.starts_with(|c: char| c.is_ascii_digit())
        });
        if age {
            *cell = "AGE".into();
        } else {
            mask(cell);
        }
    }
}

/// Masks a text.
pub(crate) fn masked(text: &str) -> String {
    if Timestamp::parse(text).is_ok() {
        return "TIME".into();
    }
    if text.starts_with("-----BEGIN CERTIFICATE") {
        return "PEM".into();
    }
    if is_service_address(text) {
        return "ADDRESS".into();
    }
    if let Some(claims) = claims_of(text) {
        return format!("JWT {claims}");
    }
    let text = text.split("\n@@ ").next().unwrap_or(text);
    let mut out = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.get(..36).filter(|start| is_uuid(start)).map(|start| &rest[start.len()..]) {
            out.push_str("UID");
            rest = after;
            continue;
        }
        let marks = [
            ("current: ", "RV"),
            ("kube-api-access-", "SUFFIX"),
            ("in scheme ", "SCHEME"),
            ("ReplicaSet \"d1-", "HASH"),
        ];
        if let Some((mark, word)) = marks.into_iter().find(|(mark, _)| rest.starts_with(mark)) {
            out.push_str(mark);
            out.push_str(word);
            let after = &rest[mark.len()..];
            let end = match word {
                "SCHEME" => after.len(),
                _ => after.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(after.len()),
            };
            rest = &after[end..];
            continue;
        }
        let length = rest.chars().next().map_or(1, char::len_utf8);
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out
}

/// The claims of a signed token, masked; who signed it is another's business.
fn claims_of(text: &str) -> Option<Value> {
    let [_, claims, _] = text.split('.').collect::<Vec<_>>()[..] else { return None };
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).ok()?;
    let mut claims: Value = serde_json::from_slice(&bytes).ok()?;
    for time in ["exp", "iat", "nbf"] {
        claims[time] = "TIME".into();
    }
    mask(&mut claims);
    Some(claims)
}

fn is_service_address(text: &str) -> bool {
    (text.starts_with("10.43.") || text.starts_with("10.101.")) && text.parse::<std::net::Ipv4Addr>().is_ok()
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}
