//! The bufferevent trait object and all that every type of bufferevent shares: watermarks, callbacks, timeouts, close.
