//! The whole state in one piece: objects, counters and settlements, then the window, then a SHA-256 over all of it.
//!
//! The window goes from the newest change to the oldest and carries only what each change took away: what it put in place is
//! what stands there when one undoes from the newest on. Allocations of earlier revisions are not carried.

use std::sync::Arc;

use coracle_api::{GroupResource, Object, ObjectKey, Revision};
use coracle_base::Timestamp;
use sha2::{Digest, Sha256};

use super::{Damage, ReadKeys, Reader, WriteKeys, Writer, error};
use crate::root::Root;
use crate::window::Window;
use crate::{Change, CodecError, Store, StoreOptions, View};

const MAGIC: &[u8; 8] = b"coracle\0";
const FORMAT: u8 = 1;
const CHECKSUM_LEN: usize = 32;

pub(crate) fn encode_snapshot(view: &View) -> Vec<u8> {
    let mut w = Writer::default();
    w.raw(MAGIC);
    w.byte(FORMAT);
    write_state(&mut w, view.root());
    w.signed(view.time().as_nanos());
    write_window(&mut w, view.window());
    let checksum = Sha256::digest(w.as_bytes());
    w.raw(&checksum);
    w.finish()
}

/// The SHA-256 of objects, counters and settlements.
pub(crate) fn digest(root: &Root) -> [u8; 32] {
    let mut w = Writer::default();
    write_state(&mut w, root);
    Sha256::digest(w.as_bytes()).into()
}

pub(crate) fn decode_snapshot(options: StoreOptions, bytes: &[u8]) -> Result<Store, CodecError> {
    read_snapshot(options, bytes).map_err(error("snapshot"))
}

fn read_snapshot(options: StoreOptions, bytes: &[u8]) -> Result<Store, Damage> {
    let content = bytes.len().checked_sub(CHECKSUM_LEN).map(|length| bytes.split_at(length));
    let (content, checksum) = content.ok_or("it ends early")?;
    let Some(content_behind_magic) = content.strip_prefix(MAGIC) else { return Err("it is no snapshot".into()) };
    let mut r = Reader::new(content_behind_magic);
    r.version(FORMAT)?;
    if *Sha256::digest(content) != *checksum {
        return Err("its checksum is wrong".into());
    }
    let root = read_state(&mut r, &options)?;
    let time = Timestamp::from_nanos(r.signed()?);
    let window = read_window(&mut r, root)?;
    r.finish()?;
    let newest = window.steps().back().ok_or("it has no state")?.root.clone();
    Ok(Store::from_parts(options, time, newest, window))
}

fn write_state(w: &mut Writer, root: &Root) {
    w.number(root.revision.0);
    w.number(root.compacted.0);
    w.length(root.pools.iter().len());
    for (name, pool) in root.pools.iter() {
        w.text(name);
        w.number(pool.cursor);
        w.length(pool.values.len());
        for (value, owner) in &pool.values {
            w.number(*value);
            w.key(owner);
        }
    }
    w.length(root.tables().len());
    for (resource, table) in root.tables() {
        w.resource(resource);
        w.number(table.last_change.0);
        w.length(table.count(None));
        for object in table.list(None, None) {
            w.text(&object.key().namespace);
            w.text(&object.key().name);
            write_object(w, object);
        }
    }
}

fn read_state(r: &mut Reader<'_>, options: &StoreOptions) -> Result<Root, Damage> {
    let mut root = Root::new(&options.indexed);
    root.revision = r.revision()?;
    root.compacted = r.revision()?;
    for _ in 0..r.number()? {
        let (name, cursor) = (r.text()?, r.number()?);
        root.pools.restore(name, cursor, None);
        for _ in 0..r.number()? {
            let held = (r.number()?, r.shared_key()?);
            root.pools.restore(name, cursor, Some(held));
        }
    }
    for _ in 0..r.number()? {
        let resource = r.resource()?;
        let last_change = r.revision()?;
        let mut namespace: Arc<str> = "".into();
        for _ in 0..r.number()? {
            namespace = shared(namespace, r.text()?);
            let key = ObjectKey { resource: resource.clone(), namespace: namespace.clone(), name: r.text()?.into() };
            root.put(read_object(r, key)?, last_change);
        }
        root.touch(&resource, last_change);
    }
    Ok(root)
}

/// Objects of a namespace follow each other and share its name.
fn shared(last: Arc<str>, text: &str) -> Arc<str> {
    if *last == *text { last } else { text.into() }
}

fn write_object(w: &mut Writer, object: &Object) {
    w.number(object.revision().0);
    w.attributes(object.attributes());
    w.bytes(object.body());
}

fn read_object(r: &mut Reader<'_>, key: ObjectKey) -> Result<Arc<Object>, Damage> {
    let (revision, attributes, body) = (r.revision()?, r.attributes()?, r.body()?);
    let object = Object::from_body(key, revision, body, attributes);
    object.map(Arc::new).map_err(|error| format!("{error}: {}", error.source).into())
}

fn write_window(w: &mut Writer, window: &Window) {
    let floors: Vec<_> = window.floors().collect();
    w.list(floors, |w, (resource, floor)| {
        w.resource(resource);
        w.number(floor.0);
    });
    let steps = window.steps();
    w.length(steps.len() - 1);
    for index in (1..steps.len()).rev() {
        let (before, step) = (&steps[index - 1], &steps[index]);
        w.number(step.root.revision.0);
        w.signed(step.time.as_nanos());
        let objects: Vec<_> = window.changes_of(step).filter_map(Change::object).collect();
        w.list(objects, |w, object| {
            w.key(object.key());
            w.option(before.root.object(object.key()), |w, old| write_object(w, old));
        });
    }
    if let Some(oldest) = steps.front() {
        w.number(oldest.root.revision.0);
        w.signed(oldest.time.as_nanos());
    }
}

/// A step that was undone: what it changed and what it put in place.
struct Undone {
    revision: Revision,
    time: Timestamp,
    changed: Vec<(ObjectKey, Option<Arc<Object>>)>,
}

/// Undoes from the newest root to the oldest, and does it all again on a new window.
fn read_window(r: &mut Reader<'_>, newest: Root) -> Result<Window, Damage> {
    let floors = r.list(|r| Ok((r.resource()?, r.revision()?)))?;
    let mut root = newest;
    let mut undone = Vec::new();
    for _ in 0..r.number()? {
        let revision = r.revision()?;
        if revision != root.revision {
            return Err(format!("the window has revision {revision} where {} is next", root.revision).into());
        }
        let time = Timestamp::from_nanos(r.signed()?);
        let changed = r.list(|r| undo(r, &mut root, &floors))?;
        undone.push(Undone { revision, time, changed });
        // Revisions follow each other: only a bump leaves a gap, and it empties the window.
        root.revision = Revision(revision.0.checked_sub(1).ok_or("the window goes back too far")?);
    }
    if r.revision()? != root.revision {
        return Err(format!("the window does not start at revision {}", root.revision).into());
    }
    let time = Timestamp::from_nanos(r.signed()?);
    let compacted = root.compacted;
    let mut window = Window::starting_at(Arc::new(root.clone()), time, compacted);
    for (resource, floor) in &floors {
        window.raise_floor(resource, *floor);
    }
    for Undone { revision, time, changed } in undone.into_iter().rev() {
        root.revision = revision;
        let changes = changed.into_iter().map(|(key, new)| redo(&mut root, revision, &key, new)).collect();
        window.push(time, Arc::new(root.clone()), changes);
    }
    Ok(window)
}

fn undo(
    r: &mut Reader<'_>,
    root: &mut Root,
    floors: &[(GroupResource, Revision)],
) -> Result<(ObjectKey, Option<Arc<Object>>), Damage> {
    let key = r.key()?;
    let old = r.option(|r| read_object(r, key.clone()))?;
    let floor = floors.iter().find(|(resource, _)| *resource == key.resource).map_or(Revision(0), |(_, floor)| *floor);
    let before = floor.max(root.compacted);
    let new = match old {
        Some(old) => root.put(old, before),
        None => Some(root.remove(&key, before).ok_or_else(|| format!("nothing happened to {key}"))?),
    };
    Ok((key, new))
}

fn redo(root: &mut Root, revision: Revision, key: &ObjectKey, new: Option<Arc<Object>>) -> Change {
    match new {
        Some(new) => Change { revision, old: root.put(new.clone(), revision), new: Some(new) },
        None => match root.remove(key, revision) {
            Some(old) => Change::deletion(&old, revision),
            None => Change { revision, old: None, new: None },
        },
    }
}
