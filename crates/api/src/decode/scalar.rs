//! Scalars that are texts with rules: quantities, times, base64. Errors are worded as Go's.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use coracle_base::Timestamp;
use serde_json::Value;

use crate::Quantity;

/// Rewrites a quantity in its canonical form.
pub(super) fn quantity(text: &str) -> Result<Value, String> {
    let text = text.trim();
    Quantity::canonical(text).map(Value::String).map_err(|error| {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let suffix = unsigned.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number = &unsigned[..unsigned.len() - suffix.len()];
        let exponent = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if number.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            error.to_string()
        } else if number.matches('.').count() > 1 || number == "." {
            "unable to parse numeric part of quantity".to_owned()
        } else {
            "unable to parse quantity's suffix".to_owned()
        }
    })
}

/// Go's `base64.StdEncoding`: padding is required, line ends are skipped, stray bits at the end are let through.
const GO_BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// Checks base64 and rewrites it without line ends.
pub(super) fn base64(text: &str) -> Result<Value, String> {
    let joined: String;
    let compact = if text.contains(['\r', '\n']) {
        joined = text.replace(['\r', '\n'], "");
        &joined
    } else {
        text
    };
    match GO_BASE64.decode(compact) {
        Ok(bytes) => Ok(Value::String(GO_BASE64.encode(bytes))),
        Err(_) => Err(format!("illegal base64 data at input byte {}", corrupt_byte(text))),
    }
}

/// The byte that Go's decoder complains of: the first that does not belong, or the start of a last group that is cut short.
fn corrupt_byte(text: &str) -> usize {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    let mut bytes = text.bytes().enumerate().filter(|(_, byte)| !matches!(byte, b'\r' | b'\n'));
    loop {
        for place in 0..4 {
            match bytes.next() {
                None => return text.len() - place,
                Some((_, byte)) if is_digit(byte) => {}
                Some((at, b'=')) if place < 2 => return at,
                Some((_, b'=')) if place == 2 => {
                    return match bytes.next() {
                        None => text.len(),
                        Some((_, b'=')) => bytes.next().map_or(text.len(), |(at, _)| at),
                        Some((at, _)) => at,
                    };
                }
                Some((_, b'=')) => return bytes.next().map_or(text.len(), |(at, _)| at),
                Some((at, _)) => return at,
            }
        }
    }
}

const RFC3339: &str = "2006-01-02T15:04:05Z07:00";
const RFC3339_MICRO: &str = "2006-01-02T15:04:05.000000Z07:00";
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// `metav1.Time`: cut to seconds, in UTC.
pub(super) fn time(text: &str) -> Result<Value, String> {
    let time = read_time(text, RFC3339, Fraction::Any)?;
    Ok(time.map_or(Value::Null, |time| Value::String(time.truncate_to_secs().rfc3339())))
}

/// `metav1.MicroTime`: exactly six digits of a second, in UTC.
pub(super) fn micro_time(text: &str) -> Result<Value, String> {
    let time = read_time(text, RFC3339_MICRO, Fraction::Micro)?;
    Ok(time.map_or(Value::Null, |time| Value::String(time.rfc3339_micro())))
}

/// What may stand behind the seconds.
#[derive(Clone, Copy)]
enum Fraction {
    Any,
    Micro,
}

enum TimeError {
    Shape { at: usize, element: &'static str },
    Range(&'static str),
    Extra { at: usize },
}

/// Reads a time as Go's `time.Parse` does; `None` is Go's zero time.
fn read_time(text: &str, layout: &str, fraction: Fraction) -> Result<Option<Timestamp>, String> {
    match scan_time(text.as_bytes(), fraction) {
        Ok(()) if text == ZERO_TIME => Ok(None),
        Ok(()) => Timestamp::parse(text).map(Some).map_err(|_| format!("parsing time {text:?}: day out of range")),
        Err(TimeError::Shape { at, element }) => {
            let rest = &text[at..];
            Err(format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {element:?}"))
        }
        Err(TimeError::Range(what)) => Err(format!("parsing time {text:?}: {what} out of range")),
        Err(TimeError::Extra { at }) => Err(format!("parsing time {text:?}: extra text: {:?}", &text[at..])),
    }
}

/// Walks the layout. Offsets are character boundaries, because everything before them is ASCII.
fn scan_time(bytes: &[u8], fraction: Fraction) -> Result<(), TimeError> {
    const PARTS: [(&str, usize, &str, u32, u32, &str); 6] = [
        ("", 4, "2006", 0, 9999, "year"),
        ("-", 2, "01", 1, 12, "month"),
        ("-", 2, "02", 1, 31, "day"),
        ("T", 2, "15", 0, 23, "hour"),
        (":", 2, "04", 0, 59, "minute"),
        (":", 2, "05", 0, 59, "second"),
    ];
    let mut at = 0;
    for (separator, width, element, least, most, name) in PARTS {
        if !bytes[at..].starts_with(separator.as_bytes()) {
            return Err(TimeError::Shape { at, element: separator });
        }
        at += separator.len();
        let number = digits(bytes, at, width).ok_or(TimeError::Shape { at, element })?;
        if !(least..=most).contains(&number) {
            return Err(TimeError::Range(name));
        }
        at += width;
    }
    let has_fraction = matches!(bytes.get(at), Some(b'.' | b','));
    match fraction {
        Fraction::Micro if has_fraction && digits(bytes, at + 1, 6).is_some() => at += 7,
        Fraction::Micro => return Err(TimeError::Shape { at, element: ".000000" }),
        Fraction::Any if has_fraction && digits(bytes, at + 1, 1).is_some() => {
            at += 1 + bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        }
        Fraction::Any => {}
    }
    at += scan_zone(bytes, at)?;
    if at < bytes.len() { Err(TimeError::Extra { at }) } else { Ok(()) }
}

fn scan_zone(bytes: &[u8], at: usize) -> Result<usize, TimeError> {
    let shape = TimeError::Shape { at, element: "Z07:00" };
    match bytes.get(at) {
        Some(b'Z') => Ok(1),
        Some(b'+' | b'-') if bytes.get(at + 3) == Some(&b':') => {
            match (digits(bytes, at + 1, 2), digits(bytes, at + 4, 2)) {
                (Some(hours), Some(minutes)) if hours <= 24 && minutes < 60 => Ok(6),
                (Some(_), Some(_)) => Err(TimeError::Range("time zone offset")),
                _ => Err(shape),
            }
        }
        _ => Err(shape),
    }
}

fn digits(bytes: &[u8], at: usize, width: usize) -> Option<u32> {
    let part = bytes.get(at..at + width)?;
    part.iter().all(u8::is_ascii_digit).then(|| part.iter().fold(0, |n, digit| n * 10 + u32::from(digit - b'0')))
}
