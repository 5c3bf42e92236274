//! Fuzzes the loader of safetensors files.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sketchkv_fuzz::safetensors(data));
