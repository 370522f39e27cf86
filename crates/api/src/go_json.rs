//! What Go's `encoding/json` says of a text that is no JSON.
//!
//! Clients see these words in answers, so they are worked out again here, after the fast parser has refused a text.
//! Source of the words: <https://pkg.go.dev/encoding/json#SyntaxError>, as a real server answers them.

/// How deep arrays and objects may nest, as in Go.
const DEPTH_MAX: usize = 10_000;

/// The first syntax error of a text, in Go's words; `Ok` where Go sees none.
pub(crate) fn check(bytes: &[u8]) -> Result<(), String> {
    let mut scanner = Scanner { bytes, at: 0, open: Vec::new() };
    loop {
        if scanner.begin_value()? && scanner.end_value()? {
            return Ok(());
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Open {
    Object,
    Array,
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    open: Vec<Open>,
}

impl Scanner<'_> {
    fn peek(&self) -> Result<u8, String> {
        self.bytes.get(self.at).copied().ok_or_else(|| "unexpected end of JSON input".to_owned())
    }

    fn next(&mut self) -> Result<u8, String> {
        let byte = self.peek()?;
        self.at += 1;
        Ok(byte)
    }

    fn skip_space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn next_after_space(&mut self) -> Result<u8, String> {
        self.skip_space();
        self.next()
    }

    /// Reads a scalar or an empty container (true: the value has ended), or opens a container (false: a value begins).
    fn begin_value(&mut self) -> Result<bool, String> {
        match self.next_after_space()? {
            b'{' => {
                self.push(Open::Object)?;
                self.skip_space();
                if self.peek()? == b'}' {
                    return Ok(true);
                }
                self.key()?;
                Ok(false)
            }
            b'[' => {
                self.push(Open::Array)?;
                self.skip_space();
                Ok(self.peek()? == b']')
            }
            b'"' => self.string().map(|()| true),
            b't' => self.literal("true").map(|()| true),
            b'f' => self.literal("false").map(|()| true),
            b'n' => self.literal("null").map(|()| true),
            first @ (b'-' | b'0'..=b'9') => self.number(first).map(|()| true),
            other => Err(invalid(other, "looking for beginning of value")),
        }
    }

    /// Reads what follows a value: true at the end of the text, false where another value begins.
    fn end_value(&mut self) -> Result<bool, String> {
        loop {
            self.skip_space();
            let Some(&open) = self.open.last() else {
                return match self.bytes.get(self.at) {
                    None => Ok(true),
                    Some(&other) => Err(invalid(other, "after top-level value")),
                };
            };
            match (open, self.next()?) {
                (Open::Object, b',') => return self.key().map(|()| false),
                (Open::Array, b',') => return Ok(false),
                (Open::Object, b'}') | (Open::Array, b']') => {
                    self.open.pop();
                }
                (Open::Object, other) => return Err(invalid(other, "after object key:value pair")),
                (Open::Array, other) => return Err(invalid(other, "after array element")),
            }
        }
    }

    fn push(&mut self, open: Open) -> Result<(), String> {
        if self.open.len() >= DEPTH_MAX {
            return Err("exceeded max depth".to_owned());
        }
        self.open.push(open);
        Ok(())
    }

    fn key(&mut self) -> Result<(), String> {
        match self.next_after_space()? {
            b'"' => self.string()?,
            other => return Err(invalid(other, "looking for beginning of object key string")),
        }
        match self.next_after_space()? {
            b':' => Ok(()),
            other => Err(invalid(other, "after object key")),
        }
    }

    fn string(&mut self) -> Result<(), String> {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => match self.next()? {
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    b'u' => {
                        for _ in 0..4 {
                            let digit = self.next()?;
                            if !digit.is_ascii_hexdigit() {
                                return Err(invalid(digit, "in \\u hexadecimal character escape"));
                            }
                        }
                    }
                    other => return Err(invalid(other, "in string escape code")),
                },
                control @ 0..=0x1f => return Err(invalid(control, "in string literal")),
                _ => {}
            }
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), String> {
        for expected in word.chars().skip(1) {
            let found = self.next()?;
            if char::from(found) != expected {
                return Err(invalid(found, &format!("in literal {word} (expecting {expected:?})")));
            }
        }
        Ok(())
    }

    fn number(&mut self, first: u8) -> Result<(), String> {
        let first = if first == b'-' { self.digit("in numeric literal")? } else { first };
        if first != b'0' {
            self.digits();
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digit("after decimal point in numeric literal")?;
            self.digits();
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek()?, b'+' | b'-') {
                self.at += 1;
            }
            self.digit("in exponent of numeric literal")?;
            self.digits();
        }
        Ok(())
    }

    fn digit(&mut self, context: &str) -> Result<u8, String> {
        let byte = self.next()?;
        if byte.is_ascii_digit() { Ok(byte) } else { Err(invalid(byte, context)) }
    }

    fn digits(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }
}

fn invalid(byte: u8, context: &str) -> String {
    let quoted = match byte {
        b'"' => "'\"'".to_owned(),
        b'\'' => "'\\''".to_owned(),
        b'\\' => "'\\\\'".to_owned(),
        0x07 => "'\\a'".to_owned(),
        0x08 => "'\\b'".to_owned(),
        0x0b => "'\\v'".to_owned(),
        0x0c => "'\\f'".to_owned(),
        b'\n' => "'\\n'".to_owned(),
        b'\r' => "'\\r'".to_owned(),
        b'\t' => "'\\t'".to_owned(),
        0..=0x1f | 0x7f => format!("'\\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!("'\\u{byte:04x}'"),
        // Go takes the byte for a code point.
        other => format!("'{}'", char::from(other)),
    };
    format!("invalid character {quoted} {context}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax_errors_are_worded_as_go_words_them() {
        for (text, expected) in [
            ("", "unexpected end of JSON input"),
            ("{\"metadata\":", "unexpected end of JSON input"),
            ("{\"a\":1", "unexpected end of JSON input"),
            ("kind: Pod", "invalid character 'k' looking for beginning of value"),
            ("{a:1}", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 \"b\":2}", "invalid character '\"' after object key:value pair"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("tru ", "invalid character ' ' in literal true (expecting 'e')"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1ex", "invalid character 'x' in exponent of numeric literal"),
            ("01", "invalid character '1' after top-level value"),
            ("\"\n\"", "invalid character '\\n' in string literal"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            ("\"\\u00g0\"", "invalid character 'g' in \\u hexadecimal character escape"),
        ] {
            assert_eq!(check(text.as_bytes()), Err(expected.to_owned()), "{text}");
        }
        for text in ["{}", " [ ] ", "{\"a\":[1,-2.5e+3,true,null,\"x\\u00e9\"],\"b\":{}}\n", "0"] {
            assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
        }
    }
}
