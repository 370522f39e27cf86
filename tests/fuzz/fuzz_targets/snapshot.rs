//! See `coracle_fuzz::snapshot`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: coracle_fuzz::plant("snapshot", &coracle_fuzz::snapshot::seeds()),
    |bytes: &[u8]| coracle_fuzz::snapshot::run(bytes)
);
