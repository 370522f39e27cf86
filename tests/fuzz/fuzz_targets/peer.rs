//! See `coracle_fuzz::peer`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: coracle_fuzz::plant("peer", &coracle_fuzz::peer::seeds()),
    |bytes: &[u8]| coracle_fuzz::peer::run(bytes)
);
