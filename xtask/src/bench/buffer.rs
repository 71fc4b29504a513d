//! `cargo xtask bench buffer`: evbuffer, timers and pair in memory, against libevent's.
//!
//! Both sides are programs that print one JSON object, operation -> value; the names are those of
//! `bench/c/micro_libevent.c`. Each round runs both, and who comes first rotates.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::statistics::Spread;
use super::target::{Judgement, Limit};
use super::{peers, tools, write_json};
use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::workspace;

/// One bench of ours and the group of `micro_libevent` that answers it.
struct Group {
    package: &'static str,
    bench: &'static str,
    libevent: &'static str,
    operations: &'static [Operation],
}

/// What an operation's value counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Unit {
    /// Less is better.
    Ns,
    /// More is better.
    GibPerS,
}

struct Operation {
    name: &'static str,
    unit: Unit,
    limit: Asked,
}

/// What is asked of an operation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Asked {
    /// To be so many times as fast as libevent's.
    TimesAsFast(f64),
    /// To take at most so many nanoseconds; libevent has no counterpart.
    AtMostNs(f64),
    /// Nothing; it is shown.
    Nothing,
}

const fn ns(name: &'static str, limit: Asked) -> Operation {
    Operation {
        name,
        unit: Unit::Ns,
        limit,
    }
}

const fn gib_per_s(name: &'static str, limit: Asked) -> Operation {
    Operation {
        name,
        unit: Unit::GibPerS,
        limit,
    }
}

const AS_FAST: Asked = Asked::TimesAsFast(1.0);

const GROUPS: &[Group] = &[
    Group {
        package: "evbuffer",
        bench: "micro",
        libevent: "buffer",
        operations: &[
            ns("add64_steady", AS_FAST),
            ns("add64_grow64M", AS_FAST),
            ns("drain64_of64M", AS_FAST),
            ns("add64_remove64", AS_FAST),
            ns("add_buffer_move4K", AS_FAST),
            ns("echo_add64_move_drain", AS_FAST),
            ns("readln_lf", Asked::TimesAsFast(3.0)),
            ns("readln_crlf", Asked::TimesAsFast(3.0)),
            gib_per_s("search_commonfirst", Asked::TimesAsFast(8.0)),
            gib_per_s("search_rarefirst", Asked::TimesAsFast(0.75)),
            gib_per_s("pullup_1M_from_4K", AS_FAST),
            ns("add_reference_drain", AS_FAST),
            ns("unix_write_evbuffer_read4K", AS_FAST),
        ],
    },
    Group {
        package: "evreactor",
        bench: "timers",
        libevent: "timers",
        operations: &[
            ns("timer_heap_add", Asked::Nothing),
            ns("timer_heap_readd", Asked::TimesAsFast(5.0)),
            ns("timer_heap_del", Asked::Nothing),
            ns("timer_heap_add_outside", Asked::Nothing),
            ns("timer_heap_readd_outside", Asked::Nothing),
            ns("timer_heap_del_outside", Asked::Nothing),
            ns("timer_common_add", Asked::Nothing),
            ns("timer_common_readd", Asked::Nothing),
            ns("timer_common_del", Asked::Nothing),
        ],
    },
    Group {
        package: "bufferevent-pair",
        bench: "pair",
        libevent: "pair",
        operations: &[
            gib_per_s("pair_4K", Asked::Nothing),
            gib_per_s("pair_64K", Asked::Nothing),
            gib_per_s("pair_4K_loop_each", Asked::Nothing),
            ns("pair_step", Asked::AtMostNs(120.0)),
            ns("layer_crossing", Asked::AtMostNs(120.0)),
        ],
    },
];

/// Values of one program, by operation, by round.
type Series = BTreeMap<String, Vec<f64>>;

pub(super) fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let rounds = arguments.value("--rounds")?.unwrap_or(7_usize).max(1);
    let file = arguments.value::<PathBuf>("--json")?;
    arguments.finish()?;
    let core = tools::cores()?.server;
    tools::require_libevent()?;
    let libevent = peers::compile(
        &workspace::target_folder()?,
        "micro_libevent",
        &["-levent_core"],
    )?;
    println!(
        "{rounds} rounds; CPU time of the thread; median (range); a ratio is times as fast as libevent"
    );
    let mut judgement = Judgement::default();
    let mut results = serde_json::Map::new();
    for group in GROUPS {
        println!("\n{} ({})", group.package, group.bench);
        let source = format!("crates/{}/benches/{}.rs", group.package, group.bench);
        if !workspace::root().join(&source).exists() {
            for operation in group
                .operations
                .iter()
                .filter(|operation| operation.limit != Asked::Nothing)
            {
                judgement.not_measured(operation.name, &format!("there is no {source}"));
            }
            continue;
        }
        let programs = [
            (build(group)?, "--bench"),
            (libevent.clone(), group.libevent),
        ];
        let (mut ours, mut theirs) = (Series::new(), Series::new());
        for round in 0..rounds {
            eprintln!("round {} of {rounds}: {}", round + 1, group.package);
            for turn in 0..2 {
                let at = (turn + round) % 2;
                let (program, argument) = &programs[at];
                let values = if at == 0 { &mut ours } else { &mut theirs };
                take(values, &run_one(program, argument, core)?);
            }
        }
        show(group, &ours, &theirs, &mut judgement);
        results.insert(
            group.package.into(),
            json!({"ours": ours, "libevent": theirs}),
        );
    }
    write_json(
        file.as_deref(),
        &json!({"rounds": rounds, "groups": results, "targets": judgement.json()}),
    )?;
    judgement.close("bench buffer")
}

/// Builds the bench and returns its program.
fn build(group: &Group) -> Result<PathBuf, Failure> {
    let mut command = workspace::cargo(["bench", "--no-run", "--quiet", "--message-format=json"]);
    command.args(["--package", group.package, "--bench", group.bench]);
    let programs = workspace::executables(&workspace::output(&mut command)?);
    match programs.into_iter().next() {
        Some((program, _package)) => Ok(program),
        None => Err(Failure::new(format!(
            "cargo built no bench {} of {}",
            group.bench, group.package
        ))),
    }
}

fn run_one(program: &Path, argument: &str, core: usize) -> Result<Value, Failure> {
    let mut command = Command::new("taskset");
    command
        .args(["-c", &core.to_string()])
        .arg(program)
        .arg(argument)
        .envs(tools::ALLOCATOR);
    let text = workspace::output(&mut command)?;
    serde_json::from_str(&text).map_err(Failure::during(program.display()))
}

fn take(series: &mut Series, values: &Value) {
    for (name, value) in values.as_object().into_iter().flatten() {
        series
            .entry(name.clone())
            .or_default()
            .push(value.as_f64().unwrap_or(f64::NAN));
    }
}

fn show(group: &Group, ours: &Series, theirs: &Series, judgement: &mut Judgement) {
    for operation in group.operations {
        let Some(own) = ours.get(operation.name) else {
            judgement.not_measured(operation.name, "our bench does not print it");
            continue;
        };
        let unit = match operation.unit {
            Unit::Ns => "ns",
            Unit::GibPerS => "GiB/s",
        };
        let Some(peer) = theirs.get(operation.name) else {
            let limit = match operation.limit {
                Asked::AtMostNs(limit) => Some(Limit::AtMost(limit)),
                Asked::TimesAsFast(_) | Asked::Nothing => None,
            };
            judgement.judge(
                &format!("{}, {unit}", operation.name),
                Spread::of(own),
                limit,
            );
            continue;
        };
        println!(
            "  {:<30} ours {:.2} {unit}, libevent {:.2} {unit}",
            operation.name,
            Spread::of(own),
            Spread::of(peer)
        );
        let ratio = match operation.unit {
            Unit::Ns => Spread::of_ratios(peer, own),
            Unit::GibPerS => Spread::of_ratios(own, peer),
        };
        let limit = match operation.limit {
            Asked::TimesAsFast(times) => Some(Limit::AtLeast(times)),
            Asked::AtMostNs(_) | Asked::Nothing => None,
        };
        judgement.judge(operation.name, ratio, limit);
    }
    let known = |name: &String| {
        group
            .operations
            .iter()
            .any(|operation| operation.name == name)
    };
    for (name, values) in ours.iter().filter(|(name, _)| !known(name)) {
        println!("  {name:<46} {:.2}", Spread::of(values));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: Group = Group {
        package: "x",
        bench: "x",
        libevent: "x",
        operations: &[
            ns("time", Asked::TimesAsFast(2.0)),
            gib_per_s("speed", Asked::TimesAsFast(2.0)),
            ns("step", Asked::AtMostNs(120.0)),
        ],
    };

    #[test]
    fn less_time_and_more_speed_are_both_faster() {
        let series = |values: [(&str, f64); 3]| -> Series {
            values
                .into_iter()
                .map(|(name, value)| (name.to_string(), vec![value]))
                .collect()
        };
        let verdict = |ours: Series, theirs: Series| {
            let mut judgement = Judgement::default();
            show(&GROUP, &ours, &theirs, &mut judgement);
            judgement.close("bench buffer")
        };
        let theirs: Series = [
            ("time".to_string(), vec![20.0]),
            ("speed".to_string(), vec![5.0]),
        ]
        .into();
        verdict(
            series([("time", 10.0), ("speed", 10.0), ("step", 100.0)]),
            theirs.clone(),
        )
        .unwrap();
        let missed = verdict(
            series([("time", 11.0), ("speed", 9.0), ("step", 130.0)]),
            theirs.clone(),
        );
        assert!(
            missed
                .unwrap_err()
                .to_string()
                .starts_with("bench buffer: 3 of 3")
        );
        let absent = verdict(Series::new(), theirs);
        assert!(absent.unwrap_err().to_string().contains("not measured"));
    }
}
