// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unit tests of the output, on files and pipes.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io::PipeReader;
use std::io::Read as _;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::time::Instant;

use super::GRACE;
use super::LineKind;
use super::Output;
use super::WriteFailure;
use crate::host::signals::Signals;

/// More lines than a pipe takes.
const LINES: usize = 20_000;

/// Returns an output into a pipe, with many lines that wait, and the reader of the pipe.
fn piped() -> (PipeReader, Output) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut output = Output::new(Some(File::from(OwnedFd::from(writer))), None);
    for n in 0..LINES {
        let encode = |line: &mut Vec<u8>| writeln!(line, "line {n:05}");
        output.append(LineKind::Requests(1), encode).unwrap();
    }
    (reader, output)
}

/// Returns the numbers in the lines of a text. Every line must be whole.
fn numbers(text: &[u8]) -> Vec<usize> {
    assert!(text.ends_with(b"\n"));
    let text = std::str::from_utf8(text).unwrap();
    let number = |line: &str| line.strip_prefix("line ").unwrap().parse().unwrap();
    text.lines().map(number).collect()
}

/// Check that a reader that does not read is given up after the grace period, and the counts then.
#[test]
fn stalled() {
    let (mut reader, mut output) = piped();
    let signals = Signals::default();
    signals.end();
    let (begun, mut written) = (Instant::now(), 0);
    let flushed = output.flush(&signals, |_| written += 1);
    assert!(begun.elapsed() >= GRACE);
    assert!(matches!(flushed.failure, Some(WriteFailure::Stalled)));
    assert_eq!(written + flushed.unwritten.len(), LINES);
    drop(output);
    let mut text = Vec::new();
    reader.read_to_end(&mut text).unwrap();
    let whole = text.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(whole, written);
}

/// Check that a new file that is asked for while the reader does not read gets all lines that the
/// old file does not have whole, each once.
#[test]
fn reopened_while_stalled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let (mut reader, mut output) = piped();
    output.path = Some(path.clone());
    let signals = Signals::default();
    signals.ask_for_reopen();
    let mut written = 0;
    let flushed = output.flush(&signals, |_| written += 1);
    assert!(flushed.failure.is_none() && flushed.unwritten.is_empty());
    let first = written;
    assert!(signals.take_reopen());
    output.reopen().unwrap();
    output.flush(&signals, |_| written += 1);
    assert_eq!(written, LINES);
    let new = numbers(&fs::read(&path).unwrap());
    assert_eq!(new.len(), LINES - first);
    assert_eq!(new[0], first);
    drop(output);
    let mut old = Vec::new();
    reader.read_to_end(&mut old).unwrap();
    let end = old.iter().rposition(|byte| *byte == b'\n').unwrap();
    assert_eq!(numbers(&old[..=end]).len(), first);
}

/// Check that writing continues within a line when the same pipe is opened again.
#[test]
fn same_pipe_reopened() {
    let (mut reader, mut output) = piped();
    let signals = Signals::default();
    signals.ask_for_reopen();
    let mut written = 0;
    output.flush(&signals, |_| written += 1);
    assert!(signals.take_reopen());
    output.reopen().unwrap();
    let text = std::thread::spawn(move || {
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        text
    });
    output.flush(&signals, |_| written += 1);
    drop(output);
    let lines = numbers(&text.join().unwrap());
    assert!(lines.into_iter().eq(0..LINES));
    assert_eq!(written, LINES);
}

/// Check that a closed pipe is noticed, also without a line to write.
#[test]
fn closed() {
    let (reader, mut output) = piped();
    assert!(!output.is_closed());
    drop(reader);
    assert!(output.is_closed());
    let flushed = output.flush(&Signals::default(), |_| ());
    assert!(matches!(flushed.failure, Some(WriteFailure::Closed)));
    assert_eq!(flushed.unwritten.len(), LINES);
}

/// Check that a torn line is removed, also from a file that is not appended to, and that nothing is
/// removed when another writer has written after it.
#[test]
fn torn_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut output = Output::open(Some(&path)).unwrap();
    let mut write = |bytes: &[u8]| output.file.as_mut().unwrap().write_all(bytes).unwrap();
    write(b"a\nto");
    output.take_back_torn_line(2);
    assert_eq!(fs::read(&path).unwrap(), b"a\n");
    let mut write = |bytes: &[u8]| output.file.as_mut().unwrap().write_all(bytes).unwrap();
    write(b"b\nto");
    let mut other = OpenOptions::new().append(true).open(&path).unwrap();
    other.write_all(b"theirs\n").unwrap();
    output.take_back_torn_line(2);
    assert_eq!(fs::read(&path).unwrap(), b"a\nb\ntotheirs\n");
    output.file = Some(File::create(&path).unwrap());
    let mut write = |bytes: &[u8]| output.file.as_mut().unwrap().write_all(bytes).unwrap();
    write(b"c\nto");
    output.take_back_torn_line(2);
    let mut write = |bytes: &[u8]| output.file.as_mut().unwrap().write_all(bytes).unwrap();
    write(b"d\n");
    assert_eq!(fs::read(&path).unwrap(), b"c\nd\n");
}
