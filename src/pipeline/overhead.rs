// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tracing costs on this machine: each BPF program's runs, as the kernel counts them, and what
//! this process has used. Counting costs, too: two readings of the clock a run.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::FromRawFd as _;
use std::os::fd::OwnedFd;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use libbpf_rs::libbpf_sys;

use crate::cli::value::Interval;

/// What the kernel has counted of one program.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runs {
    /// How often it ran, also for processes that are not traced.
    pub hits: u64,
    /// In it, all together.
    pub time_ns: u64,
}

/// What was used since this process began, set-up included.
pub struct Cost {
    /// By the program's name.
    pub programs: BTreeMap<String, Runs>,
    /// CPU time of this process.
    pub cpu: Duration,
    /// Memory of this process now, bytes.
    pub resident: u64,
}

impl Cost {
    /// Of these programs and this process.
    pub fn now(programs: BTreeMap<String, Runs>) -> Result<Self> {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let cpu = Duration::try_from(cpu).context("a time that no clock shows")?;
        let pages = fs::read_to_string("/proc/self/statm").context("failed to read /proc/self")?;
        let pages = pages.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok());
        let resident = pages.context("no memory in /proc/self/statm")?;
        Ok(Self {
            programs,
            cpu,
            resident: resident * rustix::param::page_size() as u64,
        })
    }
}

/// Has the kernel count for as long as it lives, and knows when to tell.
pub struct Meter {
    /// Counting ends with the last of these.
    _counting: OwnedFd,
    /// `None`: at the end only.
    every: Option<Duration>,
    /// When it was told last.
    told: Instant,
}

impl Meter {
    /// Fails where the kernel does not let us (CAP_SYS_ADMIN, Linux 5.8).
    pub fn start(interval: Interval) -> Result<Self> {
        // SAFETY: takes a number, returns a descriptor or an error.
        let fd = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
        if fd < 0 {
            let error = std::io::Error::from_raw_os_error(-fd);
            return Err(error)
                .context("failed to have the kernel count (--self-stats needs CAP_SYS_ADMIN)");
        }
        Ok(Self {
            // SAFETY: just opened, and no one else's.
            _counting: unsafe { OwnedFd::from_raw_fd(fd) },
            every: interval.0,
            told: Instant::now(),
        })
    }

    /// Whether it is time to tell; then the next time is reckoned from now.
    pub fn is_due(&mut self) -> bool {
        let is_due = self.every.is_some_and(|every| self.told.elapsed() >= every);
        if is_due {
            self.told = Instant::now();
        }
        is_due
    }
}
