//! `bev demo`: it checks what it says, and says what it did.

mod support;

use support::{BACKENDS, run};

#[test]
fn every_byte_comes_back_and_is_counted() {
    const BYTES: u64 = (4 << 20) + 3; // Not the same share for each connection.
    for backend in BACKENDS {
        let bytes = BYTES.to_string();
        let ended = run(&["demo", "--bytes", &bytes, "--json", "--backend", backend]);
        assert_eq!((ended.code, ended.stderr), (Some(0), vec![]));
        let said: serde_json::Value = serde_json::from_slice(&ended.stdout).expect("JSON");
        for count in [
            "bytes_sent",
            "bytes_checked",
            "relay_bytes_up",
            "relay_bytes_down",
        ] {
            assert_eq!(said[count], BYTES, "{count} on {backend}");
        }
        assert_eq!(said["backend"], backend);
        // Two calls per byte's hop at least: that many cannot be avoided with blocks of 64 KiB.
        let calls = &said["system_calls"];
        assert!(calls["receives"].as_u64().expect("a number") >= 4 * BYTES / 65_536);
        assert!(calls["sends"].as_u64().expect("a number") > 0);
    }
}

#[test]
fn the_table_is_for_people() {
    let ended = run(&["demo", "--bytes", "64KiB", "--connections", "3"]);
    assert_eq!((ended.code, ended.stderr), (Some(0), vec![]));
    let table = String::from_utf8(ended.stdout).expect("text");
    for row in ["data", "relay", "time", "callbacks", "loop", "system calls"] {
        assert!(
            table.lines().any(|line| line.starts_with(row)),
            "{row} is not in:\n{table}"
        );
    }
}

#[test]
fn nothing_at_all_is_also_right() {
    assert_eq!(run(&["demo", "--bytes", "0"]).code, Some(0));
}
