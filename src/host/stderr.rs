// SPDX-License-Identifier: MIT OR Apache-2.0
//! stderr, which must never hold the tool up: a pipe that no one reads takes 64 KiB, a terminal that
//! was stopped (Ctrl-S) nothing. What does not go out in time is left out, and counted.

use std::fmt::Display;
use std::io;
use std::io::Write as _;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::io::Errno;

/// A pipe with room takes so many bytes without blocking (PIPE_BUF).
const LINE_BYTES: usize = 4096;

/// How a line ends that was cut.
const CUT: &str = " ...";

/// Lines that were left out since the last one that went out.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// How long a line may wait.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// Not at all: records have to wait for it.
    None,
    /// A second: nothing else is to be done.
    Long,
}

/// Writes one line, and before it how many lines are missing. That no one reads is no failure.
pub fn say(what: impl Display, patience: Patience) {
    let mut text = String::new();
    let left_out = LEFT_OUT.swap(0, Ordering::Relaxed);
    if left_out > 0 {
        text = format!("ngx-bpf: {left_out} lines before this one were left out: no one read\n");
    }
    text += &format!("ngx-bpf: {what}");
    if text.len() >= LINE_BYTES {
        let mut end = LINE_BYTES - CUT.len() - 1;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text += CUT;
    }
    text.push('\n');
    if !is_ready(patience) || io::stderr().write_all(text.as_bytes()).is_err() {
        LEFT_OUT.fetch_add(left_out + 1, Ordering::Relaxed);
    }
}

/// Whether stderr takes a line now. An error counts as room: write() returns at once.
fn is_ready(patience: Patience) -> bool {
    let time = Timespec {
        tv_sec: match patience {
            Patience::None => 0,
            Patience::Long => 1,
        },
        tv_nsec: 0,
    };
    let stderr = io::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    loop {
        match poll(&mut fds, Some(&time)) {
            Ok(ready) => return ready > 0,
            Err(Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}
