// SPDX-License-Identifier: MIT OR Apache-2.0
//! The overhead of tracing: runs and time of each BPF program, CPU and memory of this process. Having
//! the kernel count runs adds some overhead of its own.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;
use std::time::Instant;

use anyhow::Result;

use crate::attach::ProgramRuns;
use crate::attach::run_counting;
use crate::host::usage::Usage;

/// When the overhead is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportTimes {
    /// At the end only.
    AtEnd,
    /// At the end, and each time this time is over.
    Every(Duration),
}

/// What tracing has used so far.
pub struct Overhead {
    /// Runs of BPF programs, by the program's name.
    pub programs: BTreeMap<String, ProgramRuns>,
    /// What this process has used.
    pub process: Usage,
}

/// Has the kernel count runs for as long as it lives, and says when to report them.
pub struct OverheadMeter {
    /// Counting ends with the last of these.
    _counting: OwnedFd,
    /// When reports are due.
    times: ReportTimes,
    /// When the last report was due.
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

    /// Returns whether a report is due, once for each time that is over.
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
