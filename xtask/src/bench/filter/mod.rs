//! `cargo xtask bench filter`: TLS, zlib and the filter that changes nothing, against libevent, tokio-rustls and the bare libraries.
//!
//! What is compared is work for CPU time: both ends of a connection live on one thread, and its CPU time is what counts, so that other
//! work on the machine takes as little part as it can. Rates are per second of CPU time.
//!
//! # Invariants
//! - All Rust contenders are one program, `bench/rust/filters`, with one version of rustls and of flate2; it says what each operation does.
//! - Every round runs every contender, in an order that rotates; a ratio is taken within its round.

mod echo;
mod plot;
mod programs;
mod sweep;

use std::path::PathBuf;

use serde_json::{Value, json};

use self::programs::Programs;
use super::statistics::Spread;
use super::target::{Judgement, Limit};
use super::write_json;
use crate::arguments::Arguments;
use crate::failure::Failure;

/// Fewer rounds than this are a trial and no result.
const LEAST_ROUNDS: usize = 5;

/// What the text for zlib must compress to: less, or more, would be no text.
const TEXT_RATIO: [Limit; 2] = [Limit::AtLeast(2.5), Limit::AtMost(3.5)];

/// Contenders that do the same work.
struct Group {
    name: &'static str,
    unit: Unit,
    contenders: &'static [Contender],
    ratios: &'static [Ratio],
}

/// What a second of CPU time yields.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Unit {
    GibPerS,
    MibPerS,
    HandshakesPerS,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::GibPerS => "GiB/s",
            Self::MibPerS => "MiB/s",
            Self::HandshakesPerS => "handshakes/s",
        }
    }

    /// How many bytes or handshakes are one.
    fn amount(self) -> f64 {
        match self {
            Self::GibPerS => f64::from(1 << 30),
            Self::MibPerS => f64::from(1 << 20),
            Self::HandshakesPerS => 1.0,
        }
    }
}

/// Which program runs a contender.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Program {
    Rust,
    Libevent,
}

struct Contender {
    name: &'static str,
    program: Program,
    operation: &'static str,
    /// The cryptography, where it matters.
    provider: &'static str,
}

/// One contender's rate over another's, and what is asked of it.
struct Ratio {
    of: &'static str,
    to: &'static str,
    limit: Option<Limit>,
}

const fn rust(name: &'static str, operation: &'static str, provider: &'static str) -> Contender {
    Contender {
        name,
        program: Program::Rust,
        operation,
        provider,
    }
}

const fn libevent(operation: &'static str) -> Contender {
    Contender {
        name: "libevent",
        program: Program::Libevent,
        operation,
        provider: "",
    }
}

const fn ratio(of: &'static str, to: &'static str, limit: Option<Limit>) -> Ratio {
    Ratio { of, to, limit }
}

const GROUPS: &[Group] = &[
    Group {
        name: "TLS 1.3 AES-128-GCM, one way over loopback TCP",
        unit: Unit::GibPerS,
        contenders: &[
            rust("ours", "tls-socket", "ring"),
            libevent("tls"),
            rust("tokio-rustls", "tls-tokio", "ring"),
            rust("ours, aws-lc-rs", "tls-socket", "aws-lc-rs"),
        ],
        ratios: &[
            ratio("ours", "libevent", Some(Limit::AtLeast(1.5))),
            ratio("ours", "tokio-rustls", None),
            ratio("ours, aws-lc-rs", "ours", None),
        ],
    },
    Group {
        name: "TLS 1.3 AES-128-GCM, in memory",
        unit: Unit::GibPerS,
        contenders: &[
            rust("ours", "tls-memory", "ring"),
            rust("rustls", "tls-bare", "ring"),
            rust("ours, aws-lc-rs", "tls-memory", "aws-lc-rs"),
            rust("rustls, aws-lc-rs", "tls-bare", "aws-lc-rs"),
        ],
        ratios: &[
            ratio("ours", "rustls", Some(Limit::AtLeast(0.85))),
            ratio("rustls, aws-lc-rs", "rustls", None),
        ],
    },
    Group {
        name: "zlib level 6 on text, deflated and inflated, in memory",
        unit: Unit::MibPerS,
        contenders: &[
            rust("ours", "zlib", "ring"),
            libevent("zlib"),
            rust("flate2", "zlib-bare", ""),
        ],
        ratios: &[
            ratio("ours", "libevent", Some(Limit::AtLeast(1.5))),
            ratio("ours", "flate2", Some(Limit::AtLeast(0.95))),
        ],
    },
    Group {
        name: "TLS 1.3 handshakes, full, ECDSA P-256",
        unit: Unit::HandshakesPerS,
        contenders: &[
            rust("ours", "full", "ring"),
            rust("tokio-rustls", "full-tokio", "ring"),
            libevent("full"),
            rust("rustls", "full-bare", "ring"),
            rust("ours, aws-lc-rs", "full", "aws-lc-rs"),
        ],
        ratios: &[
            ratio("ours", "tokio-rustls", Some(Limit::AtLeast(1.0))),
            ratio("ours", "libevent", None),
            ratio("ours", "rustls", None),
            ratio("ours, aws-lc-rs", "ours", None),
        ],
    },
    Group {
        name: "TLS 1.3 handshakes, resumed",
        unit: Unit::HandshakesPerS,
        contenders: &[
            rust("ours", "resumed", "ring"),
            rust("tokio-rustls", "resumed-tokio", "ring"),
            libevent("resumed"),
            rust("rustls", "resumed-bare", "ring"),
            rust("ours, aws-lc-rs", "resumed", "aws-lc-rs"),
        ],
        ratios: &[
            ratio("ours", "tokio-rustls", None),
            ratio("ours", "libevent", None),
            ratio("ours, aws-lc-rs", "ours", None),
        ],
    },
];

/// What was measured: by group, by contender, by round; per second of CPU time.
type Rates = Vec<Vec<Vec<f64>>>;

pub(super) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let rounds = arguments.value("--rounds")?.unwrap_or(7_usize).max(1);
    let seconds = arguments.value("--seconds")?.unwrap_or(0.5_f64);
    let file = arguments.value::<PathBuf>("--json")?;
    let plot = arguments.value::<PathBuf>("--plot")?;
    arguments.finish()?;
    let programs = Programs::build()?;

    println!(
        "{rounds} rounds of {seconds} s of CPU time; core {}; rates per second of CPU time; median (range)",
        programs.core()
    );
    println!("load average before: {}", load_average());
    if rounds < LEAST_ROUNDS {
        println!("fewer than {LEAST_ROUNDS} rounds: a trial, no result");
    }
    let mut judgement = Judgement::default();
    let rates = measure(&programs, rounds, seconds)?;
    for (group, rates) in GROUPS.iter().zip(&rates) {
        show(group, rates, &mut judgement);
    }
    let single = once(&programs, &mut judgement)?;
    let echo = echo::measure(&programs, rounds, seconds, &mut judgement)?;
    let sweep = sweep::measure(&programs, rounds, seconds / sweep::SHARE, &mut judgement)?;
    println!("load average after: {}", load_average());
    if let Some(plot) = &plot {
        std::fs::write(plot, plot::svg(&sweep)).map_err(Failure::during(plot.display()))?;
    }
    let results = json!({
        "rounds": rounds,
        "seconds": seconds,
        "groups": groups_json(&rates),
        "once": single,
        "echo": echo,
        "bytes_per_s_by_message": sweep.json(),
        "targets": judgement.json(),
    });
    write_json(file.as_deref(), &results)?;
    judgement.close("bench filter")
}

/// The kernel's three figures; nothing where it does not say.
fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Every round runs every contender of every group; who comes first rotates.
fn measure(programs: &Programs, rounds: usize, seconds: f64) -> Result<Rates, Failure> {
    let mut rates: Rates = GROUPS
        .iter()
        .map(|group| vec![Vec::new(); group.contenders.len()])
        .collect();
    for round in 0..rounds {
        for (at, group) in GROUPS.iter().enumerate() {
            eprintln!("round {} of {rounds}: {}", round + 1, group.name);
            for turn in 0..group.contenders.len() {
                let which = (turn + round) % group.contenders.len();
                let contender = &group.contenders[which];
                let measured = programs.run(contender, seconds)?;
                let per_s = number(&measured, "amount") / number(&measured, "cpu_s");
                rates[at][which].push(per_s / group.unit.amount());
            }
        }
    }
    Ok(rates)
}

fn number(measured: &Value, key: &str) -> f64 {
    measured[key].as_f64().unwrap_or(f64::NAN)
}

fn show(group: &Group, rates: &[Vec<f64>], judgement: &mut Judgement) {
    println!("\n{}, {}", group.name, group.unit.name());
    for (contender, rates) in group.contenders.iter().zip(rates) {
        let spread = Spread::of(rates);
        let cost = match group.unit {
            // Nanoseconds per byte: both ends, with all that is below.
            Unit::GibPerS | Unit::MibPerS => {
                format!("{:.2} ns/B", 1e9 / group.unit.amount() / spread.median)
            }
            Unit::HandshakesPerS => format!("{:.0} us each", 1e6 / spread.median),
        };
        let digits = if group.unit == Unit::GibPerS { 3 } else { 1 };
        println!("  {:<20}{spread:>32.digits$}{cost:>16}", contender.name);
    }
    let of = |name: &str| {
        let at = group.contenders.iter().position(|one| one.name == name);
        &rates[at.expect("ratios name contenders")]
    };
    for ratio in group.ratios {
        let spread = Spread::of_ratios(of(ratio.of), of(ratio.to));
        let what = format!("{}: {} / {}", group.name, ratio.of, ratio.to);
        judgement.judge(&what, spread, ratio.limit);
    }
}

/// What is the same in every round: how far the text compresses, and how many records a burst of small writes becomes.
fn once(programs: &Programs, judgement: &mut Judgement) -> Result<Value, Failure> {
    println!("\nonce");
    let text = programs.ours(&["text-ratio", "0"], &[])?;
    for limit in TEXT_RATIO {
        let ratio = Spread::of(&[number(&text, "ratio")]);
        judgement.judge("the text, to what it compresses to", ratio, Some(limit));
    }
    let records = programs.ours(&["records", "0"], &["ring"])?;
    for (from, limit) in [
        ("callback", Some(Limit::AtMost(1.0))),
        ("lock", None),
        ("outside", None),
    ] {
        let what = format!("TLS records for 100 writes of 1 to 100 bytes, from: {from}");
        judgement.judge(&what, Spread::of(&[number(&records, from)]), limit);
    }
    Ok(json!({"text": text, "records_per_burst": records}))
}

fn groups_json(rates: &Rates) -> Value {
    let group = |(group, rates): (&Group, &Vec<Vec<f64>>)| {
        let named = group.contenders.iter().zip(rates).map(|(one, rates)| {
            let value = json!({"spread": Spread::of(rates).json(), "rounds": rates});
            (one.name.to_string(), value)
        });
        let contenders: serde_json::Map<String, Value> = named.collect();
        let value = json!({"unit": group.unit.name(), "contenders": contenders});
        (group.name.to_string(), value)
    };
    GROUPS.iter().zip(rates).map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ratio_names_contenders_of_its_group() {
        for group in GROUPS {
            let known = |name| group.contenders.iter().any(|one| one.name == name);
            for ratio in group.ratios {
                assert!(known(ratio.of) && known(ratio.to), "{}", group.name);
            }
        }
    }

    #[test]
    fn more_work_in_the_same_time_is_better() {
        let group = &GROUPS[3]; // ours, tokio-rustls, libevent, rustls, ours with aws-lc-rs
        let verdict = |ours: f64| {
            let mut judgement = Judgement::default();
            let rates = [ours, 1000.0, 500.0, 1200.0, 900.0].map(|rate| vec![rate]);
            show(group, &rates, &mut judgement);
            judgement.close("bench filter")
        };
        verdict(1000.0).unwrap();
        assert!(verdict(999.0).unwrap_err().to_string().contains("1 of 1"));
    }
}
