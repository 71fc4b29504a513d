//! The sweep as a picture: both axes logarithmic, one curve for each stack.
//!
//! # Invariants
//! - The picture brings its own background, so that it can be read on any page; light and dark follow the reader's system.
//! - A curve is told by its marker too, and not by its colour alone.

use std::fmt::Write as _;

use super::sweep::{STACKS, Sweep};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 470.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 52.0;

/// Powers of two of the first and the last length.
const LENGTHS: (u32, u32) = (0, 20);

const STYLE: &str = "\
.back{fill:#fff}.grid{stroke:#ddd}.text{fill:#222;font:13px sans-serif}.line{fill:none;stroke-width:2}
.c0{stroke:#555;fill:#555}.c1{stroke:#0a6fb8;fill:#0a6fb8}.c2{stroke:#b35c00;fill:#b35c00}.c3{stroke:#1a7f37;fill:#1a7f37}\
.c4{stroke:#a0288a;fill:#a0288a}
@media(prefers-color-scheme:dark){.back{fill:#16181d}.grid{stroke:#3a3f47}.text{fill:#e3e6ea}
.c0{stroke:#b5bac2;fill:#b5bac2}.c1{stroke:#58b0f0;fill:#58b0f0}.c2{stroke:#f0a050;fill:#f0a050}.c3{stroke:#5ccf78;fill:#5ccf78}\
.c4{stroke:#e07fd0;fill:#e07fd0}}
.line{fill:none}";

/// Where the values are on the paper.
struct Paper {
    /// Powers of ten of the lowest and the highest rate.
    rates: (i32, i32),
}

impl Paper {
    fn x(&self, length: f64) -> f64 {
        let (first, last) = (f64::from(LENGTHS.0), f64::from(LENGTHS.1));
        LEFT + (length.log2() - first) / (last - first) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, rate: f64) -> f64 {
        let (low, high) = (f64::from(self.rates.0), f64::from(self.rates.1));
        HEIGHT - BOTTOM - (rate.log10() - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
    }
}

/// The picture, as a file of its own.
pub(super) fn svg(sweep: &Sweep) -> String {
    let rates = sweep.0.iter().flat_map(|rates| rates.values());
    let logs = rates.map(|rate| rate.log10());
    let (low, high) = logs.fold((f64::MAX, f64::MIN), |(low, high), log| {
        (log.min(low), log.max(high))
    });
    let paper = Paper {
        rates: (low.floor() as i32, high.ceil() as i32),
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"t\">\n\
         <title id=\"t\">Bytes per second of CPU time by length of the message, for five stacks of filters</title>\n\
         <style>{STYLE}</style>\n<rect class=\"back\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n"
    );
    axes(&mut out, &paper);
    for (at, rates) in sweep.0.iter().enumerate() {
        let points: Vec<(f64, f64)> = rates
            .iter()
            .map(|(length, rate)| (paper.x(f64::from(*length)), paper.y(*rate)))
            .collect();
        let line: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        put(
            &mut out,
            format_args!(
                "<polyline class=\"c{at} line\" points=\"{}\"/>",
                line.join(" ")
            ),
        );
        for (x, y) in points {
            marker(&mut out, at, x, y);
        }
    }
    legend(&mut out);
    out.push_str("</svg>\n");
    out
}

fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("a String takes all");
}

fn axes(out: &mut String, paper: &Paper) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for power in (LENGTHS.0..=LENGTHS.1).step_by(2) {
        let x = paper.x(f64::from(1_u32 << power));
        let name = bytes(1 << power);
        put(
            out,
            format_args!(
                "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/><text class=\"text\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{}\">{name}</text>",
                bottom + 18.0
            ),
        );
    }
    for power in paper.rates.0..=paper.rates.1 {
        let y = paper.y(10_f64.powi(power));
        let name = rate(power);
        put(
            out,
            format_args!(
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/><text class=\"text\" text-anchor=\"end\" x=\"{}\" y=\"{:.1}\">{name}</text>",
                LEFT - 8.0,
                y + 4.0
            ),
        );
    }
    put(
        out,
        format_args!(
            "<text class=\"text\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">length of the message</text>",
            f64::midpoint(LEFT, right),
            HEIGHT - 12.0
        ),
    );
    put(
        out,
        format_args!(
            "<text class=\"text\" x=\"{LEFT}\" y=\"24\">bytes per second of CPU time, one message at a time, both ends</text>"
        ),
    );
}

fn legend(out: &mut String) {
    for (at, stack) in STACKS.iter().enumerate() {
        let x = LEFT + 120.0 * at as f64;
        put(
            out,
            format_args!(
                "<path class=\"c{at} line\" d=\"M{x} 44h26\"/><text class=\"text\" x=\"{}\" y=\"48\">{stack}</text>",
                x + 34.0
            ),
        );
        marker(out, at, x + 13.0, 44.0);
    }
}

/// The mark of curve `at`, around a point.
fn marker(out: &mut String, at: usize, x: f64, y: f64) {
    let path = match at {
        0 => "m-3-3h6v6h-6z",
        1 => "m0-4l4 4l-4 4l-4-4z",
        2 => "m0-4l4 7h-8z",
        3 => "m0 4l4-7h-8z",
        _ => "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    };
    put(
        out,
        format_args!("<path class=\"c{at}\" d=\"M{x:.1} {y:.1}{path}\"/>"),
    );
}

fn bytes(count: u32) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{} KiB", count >> 10),
        _ => format!("{} MiB", count >> 20),
    }
}

/// A power of ten of bytes per second.
fn rate(power: i32) -> String {
    let (unit, below) = match power {
        ..3 => ("B/s", 0),
        3..6 => ("kB/s", 3),
        6..9 => ("MB/s", 6),
        9.. => ("GB/s", 9),
    };
    format!("{:.0} {unit}", 10_f64.powi(power - below))
}

#[cfg(test)]
mod tests {
    use super::super::sweep::Rates;
    use super::*;

    #[test]
    fn every_curve_is_on_the_paper_and_named() {
        let rates: Rates = (0..=20)
            .map(|power| (1 << power, 5e4 * 1.7_f64.powi(power)))
            .collect();
        let picture = svg(&Sweep(vec![rates; STACKS.len()]));
        for (at, stack) in STACKS.iter().enumerate() {
            assert!(picture.contains(&format!(">{stack}</text>")));
            assert!(picture.contains(&format!("class=\"c{at} line\" points=")));
        }
        let points = picture.split("points=\"").skip(1);
        let points = points.flat_map(|rest| rest.split('"').next().unwrap_or("").split(' '));
        for point in points {
            let (x, y) = point.split_once(',').unwrap();
            assert!(
                (LEFT..=WIDTH - RIGHT).contains(&x.parse().unwrap()),
                "{point}"
            );
            assert!(
                (TOP..=HEIGHT - BOTTOM).contains(&y.parse().unwrap()),
                "{point}"
            );
        }
    }

    #[test]
    fn units_are_those_of_the_power() {
        assert_eq!(rate(4), "10 kB/s");
        assert_eq!(rate(9), "1 GB/s");
        assert_eq!(bytes(1 << 20), "1 MiB");
        assert_eq!(bytes(64), "64 B");
    }
}
