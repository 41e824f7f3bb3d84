// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads the lines of `ngx-bpf --json`, also ones that gzip or zstd has compressed.
//! A line of another version is read as far as it goes. What can't be read is counted.

use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use serde::Deserialize as _;
use serde_json::Map;
use serde_json::Value;

use crate::Record;
use crate::filter::Choice;
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
    /// Requests that were lost for a cause that this version does not know.
    pub lost: u64,
}

impl Unread {
    /// Adds others.
    pub fn merge(&mut self, other: Self) {
        self.lines += other.lines;
        self.partly += other.partly;
        self.lost = self.lost.saturating_add(other.lost);
    }
}

/// Opens a file of records, compressed or not.
///
/// # Errors
///
/// Fails when it can't be opened or read.
pub fn open(path: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    decompressed(file)
}

/// Returns what these bytes contain, decompressed if they are compressed.
///
/// # Errors
///
/// Fails when they can't be read.
pub fn decompressed(bytes: impl Read + Send + 'static) -> io::Result<Box<dyn BufRead + Send>> {
    let mut bytes = BufReader::with_capacity(BLOCK_BYTES, bytes);
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
    choice: Choice,
}

impl<R: BufRead> Records<R> {
    /// Creates the reader of a source.
    pub fn new(source: R) -> Self {
        Self {
            source,
            line: Vec::new(),
            unread: Unread::default(),
            choice: Choice::all(),
        }
    }

    /// Leaves out the records that are not chosen.
    pub fn chosen(mut self, choice: Choice) -> Self {
        self.choice = choice;
        self
    }

    /// Returns the next record. `None` at the end.
    ///
    /// # Errors
    ///
    /// Fails when the source can't be read.
    pub fn next_record(&mut self) -> io::Result<Option<Record<'static>>> {
        while next_line(&mut self.source, &mut self.line, &mut self.unread)? {
            if let Some(mut record) = parse(&self.line, &mut self.unread)
                && self.choice.take(&mut record)
            {
                return Ok(Some(record));
            }
        }
        Ok(None)
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

/// Returns the record of a line. `None` when it is not a record; then it is counted, unless it is blank.
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
            let Ok(Value::Object(keys)) = serde_json::from_slice(line) else {
                unread.lines += 1;
                return None;
            };
            if let Some(count) = lost_otherwise(&keys) {
                unread.partly += 1;
                unread.lost = unread.lost.saturating_add(count);
                return None;
            }
            let known = known_part(keys);
            match known {
                Some(_) => unread.partly += 1,
                None => unread.lines += 1,
            }
            known
        }
    }
}

/// Returns how many requests were lost, of a record of a loss whose cause this version does not know.
fn lost_otherwise(keys: &Map<String, Value>) -> Option<u64> {
    let is_lost = keys.get("type")?.as_str()? == "lost" && keys.get("cause")?.is_string();
    keys.get("count")?.as_u64().filter(|_| is_lost)
}

/// Keys without which a record is not read: every version writes them.
const REQUIRED: [&str; 2] = ["pid", "scheme"];

/// Returns the part of a request that this version knows. `None` when it is not a request, or lacks a key of
/// `REQUIRED`. Each other key is tried alone, since a hostile line may have very many.
fn known_part(keys: Map<String, Value>) -> Option<Record<'static>> {
    if keys.get("type")?.as_str()? != "request" {
        return None;
    }
    let mut known = Map::new();
    for name in REQUIRED {
        known.insert(name.to_owned(), keys.get(name)?.clone());
    }
    let mut tried = known.clone();
    for (name, value) in keys {
        if REQUIRED.contains(&name.as_str()) {
            continue;
        }
        tried.insert(name.clone(), value);
        let is_read = Request::deserialize(&tried).is_ok();
        if let Some(value) = tried.remove(&name).filter(|_| is_read) {
            known.insert(name, value);
        }
    }
    let request = Request::deserialize(&known).ok()?;
    Some(Record::Request(Box::new(request)))
}

#[cfg(test)]
mod tests;
