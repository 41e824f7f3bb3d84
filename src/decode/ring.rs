// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reader of the ring buffer: a thread that sends batches of records to a bounded channel. It
//! waits only for the receiver. While the receiver is slow, the ring buffer fills, and BPF counts the
//! records that do not fit, so records are lost in one place only.

use std::cell::RefCell;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;
use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use crossbeam_channel::TrySendError;
use crossbeam_channel::bounded;
use libbpf_rs::MapHandle;
use libbpf_rs::RingBuffer;
use libbpf_rs::RingBufferBuilder;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;

use crate::bpf::types;

/// A batch is sent when it has at least this many bytes.
pub const BATCH_BYTES: usize = 64 << 10;

/// The capacity of a batch: the record that completes it may be as long as one that is held.
const BATCH_CAPACITY: usize = BATCH_BYTES + size_of::<types::held>();

/// Batches that may wait in the channel: at most 352 KiB. The reader and the receiver hold one more each.
const BATCHES_WAITING: usize = 4;

/// The return value of the callback after the record that completes a batch. libbpf stops there and
/// returns it; the record counts as consumed.
const BATCH_IS_FULL: i32 = -libc::ENOBUFS;

/// The longest time that a record waits, because BPF wakes the reader only when the ring buffer
/// fills up.
const INTERVAL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// The thread that reads the ring buffer.
pub struct RingReader {
    /// The sending end of the channel, which is dropped after the last batch.
    sender: Option<Sender<Vec<u8>>>,
    /// Asks the thread to end when the ring buffer is empty.
    is_last_round: Arc<AtomicBool>,
    /// Returns the error that it ended with.
    thread: Option<JoinHandle<Result<()>>>,
}

impl RingReader {
    /// Starts to read. Returns the receiving end of the channel as well: each batch holds whole
    /// records, one after the other. `finish()` closes the channel. The thread calls `at_start` when
    /// it has opened the ring buffer.
    pub fn start(ring: MapHandle, at_start: fn()) -> Result<(Self, Receiver<Vec<u8>>)> {
        let (sender, batches) = bounded(BATCHES_WAITING);
        let is_last_round = Arc::<AtomicBool>::default();
        let (to_records, is_last) = (sender.clone(), Arc::clone(&is_last_round));
        let thread = thread::Builder::new()
            .name("collect".to_owned())
            .spawn(move || read_ring(&ring, at_start, &to_records, &is_last))
            .context("failed to start a thread")?;
        let reader = Self {
            sender: Some(sender),
            is_last_round,
            thread: Some(thread),
        };
        Ok((reader, batches))
    }

    /// Waits until the ring buffer is empty, sends `last` as the last batch, and closes the channel.
    /// Returns the error of the thread.
    pub fn finish(&mut self, last: Vec<u8>) -> Result<()> {
        self.is_last_round.store(true, Ordering::Release);
        let result = match self.thread.take().map(JoinHandle::join) {
            Some(Err(_)) => Err(anyhow!("the reader thread panicked")),
            Some(Ok(result)) => result,
            None => Ok(()),
        };
        if let Some(sender) = self.sender.take()
            && !last.is_empty()
        {
            /* When the receiver is dropped, its own error is reported. */
            let _ = sender.send(last);
        }
        result
    }

    /// Sends records that were never in the ring buffer, if the channel has room. Returns them if it has
    /// none.
    pub fn offer(&self, batch: Vec<u8>) -> Option<Vec<u8>> {
        match self.sender.as_ref()?.try_send(batch) {
            Err(TrySendError::Full(batch)) => Some(batch),
            /* When the receiver is dropped, its own error is reported. */
            _ => None,
        }
    }

    /// Returns whether the thread has ended before it was asked to.
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }
}

/// Reads until the last round is over, or the receiver is dropped.
fn read_ring(
    ring: &MapHandle,
    at_start: fn(),
    sender: &Sender<Vec<u8>>,
    is_last_round: &AtomicBool,
) -> Result<()> {
    let batch = RefCell::new(Vec::new());
    let mut builder = RingBufferBuilder::new();
    builder
        .add(ring, |record| append(&mut batch.borrow_mut(), record))
        .context("failed to read the ring buffer")?;
    let ring = builder.build().context("failed to read the ring buffer")?;
    at_start();
    // SAFETY: the descriptor belongs to `ring`, which lives longer.
    let epoll = unsafe { BorrowedFd::borrow_raw(ring.epoll_fd()) };
    loop {
        let is_last = is_last_round.load(Ordering::Acquire);
        if !is_last {
            /* It does not matter whether BPF has woken the thread or the interval is over. */
            let _ = poll(&mut [PollFd::new(&epoll, PollFlags::IN)], Some(&INTERVAL));
        }
        if !drain(&ring, &batch, sender)? || is_last {
            return Ok(());
        }
    }
}

/// Appends a record to a batch. Returns the value that libbpf expects of the callback.
fn append(batch: &mut Vec<u8>, record: &[u8]) -> i32 {
    if batch.is_empty() {
        batch.reserve_exact(BATCH_CAPACITY);
    }
    batch.extend_from_slice(record);
    if batch.len() < BATCH_BYTES {
        0
    } else {
        BATCH_IS_FULL
    }
}

/// Sends all records of the ring buffer. Returns false when the receiver is dropped.
fn drain(
    ring: &RingBuffer<'_>,
    batch: &RefCell<Vec<u8>>,
    sender: &Sender<Vec<u8>>,
) -> Result<bool> {
    loop {
        let consumed = ring.consume_raw();
        if consumed < 0 && consumed != BATCH_IS_FULL {
            bail!("failed to read the ring buffer: {consumed}");
        }
        let bytes = batch.take();
        if !bytes.is_empty() && sender.send(bytes).is_err() {
            return Ok(false);
        }
        if consumed != BATCH_IS_FULL {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crossbeam_channel::bounded;

    use super::BATCH_BYTES;
    use super::BATCH_IS_FULL;
    use super::RingReader;
    use super::append;

    /// Check that a batch is full by its bytes, whatever the size of its records.
    #[test]
    fn batches() {
        for size in [1 << 10, 23_000, BATCH_BYTES, 2 * BATCH_BYTES] {
            let mut batch = Vec::new();
            let record = vec![0; size];
            let full = std::iter::repeat_with(|| append(&mut batch, &record));
            let records = full.take_while(|code| *code != BATCH_IS_FULL).count() + 1;
            assert_eq!(records, BATCH_BYTES.div_ceil(size));
            assert!(batch.len() < BATCH_BYTES + size);
        }
    }

    /// Check that the channel is closed after the last batch, and that there is no last batch when
    /// no record is left.
    #[test]
    fn end() {
        for last in [vec![], vec![1, 2]] {
            let (sender, batches) = bounded(1);
            let mut reader = RingReader {
                sender: Some(sender),
                is_last_round: Arc::default(),
                thread: None,
            };
            reader.finish(last.clone()).unwrap();
            assert_eq!(batches.iter().collect::<Vec<_>>().concat(), last);
            assert!(!reader.has_failed());
        }
    }
}
