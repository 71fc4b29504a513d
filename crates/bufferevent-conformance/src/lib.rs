//! One conformance suite, run over every type of bufferevent and every backend.
