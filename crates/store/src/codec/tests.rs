//! Damaged input is an error and nothing else.

use coracle_api::resources::{CONFIG_MAPS, NAMESPACES};
use coracle_base::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::{Entry, Pool, Precondition, Render, Settlement, Store, StoreOptions, Transaction, Want, Write};

/// An entry with one of everything.
fn entry() -> Entry {
    let key = ObjectKey::new(CONFIG_MAPS, "default", "a");
    let custom = GroupResource { group: "example.com".to_owned().into(), resource: "widgets".to_owned().into() };
    let allocate = |want, render, attribute: Option<&str>| Settlement::Allocate {
        pool: Pool { name: "numbers".into(), low: 0, high: u64::MAX },
        owner: key.clone(),
        want,
        write: 0,
        pointers: vec!["/data/n".into()],
        render,
        attribute: attribute.map(str::to_owned),
    };
    let put = |name: &str, key: &ObjectKey| Write::Put {
        key: key.clone(),
        body: format!(r#"{{"metadata":{{"name":"{name}","uid":"{name}"}}}}"#).into(),
        attributes: Attributes::from([("a".to_owned(), "b".to_owned())]),
    };
    let namespace = ObjectKey::new(NAMESPACES, "", "default");
    let everything = Transaction {
        preconditions: vec![Precondition::Absent(key.clone()), Precondition::At(namespace.clone(), Revision(1))],
        writes: vec![put("a", &key), Write::Delete { key: namespace.clone() }],
        settlements: vec![
            Settlement::NotTerminating(namespace.clone()),
            allocate(Want::Any, Render::Number, None),
            allocate(Want::Exactly(300), Render::Ipv4, Some("x")),
            allocate(Want::Exactly(512), Render::Ipv4Range(24), None),
            Settlement::Release { pool: "numbers".into(), owner: key.clone(), value: 7 },
        ],
        term: Some(3),
    };
    let first = Transaction {
        writes: vec![put("default", &namespace), put("w", &ObjectKey::new(custom, "default", "w"))],
        ..Transaction::default()
    };
    Entry { time: Timestamp::from_nanos(-5), transactions: vec![first, everything] }
}

fn snapshot() -> Vec<u8> {
    let mut store = Store::new(StoreOptions::default());
    assert!(store.apply(3, &entry()).iter().all(Result::is_ok));
    store.view().snapshot()
}

/// Puts a right checksum under content that is wrong.
fn sealed(mut content: Vec<u8>) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let checksum = Sha256::digest(&content);
    content.extend_from_slice(&checksum);
    content
}

#[test]
fn an_entry_is_read_as_it_was_written() {
    let entry = entry();
    assert_eq!(Entry::decode(&entry.encode()), Ok(entry));
}

#[test]
fn what_is_cut_off_anywhere_is_refused() {
    let entry = entry().encode();
    for length in 0..entry.len() {
        assert!(Entry::decode(&entry[..length]).is_err(), "{length} bytes of an entry");
    }
    let snapshot = snapshot();
    for length in 0..snapshot.len() {
        assert!(Store::restore(StoreOptions::default(), &snapshot[..length]).is_err(), "{length} bytes of a snapshot");
    }
}

#[test]
fn what_follows_the_end_is_refused() {
    let mut entry = entry().encode().to_vec();
    entry.push(0);
    assert_eq!(Entry::decode(&entry).unwrap_err().to_string(), "the entry cannot be read: 1 bytes are left over");
}

#[test]
fn another_version_is_named() {
    let mut bytes = entry().encode().to_vec();
    bytes[0] = 9;
    let error = Entry::decode(&bytes).unwrap_err();
    assert_eq!(error.to_string(), "the entry cannot be read: its format version is 9, not 1");
    let mut bytes = snapshot();
    bytes[8] = 9;
    let error = Store::restore(StoreOptions::default(), &bytes).unwrap_err();
    assert_eq!(error.to_string(), "the snapshot cannot be read: its format version is 9, not 1");
}

#[test]
fn a_flipped_bit_in_a_snapshot_is_found() {
    let good = snapshot();
    for index in 0..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 1 << (index % 8);
        assert!(Store::restore(StoreOptions::default(), &bad).is_err(), "byte {index}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_an_error_and_no_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Entry::decode(&bytes);
        assert!(Store::restore(StoreOptions::default(), &bytes).is_err());
        if let Some(first) = bytes.first_mut() {
            *first = 1;
        }
        let _ = Entry::decode(&bytes);
    }

    #[test]
    fn a_damaged_entry_is_an_error_or_another_entry(index in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = entry().encode().to_vec();
        *index.get_mut(&mut bytes) = byte;
        if let Ok(entry) = Entry::decode(&bytes) {
            // Whatever it says, applying it is no panic either.
            let _ = Store::new(StoreOptions::default()).apply(3, &entry);
        }
    }

    #[test]
    fn a_wrong_snapshot_with_a_right_checksum_is_no_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut content = snapshot();
        content.truncate(content.len() - 32);
        for (index, byte) in changes {
            let behind_header = &mut content[9..];
            *index.get_mut(behind_header) = byte;
        }
        if let Ok(mut store) = Store::restore(StoreOptions::default(), &sealed(content)) {
            let _ = store.apply(3, &entry());
            let _ = store.view().snapshot();
        }
    }
}
