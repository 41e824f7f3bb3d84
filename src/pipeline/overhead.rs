// SPDX-License-Identifier: MIT OR Apache-2.0
//! The overhead of tracing: the number and time of runs of each BPF program, and the CPU time and
//! memory of this process. Counting runs costs the kernel some time, too.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;

use crate::attach::ProgramRuns;
use crate::attach::run_counting;
use crate::host::usage::Usage;

/// The times at which the overhead is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportTimes {
    /// At the end only.
    AtEnd,
    /// At the end, and once in every interval of this length.
    Every(Duration),
}

/// The overhead of tracing so far.
pub struct Overhead {
    /// The runs of each BPF program, by its name.
    pub programs: BTreeMap<String, ProgramRuns>,
    /// The CPU time and memory of this process.
    pub process: Usage,
}

/// Makes the kernel count runs while it lives, and knows when a report is due.
pub struct OverheadMeter {
    /// The kernel counts until this descriptor, or the last one of another tool, is closed.
    _counting: OwnedFd,
    times: ReportTimes,
    /// The time at which the last report was due.
    reported: Instant,
}

impl OverheadMeter {
    /// Starts to count. Fails without CAP_SYS_ADMIN.
    pub fn start(times: ReportTimes) -> Result<Self> {
        Ok(Self {
            _counting: run_counting::start()?,
            times,
            reported: Instant::now(),
        })
    }

    /// Returns whether a report is due, once in each interval.
    pub fn is_due(&mut self) -> bool {
        let is_due = match self.times {
            ReportTimes::AtEnd => false,
            ReportTimes::Every(time) => self.reported.elapsed() >= time,
        };
        if is_due {
            self.reported = Instant::now();
        }
        is_due
    }
}
