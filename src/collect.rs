// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the ring buffer to a bounded channel, by a thread that waits for nobody but its receiver.
//! When that is slow, the ring buffer fills, and BPF counts what does not fit: there is one place
//! where records are lost.

use std::cell::RefCell;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;

use anyhow::Context as _;
use anyhow::Result;
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

/// BPF wakes nobody unless the ring buffer fills up: this is how long a record waits at most.
const INTERVAL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// The thread that reads.
pub struct Collector {
    /// Records, one behind the other.
    pub batches: Receiver<Vec<u8>>,
    /// Asks for the last round.
    last_round: Arc<AtomicBool>,
    /// Ends after it.
    thread: JoinHandle<Result<()>>,
}

impl Collector {
    /// Starts to read these ring buffers.
    pub fn start(rings: Vec<MapHandle>) -> Result<Self> {
        let (sender, batches) = bounded(BATCHES_WAITING);
        let last_round = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&last_round);
        let thread = thread::Builder::new()
            .name("collect".to_owned())
            .spawn(move || run(&rings, &sender, &flag))
            .context("failed to start a thread")?;
        Ok(Self {
            batches,
            last_round,
            thread,
        })
    }

    /// Drains the ring buffers: the channel ends behind the last record.
    pub fn finish(&self) {
        self.last_round.store(true, Ordering::Release);
    }

    /// What the thread failed with. Nobody receives any more.
    pub fn join(self) -> Result<()> {
        drop(self.batches);
        match self.thread.join() {
            Ok(result) => result,
            Err(_) => anyhow::bail!("the reader thread panicked"),
        }
    }
}

/// Reads until the last round is over, or nobody receives.
fn run(rings: &[MapHandle], sender: &Sender<Vec<u8>>, last_round: &AtomicBool) -> Result<()> {
    let batch = Rc::new(RefCell::new(Vec::new()));
    let mut builder = RingBufferBuilder::new();
    for ring in rings {
        let batch = Rc::clone(&batch);
        let add = move |record: &[u8]| {
            batch.borrow_mut().extend_from_slice(record);
            0
        };
        builder
            .add(ring, add)
            .context("failed to read the ring buffer")?;
    }
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

/// Sends what is there. False when nobody receives.
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
