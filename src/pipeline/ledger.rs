// SPDX-License-Identifier: MIT OR Apache-2.0
//! The counts of all threads: the requests that BPF has seen, filtered and lost, and the outcome of
//! the records that it submitted. At the end, requests seen = written + filtered + lost.

use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use ngx_bpf_record::values::Cause;

use crate::attach::counters::CounterMap;
use crate::bpf::types;
use crate::bpf::types::lost_cause;
use crate::counts::Counts;
use crate::output::LineKind;
use crate::pipeline::outcome::Outcome;

/// The causes that BPF counts, indexed by `enum lost_cause`. A cause of wire.h that is missing here
/// is a compile error.
const COUNTED_BY_BPF: [Cause; lost_cause::LOST_CAUSES.0 as usize] = {
    let mut causes = [Cause::WriteFailed; lost_cause::LOST_CAUSES.0 as usize];
    causes[lost_cause::LOST_RING_FULL.0 as usize] = Cause::RingFull;
    causes[lost_cause::LOST_INFLIGHT_FULL.0 as usize] = Cause::InflightFull;
    causes[lost_cause::LOST_BAD_READ.0 as usize] = Cause::BadRead;
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
    /// BPF's counters.
    bpf: OnceLock<CounterMap>,
    /// The number of requests that were in flight in processes that have ended, which user space
    /// counts.
    pub abandoned: AtomicU64,
    /// The number of those for which there was no room.
    pub unreported: AtomicU64,
    /// The number of processes that could not be traced.
    pub untraced_processes: AtomicU64,
    /// Requests that the records thread has passed to the consumers.
    pub taken: AtomicU64,
    /// What has become of requests.
    pub requests: Outcome,
    /// What has become of connections without a request. Those that could not be decoded count as ones
    /// that could not be written.
    pub connections: Outcome,
    /// The same of blocked workers.
    pub blocked: Outcome,
    /// The number of requests that the filters on texts left out. BPF counts those that it left
    /// out.
    pub filtered: AtomicU64,
    /// The number of records that could not be decoded.
    pub bad_records: AtomicU64,
    /// The number of records that are not of requests and could not be decoded.
    pub bad_notices: AtomicU64,
    /// The number of records that were passed on without the keys of their container, which was no
    /// longer known.
    pub nameless: AtomicU64,
    /// The number of workers whose places were forgotten, since too many others have places.
    pub forgotten_workers: AtomicU64,
    /// True when the last attempt to write has failed.
    pub is_output_failing: AtomicBool,
    /// True when the receiver of `--otlp` was still failing at the end.
    pub is_receiver_failing: AtomicBool,
    /// The counts of BPF at the end, unless a signal asked for the end: requests that BPF counts
    /// later are not lost.
    end: OnceLock<Counts>,
}

impl Ledger {
    /// Sets where BPF counts. It is set once.
    pub fn count_from(&self, counters: CounterMap) {
        self.bpf.get_or_init(|| counters);
    }

    /// Returns the number of traced processes that have ended.
    pub fn ended_processes(&self) -> u64 {
        self.counters().ended_processes
    }

    /// Reads BPF's counters.
    fn counters(&self) -> types::counters {
        self.bpf.get().map(CounterMap::read).unwrap_or_default()
    }

    /// Returns what was counted where requests are traced: in BPF, and of processes that have ended.
    fn counted_by_bpf(&self) -> Counts {
        let mut counts = Counts::default();
        add_counters(&mut counts, &self.counters());
        counts.seen += self.abandoned.load(Ordering::Relaxed);
        counts.lost[Cause::WorkerExit as usize] += self.unreported.load(Ordering::Relaxed);
        counts.untraced_processes = self.untraced_processes.load(Ordering::Relaxed);
        counts
    }

    /// Returns what has become of the records that have lines of this kind. `None` for losses, which are
    /// counted where they happen.
    pub fn outcome(&self, kind: LineKind) -> Option<&Outcome> {
        match kind {
            LineKind::Requests(_) => Some(&self.requests),
            LineKind::Connection { .. } => Some(&self.connections),
            LineKind::Blocked => Some(&self.blocked),
            LineKind::Lost { .. } => None,
        }
    }

    /// Returns what has become of the records of each kind: requests, connections, blocked workers.
    pub fn outcomes(&self) -> [&Outcome; 3] {
        [&self.requests, &self.connections, &self.blocked]
    }

    /// Returns the number of records that could not be written.
    pub fn unwritten(&self) -> u64 {
        let unwritten = self
            .outcomes()
            .map(|outcome| outcome.unwritten.load(Ordering::Relaxed));
        unwritten.into_iter().sum()
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
            let late = self.connections.late.load(Ordering::Relaxed);
            counts.connections.end_at(&end.connections, late);
            counts.end_at(end, self.requests.late.load(Ordering::Relaxed));
        }
        counts.filtered += self.filtered.load(Ordering::Relaxed);
        counts.add_bad_records(self.bad_records.load(Ordering::Relaxed));
        counts.add_unwritten(self.requests.unwritten.load(Ordering::Relaxed));
        counts.add_unsent(self.requests.unsent.load(Ordering::Relaxed));
        counts.connections.written = self.connections.written.load(Ordering::Relaxed);
        counts.connections.lost += self.connections.lost();
        counts.blocked_lost += self.blocked.lost();
        counts
    }

    /// Returns the sums as they are known when a signal ends the process at once. After the end was
    /// noted, requests that still wait were not asked for, and do not count as seen.
    pub fn counts_at_once(&self) -> Counts {
        let mut counts = self.counts();
        if self.has_ended() {
            let lost_before = counts.lost().saturating_sub(self.requests.lost());
            counts.seen = self.taken.load(Ordering::Relaxed) + counts.filtered + lost_before;
        }
        counts
    }

    /// Counts the records that are left unhandled as ones that could not be decoded, so that the
    /// sums add up.
    pub fn lose_the_rest(&self) {
        let counts = self.counts();
        let written = self.requests.written.load(Ordering::Relaxed);
        let handled = written + counts.filtered + counts.lost();
        add(&self.bad_records, counts.seen.saturating_sub(handled));
        let connections = counts.connections;
        let handled = connections.written + connections.lost;
        let rest = connections.seen.saturating_sub(handled);
        add(&self.connections.unwritten, rest);
    }
}

/// Adds BPF's counters.
fn add_counters(counts: &mut Counts, counters: &types::counters) {
    counts.seen += counters.seen;
    counts.filtered += counters.filtered;
    for (cause, count) in COUNTED_BY_BPF.into_iter().zip(counters.lost) {
        counts.lost[cause as usize] += count;
    }
    counts.failed_handshakes += counters.failed_handshakes;
    counts.connections.seen += counters.connections;
    counts.connections.lost += counters.lost_connections;
    counts.blocked_lost += counters.blocked_lost;
    counts.waiting_max = counts.waiting_max.max(counters.waiting_max);
}

/// Adds 1 to a count. Returns whether it was the first one, which alone is reported when it happens.
pub fn is_first(count: &AtomicU64) -> bool {
    count.fetch_add(1, Ordering::Relaxed) == 0
}

/// Adds a number to a count.
pub fn add(count: &AtomicU64, number: u64) {
    count.fetch_add(number, Ordering::Relaxed);
}
