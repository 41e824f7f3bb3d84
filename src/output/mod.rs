// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where records go: encoded by one of the formats below, gathered, and written without ever
//! holding up the end of the program.

use std::env;
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
use ngx_bpf_record::Format;
use ngx_bpf_record::format::json::Json;
use ngx_bpf_record::format::otel::KNOWN_METHODS_VARIABLE;
use ngx_bpf_record::format::otel::Otel;
use ngx_bpf_record::format::text::Text;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::fs::FileType;

use crate::cli;
use crate::host::signals::Signals;

mod destination;
pub mod escape;

/// Returns the format that an option names.
pub fn format(format: cli::Format) -> Box<dyn Format> {
    match format {
        cli::Format::Json => Box::new(Json),
        cli::Format::Otel => Box::new(Otel::new(env::var(KNOWN_METHODS_VARIABLE).ok())),
        cli::Format::Text => Box::new(Text),
    }
}

/// Lines are written when so many bytes have been gathered, or nothing more is waiting.
const GATHER_BYTES: usize = 64 << 10;

/// A pipe that is ready takes so many bytes without blocking (PIPE_BUF).
const PIPE_BYTES: usize = 4 << 10;

/// So much waits for somebody to read a FIFO; what comes after that is lost.
const UNREAD_BYTES: usize = 1 << 20;

/// How long a reader that takes nothing holds up the end.
const GRACE: Duration = Duration::from_secs(1);

/// How often a reader that takes nothing is looked after.
const STALL_CHECK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Why bytes were not written.
#[derive(Debug)]
pub enum Failure {
    /// No one reads any more: time to end.
    Closed,
    /// The end was asked for, and the reader takes nothing.
    Stalled,
    /// The disk is full, or worse.
    Failed(io::Error),
}

/// What became of the lines that waited.
#[derive(Debug, Default)]
pub struct Flushed {
    /// Lines that are out, whole.
    pub written: u64,
    /// Lines that are gone.
    pub unwritten: u64,
    /// Why they are.
    pub failure: Option<Failure>,
}

/// stdout or a file, and the lines that wait to be written.
pub struct Output {
    /// Where to; `None` while it is a FIFO that no one reads.
    file: Option<File>,
    /// Of `-o`; `None` is stdout.
    path: Option<PathBuf>,
    /// Whether writing may block for long: all but regular files.
    may_block: bool,
    /// Whole lines.
    waiting: Vec<u8>,
    /// When the reader is given up: it has taken nothing for a while since the end was asked for.
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
        Ok(Self {
            may_block: file.as_ref().is_some_and(may_block),
            file,
            path: path.map(Path::to_owned),
            waiting: Vec::with_capacity(2 * GATHER_BYTES),
            deadline: None,
        })
    }

    /// Opens the file again, as it was moved away. On failure the old one stays in use.
    pub fn reopen(&mut self) -> Result<()> {
        if let Some(path) = &self.path {
            self.file = destination::open(path)?;
            self.may_block = self.file.as_ref().is_some_and(may_block);
        }
        Ok(())
    }

    /// Whether it is a FIFO that no one has read so far.
    pub fn is_unread(&self) -> bool {
        self.file.is_none()
    }

    /// Whether it is a file that everybody may read.
    pub fn is_public(&self) -> bool {
        let stat = self.file.as_ref().map(rustix::fs::fstat);
        let is_regular = !self.may_block && self.path.is_some();
        is_regular && stat.is_some_and(|stat| stat.is_ok_and(|stat| stat.st_mode & 0o004 != 0))
    }

    /// Where a sink appends its lines.
    pub fn lines(&mut self) -> &mut Vec<u8> {
        &mut self.waiting
    }

    /// Whether enough has been gathered to be written.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= GATHER_BYTES
    }

    /// Writes what waits; nothing waits afterwards, unless no one reads yet.
    pub fn flush(&mut self, stop: &Signals) -> Flushed {
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
        let (written, failure) = self.write(&bytes, stop);
        let mut flushed = Flushed {
            written: lines(&bytes[..written]),
            unwritten: 0,
            failure,
        };
        flushed.unwritten = lines(&bytes) - flushed.written;
        if flushed.failure.is_some() {
            self.take_back_torn_line(&bytes[..written]);
        }
        bytes.clear();
        self.waiting = bytes;
        flushed
    }

    /// Drops what waits for somebody to read.
    pub fn give_up_unread(&mut self) -> Flushed {
        self.give_up(io::Error::other("no one reads the FIFO"))
    }

    /// Drops what waits.
    fn give_up(&mut self, error: io::Error) -> Flushed {
        let unwritten = lines(&self.waiting);
        self.waiting.clear();
        Flushed {
            written: 0,
            unwritten,
            failure: (unwritten > 0).then_some(Failure::Failed(error)),
        }
    }

    /// Whether the reader of a pipe has gone.
    pub fn is_closed(&self) -> bool {
        let Some(file) = self.file.as_ref().filter(|_| self.may_block) else {
            return false;
        };
        let mut fds = [PollFd::new(file, PollFlags::empty())];
        let ready = poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0);
        ready && fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
    }

    /// Writes all bytes; says how many it were if not. A reader that does not read is waited for
    /// until the end is asked for, and a little longer.
    fn write(&mut self, bytes: &[u8], stop: &Signals) -> (usize, Option<Failure>) {
        let mut written = 0;
        while written < bytes.len() {
            let mut chunk = &bytes[written..];
            if self.may_block {
                chunk = &chunk[..chunk.len().min(PIPE_BYTES)];
                if self.is_given_up(stop) {
                    return (written, Some(Failure::Stalled));
                }
                if !self.is_ready() {
                    continue;
                }
            }
            let Some(file) = &mut self.file else {
                break;
            };
            match file.write(chunk) {
                Ok(0) => {
                    let error = io::ErrorKind::WriteZero.into();
                    return (written, Some(Failure::Failed(error)));
                }
                Ok(n) => {
                    written += n;
                    self.deadline = None;
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => {}
                    io::ErrorKind::BrokenPipe => return (written, Some(Failure::Closed)),
                    _ => return (written, Some(Failure::Failed(error))),
                },
            }
        }
        (written, None)
    }

    /// A full disk takes part of a line: what the file has of it would spoil the next one. Others may
    /// write to the file as well: it is made shorter only where our bytes are its last.
    fn take_back_torn_line(&mut self, written: &[u8]) {
        let torn = written
            .iter()
            .rev()
            .take_while(|byte| **byte != b'\n')
            .count();
        if self.may_block || torn == 0 {
            return;
        }
        let Some(file) = &mut self.file else {
            return;
        };
        /* Behind our last byte, also of a file that is appended to. */
        let (Ok(position), Ok(metadata)) = (file.stream_position(), file.metadata()) else {
            return;
        };
        if metadata.len() == position {
            let whole = position.saturating_sub(torn as u64);
            let _ = file.set_len(whole);
            let _ = file.seek(SeekFrom::Start(whole));
        }
    }

    /// Whether no one seems to read: nothing was taken since the end was asked for, for too long.
    fn is_given_up(&mut self, stop: &Signals) -> bool {
        if self.deadline.is_none() && stop.is_asked() {
            self.deadline = Instant::now().checked_add(GRACE);
        }
        self.deadline.is_some_and(|end| Instant::now() >= end)
    }

    /// Waits a moment for room. An error counts as room: write() tells which.
    fn is_ready(&self) -> bool {
        let Some(file) = &self.file else {
            return false;
        };
        let mut fds = [PollFd::new(file, PollFlags::OUT)];
        poll(&mut fds, Some(&STALL_CHECK)).is_ok_and(|ready| ready > 0)
    }
}

/// Writes a whole text to stdout, for what is no stream of records. That no one reads is no failure.
pub fn print(text: &[u8]) -> Result<()> {
    let mut stdout = io::stdout();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("failed to write to stdout")
        }
        _ => Ok(()),
    }
}

/// Line ends.
fn lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// Whether stdout is a pipe: another program reads it.
pub fn is_stdout_pipe() -> bool {
    rustix::fs::fstat(io::stdout())
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

/// Whether a write to this may block until somebody reads.
fn may_block(file: &File) -> bool {
    rustix::fs::fstat(file)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::fs::OpenOptions;
    use std::io::Write as _;

    use super::Output;

    /// Check that a torn line is taken back, also of a file that is not appended to, and that nothing
    /// is cut where another writer came after it.
    #[test]
    fn torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut output = Output::open(Some(&path)).unwrap();
        let mut write = |bytes: &[u8]| output.file.as_mut().unwrap().write_all(bytes).unwrap();
        write(b"a\nto");
        output.take_back_torn_line(b"a\nto");
        assert_eq!(fs::read(&path).unwrap(), b"a\n");
        let mut write = |bytes: &[u8]| output.file.as_mut().unwrap().write_all(bytes).unwrap();
        write(b"b\nto");
        let mut other = OpenOptions::new().append(true).open(&path).unwrap();
        other.write_all(b"theirs\n").unwrap();
        output.take_back_torn_line(b"b\nto");
        assert_eq!(fs::read(&path).unwrap(), b"a\nb\ntotheirs\n");
        output.file = Some(fs::File::create(&path).unwrap());
        let mut write = |bytes: &[u8]| output.file.as_mut().unwrap().write_all(bytes).unwrap();
        write(b"c\nto");
        output.take_back_torn_line(b"c\nto");
        let mut write = |bytes: &[u8]| output.file.as_mut().unwrap().write_all(bytes).unwrap();
        write(b"d\n");
        assert_eq!(fs::read(&path).unwrap(), b"c\nd\n");
    }
}
