//! See `coracle_fuzz::protobuf`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: coracle_fuzz::plant("protobuf", &coracle_fuzz::protobuf::seeds()),
    |bytes: &[u8]| coracle_fuzz::protobuf::run(bytes)
);
