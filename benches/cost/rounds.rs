// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long is measured, how often, and in which order.

use std::ops::RangeInclusive;

use crate::interval::Interval;

/// The plan of a run.
pub struct Plan {
    /// Whether there are few rounds, and only the most important rows unless others are named: about two minutes.
    pub is_quick: bool,
    /// Measure the rows whose names contain this text.
    pub only: Option<String>,
    /// The seconds of one measurement.
    pub seconds: u32,
    /// The least and the most rounds of a row.
    pub rounds: RangeInclusive<usize>,
    /// Rounds end when half of the interval of the ratio is at most this share of it.
    pub margin: f64,
}

impl Plan {
    /// Returns the plan that the environment asks for.
    pub fn of_environment() -> Self {
        let is_quick = std::env::var_os("NGX_BPF_BENCH_QUICK").is_some();
        Self {
            is_quick,
            only: std::env::var("NGX_BPF_BENCH_ROWS").ok(),
            seconds: 1,
            /* With fewer than six there is no interval, and with fewer than nine a single bad round is one of its ends. */
            rounds: if is_quick { 6..=10 } else { 9..=30 },
            margin: 0.02,
        }
    }

    /// Returns whether this run measures everything.
    pub fn is_whole(&self) -> bool {
        !self.is_quick && self.only.is_none()
    }

    /// Measures again and again what is compared: the numbers from 0 to `arms`, of which 0 is what the others are
    /// compared with. The order is reversed each time, so that a trend of the machine is in no ratio, and ends when the
    /// ratio of the costs of 1 and 0 is certain enough. Returns the samples of each.
    pub fn alternate<T>(
        &self,
        arms: usize,
        mut measure: impl FnMut(usize) -> T,
        cost: impl Fn(&T) -> f64,
    ) -> Vec<Vec<T>> {
        let mut samples: Vec<Vec<T>> = (0..arms).map(|_| Vec::new()).collect();
        /* The first one only warms up. */
        measure(0);
        for round in 1..=*self.rounds.end() {
            let mut order: Vec<usize> = (0..arms).collect();
            if round % 2 == 0 {
                order.reverse();
            }
            for arm in order {
                samples[arm].push(measure(arm));
            }
            let costs = |arm: usize| Vec::from_iter(samples[arm].iter().map(&cost));
            let ratio = Interval::of_pairs(&costs(1), &costs(0), |on, off| on / off);
            if round >= *self.rounds.start() && self.is_certain(&ratio) {
                break;
            }
        }
        samples
    }

    /// Returns whether a ratio is as certain as the plan asks for.
    pub fn is_certain(&self, ratio: &Interval) -> bool {
        ratio.margin() <= self.margin
    }
}
