//! The pieces of our own binary encodings: numbers as LEB128, texts and bytes with their length in front.
//!
//! Reading trusts nothing: damaged input is a [`Damage`], never a panic or an allocation that the input does not back.

use std::borrow::Cow;

/// What is wrong with encoded bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damage(pub Cow<'static, str>);

impl From<&'static str> for Damage {
    fn from(text: &'static str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Damage {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

/// How many elements of a list are made room for before any was read.
const CAPACITY_MAX: usize = 1024;

/// Appends encoded values.
#[derive(Clone, Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    /// What was written so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Bytes as they are; who reads them knows how many there are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// One byte.
    pub fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    /// A number, in one byte for every seven bits.
    pub fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    /// A number that may be negative, in eight bytes.
    pub fn signed(&mut self, number: i64) {
        self.raw(&number.to_le_bytes());
    }

    /// How many of something follow.
    pub fn length(&mut self, length: usize) {
        self.number(length as u64);
    }

    /// Bytes with their length in front.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.raw(bytes);
    }

    /// A text with its length in front.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Something or nothing.
    pub fn option<T>(&mut self, option: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.byte(option.is_some().into());
        if let Some(value) = option {
            write(self, value);
        }
    }

    /// A list with its length in front.
    pub fn list<T>(
        &mut self,
        list: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        let list = list.into_iter();
        self.length(list.len());
        for element in list {
            write(self, element);
        }
    }
}

/// Takes encoded values off the front.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads from the start of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8, Damage> {
        let (first, rest) = self.0.split_first().ok_or("it ends early")?;
        self.0 = rest;
        Ok(*first)
    }

    /// What [`Writer::number`] wrote.
    pub fn number(&mut self) -> Result<u64, Damage> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("a number is too large".into())
    }

    /// What [`Writer::signed`] wrote.
    pub fn signed(&mut self) -> Result<i64, Damage> {
        self.array().map(i64::from_le_bytes)
    }

    /// As many bytes as the array has: what [`Writer::raw`] wrote.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or("it ends early")?;
        self.0 = rest;
        Ok(*bytes)
    }

    /// What [`Writer::bytes`] wrote.
    pub fn bytes(&mut self) -> Result<&'a [u8], Damage> {
        let length = self.number()?;
        let split = usize::try_from(length).ok().and_then(|length| self.0.split_at_checked(length));
        let (bytes, rest) = split.ok_or("it ends early")?;
        self.0 = rest;
        Ok(bytes)
    }

    /// What [`Writer::text`] wrote.
    pub fn text(&mut self) -> Result<&'a str, Damage> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "a text is not UTF-8".into())
    }

    /// What [`Writer::option`] wrote.
    pub fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Damage>) -> Result<Option<T>, Damage> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            other => Err(format!("{other} is neither none nor some").into()),
        }
    }

    /// What [`Writer::list`] wrote.
    pub fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Result<T, Damage>) -> Result<Vec<T>, Damage> {
        let length = self.number()?;
        let mut list = Vec::with_capacity(usize::try_from(length).unwrap_or(CAPACITY_MAX).min(CAPACITY_MAX));
        for _ in 0..length {
            list.push(read(self)?);
        }
        Ok(list)
    }

    /// Everything that is left, unread.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// A format version, which must be this one.
    pub fn version(&mut self, known: u8) -> Result<(), Damage> {
        let version = self.byte()?;
        if version == known { Ok(()) } else { Err(format!("its format version is {version}, not {known}").into()) }
    }

    /// Checks that nothing is left.
    pub fn finish(&self) -> Result<(), Damage> {
        if self.0.is_empty() { Ok(()) } else { Err(format!("{} bytes are left over", self.0.len()).into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_size_are_read_as_written_and_longer_ones_refused() {
        for number in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut w = Writer::default();
            w.number(number);
            assert_eq!(Reader::new(w.as_bytes()).number(), Ok(number));
        }
        assert!(Reader::new(&[0xff; 10]).number().is_err());
        assert!(Reader::new(&[0x80; 11]).number().is_err());
    }

    #[test]
    fn a_length_that_the_input_does_not_back_is_refused() {
        let mut w = Writer::default();
        w.number(u64::MAX);
        assert!(Reader::new(w.as_bytes()).bytes().is_err());
        assert!(Reader::new(w.as_bytes()).list(Reader::byte).is_err());
    }

    #[test]
    fn what_was_written_is_read_in_order() {
        let mut w = Writer::default();
        w.text("a");
        w.signed(-7);
        w.option(Some(3), Writer::number);
        w.option(None, Writer::number);
        w.list([1, 2], Writer::number);
        let bytes = w.finish();
        let mut r = Reader::new(&bytes);
        assert_eq!((r.text(), r.signed()), (Ok("a"), Ok(-7)));
        assert_eq!((r.option(Reader::number), r.option(Reader::number)), (Ok(Some(3)), Ok(None)));
        assert!(r.finish().is_err());
        assert_eq!(r.list(Reader::number), Ok(vec![1, 2]));
        assert_eq!(r.finish(), Ok(()));
    }
}
