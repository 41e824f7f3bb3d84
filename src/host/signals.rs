// SPDX-License-Identifier: MIT OR Apache-2.0
//! The signals that this process handles. SIGINT, SIGTERM and SIGHUP ask for the end, SIGUSR1 for a
//! new output file, SIGUSR2 for the requests in flight.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use crossbeam_channel::Receiver;
use crossbeam_channel::bounded;
use signal_hook::consts::SIGUSR1;
use signal_hook::consts::SIGUSR2;
use signal_hook::consts::SIGXFSZ;

/// The time after the first signal within which another one counts as the same signal: `timeout`
/// sends a signal to its child and to the child's group, and both a shell and the kernel send
/// SIGHUP.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// The exit code after a second signal.
const FAILED: i32 = 1;

/// The state of the signals and of `--duration`: whether the end, or a new output file, was asked
/// for. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    /// Set by SIGINT, SIGTERM and SIGHUP.
    end: Arc<AtomicBool>,
    /// Set by SIGUSR1, cleared when the output is reopened.
    reopen: Arc<AtomicBool>,
    /// Set by SIGUSR2, cleared when the requests in flight are printed.
    inflight: Arc<AtomicBool>,
    /// The time at which `--duration` is over. `None` without that option.
    deadline: Option<Instant>,
}

impl Signals {
    /// Installs the handlers. The receiver gets a message at the first signal that asks for the
    /// end. A second such signal, which means that draining has to stop, calls `at_second` and
    /// exits with code 1; the kernel then detaches all programs.
    pub fn take_over(at_second: impl Fn() + Send + 'static) -> Result<(Self, Receiver<()>)> {
        let signals = Self::default();
        let (sender, receiver) = bounded(1);
        let end = Arc::clone(&signals.end);
        let mut first: Option<Instant> = None;
        ctrlc::set_handler(move || {
            match first {
                Some(first) if first.elapsed() > SAME_SIGNAL => {
                    at_second();
                    std::process::exit(FAILED);
                }
                _ => first = first.or_else(|| Some(Instant::now())),
            }
            end.store(true, Ordering::Relaxed);
            let _ = sender.try_send(());
        })
        .context("failed to handle signals")?;
        signal_hook::flag::register(SIGUSR1, Arc::clone(&signals.reopen))
            .context("failed to handle SIGUSR1")?;
        signal_hook::flag::register(SIGUSR2, Arc::clone(&signals.inflight))
            .context("failed to handle SIGUSR2")?;
        /* With a handler, write() returns an error at the limit of the file size (ulimit -f), as on a full
         * disk. */
        signal_hook::flag::register(SIGXFSZ, Arc::default()).context("failed to handle SIGXFSZ")?;
        Ok((signals, receiver))
    }

    /// Starts the time of `--duration`.
    pub fn start_clock(&mut self, duration: Option<Duration>) {
        self.deadline = duration.and_then(|duration| Instant::now().checked_add(duration));
    }

    /// Returns whether the end was asked for, by a signal or by `--duration`.
    pub fn is_end_asked(&self) -> bool {
        self.end.load(Ordering::Relaxed) || self.deadline.is_some_and(|end| Instant::now() >= end)
    }

    /// Asks for the end, as SIGTERM does.
    pub fn end(&self) {
        self.end.store(true, Ordering::Relaxed);
    }

    /// Returns the time at which `--duration` is over. `None` without that option.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Returns whether SIGUSR1 has come since `take_reopen()`.
    pub fn is_reopen_asked(&self) -> bool {
        self.reopen.load(Ordering::Relaxed)
    }

    /// Asks for the requests in flight, as SIGUSR2 does.
    pub fn ask_for_inflight(&self) {
        self.inflight.store(true, Ordering::Relaxed);
    }

    /// Returns whether SIGUSR2 has come since the last call.
    pub fn take_inflight(&self) -> bool {
        self.inflight.swap(false, Ordering::Relaxed)
    }

    /// Returns whether SIGUSR1 has come since the last call.
    pub fn take_reopen(&self) -> bool {
        self.reopen.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
impl Signals {
    /// Asks for a new output file, as SIGUSR1 does.
    pub fn ask_for_reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }
}
