//! The rows to prove: the ids of the specification and of the list of faults, each with a short title.
//!
//! Data and nothing else. Tests name these ids at run time (`spec!(B1)`, `fault!(F1)`); a record of an
//! id that is not here is refused, so a slip of the pen cannot count as a proof.
//!
//! # Invariants
//! - Ids are unique within a book; both books have an `F1`.
//! - [`Scope::Later`] rows belong to crates that do not exist yet, or to checks that an ordinary run cannot make, as they say. They are listed and
//!   never counted as missing.

/// Which list an id belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Book {
    /// What a bufferevent does.
    Spec,
    /// What it survives.
    Faults,
}

impl Book {
    /// Its name in records and on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Spec => "spec",
            Self::Faults => "faults",
        }
    }

    pub(crate) fn rows(self) -> &'static [Row] {
        match self {
            Self::Spec => SPEC,
            Self::Faults => FAULTS,
        }
    }

    pub(crate) fn row(self, id: &str) -> Option<&'static Row> {
        self.rows().iter().find(|row| row.id == id)
    }
}

/// Whether a row must be proved today.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Scope {
    Now,
    Later,
}

/// One row to prove.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) scope: Scope,
}

const fn now(id: &'static str, title: &'static str) -> Row {
    Row {
        id,
        title,
        scope: Scope::Now,
    }
}

const fn later(id: &'static str, title: &'static str) -> Row {
    Row {
        id,
        title,
        scope: Scope::Later,
    }
}

const SPEC: &[Row] = &[
    now("A1", "a transport, an input and an output buffer"),
    now("A2", "one trait object for every type"),
    now("A3", "input only removes, output only adds"),
    now("A4", "adding and draining restart the stopped side"),
    now(
        "A5",
        "loop, layer below, descriptor and addresses can be asked for",
    ),
    now("A6", "born writing enabled, reading disabled"),
    now(
        "C1",
        "callbacks share one handler and can be replaced anywhere",
    ),
    now("C2", "read low-water decides when the read callback runs"),
    now("C3", "read high-water stops reading and restarts it"),
    now("C4", "write low-water, and the writer's start"),
    now("C5", "write high-water bounds what a layer above may add"),
    now("C6", "event flags, the error itself, the deadline's name"),
    now("C7", "EOF once, earlier data readable, writing goes on"),
    now("C8", "error and timeout disable their direction first"),
    now("C9", "no callback lost, none without its condition"),
    now("C10", "callbacks triggered by hand"),
    now("C11", "the order of one delivery round"),
    now("O1", "what free closes and what survives it"),
    now("O2", "use from any thread, or refused"),
    now("O3", "deferred callbacks run from the loop"),
    now("O4", "the lock released while a callback runs"),
    now("O5", "no cycle of callbacks grows the stack"),
    now(
        "S1",
        "from a connected socket or none; wrong sockets refused",
    ),
    now(
        "S2",
        "connect: one CONNECTED or one ERROR, never from inside",
    ),
    now(
        "S3",
        "connected by hand: one write callback, CONNECTED on request",
    ),
    now("S4", "connect by name"),
    now("S5", "descriptor and priority can be set and replaced"),
    now("S6", "vectored I/O, bounded for each turn"),
    now("S7", "listener survives exhaustion, can be paused"),
    now("S8", "Unix-domain sockets too"),
    now(
        "G1",
        "free is safe anywhere; a busy one stays alive by itself",
    ),
    now("G2", "enable and disable by direction"),
    now("G3", "marks change at once; low above high refused"),
    now("G4", "read and write, bytes or whole buffers"),
    now("G5", "timeouts count only while progress is wanted"),
    now("G6", "flush in three modes on every type"),
    now("G7", "one recursive lock over a whole stack"),
    now("G8", "graceful close with a deadline"),
    now("F1", "a filter: limits, verdicts, wants"),
    now("F2", "filters stack, limits hold"),
    now("F3", "no byte stays stuck in a layer"),
    now("F4", "filter errors after the bytes before them"),
    now("F5", "zlib, deflate and gzip"),
    now("F6", "TLS over any bufferevent"),
    now("F7", "layers put on and taken off live"),
    now("P1", "written here, read there, moved and not copied"),
    now("P2", "marks, directions, flush and free cross the pair"),
    now("P3", "no descriptor, virtual clock"),
    // One half of it is completion ports: asked for by `cargo xtask ci` on Windows, and by `cargo xtask windows` under Wine. No run on Linux alone
    // proves the whole sentence; its other half is I3 there, over io_uring and the fake driver.
    later("I1", "the same trait over completions"),
    now("I2", "lent buffers outlive their operation"),
    now("I3", "the completion type passes the suite"),
    now("R1", "rate limits and groups"),
    now("B1", "a queue of segments and its operations"),
    now("B2", "moves, references and file regions without copying"),
    now("B3", "search and lines across segments"),
    now("B4", "change callbacks and frozen ends"),
    now("B5", "vectored I/O and the standard traits"),
    now("B6", "an empty buffer holds nothing"),
    now("L1", "backends by name behind one trait"),
    now(
        "L2",
        "timers, signals, priorities, modes, wake-ups, statistics",
    ),
    now("L3", "a replaceable clock"),
];

const FAULTS: &[Row] = &[
    now("F1", "add of an impossible length"),
    now("F2", "expand, prepend and reserve that wrap"),
    now("F3", "commit after another operation"),
    now("F4", "commit of too much, nothing, or foreign room"),
    now("F5", "drain past the end, and of a pinned chain"),
    now("F6", "pull up nothing, all and more over 10,000 segments"),
    now("F7", "prepend nothing, remove one, add"),
    now("F8", "empty reference, then a move"),
    now("F9", "a buffer moved onto itself"),
    now("F10", "buffer references that are empty or circular"),
    now("F11", "a frozen or pinned end that is changed"),
    now("F12", "search from a stale or outlying position"),
    now("F13", "a release that re-enters its buffer"),
    now("F14", "file regions: short, truncated, overflowing"),
    now("F15", "a callback that removes itself or adds"),
    now("F16", "a buffer whose bufferevent is gone"),
    now("F17", "lines with NUL, and one of 64 MiB without an end"),
    now("F18", "reset while reading and while output waits"),
    now("F19", "half-close on either side"),
    now("F20", "accept out of descriptors"),
    now("F21", "accept of a connection that is gone"),
    now("F22", "a storm of would-block"),
    now("F23", "every system call interrupted"),
    now("F24", "one byte at a time"),
    now("F25", "a window that stays closed"),
    now("F26", "connection refused, at once and later"),
    now("F27", "connect into a black hole"),
    now("F28", "no route, no address, no port left"),
    now("F29", "hang-up without readable"),
    now("F30", "a descriptor closed or reused behind our back"),
    now("F31", "send out of memory"),
    now("F32", "a socket destroyed from outside"),
    now("F33", "path MTU black hole, heavy loss"),
    now("F34", "the peer speaks before CONNECTED"),
    now("F35", "EOF before CONNECTED"),
    now("F36", "Unix-domain path gone, stale, too long"),
    now("F37", "urgent data; data with FIN, RST or OOB in one event"),
    now("F38", "TLS: garbage first"),
    now("F39", "TLS: hello in single bytes"),
    now("F40", "TLS: handshake cut at every byte"),
    now("F41", "TLS: close_notify after hello"),
    now("F42", "TLS: FIN without close_notify"),
    now("F43", "TLS: reset for close_notify"),
    now("F44", "TLS: certificates that must not pass"),
    now("F45", "TLS: server names"),
    now("F46", "TLS: nothing in common"),
    now("F47", "TLS: client certificate absent or bad"),
    now("F48", "TLS: record too long"),
    now("F49", "TLS: handshake message and chain too long"),
    now("F50", "TLS: handshake stalls"),
    now("F51", "TLS: flood of one-byte records"),
    now("F52", "TLS: flood of empty records"),
    now("F53", "TLS: flood of control messages"),
    now("F54", "TLS: bad MAC in mid-stream"),
    now("F55", "TLS: writes before the handshake is done"),
    now("F56", "TLS: free in mid-handshake"),
    now("F57", "TLS: data after close_notify"),
    now("F58", "TLS: 50,000 handshakes in a row"),
    now("F59", "TLS over a filter over a pair, every free order"),
    now("F60", "zlib: a thousandfold bomb"),
    now("F61", "zlib: nested stream"),
    now("F62", "zlib: garbage, bad checksum, bad dictionary"),
    now("F63", "zlib: cut at every byte"),
    now("F64", "zlib: trailing bytes"),
    now("F65", "zlib: concatenated members"),
    now("F66", "zlib: storm of empty blocks"),
    now("F67", "zlib: output exactly full, trailer twice"),
    now("F68", "zlib: finish towards a blocked peer"),
    now("F69", "zlib: stuck data moves after a pause"),
    now("F70", "zlib: limit reached in mid-block"),
    now("F71", "DNS: the failures"),
    now("F72", "DNS: silent, flapping, late"),
    now("F73", "DNS: compression pointers"),
    now("F74", "DNS: alias loops and chains"),
    now("F75", "DNS: truncation and TCP"),
    now("F76", "DNS: answers that do not belong"),
    now("F77", "DNS: malformed answers"),
    now("F78", "DNS: huge answers"),
    now("F79", "DNS: names that are none"),
    now("F80", "DNS: free with a query pending"),
    now("F81", "DNS: odd configuration files"),
    now("F82", "DNS: one family silent"),
    now("F83", "free of self, peer, layer and loop in each callback"),
    now("F84", "re-entry of every operation, a million deep"),
    now("F85", "a panic in a callback"),
    now("F86", "free on another thread with deferred work"),
    now("F87", "locks taken in both orders"),
    now("F88", "unlocked callbacks without deferral"),
    now("F89", "signals and fork in mid-loop"),
    now(
        "F90",
        "handles dropped or leaked with completions in flight",
    ),
    now("F91", "9,000 slow readers on a budget"),
    now("F92", "9,000 dribblers"),
    now("F93", "allocation of a segment fails"),
    now("F94", "a million timers"),
    now("F95", "clocks that jump"),
    now("F96", "odd rate limits"),
    now("F97", "command line: wrong use ends in one line"),
    now("F98", "command line: signals, full logs, no upstream"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn series(rows: &[Row], letter: &str) -> usize {
        rows.iter()
            .filter(|row| {
                row.id
                    .strip_prefix(letter)
                    .is_some_and(|n| n.parse::<u8>().is_ok())
            })
            .count()
    }

    #[test]
    fn ids_are_unique_and_every_series_is_whole() {
        for book in [Book::Spec, Book::Faults] {
            for (at, row) in book.rows().iter().enumerate() {
                assert!(
                    book.rows()[..at].iter().all(|before| before.id != row.id),
                    "{} twice",
                    row.id
                );
                assert_eq!(book.row(row.id).unwrap().title, row.title);
            }
        }
        let lengths = [
            ("A", 6),
            ("C", 11),
            ("O", 5),
            ("S", 8),
            ("G", 8),
            ("F", 7),
            ("P", 3),
            ("I", 3),
            ("B", 6),
            ("L", 3),
        ];
        for (letter, length) in lengths {
            assert_eq!(series(SPEC, letter), length, "rows {letter}");
        }
        assert_eq!(series(FAULTS, "F"), 98);
    }
}
