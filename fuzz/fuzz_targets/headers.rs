//! Any bytes as headers: `cargo +nightly fuzz run headers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tower_ploton::fuzzing::headers(input));
