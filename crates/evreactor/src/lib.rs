//! An event loop over mio or polling, chosen at run time: edge-triggered readiness, timers, signals, priorities.
