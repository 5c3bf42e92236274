//! Fuzzes the reader of sessions, and what goes on from them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sketchkv_fuzz::session(data));
