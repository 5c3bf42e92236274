//! Fuzzes the reader of saved caches, and the attention over what it read.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sketchkv_fuzz::cache(data));
