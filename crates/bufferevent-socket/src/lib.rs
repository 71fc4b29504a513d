//! Bufferevents over TCP and Unix-domain sockets, and a listener.
