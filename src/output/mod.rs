// SPDX-License-Identifier: MIT OR Apache-2.0
//! The output of records: they are encoded in one of the formats, collected and written, and
//! writing never delays the end of the program.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use ngx_bpf_record::values::Cause;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::fs::FileType;

use crate::host::signals::Signals;

pub use encoder::Encoder;
pub use encoder::OutputFormat;
pub use encoder::identity;

mod destination;
mod encoder;

/// The number of collected bytes from which on they are written, although more records wait.
const GATHER_BYTES: usize = 64 << 10;

/// The bytes that a pipe takes without blocking when it is ready (PIPE_BUF).
const PIPE_BYTES: usize = 4 << 10;

/// The most bytes of lines that wait until somebody reads a FIFO; further lines are lost.
const UNREAD_BYTES: usize = 1 << 20;

/// The grace period at the end for a reader that has stopped reading.
const GRACE: Duration = Duration::from_secs(1);

/// The poll interval while the output is not writable.
const STALL_CHECK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// The reason why lines were not written.
#[derive(Debug)]
pub enum WriteFailure {
    /// The reader of the pipe has gone.
    Closed,
    /// The end was asked for, and the reader does not read.
    Stalled,
    /// A write failed, for example because the disk is full.
    Failed(io::Error),
}

/// The record of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// So many requests.
    Requests(u64),
    /// A connection without a request. The line reports that so many others were lost.
    Connection {
        lost: u64,
    },
    Blocked,
    /// A loss of so many requests.
    Lost {
        cause: Cause,
        count: u64,
    },
}

impl LineKind {
    /// Returns the number of records in the line.
    pub fn records(self) -> u64 {
        match self {
            Self::Requests(count) => count,
            Self::Connection { .. } | Self::Blocked | Self::Lost { .. } => 1,
        }
    }
}

/// The result of writing the lines that waited.
#[derive(Debug, Default)]
pub struct Flushed {
    /// The lines that were dropped.
    pub unwritten: VecDeque<LineKind>,
    /// The reason why lines were dropped.
    pub failure: Option<WriteFailure>,
}

/// stdout or a file, and the lines that wait to be written to it.
pub struct Output {
    /// The file. `None` while it is a FIFO without a reader.
    file: Option<File>,
    /// The path of `-o`; `None` for stdout.
    path: Option<PathBuf>,
    /// True for all but regular files: a write may block for long.
    may_block: bool,
    /// The whole lines that wait.
    waiting: Vec<u8>,
    /// The kind of each of them.
    kinds: VecDeque<LineKind>,
    /// The number of bytes of the first waiting line that were written already.
    torn: usize,
    /// The time at which a reader that does not read is given up. `None` until the end was asked
    /// for.
    deadline: Option<Instant>,
}

impl Output {
    /// Opens `path`, or stdout. Fails when the file can't be opened.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let file = match path {
            Some(path) => destination::open(path)?,
            None => {
                let stdout = io::stdout().as_fd().try_clone_to_owned();
                Some(File::from(stdout.context("failed to use stdout")?))
            }
        };
        Ok(Self::new(file, path.map(Path::to_owned)))
    }

    /// Creates the output for an open file.
    fn new(file: Option<File>, path: Option<PathBuf>) -> Self {
        Self {
            may_block: file.as_ref().is_some_and(may_block),
            file,
            path,
            waiting: Vec::with_capacity(2 * GATHER_BYTES),
            kinds: VecDeque::new(),
            torn: 0,
            deadline: None,
        }
    }

    /// Opens the path again, in case the file was moved away. Lines that wait are written to the
    /// new file, including a line that was written to the old file in part. On failure the old file
    /// stays in use.
    pub fn reopen(&mut self) -> Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let file = destination::open(path)?;
        let is_same = match (&self.file, &file) {
            (Some(old), Some(new)) => is_same_file(old, new),
            _ => false,
        };
        if !is_same {
            self.may_block = file.as_ref().is_some_and(may_block);
            self.file = file;
            self.torn = 0;
        }
        Ok(())
    }

    /// Returns whether the output is a FIFO that no process has opened for reading yet.
    pub fn is_unread(&self) -> bool {
        self.file.is_none()
    }

    /// Returns whether the output is a file that every user may read.
    pub fn is_public(&self) -> bool {
        let stat = self.file.as_ref().map(rustix::fs::fstat);
        let is_regular = !self.may_block && self.path.is_some();
        is_regular && stat.is_some_and(|stat| stat.is_ok_and(|stat| stat.st_mode & 0o004 != 0))
    }

    /// Appends the one line that `encode` writes, which appends nothing when it fails.
    pub fn append<E>(
        &mut self,
        kind: LineKind,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        encode(&mut self.waiting)?;
        self.kinds.push_back(kind);
        Ok(())
    }

    /// Returns whether enough bytes were collected to write them.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= GATHER_BYTES
    }

    /// Writes the lines that wait, and calls `written` for each line that was written. No line waits
    /// afterwards, unless the FIFO has no reader yet, or the reader does not read and a new file was
    /// asked for.
    pub fn flush(&mut self, signals: &Signals, written: impl FnMut(LineKind)) -> Flushed {
        if self.file.is_none()
            && let Err(error) = self.reopen()
        {
            return self.give_up(io::Error::other(format!("{error:#}")));
        }
        if self.file.is_none() {
            return match self.waiting.len() {
                ..UNREAD_BYTES => Flushed::default(),
                _ => self.give_up_unread(),
            };
        }
        let mut bytes = std::mem::take(&mut self.waiting);
        let (end, failure) = self.write(&bytes, self.torn, signals, written);
        let mut flushed = Flushed {
            unwritten: VecDeque::new(),
            failure,
        };
        self.torn = torn_bytes(&bytes[..end]);
        if flushed.failure.is_some() {
            flushed.unwritten = std::mem::take(&mut self.kinds);
            self.take_back_torn_line(self.torn);
            self.torn = 0;
            bytes.clear();
        } else {
            bytes.drain(..end - self.torn);
        }
        self.waiting = bytes;
        flushed
    }

    /// Drops the lines that wait until somebody reads the FIFO.
    pub fn give_up_unread(&mut self) -> Flushed {
        self.give_up(io::Error::other("no one reads the FIFO"))
    }

    /// Drops the lines that wait.
    fn give_up(&mut self, error: io::Error) -> Flushed {
        self.waiting.clear();
        let unwritten = std::mem::take(&mut self.kinds);
        Flushed {
            failure: (!unwritten.is_empty()).then_some(WriteFailure::Failed(error)),
            unwritten,
        }
    }

    /// Returns whether the reader of a pipe has gone.
    pub fn is_closed(&self) -> bool {
        let Some(file) = self.file.as_ref().filter(|_| self.may_block) else {
            return false;
        };
        let mut fds = [PollFd::new(file, PollFlags::empty())];
        let ready = poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0);
        ready && fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
    }

    /// Writes the bytes from `start` on. Returns the position of the first byte that was not
    /// written: less than the length after a failure, and when the reader does not read and a new
    /// file was asked for. Waits for a reader that does not read until the end is asked for, and
    /// then for the grace period.
    fn write(
        &mut self,
        bytes: &[u8],
        start: usize,
        signals: &Signals,
        mut written: impl FnMut(LineKind),
    ) -> (usize, Option<WriteFailure>) {
        let mut end = start;
        while end < bytes.len() {
            let mut chunk = &bytes[end..];
            if self.may_block {
                chunk = &chunk[..chunk.len().min(PIPE_BYTES)];
                if self.is_given_up(signals) {
                    return (end, Some(WriteFailure::Stalled));
                }
                if !self.is_ready() {
                    if signals.is_reopen_asked() {
                        return (end, None);
                    }
                    continue;
                }
            }
            let Some(file) = &mut self.file else {
                break;
            };
            match file.write(chunk) {
                Ok(0) => {
                    let error = io::ErrorKind::WriteZero.into();
                    return (end, Some(WriteFailure::Failed(error)));
                }
                Ok(n) => {
                    let count = count_lines(&chunk[..n]);
                    let whole = self.kinds.drain(..count.min(self.kinds.len()));
                    whole.for_each(&mut written);
                    end += n;
                    self.deadline = None;
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => {}
                    io::ErrorKind::BrokenPipe => return (end, Some(WriteFailure::Closed)),
                    _ => return (end, Some(WriteFailure::Failed(error))),
                },
            }
        }
        (end, None)
    }

    /// Removes the beginning of a line from the end of a regular file. A full disk takes a part of
    /// a line, which would spoil the next line. Others may write to the file as well, so it is cut
    /// only if it ends where we have written last.
    fn take_back_torn_line(&mut self, torn: usize) {
        if self.may_block || torn == 0 {
            return;
        }
        let Some(file) = &mut self.file else {
            return;
        };
        /* The position is after our last byte, also in a file that is appended to. */
        let (Ok(position), Ok(metadata)) = (file.stream_position(), file.metadata()) else {
            return;
        };
        if metadata.len() == position {
            let whole = position.saturating_sub(torn as u64);
            let _ = file.set_len(whole);
            let _ = file.seek(SeekFrom::Start(whole));
        }
    }

    /// Returns whether the grace period of a reader that does not read is over.
    fn is_given_up(&mut self, signals: &Signals) -> bool {
        if self.deadline.is_none() && signals.is_end_asked() {
            self.deadline = Instant::now().checked_add(GRACE);
        }
        self.deadline.is_some_and(|end| Instant::now() >= end)
    }

    /// Waits a moment until the output is writable. An error counts as writable, since write()
    /// returns it.
    fn is_ready(&self) -> bool {
        let Some(file) = &self.file else {
            return false;
        };
        let mut fds = [PollFd::new(file, PollFlags::OUT)];
        poll(&mut fds, Some(&STALL_CHECK)).is_ok_and(|ready| ready > 0)
    }
}

/// Writes a whole text to stdout, for output other than records. A pipe that was closed is not a
/// failure.
pub fn print(text: &[u8]) -> Result<()> {
    let mut stdout = io::stdout();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("failed to write to stdout")
        }
        _ => Ok(()),
    }
}

/// Counts the line ends.
fn count_lines(bytes: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', bytes).count()
}

/// Counts the bytes after the last line end.
fn torn_bytes(bytes: &[u8]) -> usize {
    bytes.len() - memchr::memrchr(b'\n', bytes).map_or(0, |end| end + 1)
}

/// Returns whether stdout is a pipe, which another program reads.
pub fn is_stdout_pipe() -> bool {
    rustix::fs::fstat(io::stdout())
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

/// Returns whether a write to this file may block until somebody reads.
fn may_block(file: &File) -> bool {
    rustix::fs::fstat(file)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile)
}

/// Returns whether both are the same file.
fn is_same_file(a: &File, b: &File) -> bool {
    let id = |file| rustix::fs::fstat(file).map(|stat| (stat.st_dev, stat.st_ino));
    matches!((id(a), id(b)), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests;
