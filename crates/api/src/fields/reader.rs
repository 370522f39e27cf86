//! The reader behind [`Fields`]: it walks over a JSON text, and builds only what is asked for.
//!
//! What it skips it does not check. It reads what this process stored; bytes from outside are for `serde_json`.

use serde::de::Error as _;
use serde_json::{Error, Map, Value};

use super::Fields;

/// A position in a JSON text.
pub(super) struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// Reads a value as far as it is asked for; `None` when nothing of it is.
    pub(super) fn value(&mut self, fields: Fields) -> Result<Option<Value>, Error> {
        match (fields, self.peek()?) {
            (Fields::Nothing, _) => self.raw().map(|_| None),
            (Fields::Only(_) | Fields::Except(_), b'{') => self.object(fields).map(Some),
            (Fields::Only(_) | Fields::Except(_), b'[') => self.array(fields).map(Some),
            _ => decode(self.raw()?).map(Some),
        }
    }

    /// Nothing but space may follow.
    pub(super) fn end(&mut self) -> Result<(), Error> {
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(Error::custom("trailing characters")) }
    }

    /// Skips a value, and gives its text.
    pub(super) fn raw(&mut self) -> Result<&'a [u8], Error> {
        let first = self.peek()?;
        let start = self.at;
        match first {
            b'"' => self.skip_text()?,
            b'{' | b'[' => self.skip_brackets()?,
            _ => self.skip_scalar(),
        }
        Ok(&self.text[start..self.at])
    }

    fn object(&mut self, fields: Fields) -> Result<Value, Error> {
        let mut map = Map::new();
        self.at += 1;
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(Value::Object(map));
        }
        loop {
            if self.peek()? != b'"' {
                return Err(Error::custom("a field has no name"));
            }
            let name = self.raw()?;
            let below = fields.below(&name[1..name.len() - 1]);
            if self.peek()? != b':' {
                return Err(Error::custom("a field has no value"));
            }
            self.at += 1;
            if let Some(value) = self.value(below)?
                && let Value::String(name) = decode(name)?
            {
                map.insert(name, value);
            }
            if self.is_last(b'}')? {
                return Ok(Value::Object(map));
            }
        }
    }

    fn array(&mut self, fields: Fields) -> Result<Value, Error> {
        let mut items = Vec::new();
        self.at += 1;
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(Value::Array(items));
        }
        loop {
            items.extend(self.value(fields)?);
            if self.is_last(b']')? {
                return Ok(Value::Array(items));
            }
        }
    }

    /// Whether an object or an array ends here, or goes on behind a comma.
    fn is_last(&mut self, closing: u8) -> Result<bool, Error> {
        let next = self.peek()?;
        self.at += 1;
        match next {
            b',' => Ok(false),
            other if other == closing => Ok(true),
            _ => Err(Error::custom("neither a comma nor an end")),
        }
    }

    /// The next byte that is no space.
    fn peek(&mut self) -> Result<u8, Error> {
        self.skip_space();
        self.text.get(self.at).copied().ok_or_else(early)
    }

    fn skip_space(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn skip_scalar(&mut self) {
        let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
        self.at += self.text[self.at..].iter().position(ends).unwrap_or(self.text.len() - self.at);
    }

    fn skip_brackets(&mut self) -> Result<(), Error> {
        let mut depth = 0_usize;
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b'"' => {
                    self.skip_text()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
        Err(early())
    }

    /// Skips a text from its quote to behind its quote.
    fn skip_text(&mut self) -> Result<(), Error> {
        self.at += 1;
        loop {
            match quote_or_backslash(self.text, self.at) {
                Some((at, b'"')) => {
                    self.at = at + 1;
                    return Ok(());
                }
                Some((at, _)) => self.at = at + 2,
                None => return Err(early()),
            }
        }
    }
}

/// The first quote or backslash at or behind a position: eight bytes at a time, as most of a stored object is text to skip.
fn quote_or_backslash(text: &[u8], mut at: usize) -> Option<(usize, u8)> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    // Its lowest high bit is that of the first zero byte; bits above may be wrong.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    while let Some(word) = text.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*word);
        let found = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            at += (found.trailing_zeros() / 8) as usize;
            return Some((at, text[at]));
        }
        at += 8;
    }
    let rest = text.get(at..)?;
    let offset = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    Some((at + offset, rest[offset]))
}

/// The value of a text that one was found in; a text without escapes needs no parser.
fn decode(raw: &[u8]) -> Result<Value, Error> {
    if let [b'"', inside @ .., b'"'] = raw
        && !inside.contains(&b'\\')
    {
        return std::str::from_utf8(inside).map(Value::from).map_err(Error::custom);
    }
    serde_json::from_slice(raw)
}

fn early() -> Error {
    Error::custom("the text ends early")
}
