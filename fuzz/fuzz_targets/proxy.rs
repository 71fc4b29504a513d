//! libFuzzer around [`bufferevent_fuzz::proxy`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bufferevent_fuzz::proxy::run(data));
