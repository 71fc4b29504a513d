//! libFuzzer around [`bufferevent_fuzz::tls`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bufferevent_fuzz::tls::run(data));
