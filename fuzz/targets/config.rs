//! Fuzzes the reader of `config.json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sketchkv_fuzz::config(data));
