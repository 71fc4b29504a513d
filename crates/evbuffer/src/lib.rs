//! libevent's evbuffer in Rust: a segmented byte queue that moves instead of copying.
