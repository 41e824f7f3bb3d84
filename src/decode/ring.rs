// SPDX-License-Identifier: MIT OR Apache-2.0
//! From ring buffers to one bounded channel, by threads that wait for no one but its receiver.
//! When that is slow, the ring buffer fills, and BPF counts what does not fit: there is one place
//! where records are lost.

use std::cell::RefCell;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;

use anyhow::Context as _;
use anyhow::Result;
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

/// Records that travel together.
const BATCH_RECORDS: usize = 256;

/// Batches that may wait: with records of common size, about 3 MiB.
const BATCHES_WAITING: usize = 16;

/// BPF wakes no one unless the ring buffer fills up: this is how long a record waits at most.
const INTERVAL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// The threads that read, one for each ring buffer.
pub struct Collector {
    /// Records, one behind the other.
    pub batches: Receiver<Vec<u8>>,
    /// The other end, for threads to come.
    sender: Option<Sender<Vec<u8>>>,
    /// Asks for the last round.
    last_round: Arc<AtomicBool>,
    /// They end after it.
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Collector {
    /// Nothing is read yet.
    pub fn new() -> Self {
        let (sender, batches) = bounded(BATCHES_WAITING);
        Self {
            batches,
            sender: Some(sender),
            last_round: Arc::default(),
            threads: Vec::new(),
        }
    }

    /// Starts to read a ring buffer.
    pub fn add(&mut self, ring: MapHandle) -> Result<()> {
        let last_round = Arc::clone(&self.last_round);
        let sender = self.sender.clone().context("reading has ended")?;
        let thread = thread::Builder::new()
            .name("collect".to_owned())
            .spawn(move || run(&ring, &sender, &last_round))
            .context("failed to start a thread")?;
        self.threads.push(thread);
        Ok(())
    }

    /// Drains the ring buffers: the channel ends behind the last record.
    pub fn finish(&mut self) {
        self.sender = None;
        self.last_round.store(true, Ordering::Release);
    }

    /// What a thread failed with. They have ended when the channel has.
    pub fn join(&mut self) -> Result<()> {
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(result) => result?,
                Err(_) => bail!("the reader thread panicked"),
            }
        }
        Ok(())
    }

    /// Whether a thread has ended before it was asked to.
    pub fn has_failed(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }
}

/// Reads until the last round is over, or no one receives.
fn run(ring: &MapHandle, sender: &Sender<Vec<u8>>, last_round: &AtomicBool) -> Result<()> {
    let batch = RefCell::new(Vec::new());
    let add = |record: &[u8]| {
        batch.borrow_mut().extend_from_slice(record);
        0
    };
    let mut builder = RingBufferBuilder::new();
    builder
        .add(ring, add)
        .context("failed to read the ring buffer")?;
    let ring = builder.build().context("failed to read the ring buffer")?;
    // SAFETY: the descriptor belongs to `ring`, which lives longer.
    let epoll = unsafe { BorrowedFd::borrow_raw(ring.epoll_fd()) };
    loop {
        let is_last = last_round.load(Ordering::Acquire);
        if !is_last {
            /* Whether it was woken or the interval is over makes no difference. */
            let _ = poll(&mut [PollFd::new(&epoll, PollFlags::IN)], Some(&INTERVAL));
        }
        if !drain(&ring, &batch, sender)? || is_last {
            return Ok(());
        }
    }
}

/// Sends what is there. False when no one receives.
fn drain(
    ring: &RingBuffer<'_>,
    batch: &RefCell<Vec<u8>>,
    sender: &Sender<Vec<u8>>,
) -> Result<bool> {
    loop {
        let consumed = ring.consume_raw_n(BATCH_RECORDS);
        let consumed = usize::try_from(consumed)
            .map_err(|_| anyhow::anyhow!("failed to read the ring buffer: {consumed}"))?;
        let bytes = batch.take();
        if !bytes.is_empty() && sender.send(bytes).is_err() {
            return Ok(false);
        }
        if consumed < BATCH_RECORDS {
            return Ok(true);
        }
    }
}
