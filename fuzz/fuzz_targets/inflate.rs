//! libFuzzer around [`bufferevent_fuzz::inflate`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bufferevent_fuzz::inflate::run(data));
