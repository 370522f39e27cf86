//! What is fuzzed: everything that reads bytes which others wrote, on disks, between members, or from users.
//!
//! Each target is a function that must not panic on any bytes; where something was read it must be writable again as it was. Targets
//! begin with seeds that the code itself makes, so that no corpus is kept here. `.ci/run` runs each for a minute; with cargo-fuzz it is
//! `cargo +nightly fuzz run peer --fuzz-dir tests/fuzz`.

pub mod log;
pub mod member;
pub mod patch;
pub mod peer;
pub mod protobuf;
pub mod snapshot;
pub mod text;

/// Where a target writes its seeds before it begins, each target into a folder of its own.
const SEEDS: &str = "CORACLE_FUZZ_SEEDS";

/// Writes the seeds of a target, where they are asked for: libFuzzer reads its folders after this.
pub fn plant(target: &str, seeds: &[Vec<u8>]) {
    let Some(folder) = std::env::var_os(SEEDS) else { return };
    let folder = std::path::Path::new(&folder).join(target);
    std::fs::create_dir_all(&folder).expect("the folder of seeds is made");
    for (number, seed) in seeds.iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{number}")), seed).expect("a seed is written");
    }
}

/// A transaction with something in each of its parts.
fn transaction(name: &str) -> coracle_store::Transaction {
    use coracle_api::resources::CONFIG_MAPS;
    use coracle_api::{Attributes, ObjectKey};
    use coracle_store::{Pool, Precondition, Render, Settlement, Transaction, Want, Write};
    let key = ObjectKey::new(CONFIG_MAPS, "default", name);
    let body = format!(r#"{{"metadata":{{"name":"{name}","namespace":"default","uid":"{name}"}},"data":{{"n":""}}}}"#);
    let allocate = Settlement::Allocate {
        pool: Pool { name: "numbers".into(), low: 1, high: 300 },
        owner: key.clone(),
        want: Want::Any,
        write: 0,
        pointers: vec!["/data/n".into()],
        render: Render::Ipv4,
        attribute: Some("n".into()),
    };
    Transaction {
        preconditions: vec![Precondition::Absent(key.clone())],
        writes: vec![Write::Put { key, body: body.into(), attributes: Attributes::from([("a".into(), "b".into())]) }],
        settlements: vec![allocate],
        term: None,
    }
}

/// An entry of such transactions.
fn entry(names: &[&str]) -> coracle_store::Entry {
    let transactions = names.iter().map(|name| transaction(name)).collect();
    coracle_store::Entry { time: coracle_base::Timestamp::from_secs(7), transactions }
}
