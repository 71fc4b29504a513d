//! `bev demo`: it checks what it says, and says what it did.

mod support;

use support::{BACKENDS, run};

#[test]
fn every_byte_comes_back_and_is_counted() {
    const BYTES: u64 = (4 << 20) + 3; // Not the same share for each connection.
    for &backend in BACKENDS {
        let bytes = BYTES.to_string();
        let ended = run(&["demo", "--bytes", &bytes, "--json", "--backend", backend]);
        assert_eq!((ended.code, ended.stderr), (Some(0), vec![]));
        let said: serde_json::Value = serde_json::from_slice(&ended.stdout).expect("JSON");
        for count in [
            "bytes_sent",
            "bytes_checked",
            "relay_bytes_up",
            "relay_bytes_down",
            "exit_bytes_up",
            "exit_bytes_down",
        ] {
            assert_eq!(said[count], BYTES, "{count} on {backend}");
        }
        assert_eq!(said["backend"], backend);
        // The bottom first; what one layer made is what the next one took, and what one end made, the other took.
        let layers = said["layers"].as_array().expect("a list");
        let of =
            |nth: usize, way: &str, side: &str| layers[nth][way][side].as_u64().expect("a number");
        let names: Vec<_> = layers
            .iter()
            .map(|layer| (&layer["relay"], &layer["layer"]))
            .collect();
        assert_eq!(format!("{names:?}").matches("entry").count(), 2);
        assert_eq!(
            (of(1, "down", "taken"), of(1, "up", "made")),
            (BYTES, BYTES)
        );
        assert_eq!(of(1, "down", "made"), of(0, "down", "taken"));
        assert_eq!(of(2, "up", "made"), of(3, "up", "taken"));
        assert!(of(1, "down", "made") < BYTES * 3 / 4, "half of it is text");
        let calls = &said["system_calls"];
        if matches!(backend, "uring" | "iocp") {
            // The system does both by itself.
            assert_eq!(calls["sends"], 0);
            continue;
        }
        // Two calls per byte's hop at least: that many cannot be avoided with blocks of 64 KiB.
        assert!(calls["receives"].as_u64().expect("a number") >= 4 * BYTES / 65_536);
        assert!(calls["sends"].as_u64().expect("a number") > 0);
    }
}

#[test]
fn the_table_is_for_people() {
    let ended = run(&["demo", "--bytes", "64KiB", "--connections", "3"]);
    assert_eq!((ended.code, ended.stderr), (Some(0), vec![]));
    let table = String::from_utf8(ended.stdout).expect("text");
    for row in [
        "data",
        "relays",
        "layer",
        "time",
        "callbacks",
        "loop",
        "system calls",
    ] {
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

#[test]
fn the_tunnel_has_the_layers_that_were_asked_for() {
    for (layers, count) in [
        ("", 0),
        ("tls", 2),
        ("zlib,format=gzip+zlib,level=1+tls", 6),
    ] {
        let ended = run(&["demo", "--bytes", "1MiB", "--layers", layers, "--json"]);
        assert_eq!((ended.code, ended.stderr), (Some(0), vec![]), "{layers}");
        let said: serde_json::Value = serde_json::from_slice(&ended.stdout).expect("JSON");
        assert_eq!(
            said["layers"].as_array().expect("a list").len(),
            count,
            "{layers}"
        );
    }
    let ended = run(&["demo", "--layers", "tls,name=x"]);
    assert_eq!(ended.code, Some(2));
}
