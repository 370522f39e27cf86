//! A backup is read as it was saved, by whom it was meant for, or not at all.

use coracle_store::{Store, StoreOptions};

use super::*;

fn source() -> (tempfile::TempDir, BackupSource) {
    let folder = tempfile::tempdir().unwrap();
    let sealer = Sealer::open_file(&folder.path().join("data.key"), true).unwrap();
    let identity = vec![("ca.key".to_owned(), "hush".to_owned())];
    (folder, BackupSource { identity, sealer: Some(sealer) })
}

fn saved(source: &BackupSource, passphrase: Option<&str>) -> Vec<u8> {
    let view = Store::new(StoreOptions::default()).view();
    source.save(&view, (7, 3), Timestamp::from_secs(1), passphrase).unwrap().flatten().collect()
}

fn opened(file: &[u8], key: &BackupKey) -> Result<Contents, String> {
    let (head, bytes, rest) = Head::decode(file).map_err(|error| error.to_string())?;
    let sealer = head.sealer(key).map_err(|error| error.to_string())?;
    open_contents(bytes, rest, &sealer).map_err(|error| error.to_string())
}

#[test]
fn what_was_saved_is_read_with_the_key_and_not_without() {
    let (folder, source) = source();
    let file = saved(&source, None);
    let contents = opened(&file, &BackupKey::Found).unwrap();
    assert_eq!((contents.index, contents.term, &contents.identity), (7, 3, &source.identity));
    Store::restore(StoreOptions::default(), &contents.state).unwrap();
    assert!(!file.windows(4).any(|window| window == b"hush"));
    let other = folder.path().join("other.key");
    Sealer::open_file(&other, true).unwrap();
    let error = opened(&file, &BackupKey::File(other)).unwrap_err();
    assert_eq!(error, "piece 0 cannot be opened");
    let error = opened(&file, &BackupKey::Passphrase("long enough".into())).unwrap_err();
    assert!(error.starts_with("the backup is sealed with the cluster's keys, not a passphrase"), "{error}");
    std::fs::remove_file(folder.path().join("data.key")).unwrap();
    let error = opened(&file, &BackupKey::Found).unwrap_err();
    assert!(error.ends_with("name a copy of that file"), "{error}");
}

#[test]
fn a_passphrase_opens_what_it_sealed() {
    let (_folder, source) = source();
    let file = saved(&source, Some("correct horse"));
    opened(&file, &BackupKey::Passphrase("correct horse".into())).unwrap();
    opened(&file, &BackupKey::Passphrase("correct house".into())).unwrap_err();
    let error = opened(&file, &BackupKey::Found).unwrap_err();
    assert_eq!(error, "the backup is sealed with a passphrase: give it");
    let in_memory = BackupSource { sealer: None, ..source };
    let view = Store::new(StoreOptions::default()).view();
    for (passphrase, why) in [(None, "has no key"), (Some("short"), "at least 8 bytes")] {
        let error = in_memory.save(&view, (1, 1), Timestamp::EPOCH, passphrase).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn a_flipped_bit_anywhere_a_missing_end_and_something_behind_it_are_noticed() {
    let (folder, source) = source();
    let key = BackupKey::File(folder.path().join("data.key"));
    let file = saved(&source, None);
    opened(&file, &key).unwrap();
    for index in 0..file.len() {
        let mut flipped = file.clone();
        flipped[index] ^= 1 << (index % 8);
        assert!(opened(&flipped, &key).is_err(), "byte {index}");
        assert!(opened(&file[..index], &key).is_err(), "{index} bytes");
    }
    let longer = [file.as_slice(), b"x"].concat();
    assert_eq!(opened(&longer, &key).unwrap_err(), "1 bytes follow its end");
}

#[test]
fn pieces_cannot_be_left_out_exchanged_or_taken_from_another_backup() {
    let (folder, source) = source();
    let key = BackupKey::File(folder.path().join("data.key"));
    let large = BackupSource { identity: vec![("a".into(), "x".repeat(3 * PIECE_BYTES))], ..source };
    let view = Store::new(StoreOptions::default()).view();
    let pieces = || -> Vec<Bytes> { large.save(&view, (1, 1), Timestamp::EPOCH, None).unwrap().collect() };
    let (good, other) = (pieces(), pieces());
    assert_eq!(good.len(), 5, "a head and four pieces");
    let reads = |pieces: &[&Bytes]| opened(&pieces.iter().flat_map(|piece| piece.to_vec()).collect::<Vec<_>>(), &key);
    let [head, a, b, c, d] = &good[..] else { unreachable!() };
    reads(&[head, a, b, c, d]).unwrap();
    for wrong in [vec![head, a, c, d], vec![head, b, a, c, d], vec![head, a, b, c], vec![head, a, &other[2], c, d]] {
        reads(&wrong).unwrap_err();
    }
    reads(&[&other[0], a, b, c, d]).unwrap_err();
}

#[test]
fn a_file_of_another_kind_or_of_a_newer_version_is_said_to_be_so() {
    let (_folder, source) = source();
    let mut file = saved(&source, None);
    file[MAGIC.len()] = FORMAT + 1;
    let error = opened(&file, &BackupKey::Found).unwrap_err();
    assert_eq!(error, "it was saved by a newer version of Coracle (format 2)");
    assert_eq!(opened(b"PK\x03\x04", &BackupKey::Found).unwrap_err(), "it is no backup of a cluster");
    assert_eq!(opened(b"", &BackupKey::Found).unwrap_err(), "it is no backup of a cluster");
}
