//! What a log on disk holds once it is unsealed: entries, the group, and whether a member can begin with all of it.

use bytes::Bytes;
use coracle_base::wire::{Damage, Reader, Writer};
use coracle_base::{Now, Rng};
use coracle_raft::{
    Config, EntryKind, HardState, Input, LogEntry, Member, MemberId, Membership, Output, Restored, SnapshotMark,
    SnapshotPointer,
};
use coracle_store::{Entry, Store, StoreOptions};

/// Entries are applied, and written again as the same. A log that is found sound is one that a member begins with.
pub fn run(bytes: &[u8]) {
    if let Ok(entry) = Entry::decode(bytes) {
        assert_eq!(Entry::decode(&entry.encode()).as_ref(), Ok(&entry));
        let mut store = Store::new(StoreOptions::default());
        store.apply(1, &entry);
        Store::restore(StoreOptions::default(), &store.view().snapshot()).expect("what was encoded is read");
    }
    if let Ok(membership) = Membership::decode(bytes) {
        assert_eq!(Membership::decode(&membership.encode()).as_ref(), Ok(&membership));
    }
    if let Ok(restored) = read(bytes) {
        begin(restored);
    }
}

fn begin(restored: Restored) {
    if restored.check().is_err() {
        return;
    }
    let mut store = Store::new(StoreOptions::default());
    let mut member = Member::new(Now::default(), Config::joining(MemberId(1)), Some(restored), Rng::seeded(1));
    let mut inputs = vec![Input::Tick];
    for _ in 0..100 {
        let Some(input) = inputs.pop() else { break };
        for output in member.step(Now::default(), input) {
            match output {
                Output::Persist(id, _) => inputs.push(Input::Persisted(id)),
                Output::Apply { term, data, .. } => {
                    if let Ok(entry) = Entry::decode(&data) {
                        store.apply(term, &entry);
                    }
                }
                _ => {}
            }
        }
    }
}

fn read(bytes: &[u8]) -> Result<Restored, Damage> {
    let r = &mut Reader::new(bytes);
    let hard_state = HardState { term: r.number()?, vote: r.number()?, commit: r.number()? };
    let mut mark = || Ok::<_, Damage>(SnapshotMark { index: r.number()?, term: r.number()? });
    let (snapshot, base) = (mark()?, mark()?);
    let membership = Membership::decode(r.bytes()?)?;
    let entries = r.list(|r| {
        let (index, term) = (r.number()?, r.number()?);
        let kind = EntryKind::from_number(r.byte()?).ok_or("no kind")?;
        Ok(LogEntry { index, term, kind, data: Bytes::copy_from_slice(r.bytes()?) })
    })?;
    Ok(Restored { hard_state, snapshot: SnapshotPointer { mark: snapshot, membership }, base, entries })
}

fn write(restored: &Restored) -> Vec<u8> {
    let mut w = Writer::default();
    let HardState { term, vote, commit } = restored.hard_state;
    let (snapshot, base) = (restored.snapshot.mark, restored.base);
    for number in [term, vote, commit, snapshot.index, snapshot.term, base.index, base.term] {
        w.number(number);
    }
    w.bytes(&restored.snapshot.membership.encode());
    w.list(&restored.entries, |w, entry| {
        w.number(entry.index);
        w.number(entry.term);
        w.byte(entry.kind.number());
        w.bytes(&entry.data);
    });
    w.finish()
}

/// An entry, a group, and logs of members that began and that had a snapshot.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut fresh = Restored::default();
    let mut member = Member::new(Now::default(), Config::single(MemberId(1)), None, Rng::seeded(1));
    let mut inputs = vec![Input::Tick, Input::Tick, Input::Tick];
    while let Some(input) = inputs.pop() {
        for output in member.step(Now::default(), input) {
            if let Output::Persist(id, batch) = output {
                fresh.write(batch);
                inputs.push(Input::Persisted(id));
            }
        }
    }
    let entry = crate::entry(&["a", "b"]).encode();
    let mark = SnapshotMark { index: 7, term: 2 };
    let behind = |index| LogEntry { index, term: 2, kind: EntryKind::Normal, data: entry.clone() };
    let saved = Restored {
        hard_state: HardState { term: 3, vote: 1, commit: 8 },
        snapshot: SnapshotPointer { mark, membership: Membership::of_voters(&[MemberId(1), MemberId(2)]) },
        base: mark,
        entries: vec![behind(8), behind(9)],
    };
    vec![entry.to_vec(), Membership::of_voters(&[MemberId(1)]).encode(), write(&fresh), write(&saved)]
}
