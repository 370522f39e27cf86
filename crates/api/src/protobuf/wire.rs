//! The wire format: tags, varints and payloads, with no knowledge of types.
//!
//! Source of the rules: <https://protobuf.dev/programming-guides/encoding/>.

use super::ProtobufError;

/// The largest field number there is.
const FIELD_NUMBER_MAX: u64 = (1 << 29) - 1;

/// What a field carries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Payload<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Payload<'a> {
    fn wire_type(&self) -> u8 {
        match self {
            Self::Varint(_) => 0,
            Self::Fixed64(_) => 1,
            Self::Bytes(_) => 2,
            Self::Fixed32(_) => 5,
        }
    }

    fn wrong(&self, field: &str) -> ProtobufError {
        ProtobufError::WrongWireType { found: self.wire_type(), field: field.to_owned() }
    }

    pub(super) fn varint(&self, field: &str) -> Result<u64, ProtobufError> {
        if let Self::Varint(number) = self { Ok(*number) } else { Err(self.wrong(field)) }
    }

    pub(super) fn double(&self, field: &str) -> Result<f64, ProtobufError> {
        if let Self::Fixed64(bits) = self { Ok(f64::from_bits(*bits)) } else { Err(self.wrong(field)) }
    }

    pub(super) fn bytes(&self, field: &str) -> Result<&'a [u8], ProtobufError> {
        if let Self::Bytes(bytes) = self { Ok(bytes) } else { Err(self.wrong(field)) }
    }

    /// A message is written as bytes are.
    pub(super) fn message(&self, field: &str) -> Result<&'a [u8], ProtobufError> {
        self.bytes(field)
    }

    pub(super) fn text(&self, field: &str) -> Result<&'a str, ProtobufError> {
        str::from_utf8(self.bytes(field)?).map_err(|_| ProtobufError::Utf8 { field: field.to_owned() })
    }
}

/// Reads a message field by field.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next field's number and payload; `None` at the end of the message.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Payload<'a>)>, ProtobufError> {
        if self.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || number > FIELD_NUMBER_MAX {
            return Err(ProtobufError::IllegalTag(number));
        }
        let payload = match tag & 7 {
            0 => Payload::Varint(self.varint()?),
            1 => Payload::Fixed64(u64::from_le_bytes(self.fixed()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| ProtobufError::UnexpectedEnd)?;
                Payload::Bytes(self.take(length)?)
            }
            5 => Payload::Fixed32(u32::from_le_bytes(self.fixed()?)),
            // Groups (3 and 4) are not used by Kubernetes.
            other => return Err(ProtobufError::IllegalWireType(other as u8)),
        };
        Ok(Some((number as u32, payload)))
    }

    pub(super) fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.fixed()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(ProtobufError::Overflow)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], ProtobufError> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(ProtobufError::UnexpectedEnd)?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(ProtobufError::UnexpectedEnd)?;
        self.rest = rest;
        Ok(bytes)
    }
}
