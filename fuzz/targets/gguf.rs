//! Fuzzes the loader of GGUF files.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sketchkv_fuzz::gguf(data));
