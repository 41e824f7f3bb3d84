// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that were in flight in processes that have ended: they are filtered as BPF filters others, and
//! passed on to the records thread. That thread may be blocked by the output, which this one does not wait for.

use std::collections::VecDeque;

use crate::attach::departed::Abandoned;
use crate::attach::departed::Departed;
use crate::attach::object::KernelFilter;
use crate::bpf::types::request_flag;
use crate::bpf::types::sample;
use crate::decode::abandoned;
use crate::decode::ring::BATCH_BYTES;
use crate::decode::ring::RingReader;
use crate::pipeline::ledger::Ledger;
use crate::pipeline::ledger::add;

/// The most bytes of records that wait for the records thread: as many as in the ring buffer.
const WAITING_MAX: usize = crate::attach::object::RING_BYTES as usize;

/// The requests that were in flight in processes that have ended.
pub struct AbandonedRequests {
    /// The filters that run in BPF, which has never seen these requests end.
    filter: KernelFilter,
    /// The number of them that the sample was asked for.
    asked: u64,
    /// Records for which the channel had no room.
    waiting: VecDeque<Vec<u8>>,
}

impl AbandonedRequests {
    /// Creates a queue without any records.
    pub fn new(filter: KernelFilter) -> Self {
        Self {
            filter,
            asked: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Takes the requests in flight of processes that have ended. Each is counted.
    pub fn take(&mut self, departed: Departed, ledger: &Ledger) {
        let number = departed.abandoned.len() as u64 + departed.lost;
        add(&ledger.abandoned, number);
        let (mut lost, mut filtered) = (departed.lost, 0);
        let room = WAITING_MAX.saturating_sub(self.waiting.iter().map(Vec::len).sum());
        let (mut batch, mut taken) = (Vec::new(), 0);
        for abandoned in &departed.abandoned {
            if !self.lets_through(abandoned) {
                filtered += 1;
                continue;
            }
            let record = abandoned::record(&abandoned.entry, &abandoned.process);
            if taken + record.len() > room {
                lost += 1;
                continue;
            }
            taken += record.len();
            batch.extend(record);
            if batch.len() >= BATCH_BYTES {
                self.waiting.push_back(std::mem::take(&mut batch));
            }
        }
        add(&ledger.unreported, lost);
        add(&ledger.filtered, filtered);
        if !batch.is_empty() {
            self.waiting.push_back(batch);
        }
    }

    /// Passes on as many records as the channel has room for.
    pub fn offer(&mut self, reader: &RingReader) {
        while let Some(records) = self.waiting.pop_front() {
            if let Some(records) = reader.offer(records) {
                self.waiting.push_front(records);
                return;
            }
        }
    }

    /// Takes the records that still wait.
    pub fn rest(&mut self) -> impl Iterator<Item = Vec<u8>> + use<> {
        std::mem::take(&mut self.waiting).into_iter()
    }

    /// Returns whether the filters let a request through, by the rules of bpf/filter.bpf.h.
    fn lets_through(&mut self, abandoned: &Abandoned) -> bool {
        /* It has no status. */
        self.filter.statuses.is_none()
            && self.has_duration(abandoned)
            && self.is_of_sample(abandoned)
    }

    /// Returns whether it took long enough.
    fn has_duration(&self, abandoned: &Abandoned) -> bool {
        let min = self.filter.min_duration_ns;
        let is_partial = abandoned.entry.flags & request_flag::REQUEST_ADOPTED.0 != 0;
        let first_ns = abandoned::request_first_ns(&abandoned.entry);
        let duration = abandoned.process.ended_ns.checked_sub(first_ns);
        min == 0 || (!is_partial && first_ns != 0 && duration.is_some_and(|ns| ns >= min))
    }

    /// Returns whether it is in the sample.
    fn is_of_sample(&mut self, abandoned: &Abandoned) -> bool {
        if self.filter.sample < 2 {
            return true;
        }
        match abandoned.entry.sample {
            known if known == u64::from(sample::SAMPLE_IN.0) => true,
            known if known == u64::from(sample::SAMPLE_OUT.0) => false,
            _ => {
                let nth = self.asked;
                self.asked += 1;
                nth.is_multiple_of(self.filter.sample)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use super::AbandonedRequests;
    use super::WAITING_MAX;
    use super::sample;
    use crate::attach::departed::Abandoned;
    use crate::attach::departed::Departed;
    use crate::attach::object::KernelFilter;
    use crate::bpf::types;
    use crate::decode::wire;
    use crate::pipeline::ledger::Ledger;

    /// Returns requests with these marks of the sample, which were in flight for 8 us when their worker ended.
    fn departed(samples: &[u32]) -> Departed {
        let abandoned = samples.iter().map(|mark| Abandoned {
            process: types::process_event {
                pid: 7,
                ended_ns: 9_000,
                ..Default::default()
            },
            entry: types::connection {
                request_first_ns: 1_000,
                sample: (*mark).into(),
                ..Default::default()
            },
        });
        Departed {
            abandoned: abandoned.collect(),
            lost: 1,
            containers: BTreeSet::new(),
        }
    }

    /// Returns the numbers of requests that are passed on, filtered and lost.
    fn counts(filter: KernelFilter, samples: &[u32]) -> (usize, u64, u64) {
        let ledger = Ledger::default();
        let mut requests = AbandonedRequests::new(filter);
        requests.take(departed(samples), &ledger);
        let bytes: Vec<u8> = requests.rest().flatten().collect();
        let (mut rest, mut written) = (&bytes[..], 0);
        while !rest.is_empty() {
            let (record, next) = wire::split(rest).unwrap();
            assert_eq!(wire::decode(record).unwrap().record.pid, 7);
            (rest, written) = (next, written + 1);
        }
        let counts = ledger.counts();
        assert_eq!(ledger.abandoned.load(Ordering::Relaxed), counts.seen);
        assert_eq!(
            counts.seen,
            written as u64 + counts.filtered + counts.lost()
        );
        (written, counts.filtered, counts.lost())
    }

    /// Check the filters that BPF applies to requests that end.
    #[test]
    fn filters() {
        let none = KernelFilter::new(None, None, &[]);
        assert_eq!(counts(none, &[0, 0]), (2, 0, 1));
        let statuses = KernelFilter::new(None, None, &[200..=299]);
        assert_eq!(counts(statuses, &[0, 0]), (0, 2, 1));
        for (nanos, expected) in [(8_000, (1, 0, 1)), (8_001, (0, 1, 1))] {
            let filter = KernelFilter::new(None, Some(Duration::from_nanos(nanos)), &[]);
            assert_eq!(counts(filter, &[0]), expected);
        }
        let (inside, outside) = (sample::SAMPLE_IN.0, sample::SAMPLE_OUT.0);
        let half = KernelFilter::new(Some(2), None, &[]);
        assert_eq!(counts(half, &[inside, outside, 0, 0, inside]), (3, 2, 1));
    }

    /// Check that what waits is bounded, and that the rest is lost.
    #[test]
    fn bounded() {
        let ledger = Ledger::default();
        let mut requests = AbandonedRequests::new(KernelFilter::new(None, None, &[]));
        for _ in 0..3 {
            requests.take(departed(&[0; 4096]), &ledger);
        }
        let waiting: usize = requests.rest().map(|records| records.len()).sum();
        assert!(waiting <= WAITING_MAX, "{waiting}");
        let counts = ledger.counts();
        assert_eq!(counts.seen, 3 * 4097);
        assert!((4..counts.seen).contains(&counts.lost()), "{counts:?}");
    }
}
