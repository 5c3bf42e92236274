//! Fuzzes the byte format of the sketches.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sketchkv_fuzz::sketch(data));
