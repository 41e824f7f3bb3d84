// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one thing that travels against the flow: that the end was asked for.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use crossbeam_channel::Receiver;
use crossbeam_channel::bounded;

use crate::host::stderr;
use crate::host::stderr::Patience;

/// A signal so soon after the first is the same one: `timeout` sends it to its child and to the
/// child's group, a shell and the kernel both send SIGHUP.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// What is said at the second one.
const AT_ONCE: &str =
    "ended at once by a second signal: what was not yet written is missing, uncounted";

/// The exit code then.
const FAILED: i32 = 1;

/// Asked for by a signal (SIGINT, SIGTERM, SIGHUP), or by `--duration`.
#[derive(Debug)]
pub struct Signals {
    /// Set by the signals.
    signalled: Arc<AtomicBool>,
    /// Of `--duration`.
    deadline: Option<Instant>,
}

impl Signals {
    /// Takes over the signals. The receiver gets a message at the first of them; one that comes
    /// when draining should be over ends the process at once, which is said, since what waits is not
    /// written then: the kernel takes everything back.
    pub fn take_over() -> Result<(Self, Receiver<()>)> {
        let signalled = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = bounded(1);
        let flag = Arc::clone(&signalled);
        let mut first: Option<Instant> = None;
        ctrlc::set_handler(move || {
            match first {
                Some(first) if first.elapsed() > SAME_SIGNAL => {
                    stderr::say(AT_ONCE, Patience::None);
                    std::process::exit(FAILED);
                }
                _ => first = first.or_else(|| Some(Instant::now())),
            }
            flag.store(true, Ordering::Relaxed);
            let _ = sender.try_send(());
        })
        .context("failed to handle signals")?;
        let stop = Self {
            signalled,
            deadline: None,
        };
        Ok((stop, receiver))
    }

    /// Starts the clock of `--duration`.
    pub fn after(&mut self, duration: Option<Duration>) {
        self.deadline = duration.and_then(|duration| Instant::now().checked_add(duration));
    }

    /// Whether the end was asked for.
    pub fn is_asked(&self) -> bool {
        self.signalled.load(Ordering::Relaxed)
            || self.deadline.is_some_and(|end| Instant::now() >= end)
    }

    /// When `--duration` is over.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}
