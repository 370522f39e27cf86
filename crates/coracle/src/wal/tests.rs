//! What was written is read again, and what is damaged, mixed up or of another version is refused.

use coracle_raft::{LogEntry, Membership};

use super::*;

fn directory() -> (tempfile::TempDir, DataDirectory) {
    let folder = tempfile::tempdir().unwrap();
    let directory = DataDirectory::open(folder.path(), None).unwrap();
    (folder, directory)
}

fn entry(index: u64, data: &'static str) -> LogEntry {
    // Of what an entry carries only the version is looked at here.
    LogEntry { index, term: 1, data: [b"\x01", data.as_bytes()].concat().into(), ..LogEntry::default() }
}

fn batch(entries: Vec<LogEntry>) -> WalBatch {
    let commit = entries.last().map_or(0, |entry| entry.index);
    WalBatch { entries, hard_state: Some(HardState { term: 1, vote: 1, commit }), ..WalBatch::default() }
}

#[test]
fn what_was_committed_is_found_again() {
    let (_folder, directory) = directory();
    let mut found = open(&directory, None, &StoreOptions::default()).unwrap();
    assert!(found.raft.is_none());
    let batches = [batch(vec![entry(1, "a"), entry(2, "b")]), batch(vec![entry(2, "c"), entry(3, "d")])];
    found.log.commit(directory.sealer(), &batches).unwrap();
    drop(found);
    let found = open(&directory, None, &StoreOptions::default()).unwrap();
    assert_eq!(found.raft.unwrap().entries, [entry(1, "a"), entry(2, "c"), entry(3, "d")]);
}

#[test]
fn a_log_comes_to_what_its_batches_say() {
    let (_folder, directory) = directory();
    let found = open(&directory, None, &StoreOptions::default()).unwrap();
    let mark = SnapshotMark { index: 7, term: 1 };
    let membership = Membership { learners: vec![MemberId(4)], ..Membership::of_voters(&[MemberId(1)]) };
    let change = LogEntry { kind: EntryKind::Membership, ..entry(4, "\0\x01\x01\0") };
    let batches = [
        batch(vec![entry(1, "a"), entry(2, "b")]),
        batch(vec![entry(2, "c"), entry(3, "d"), change]),
        WalBatch {
            compact_to: Some(2),
            snapshot: Some(SnapshotPointer {
                mark: SnapshotMark { index: 2, term: 1 },
                membership: membership.clone(),
            }),
            ..batch(Vec::new())
        },
        WalBatch {
            restart: true,
            snapshot: Some(SnapshotPointer { mark, membership }),
            ..batch(vec![entry(8, "e"), entry(9, "f")])
        },
    ];
    let mut expected = Restored::default();
    save_snapshot(&directory, 2, &Store::new(StoreOptions::default()).view()).unwrap();
    save_snapshot(&directory, 7, &Store::new(StoreOptions::default()).view()).unwrap();
    let mut log = found.log;
    for batch in batches {
        log.commit(directory.sealer(), std::slice::from_ref(&batch)).unwrap();
        expected.write(batch);
        expected.hard_state.commit = expected.hard_state.commit.max(expected.snapshot.mark.index);
        drop(log);
        let found = open(&directory, None, &StoreOptions::default()).unwrap();
        let mut raft = found.raft.unwrap();
        raft.hard_state.commit = raft.hard_state.commit.max(raft.snapshot.mark.index);
        assert_eq!(raft, expected);
        log = found.log;
    }
}

#[test]
fn what_is_no_longer_needed_leaves_the_file_and_what_is_stays() {
    let (_folder, directory) = directory();
    let mut log = open(&directory, None, &StoreOptions::default()).unwrap().log;
    save_snapshot(&directory, 992, &Store::new(StoreOptions::default()).view()).unwrap();
    let mut expected = Restored::default();
    let mut write = |log: &mut LogFile, batch: WalBatch| {
        log.commit(directory.sealer(), std::slice::from_ref(&batch)).unwrap();
        expected.write(batch);
        expected.clone()
    };
    for index in (1..=1000).step_by(4) {
        write(&mut log, batch((index..index + 4).map(|index| entry(index, "something to keep")).collect()));
    }
    let path = directory.path().join(LOG);
    let before = fs::metadata(&path).unwrap().len();
    let mark = SnapshotMark { index: 992, term: 1 };
    let membership = Membership::of_voters(&[MemberId(1)]);
    let saved =
        WalBatch { snapshot: Some(SnapshotPointer { mark, membership }), compact_to: Some(990), ..WalBatch::default() };
    write(&mut log, saved);
    assert!(fs::metadata(&path).unwrap().len() < before / 10, "a tenth of it is left");
    // A new leader replaces what was not committed, before and behind where the log begins now.
    let state = HardState { term: 2, vote: 0, commit: 992 };
    let later = |index| LogEntry { term: 2, ..entry(index, "of another leader") };
    let expected = write(&mut log, WalBatch { hard_state: Some(state), ..batch(vec![later(995), later(996)]) });
    assert_eq!(expected.entries.len(), 6);
    for _ in 0..2 {
        drop(log);
        let found = open(&directory, None, &StoreOptions::default()).unwrap();
        let raft = found.raft.unwrap();
        assert_eq!((raft.base, &raft.entries, &raft.snapshot), (expected.base, &expected.entries, &expected.snapshot));
        log = found.log;
    }
}

#[test]
fn what_a_later_leader_took_back_does_not_come_again_when_the_log_begins_behind_it() {
    let (_folder, directory) = directory();
    let mut log = open(&directory, None, &StoreOptions::default()).unwrap().log;
    let older = (1..=10).map(|index| entry(index, "old")).collect();
    let newer = vec![LogEntry { term: 2, ..entry(8, "new") }, LogEntry { term: 2, ..entry(9, "new") }];
    for batch in [batch(older), WalBatch { entries: newer, ..WalBatch::default() }] {
        log.commit(directory.sealer(), &[batch]).unwrap();
    }
    let state = HardState { term: 2, vote: 0, commit: 9 };
    let compacted = WalBatch { compact_to: Some(9), hard_state: Some(state), ..WalBatch::default() };
    log.commit(directory.sealer(), &[compacted]).unwrap();
    drop(log);
    let mut log = lock(&directory).unwrap();
    let raft = contents(&mut log, &directory).unwrap().unwrap().log;
    assert_eq!((raft.base, raft.entries), (SnapshotMark { index: 9, term: 2 }, Vec::new()));
}

#[test]
fn a_write_that_a_crash_cut_short_is_passed_over_wherever_it_was_cut() {
    let (_folder, directory) = directory();
    let path = directory.path().join(LOG);
    let mut log = open(&directory, None, &StoreOptions::default()).unwrap().log;
    log.commit(directory.sealer(), &[batch(vec![entry(1, "kept")])]).unwrap();
    let used = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let before = used(&fs::read(&path).unwrap()).next_multiple_of(8);
    log.commit(
        directory.sealer(),
        &[batch(vec![entry(2, "perhaps"), entry(3, "more than a sector".repeat(100).leak())])],
    )
    .unwrap();
    drop(log);
    let whole = fs::read(&path).unwrap();
    let end = used(&whole);
    let is_cut = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let found = open(&directory, None, &StoreOptions::default()).unwrap();
        let (raft, mut log) = (found.raft.unwrap(), found.log);
        assert_eq!(raft.entries, [entry(1, "kept")]);
        // What comes next takes its place.
        log.commit(directory.sealer(), &[batch(vec![entry(2, "instead")])]).unwrap();
        drop(log);
        let found = open(&directory, None, &StoreOptions::default()).unwrap();
        assert_eq!(found.raft.unwrap().entries, [entry(1, "kept"), entry(2, "instead")]);
    };
    // The file ends in the middle of it.
    for length in (before..end).step_by(97) {
        is_cut(&whole[..length]);
    }
    // Some of its sectors did not get there.
    for sector in before / 512..end / 512 {
        let mut cut = whole.clone();
        cut[(sector * 512).max(before)..(sector + 1) * 512].fill(0);
        is_cut(&cut);
    }
}

#[test]
fn a_log_of_another_format_is_refused_with_a_sentence() {
    for (format, words) in [(1_u8, "an unreleased version"), (4, "an unreleased version"), (6, "a newer version")] {
        let (_folder, directory) = directory();
        let mut found = open(&directory, None, &StoreOptions::default()).unwrap();
        found.log.commit(directory.sealer(), &[batch(vec![entry(1, "a")])]).unwrap();
        drop(found);
        let path = directory.path().join(LOG);
        let mut bytes = fs::read(&path).unwrap();
        bytes[7] = format;
        fs::write(&path, bytes).unwrap();
        let error = open(&directory, None, &StoreOptions::default()).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn only_the_user_may_read_what_may_hold_secrets() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_folder, directory) = directory();
    let mut found = open(&directory, None, &StoreOptions::default()).unwrap();
    found.log.commit(directory.sealer(), &[batch(vec![entry(1, "a")])]).unwrap();
    save_snapshot(&directory, 2, &Store::new(StoreOptions::default()).view()).unwrap();
    for path in [directory.path().join("raft.log"), directory.path().join(snapshot_file(2))] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn after_a_rotation_everything_is_read_with_the_new_key_alone() {
    let (folder, directory) = directory();
    let mut found = open(&directory, None, &StoreOptions::default()).unwrap();
    found.log.commit(directory.sealer(), &[batch(vec![entry(1, "a"), entry(2, "b")])]).unwrap();
    save_snapshot(&directory, 1, &Store::new(StoreOptions::default()).view()).unwrap();
    directory.kept("ca.key", || Ok("secret".into())).unwrap();
    let in_use = crate::rotate_keys(folder.path()).unwrap_err();
    assert!(in_use.to_string().ends_with("is in use by another process"), "{in_use}");
    drop(found);
    crate::rotate_keys(folder.path()).unwrap();
    let rotated = DataDirectory::open(folder.path(), None).unwrap();
    let found = open(&rotated, None, &StoreOptions::default()).unwrap();
    assert_eq!(found.raft.unwrap().entries, [entry(1, "a"), entry(2, "b")]);
    load_snapshot(&rotated, 1, &StoreOptions::default()).unwrap();
    assert_eq!(rotated.read("ca.key").unwrap().unwrap(), b"secret");
    assert!(directory.read("ca.key").is_err(), "the old key opens nothing any more");
}

#[test]
fn a_directory_in_use_is_said_to_be_so() {
    let (_folder, directory) = directory();
    let _found = open(&directory, None, &StoreOptions::default()).unwrap();
    let error = open(&directory, None, &StoreOptions::default()).unwrap_err();
    assert!(error.to_string().ends_with("is in use by another process"), "{error}");
}

#[test]
fn a_snapshot_stands_for_the_log_before_it() {
    let (_folder, directory) = directory();
    let store = Store::new(StoreOptions::default());
    save_snapshot(&directory, 2, &store.view()).unwrap();
    let mut found = open(&directory, None, &StoreOptions::default()).unwrap();
    found.log.commit(directory.sealer(), &[batch(vec![entry(1, "a"), entry(2, "b"), entry(3, "c")])]).unwrap();
    let mark = SnapshotMark { index: 2, term: 1 };
    let pointer = SnapshotPointer { mark, membership: Membership::of_voters(&[MemberId(1)]) };
    let compacted = WalBatch { snapshot: Some(pointer.clone()), compact_to: Some(2), ..WalBatch::default() };
    found.log.commit(directory.sealer(), &[compacted]).unwrap();
    drop(found);
    let found = open(&directory, None, &StoreOptions::default()).unwrap();
    assert!(found.store.is_some());
    let raft = found.raft.unwrap();
    assert_eq!((raft.base, raft.snapshot, raft.entries), (mark, pointer, vec![entry(3, "c")]));
    let path = directory.path().join(snapshot_file(2));
    fs::write(&path, b"short").unwrap();
    let error = load_snapshot(&directory, 2, &StoreOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot open {}", path.display()));
}

#[test]
fn what_is_on_disk_tells_nothing_and_a_changed_entry_is_noticed() {
    let (_folder, directory) = directory();
    let mut found = open(&directory, None, &StoreOptions::default()).unwrap();
    found.log.commit(directory.sealer(), &[batch(vec![entry(1, "a Secret")])]).unwrap();
    drop(found);
    let path = directory.path().join(LOG);
    let mut bytes = fs::read(&path).unwrap();
    assert!(!bytes.windows(8).any(|window| window == b"a Secret"));
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[last - 8] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = open(&directory, None, &StoreOptions::default()).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("record 2 cannot be opened: it is damaged"), "{cause}");
}

#[test]
fn a_bit_flipped_anywhere_in_the_file_is_an_error_or_nothing() {
    let (_folder, directory) = directory();
    prepare(&directory, MemberId(1), Life::New).unwrap();
    let mut found = open(&directory, Some(MemberId(1)), &StoreOptions::default()).unwrap();
    let entries: Vec<LogEntry> = (1..40).map(|index| entry(index, "something to keep")).collect();
    for chunk in entries.chunks(7) {
        found.log.commit(directory.sealer(), &[batch(chunk.to_vec())]).unwrap();
    }
    drop(found);
    let expected = open(&directory, None, &StoreOptions::default()).unwrap().raft.unwrap();
    let path = directory.path().join(LOG);
    let good = fs::read(&path).unwrap();
    let used = good.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
    let mut rng = coracle_base::Rng::seeded(1);
    let mut noticed = 0;
    for _ in 0..400 {
        let mut bad = good.clone();
        // Behind the records there is mostly nothing.
        let within = if rng.below(4) == 0 { good.len() as u64 } else { used };
        let position = rng.below(within) as usize;
        bad[position] ^= 1 << rng.below(8);
        fs::write(&path, &bad).unwrap();
        match open(&directory, Some(MemberId(1)), &StoreOptions::default()) {
            Ok(found) => assert_eq!(found.raft.unwrap(), expected, "byte {position}"),
            Err(error) => {
                assert!(error.to_string().contains("raft.log"), "byte {position}: {error}");
                noticed += 1;
            }
        }
    }
    assert!(noticed > 200, "{noticed} of the flips hit something");
}

#[test]
fn a_log_that_is_missing_empty_or_without_its_keys_is_not_made_anew() {
    let (_folder, directory) = directory();
    let path = directory.path().join(LOG);
    let known = |life| prepare(&directory, MemberId(1), life).map_err(|error| error.to_string());
    let back = "put it back from its copy";
    assert_eq!(known(Life::Known), Err(format!("{} is missing: {back}", path.display())));
    known(Life::New).unwrap();
    known(Life::Known).unwrap();
    known(Life::New).unwrap();
    let mut found = open(&directory, Some(MemberId(1)), &StoreOptions::default()).unwrap();
    found.log.commit(directory.sealer(), &[batch(vec![entry(1, "a")])]).unwrap();
    drop(found);
    let keys = known(Life::New).unwrap_err();
    assert!(keys.ends_with("ca.key back from its copy"), "{keys}");
    fs::write(&path, b"").unwrap();
    assert_eq!(known(Life::Known), Err(format!("{} is empty: {back}", path.display())));
}

#[test]
fn the_log_of_another_member_is_refused() {
    let (_folder, directory) = directory();
    prepare(&directory, MemberId(2), Life::New).unwrap();
    let error = open(&directory, Some(MemberId(1)), &StoreOptions::default()).unwrap_err();
    assert!(
        error.to_string().ends_with("is the log of member 2, not of member 1: directories were mixed up"),
        "{error}"
    );
    assert_eq!(open(&directory, None, &StoreOptions::default()).unwrap().member, Some(MemberId(2)));
}

#[test]
fn an_entry_of_a_newer_version_is_refused_before_anything_is_applied() {
    let (_folder, directory) = directory();
    let mut found = open(&directory, None, &StoreOptions::default()).unwrap();
    let newer = LogEntry { data: Bytes::from_static(&[9, 1, 2, 3]), ..entry(1, "") };
    found.log.commit(directory.sealer(), &[batch(vec![newer])]).unwrap();
    drop(found);
    let error = open(&directory, None, &StoreOptions::default()).unwrap_err();
    assert!(error.to_string().ends_with("has entry 1 of another version"), "{error}");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("format version is 9"));
}
