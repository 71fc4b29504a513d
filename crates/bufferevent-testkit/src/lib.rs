//! Virtual clock, scripted and faulty transports for bufferevent tests.
