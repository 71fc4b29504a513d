//! libFuzzer around [`bufferevent_fuzz::evbuffer`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bufferevent_fuzz::evbuffer::run(data));
