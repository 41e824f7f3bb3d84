// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long a client waits for answers while nginx has little to do.

use std::fmt;
use std::time::Duration;
use std::time::Instant;

use crate::common::client::Client;
use crate::common::nginx::Nginx;
use crate::common::tool::PROGRAM;
use crate::interval::Interval;
use crate::interval::median;
use crate::rounds::Plan;
use crate::tracing::of_build;

/// The requests in a second.
const RATE: u32 = 2_000;

/// The seconds of one measurement: the slowest thousandth of the requests is more than a few of them.
const SECONDS: u32 = 3;

/// The shares of requests that are faster than a percentile.
pub const PERCENTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// The latency of one uri.
pub struct Latency {
    pub name: String,
    pub rounds: usize,
    pub percentiles: Vec<Percentile>,
}

/// A percentile, in µs.
pub struct Percentile {
    pub name: &'static str,
    /// The medians of all rounds, without and with tracing.
    pub off_us: f64,
    pub on_us: f64,
    pub added_us: Interval,
}

/// Measures the requests of one client for a uri, without and with tracing.
pub fn measure(plan: &Plan, name: &str, nginx: &Nginx, uri: &str) -> Latency {
    let samples = plan.alternate(
        2,
        |arm| {
            let guard = (arm == 1).then(|| of_build(PROGRAM, nginx, &[]));
            let percentiles = steady(nginx.port, uri);
            drop(guard);
            percentiles
        },
        |percentiles| percentiles[0],
    );
    let of = |arm: usize, n: usize| Vec::from_iter(samples[arm].iter().map(|us| us[n]));
    let percentiles = PERCENTILES.iter().enumerate().map(|(n, (name, _))| {
        let (off, on) = (of(0, n), of(1, n));
        Percentile {
            name,
            off_us: median(&off).0,
            on_us: median(&on).0,
            added_us: Interval::of_pairs(&on, &off, |on, off| on - off),
        }
    });
    Latency {
        name: name.to_owned(),
        rounds: samples[0].len(),
        percentiles: percentiles.collect(),
    }
}

/// Sends requests at a steady rate. Returns the percentiles of their latency, in µs. A request counts from the moment it
/// should have been sent if the answer before it came too late for that; otherwise from the moment it was sent, since
/// then only the client's own sleep has delayed it.
fn steady(port: u16, uri: &str) -> [f64; PERCENTILES.len()] {
    let mut client = Client::connect(port);
    let step = Duration::from_secs(1) / RATE;
    let started = Instant::now();
    let mut latencies = Vec::new();
    for n in 0..RATE * SECONDS {
        let due = started + step * n;
        let now = Instant::now();
        let sent = if now > due {
            due
        } else {
            std::thread::sleep(due - now);
            Instant::now()
        };
        assert_eq!(client.get(uri).status, 200);
        latencies.push(sent.elapsed());
    }
    latencies.sort_unstable();
    PERCENTILES.map(|(_, share)| {
        let rank = (latencies.len() as f64 * share).ceil() as usize - 1;
        latencies[rank].as_secs_f64() * 1e6
    })
}

/// The lines of the terminal.
impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<36} {:>3} ", self.name, self.rounds)?;
        for percentile in &self.percentiles {
            let added = &percentile.added_us;
            write!(
                f,
                " | {} {:.1} us, {:.1} us, {:+.1} [{:+.1} {:+.1}]",
                percentile.name,
                percentile.off_us,
                percentile.on_us,
                added.median,
                added.low,
                added.high
            )?;
        }
        Ok(())
    }
}
