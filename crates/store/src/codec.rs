//! Snapshot and entry encodings, on [`wire`]'s pieces: every encoding starts with a format version.

mod entry;
mod snapshot;

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::{Attributes, GroupResource, ObjectKey, Revision, resources};
use coracle_base::wire::{Damage, Reader, Writer};

use crate::CodecError;

pub(crate) use entry::{check_entry_version, decode_entry, encode_entry};
pub(crate) use snapshot::{decode_snapshot, digest, encode_snapshot};

/// Writes what names objects.
trait WriteKeys {
    fn resource(&mut self, resource: &GroupResource);
    fn key(&mut self, key: &ObjectKey);
    fn attributes(&mut self, attributes: &Attributes);
}

impl WriteKeys for Writer {
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
        self.list(attributes, |w, (name, value)| {
            w.text(name);
            w.text(value);
        });
    }
}

/// Reads what [`WriteKeys`] wrote.
trait ReadKeys {
    fn revision(&mut self) -> Result<Revision, Damage>;
    fn body(&mut self) -> Result<Bytes, Damage>;
    fn resource(&mut self) -> Result<GroupResource, Damage>;
    fn key(&mut self) -> Result<ObjectKey, Damage>;
    fn shared_key(&mut self) -> Result<Arc<ObjectKey>, Damage>;
    fn attributes(&mut self) -> Result<Attributes, Damage>;
}

impl ReadKeys for Reader<'_> {
    fn revision(&mut self) -> Result<Revision, Damage> {
        self.number().map(Revision)
    }

    fn body(&mut self) -> Result<Bytes, Damage> {
        // A copy of its own: an object must not keep a whole batch or snapshot in memory.
        self.bytes().map(Bytes::copy_from_slice)
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
}

fn error(what: &'static str) -> impl FnOnce(Damage) -> CodecError {
    move |why| CodecError { what, why: why.to_string() }
}

#[cfg(test)]
mod tests;
