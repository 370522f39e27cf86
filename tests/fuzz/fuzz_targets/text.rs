//! See `coracle_fuzz::text`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: coracle_fuzz::plant("text", &coracle_fuzz::text::seeds()),
    |bytes: &[u8]| coracle_fuzz::text::run(bytes)
);
