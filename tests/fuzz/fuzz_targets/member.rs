//! See `coracle_fuzz::member`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: coracle_fuzz::plant("member", &coracle_fuzz::member::seeds()),
    |bytes: &[u8]| coracle_fuzz::member::run(bytes)
);
