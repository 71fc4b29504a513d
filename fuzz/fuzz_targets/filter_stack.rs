//! libFuzzer around [`bufferevent_fuzz::filter_stack`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bufferevent_fuzz::filter_stack::run(data));
