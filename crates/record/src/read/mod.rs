// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads the lines of `ngx-bpf --json`: from files, also ones that gzip or zstd has compressed, and from stdin.
//! A line of another version is read as far as it goes. What can't be read is counted.

use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use serde::Deserialize as _;
use serde_json::Map;
use serde_json::Value;

use crate::Record;
use crate::filter::Filter;
use crate::redact::Redaction;
use crate::request::Request;
use frames::Frames;

pub use parallel::fold;

mod frames;
mod parallel;

/// The longest line that is read, in bytes. A record has a few KiB; `--max-line none` allows more.
const LINE_BYTES_MAX: usize = 1 << 20;

/// The bytes that are read at once.
const BLOCK_BYTES: usize = 64 << 10;

/// The first bytes of compressed files.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The begin of the line of a request, as this version and others write it.
const REQUEST: &[u8] = br#"{"type":"request","#;

/// Lines that were not records, or not completely.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// Lines that are no record that this version knows.
    pub lines: u64,
    /// Records of which some keys have values that this version does not know.
    pub partly: u64,
}

impl Unread {
    /// Adds others.
    pub fn merge(&mut self, other: Self) {
        self.lines += other.lines;
        self.partly += other.partly;
    }
}

/// Opens a file of records, compressed or not. `-` is stdin.
///
/// # Errors
///
/// Fails when it can't be opened or read.
pub fn open(path: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    if path.as_os_str() == "-" {
        return decompressed(BufReader::with_capacity(BLOCK_BYTES, io::stdin()));
    }
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    decompressed(BufReader::with_capacity(BLOCK_BYTES, file))
}

/// Returns what these bytes contain, decompressed if they are compressed.
fn decompressed(mut bytes: impl BufRead + Send + 'static) -> io::Result<Box<dyn BufRead + Send>> {
    let begin = bytes.fill_buf()?;
    if begin.starts_with(&GZIP) {
        let decoder = MultiGzDecoder::new(bytes);
        return Ok(Box::new(BufReader::with_capacity(BLOCK_BYTES, decoder)));
    }
    if begin.starts_with(&ZSTD) {
        let frames = Frames::new(bytes);
        return Ok(Box::new(BufReader::with_capacity(BLOCK_BYTES, frames)));
    }
    Ok(Box::new(bytes))
}

/// The records of one source, in order.
pub struct Records<R> {
    source: R,
    line: Vec<u8>,
    unread: Unread,
    filter: Filter,
    redaction: Redaction,
    filtered: u64,
}

impl<R: BufRead> Records<R> {
    /// Creates the reader of a source.
    pub fn new(source: R) -> Self {
        Self {
            source,
            line: Vec::new(),
            unread: Unread::default(),
            filter: Filter::default(),
            redaction: Redaction::Keys(Vec::new()),
            filtered: 0,
        }
    }

    /// Leaves out the requests that a filter does not let through, and removes secrets from the others.
    pub fn chosen(mut self, filter: Filter, redaction: Redaction) -> Self {
        (self.filter, self.redaction) = (filter, redaction);
        self
    }

    /// Returns the next record. `None` at the end.
    ///
    /// # Errors
    ///
    /// Fails when the source can't be read.
    pub fn next_record(&mut self) -> io::Result<Option<Record<'static>>> {
        while next_line(&mut self.source, &mut self.line, &mut self.unread)? {
            let Some(mut record) = parse(&self.line, &mut self.unread) else {
                continue;
            };
            if let Record::Request(request) = &mut record {
                if !self.filter.lets_through(request) {
                    self.filtered += 1;
                    continue;
                }
                self.redaction.apply(request);
            }
            return Ok(Some(record));
        }
        Ok(None)
    }

    /// Returns the number of requests that the filter has left out so far.
    pub fn filtered(&self) -> u64 {
        self.filtered
    }

    /// Returns what could not be read so far.
    pub fn unread(&self) -> Unread {
        self.unread
    }
}

/// Reads the next line without its end. Lines that are too long are counted and left out. Returns false at the end.
fn next_line(
    source: &mut impl BufRead,
    line: &mut Vec<u8>,
    unread: &mut Unread,
) -> io::Result<bool> {
    loop {
        line.clear();
        let mut is_cut = false;
        loop {
            let bytes = match source.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if bytes.is_empty() {
                break;
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            is_cut |= line.len() + part.len() > LINE_BYTES_MAX;
            if !is_cut {
                line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            source.consume(used);
            if end.is_some() {
                if !is_cut {
                    return Ok(true);
                }
                break;
            }
        }
        if is_cut {
            unread.lines += 1;
        } else if source.fill_buf()?.is_empty() {
            return Ok(!line.is_empty());
        }
    }
}

/// Returns the record of a line. `None` when it is none; then it is counted, unless it is blank.
fn parse(line: &[u8], unread: &mut Unread) -> Option<Record<'static>> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return None;
    }
    let record = if line.starts_with(REQUEST) {
        /* This is twice as fast as finding out the type first. */
        serde_json::from_slice(line).map(|request| Record::Request(Box::new(request)))
    } else {
        serde_json::from_slice(line)
    };
    match record {
        Ok(record) => Some(record),
        Err(_) => {
            let known = known_part(line);
            match known {
                Some(_) => unread.partly += 1,
                None => unread.lines += 1,
            }
            known
        }
    }
}

/// Returns the part of a request that this version knows. `None` when it is no request, or has no pid.
fn known_part(line: &[u8]) -> Option<Record<'static>> {
    let Value::Object(keys) = serde_json::from_slice(line).ok()? else {
        return None;
    };
    if keys.get("type")?.as_str()? != "request" {
        return None;
    }
    let required = |name: &str| keys.get(name).map(|value| (name.to_owned(), value.clone()));
    let mut known: Map<String, Value> = required("pid").into_iter().collect();
    /* A record always has it; the views do not look at it. */
    known.insert("scheme".to_owned(), Value::from("http"));
    Request::deserialize(&Value::Object(known.clone())).ok()?;
    for (name, value) in keys {
        let before = known.insert(name.clone(), value);
        if Request::deserialize(&Value::Object(known.clone())).is_err() {
            match before {
                Some(before) => known.insert(name, before),
                None => known.remove(&name),
            };
        }
    }
    let request = Request::deserialize(&Value::Object(known)).ok()?;
    Some(Record::Request(Box::new(request)))
}

#[cfg(test)]
mod tests;
