//! Snapshot and entry encodings: numbers as LEB128, texts and bodies with their length in front, no copies through text.
//!
//! Every encoding starts with a format version. Reading trusts nothing: damaged input is an error, never a panic or an
//! allocation that the input does not back.

mod entry;
mod snapshot;

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::{Attributes, GroupResource, ObjectKey, Revision, resources};

use crate::CodecError;

pub(crate) use entry::{decode_entry, encode_entry};
pub(crate) use snapshot::{decode_snapshot, digest, encode_snapshot};

/// How many elements are made room for before any was read.
const CAPACITY_MAX: usize = 1024;

/// What is wrong with the input.
type Damage = String;

/// Appends encoded values.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn length(&mut self, length: usize) {
        self.number(length as u64);
    }

    fn signed(&mut self, number: i64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn option<T>(&mut self, option: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.byte(option.is_some().into());
        if let Some(value) = option {
            write(self, value);
        }
    }

    fn resource(&mut self, resource: &GroupResource) {
        self.text(&resource.group);
        self.text(&resource.resource);
    }

    fn key(&mut self, key: &ObjectKey) {
        self.resource(&key.resource);
        self.text(&key.namespace);
        self.text(&key.name);
    }

    fn attributes(&mut self, attributes: &Attributes) {
        self.length(attributes.len());
        for (name, value) in attributes {
            self.text(name);
            self.text(value);
        }
    }
}

/// Takes encoded values off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, Damage> {
        let (first, rest) = self.0.split_first().ok_or("it ends early")?;
        self.0 = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<u64, Damage> {
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

    fn signed(&mut self) -> Result<i64, Damage> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or("it ends early")?;
        self.0 = rest;
        Ok(i64::from_le_bytes(*bytes))
    }

    fn revision(&mut self) -> Result<Revision, Damage> {
        self.number().map(Revision)
    }

    fn bytes(&mut self) -> Result<&'a [u8], Damage> {
        let length = self.number()?;
        let split = usize::try_from(length).ok().and_then(|length| self.0.split_at_checked(length));
        let (bytes, rest) = split.ok_or("it ends early")?;
        self.0 = rest;
        Ok(bytes)
    }

    fn body(&mut self) -> Result<Bytes, Damage> {
        // A copy of its own: an object must not keep a whole batch or snapshot in memory.
        self.bytes().map(Bytes::copy_from_slice)
    }

    fn text(&mut self) -> Result<&'a str, Damage> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "a text is not UTF-8".into())
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Damage>) -> Result<Option<T>, Damage> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            other => Err(format!("{other} is neither none nor some")),
        }
    }

    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Result<T, Damage>) -> Result<Vec<T>, Damage> {
        let length = self.number()?;
        let mut list = Vec::with_capacity(usize::try_from(length).unwrap_or(CAPACITY_MAX).min(CAPACITY_MAX));
        for _ in 0..length {
            list.push(read(self)?);
        }
        Ok(list)
    }

    fn resource(&mut self) -> Result<GroupResource, Damage> {
        let (group, resource) = (self.text()?, self.text()?);
        Ok(resources::known(group, resource)
            .unwrap_or_else(|| GroupResource { group: group.to_owned().into(), resource: resource.to_owned().into() }))
    }

    fn key(&mut self) -> Result<ObjectKey, Damage> {
        let resource = self.resource()?;
        Ok(ObjectKey::new(resource, self.text()?, self.text()?))
    }

    fn shared_key(&mut self) -> Result<Arc<ObjectKey>, Damage> {
        self.key().map(Arc::new)
    }

    fn attributes(&mut self) -> Result<Attributes, Damage> {
        let list = self.list(|r| Ok((r.text()?.to_owned(), r.text()?.to_owned())))?;
        Ok(list.into_iter().collect())
    }

    /// Checks that nothing is left.
    fn finish(&self) -> Result<(), Damage> {
        if self.0.is_empty() { Ok(()) } else { Err(format!("{} bytes are left over", self.0.len())) }
    }
}

fn version(reader: &mut Reader<'_>, known: u8) -> Result<(), Damage> {
    let version = reader.byte()?;
    if version == known { Ok(()) } else { Err(format!("its format version is {version}, not {known}")) }
}

fn error(what: &'static str) -> impl FnOnce(Damage) -> CodecError {
    move |why| CodecError { what, why }
}

#[cfg(test)]
mod tests;
