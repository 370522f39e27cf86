//! See `coracle_fuzz::log`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: coracle_fuzz::plant("log", &coracle_fuzz::log::seeds()),
    |bytes: &[u8]| coracle_fuzz::log::run(bytes)
);
