//! Fuzzes the reader of saved caches.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sketchkv_fuzz::session(data));
