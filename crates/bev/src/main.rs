//! Relay, cat and echo for TCP and Unix-domain sockets, built on bufferevents.
fn main() {}
