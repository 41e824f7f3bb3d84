// SPDX-License-Identifier: MIT OR Apache-2.0
//! The counts of all threads: the requests that BPF has seen, filtered and lost, and the outcome of
//! the records that it submitted. At the end, requests seen = written + filtered + lost.

use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use ngx_bpf_record::values::Cause;

use crate::attach::counters::CounterMap;
use crate::bpf::types;
use crate::bpf::types::lost_cause;
use crate::counts::Counts;

/// The causes that BPF counts, indexed by `enum lost_cause`. A cause of wire.h that is missing here
/// is a compile error.
const COUNTED_BY_BPF: [Cause; lost_cause::LOST_CAUSES.0 as usize] = {
    let mut causes = [Cause::WriteFailed; lost_cause::LOST_CAUSES.0 as usize];
    causes[lost_cause::LOST_RING_FULL.0 as usize] = Cause::RingFull;
    causes[lost_cause::LOST_INFLIGHT_FULL.0 as usize] = Cause::InflightFull;
    causes[lost_cause::LOST_BAD_READ.0 as usize] = Cause::BadRead;
    causes[lost_cause::LOST_WORKER_EXIT.0 as usize] = Cause::WorkerExit;
    causes
};

const _: () = {
    let mut n = 0;
    while n < COUNTED_BY_BPF.len() {
        assert!(!matches!(COUNTED_BY_BPF[n], Cause::WriteFailed));
        n += 1;
    }
};

/// The counts, shared by the record thread, the control thread, and the handler of signals.
#[derive(Default)]
pub struct Ledger {
    /// BPF's counters of every binary that was ever attached to, and their last values.
    objects: Mutex<Vec<(CounterMap, types::counters)>>,
    /// Requests that the records thread has passed to the consumers.
    pub taken: AtomicU64,
    /// Requests written.
    pub written: AtomicU64,
    /// The number of requests that the filters on texts left out. BPF counts those that it left
    /// out.
    pub filtered: AtomicU64,
    /// The number of requests that came after the end: after `--count` was reached, or after the
    /// reader of the output had closed it.
    pub late: AtomicU64,
    /// The number of requests that could not be written.
    pub unwritten: AtomicU64,
    /// The number of records that could not be decoded.
    pub bad_records: AtomicU64,
    /// True when the last attempt to write has failed.
    pub is_output_failing: AtomicBool,
    /// The counts of BPF at the end, unless a signal asked for the end: requests that BPF counts
    /// later are not lost.
    end: OnceLock<Counts>,
}

impl Ledger {
    /// Adds the counters of a BPF object to the sums.
    pub fn add_object(&self, counters: CounterMap) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.push((counters, types::counters::default()));
    }

    /// Sums up what BPF has counted. A map that can't be read counts as it did when it last could.
    fn counted_by_bpf(&self) -> Counts {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts = Counts::default();
        for (object, last) in &mut *objects {
            if let Ok(counters) = object.read() {
                *last = counters;
            }
            add_counters(&mut counts, last);
        }
        counts
    }

    /// Remembers the counts of this moment: requests that end from now on are no longer counted.
    pub fn end_here(&self) {
        self.end.get_or_init(|| self.counted_by_bpf());
    }

    /// Returns whether `end_here()` was called.
    pub fn has_ended(&self) -> bool {
        self.end.get().is_some()
    }

    /// Returns the sums of all counts, at most those up to the end.
    pub fn counts(&self) -> Counts {
        let mut counts = self.counted_by_bpf();
        if let Some(end) = self.end.get() {
            counts.end_at(end, self.late.load(Ordering::Relaxed));
        }
        counts.filtered += self.filtered.load(Ordering::Relaxed);
        counts.add_bad_records(self.bad_records.load(Ordering::Relaxed));
        counts.add_unwritten(self.unwritten.load(Ordering::Relaxed));
        counts
    }

    /// Returns the sums as they are known when a signal ends the process at once. After the end was
    /// noted, requests that still wait were not asked for, and do not count as seen.
    pub fn counts_at_once(&self) -> Counts {
        let mut counts = self.counts();
        if self.has_ended() {
            let unwritten = self.unwritten.load(Ordering::Relaxed);
            let lost_before = counts.lost().saturating_sub(unwritten);
            counts.seen = self.taken.load(Ordering::Relaxed) + counts.filtered + lost_before;
        }
        counts
    }

    /// Counts the records that are left unhandled as ones that could not be decoded, so that the
    /// sums add up.
    pub fn lose_the_rest(&self) {
        let counts = self.counts();
        let handled = self.written.load(Ordering::Relaxed) + counts.filtered + counts.lost();
        add(&self.bad_records, counts.seen.saturating_sub(handled));
    }
}

/// Adds the counters of one BPF object.
fn add_counters(counts: &mut Counts, counters: &types::counters) {
    counts.seen += counters.seen;
    counts.filtered += counters.filtered;
    for (cause, count) in COUNTED_BY_BPF.into_iter().zip(counters.lost) {
        counts.lost[cause as usize] += count;
    }
    counts.untraced_processes += counters.untraced_processes;
    counts.waiting_max = counts.waiting_max.max(counters.waiting_max);
}

/// Adds a number to a count.
pub fn add(count: &AtomicU64, number: u64) {
    count.fetch_add(number, Ordering::Relaxed);
}
