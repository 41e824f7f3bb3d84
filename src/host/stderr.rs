// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages to the operator, on stderr. They never delay the program: a pipe that is not read takes
//! 64 KiB, and a terminal that was stopped (Ctrl-S) takes nothing. A line that can't be written in
//! time is dropped and counted.

use std::fmt::Display;
use std::io;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::io::Errno;

use crate::host::escape::Line;

/// The bytes that a pipe takes without blocking when it has room (PIPE_BUF).
const LINE_BYTES: usize = 4096;

/// The text at the end of a line that was cut.
const CUT: &str = " ...";

/// The most lines that are held back.
const HELD_MAX: usize = 1_000;

/// The lines that are held back. `None`: none are.
static HELD: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// The number of lines that were dropped since the last line that was written.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// The time for which a line may wait to be written.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// None: other work waits for it.
    None,
    /// One second: the process has no other work.
    Long,
}

/// The verbosity: the messages that are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// `-q`: errors only.
    Quiet,
    /// The default.
    Normal,
    /// `-v`
    Verbose,
}

/// Prints the messages that a verbosity includes.
#[derive(Clone, Copy, Debug)]
pub struct Messages(Verbosity);

impl Messages {
    /// Creates a printer for this verbosity.
    pub fn new(verbosity: Verbosity) -> Self {
        Self(verbosity)
    }

    /// Prints one line, if there is room for it now.
    pub fn print(self, verbosity: Verbosity, text: impl Display) {
        if self.0 >= verbosity {
            print_line(Line(text), Patience::None);
        }
    }

    /// Prints one of the last lines of the process, and waits up to a second until there is room.
    pub fn print_last(self, verbosity: Verbosity, text: impl Display) {
        if self.0 >= verbosity {
            print_line(Line(text), Patience::Long);
        }
    }

    /// Prints an error that does not end tracing.
    pub fn warn(self, error: &anyhow::Error) {
        self.print(Verbosity::Normal, format_args!("{error:#}"));
    }
}

/// Prints the error that ends the process, whatever the verbosity.
pub fn print_error(text: impl Display) {
    print_line(Line(text), Patience::Long);
}

/// Holds all lines back: something else has the terminal.
pub fn hold() {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held.get_or_insert_default();
}

/// Prints the lines that were held back, and no longer holds any back.
pub fn release() {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner).take();
    for line in held.into_iter().flatten() {
        write(&line, Patience::Long);
    }
}

/// Keeps a line if lines are held back, and returns whether it did. Of too many the last ones are dropped.
fn keep(line: &str) -> bool {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(held) = held.as_mut() else {
        return false;
    };
    if held.len() < HELD_MAX {
        held.push(line.to_owned());
    } else {
        LEFT_OUT.fetch_add(1, Ordering::Relaxed);
    }
    true
}

/// Writes one line, and before it the number of lines that were dropped. A pipe that was closed is
/// not a failure.
pub fn print_line(what: impl Display, patience: Patience) {
    let line = what.to_string();
    if !keep(&line) {
        write(&line, patience);
    }
}

/// Writes a line.
fn write(line: &str, patience: Patience) {
    let mut text = String::new();
    let left_out = LEFT_OUT.swap(0, Ordering::Relaxed);
    if left_out > 0 {
        text = format!("ngx-bpf: {left_out} lines before this one were left out: no one read\n");
    }
    text += &format!("ngx-bpf: {line}");
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

/// Returns whether stderr is writable. An error counts as writable, since write() returns it at
/// once.
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
