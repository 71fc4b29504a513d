//! The code blocks of the READMEs and of the book in `docs/`, as tests.
//!
//! Compiled for documentation tests alone: a package on its own has neither file. `tests/book.rs` sees to it that no page
//! with code is missing here.

macro_rules! pages {
    ($($name:ident: $path:literal,)*) => {
        $(
            #[doc = include_str!($path)]
            pub struct $name;
        )*
    };
}

pages! {
    Readme: "../../../README.md",
    CrateReadme: "../README.md",
    Introduction: "../../../docs/introduction.md",
    Anatomy: "../../../docs/concepts/anatomy.md",
    CallbacksAndWatermarks: "../../../docs/concepts/callbacks.md",
    EventsAndEnds: "../../../docs/concepts/events.md",
    Lifetimes: "../../../docs/concepts/lifetimes.md",
    Threads: "../../../docs/concepts/threads.md",
    Echo: "../../../docs/guide/echo.md",
    Connect: "../../../docs/guide/connect.md",
    ByName: "../../../docs/guide/by-name.md",
    BackPressure: "../../../docs/guide/back-pressure.md",
    Timeouts: "../../../docs/guide/timeouts.md",
    RateLimits: "../../../docs/guide/rate-limits.md",
    Close: "../../../docs/guide/close.md",
    Filters: "../../../docs/guide/filters.md",
    WritingAFilter: "../../../docs/guide/writing-a-filter.md",
    Tls: "../../../docs/guide/tls.md",
    OwnLayer: "../../../docs/guide/own-layer.md",
    Testing: "../../../docs/guide/testing.md",
    Model: "../../../docs/guide/model.md",
    Backend: "../../../docs/guide/backend.md",
    Cores: "../../../docs/guide/cores.md",
    Async: "../../../docs/guide/async.md",
    Buffer: "../../../docs/guide/buffer.md",
}
