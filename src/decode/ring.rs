// SPDX-License-Identifier: MIT OR Apache-2.0
//! The readers of the ring buffers: a thread for each, which sends batches of records into one bounded
//! channel. A thread waits for nothing but the receiver. While that is slow, the ring buffer fills, and
//! BPF counts what does not fit: there is one place where records are lost.

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
use crossbeam_channel::bounded;
use libbpf_rs::MapHandle;
use libbpf_rs::RingBuffer;
use libbpf_rs::RingBufferBuilder;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;

/// A batch is sent when it has at least this many bytes.
const BATCH_BYTES: usize = 64 << 10;

/// Memory for a batch: the record that completes it may be as large as 23 KB.
const BATCH_CAPACITY: usize = BATCH_BYTES + (24 << 10);

/// Batches that may wait in the channel: at most 352 KiB. Each reader and the receiver hold one more.
const BATCHES_WAITING: usize = 4;

/// Returned to libbpf after the record that completes a batch. libbpf stops there and returns it; the
/// record counts as consumed.
const BATCH_IS_FULL: i32 = -libc::ENOBUFS;

/// The longest time that a record waits: BPF wakes the reader only when the ring buffer fills up.
const INTERVAL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// The reader threads.
pub struct RingReaders {
    /// Dropped after the last batch.
    sender: Option<Sender<Vec<u8>>>,
    /// Asks the threads to end when their ring buffers are empty.
    is_last_round: Arc<AtomicBool>,
    /// The threads, which end with what they failed with.
    threads: Vec<JoinHandle<Result<()>>>,
}

impl RingReaders {
    /// Returns no readers yet, and the end of the channel where batches arrive: whole records, one
    /// after the other. The channel ends with `finish()`.
    pub fn new() -> (Self, Receiver<Vec<u8>>) {
        let (sender, batches) = bounded(BATCHES_WAITING);
        let readers = Self {
            sender: Some(sender),
            is_last_round: Arc::default(),
            threads: Vec::new(),
        };
        (readers, batches)
    }

    /// Starts to read a ring buffer.
    pub fn add(&mut self, ring: MapHandle) -> Result<()> {
        let is_last_round = Arc::clone(&self.is_last_round);
        let sender = self.sender.clone().context("reading has ended")?;
        let thread = thread::Builder::new()
            .name("collect".to_owned())
            .spawn(move || read_ring(&ring, &sender, &is_last_round))
            .context("failed to start a thread")?;
        self.threads.push(thread);
        Ok(())
    }

    /// Waits until all ring buffers are empty, sends `last` as the last batch, and ends the channel.
    /// Returns what a thread failed with.
    pub fn finish(&mut self, last: Vec<u8>) -> Result<()> {
        self.is_last_round.store(true, Ordering::Release);
        let mut result = Ok(());
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => result = Err(error),
                Err(_) => result = Err(anyhow!("the reader thread panicked")),
            }
        }
        if let Some(sender) = self.sender.take()
            && !last.is_empty()
        {
            /* Without a receiver there is an error that is reported instead. */
            let _ = sender.send(last);
        }
        result
    }

    /// Returns whether a thread has ended before it was asked to.
    pub fn has_failed(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }
}

/// Reads until the last round is over, or the receiver has gone.
fn read_ring(ring: &MapHandle, sender: &Sender<Vec<u8>>, is_last_round: &AtomicBool) -> Result<()> {
    let batch = RefCell::new(Vec::new());
    let mut builder = RingBufferBuilder::new();
    builder
        .add(ring, |record| append(&mut batch.borrow_mut(), record))
        .context("failed to read the ring buffer")?;
    let ring = builder.build().context("failed to read the ring buffer")?;
    // SAFETY: the descriptor belongs to `ring`, which lives longer.
    let epoll = unsafe { BorrowedFd::borrow_raw(ring.epoll_fd()) };
    loop {
        let is_last = is_last_round.load(Ordering::Acquire);
        if !is_last {
            /* Whether it was woken or the interval is over makes no difference. */
            let _ = poll(&mut [PollFd::new(&epoll, PollFlags::IN)], Some(&INTERVAL));
        }
        if !drain(&ring, &batch, sender)? || is_last {
            return Ok(());
        }
    }
}

/// Adds a record to a batch. Returns what libbpf is to do next.
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

/// Sends all that is in the ring buffer. Returns false when the receiver has gone.
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
    use super::BATCH_BYTES;
    use super::BATCH_IS_FULL;
    use super::RingReaders;
    use super::append;

    /// Check that a batch is full by its bytes, however large its records are.
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

    /// Check that the channel ends after the last batch, and has none when nothing is left.
    #[test]
    fn end() {
        for last in [vec![], vec![1, 2]] {
            let (mut readers, batches) = RingReaders::new();
            readers.finish(last.clone()).unwrap();
            assert_eq!(batches.iter().collect::<Vec<_>>().concat(), last);
            assert!(!readers.has_failed());
        }
    }
}
