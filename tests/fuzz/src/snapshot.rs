//! The whole state in one piece. Its checksum is made right, so that what is behind it is looked at.

use coracle_store::{Store, StoreOptions};
use sha2::{Digest as _, Sha256};

/// The bytes that every snapshot begins with, version included, and its checksum.
const HEAD: &[u8] = b"coracle\0\x01";
const CHECKSUM: usize = 32;

/// What is read is written again and read once more, and takes entries.
pub fn run(bytes: &[u8]) {
    let _ = Store::restore(StoreOptions::default(), bytes);
    let mut snapshot = [HEAD, bytes].concat();
    let checksum = Sha256::digest(&snapshot);
    snapshot.extend_from_slice(&checksum);
    let Ok(mut store) = Store::restore(StoreOptions::default(), &snapshot) else { return };
    store.apply(1, &crate::entry(&["a", "z"]));
    let again = store.view().snapshot();
    let read = Store::restore(StoreOptions::default(), &again);
    // A state that could not come from transactions may be refused the second time, but not misread.
    if let Ok(read) = read {
        assert_eq!(read.view().digest(), store.view().digest());
    }
}

/// States with and without objects, without head and checksum.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut store = Store::new(StoreOptions::default());
    let mut seeds = vec![store.view().snapshot()];
    store.apply(1, &crate::entry(&["a"]));
    store.apply(1, &crate::entry(&["b", "c"]));
    seeds.push(store.view().snapshot());
    store.bump(1_000);
    seeds.push(store.view().snapshot());
    seeds.into_iter().map(|seed| seed[HEAD.len()..seed.len() - CHECKSUM].to_vec()).collect()
}
