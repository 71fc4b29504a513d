//! libevent's bufferevents in Rust: buffered I/O with watermarks, over sockets, pairs and stacks of layers.
