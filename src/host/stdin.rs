// SPDX-License-Identifier: MIT OR Apache-2.0
//! stdin as a source of records: it also ends when the end is asked for.

use std::io;
use std::io::Read;
use std::time::Duration;
use std::time::Instant;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::io::Errno;

use crate::host::signals::Signals;

/// How often it is looked whether the end is asked for, in ns.
const LOOK_NS: i64 = 100_000_000;

/// How long what still comes is read then: Ctrl-C also ends the program that writes.
const GRACE: Duration = Duration::from_secs(1);

/// The bytes of stdin. After the end was asked for there is an end when nothing comes for a tenth of a second, after a
/// second at the latest.
pub struct Stdin {
    signals: Signals,
    asked: Option<Instant>,
}

impl Stdin {
    /// Creates it, for signals that this process handles.
    pub fn new(signals: Signals) -> Self {
        let asked = None;
        Self { signals, asked }
    }
}

impl Read for Stdin {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: LOOK_NS,
        };
        loop {
            let is_asked = self.signals.is_end_asked();
            if is_asked && self.asked.get_or_insert_with(Instant::now).elapsed() > GRACE {
                return Ok(0);
            }
            let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) if is_asked => return Ok(0),
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(rustix::io::read(&stdin, bytes)?),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
