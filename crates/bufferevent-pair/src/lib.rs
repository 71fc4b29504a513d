//! Two bufferevents in memory, joined end to end.
