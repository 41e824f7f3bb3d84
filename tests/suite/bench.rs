// SPDX-License-Identifier: MIT OR Apache-2.0
//! The statistics and the chart of `make bench`, whose own files run no tests.

#[path = "../../benches/cost/chart.rs"]
mod chart;
#[path = "../../benches/cost/interval.rs"]
mod interval;

use chart::BARS;
use chart::Bars;
use chart::NAMES;
use chart::svg;
use interval::Interval;
use interval::median;

/// Check the ranks of the ends with the published table of the sign test (5 %, two-sided).
#[test]
fn ranks() {
    for (count, rank) in [
        (6, 0),
        (8, 0),
        (9, 1),
        (11, 1),
        (12, 2),
        (15, 3),
        (20, 5),
        (25, 7),
        (30, 9),
        (40, 13),
        (50, 17),
    ] {
        let samples: Vec<f64> = (0..count).map(f64::from).collect();
        let interval = Interval::of(&samples);
        let ends = (f64::from(rank), f64::from(count - 1 - rank));
        assert_eq!((interval.low, interval.high), ends, "{count}");
    }
    let few = Interval::of(&[4.0, 1.0, 3.0, 2.0]);
    assert_eq!(few.median, 2.5);
    assert_eq!(few.margin(), f64::INFINITY);
}

/// Check that the order of samples changes nothing.
#[test]
fn order() {
    let samples = [9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0];
    let interval = Interval::of(&samples);
    assert_eq!(
        (interval.low, interval.median, interval.high),
        (2.0, 5.0, 8.0)
    );
    assert_eq!(interval.margin(), 0.6);
    assert_eq!(median(&samples), (5.0, 160.0));
}

/// Check that noise that both samples of a pair have is not in the interval.
#[test]
fn pairs() {
    let off: Vec<f64> = (1..=12).map(f64::from).collect();
    let on: Vec<f64> = off.iter().map(|ns| ns * 1.25).collect();
    let ratio = Interval::of_pairs(&on, &off, |on, off| on / off);
    assert_eq!((ratio.low, ratio.median, ratio.high), (1.25, 1.25, 1.25));
}

/// Check that the interval contains the true median as often as it should, with skewed samples.
#[test]
fn coverage() {
    let mut state = 1_u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let truth = 2.0_f64.ln();
    let mut covered = 0;
    for _ in 0..2_000 {
        let samples: Vec<f64> = (0..15).map(|_| -(1.0 - random()).ln()).collect();
        let interval = Interval::of(&samples);
        covered += u32::from((interval.low..=interval.high).contains(&truth));
    }
    /* The table of the binomial distribution says 96.5 % for 15 samples. */
    assert!((1_900..1_960).contains(&covered), "{covered}");
}

/// Check that all that is drawn is inside, and that names are escaped.
#[test]
fn is_inside() {
    let interval = |low, median, high| Interval { low, median, high };
    let svg = svg(&[
        Bars {
            name: "a < b & c",
            worker: interval(0.4, 0.9, 1.1),
            machine: interval(1.0, 1.0, 1.0),
        },
        Bars {
            name: "ten hooks",
            worker: interval(9.0, 9.2, 9.4),
            machine: interval(2.0, 2.1, 30.0),
        },
    ]);
    assert!(svg.contains(">a &lt; b &amp; c</text>"), "{svg}");
    let intervals = svg.lines().filter(|line| line.contains("\"interval\""));
    let places = intervals.flat_map(|line| {
        [" x1=\"", " x2=\""].map(|key| {
            let (_, rest) = line.split_once(key).unwrap();
            rest.split('"').next().unwrap().parse::<f64>().unwrap()
        })
    });
    let places: Vec<f64> = places.collect();
    /* A line and its two ends for each of four bars. */
    assert_eq!(places.len(), 2 * 3 * 4);
    let is_inside = |place: &f64| (NAMES..=NAMES + BARS).contains(place);
    assert!(places.iter().all(is_inside), "{places:?}");
}
