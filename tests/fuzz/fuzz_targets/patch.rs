//! See `coracle_fuzz::patch`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: coracle_fuzz::plant("patch", &coracle_fuzz::patch::seeds()),
    |bytes: &[u8]| coracle_fuzz::patch::run(bytes)
);
