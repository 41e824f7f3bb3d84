// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counts of the requests that were seen, filtered and lost, and of other records.

use ngx_bpf_record::values::Cause;

/// The counts since tracing began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The number of requests that ended.
    pub seen: u64,
    /// The number of requests that an option left out.
    pub filtered: u64,
    /// The number of lost requests for each cause, in the order of `Cause::ALL`.
    pub lost: [u64; Cause::ALL.len()],
    /// The number of processes that could not be traced.
    pub untraced_processes: u64,
    /// The number of TLS handshakes of clients that failed.
    pub failed_handshakes: u64,
    /// The connections that ended without a request.
    pub connections: ConnectionCounts,
    /// The number of records of blocked workers that were lost.
    pub blocked_lost: u64,
    /// The most bytes that have waited in the ring buffer.
    pub waiting_max: u64,
}

/// The counts of connections that ended without a request (`--connections`): seen = written + lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// The number that ended.
    pub seen: u64,
    /// The number of records written.
    pub written: u64,
    /// The number that have no record.
    pub lost: u64,
}

impl ConnectionCounts {
    /// Reduces these counts to those at `moment`, as `Counts::end_at()` does. `late` of the connections that ended later
    /// were delivered.
    pub fn end_at(&mut self, moment: &Self, late: u64) {
        let lost = self.lost.saturating_sub(moment.lost);
        self.seen = self.seen.saturating_sub(late + lost);
        self.lost = moment.lost;
    }
}

impl Counts {
    /// Adds records that could not be decoded.
    pub fn add_bad_records(&mut self, count: u64) {
        self.lost[Cause::BadRead as usize] += count;
    }

    /// Adds requests that could not be written.
    pub fn add_unwritten(&mut self, count: u64) {
        self.lost[Cause::WriteFailed as usize] += count;
    }

    /// Reduces these counts to those at `moment`. The requests that ended later were delivered
    /// (`late` of them), filtered or lost; they are no longer counted as seen, so that the sums
    /// still add up.
    pub fn end_at(&mut self, moment: &Self, late: u64) {
        let kept_back = self.filtered.saturating_sub(moment.filtered);
        let lost = self.lost().saturating_sub(moment.lost());
        self.seen = self.seen.saturating_sub(late + kept_back + lost);
        (self.filtered, self.lost) = (moment.filtered, moment.lost);
        self.blocked_lost = moment.blocked_lost;
    }

    /// Adds requests that the receiver of `--otlp` has not taken.
    pub fn add_unsent(&mut self, count: u64) {
        self.lost[Cause::Otlp as usize] += count;
    }

    /// Returns the number of lost requests.
    pub fn lost(&self) -> u64 {
        self.lost.iter().sum()
    }

    /// Returns the number of lost requests for each cause.
    pub fn by_cause(&self) -> impl Iterator<Item = (Cause, u64)> {
        Cause::ALL.into_iter().zip(self.lost)
    }

    /// Returns the number of requests lost since `before` for each cause that has any.
    pub fn since(&self, before: &Self) -> impl Iterator<Item = (Cause, u64)> {
        let before = before.lost.into_iter();
        self.by_cause()
            .zip(before)
            .filter(|((_, now), before)| now > before)
            .map(|((cause, now), before)| (cause, now - before))
    }
}

#[cfg(test)]
mod tests {
    use ngx_bpf_record::values::Cause;

    use super::ConnectionCounts;
    use super::Counts;

    /// Check that what was counted after the end is subtracted, and that the rest adds up.
    #[test]
    fn end_at() {
        let moment = Counts {
            seen: 10,
            filtered: 3,
            lost: [1, 0, 0, 0, 0, 0],
            ..Default::default()
        };
        let mut counts = Counts {
            seen: 30,
            filtered: 8,
            lost: [5, 0, 0, 0, 0, 0],
            ..Default::default()
        };
        /* 17 requests were delivered: one before the end, 16 after it. */
        counts.end_at(&moment, 16);
        assert_eq!((counts.seen, counts.filtered, counts.lost()), (5, 3, 1));
        assert_eq!(counts.seen, 1 + counts.filtered + counts.lost());
    }

    /// Check the same of connections.
    #[test]
    fn connections_end_at() {
        let moment = ConnectionCounts {
            seen: 10,
            written: 0,
            lost: 2,
        };
        let mut counts = ConnectionCounts {
            seen: 20,
            written: 6,
            lost: 5,
        };
        /* 15 were delivered: six before the end, and nine after it or unread. */
        counts.end_at(&moment, 9);
        assert_eq!((counts.seen, counts.lost), (8, 2));
        assert_eq!(counts.seen, counts.written + counts.lost);
    }

    /// Check that only new losses are reported, by cause.
    #[test]
    fn since() {
        let before = Counts {
            lost: [5, 1, 0, 0, 0, 0],
            ..Default::default()
        };
        let now = Counts {
            lost: [5, 3, 1, 0, 0, 0],
            ..Default::default()
        };
        let lost: Vec<_> = now.since(&before).collect();
        assert_eq!(lost, [(Cause::InflightFull, 2), (Cause::BadRead, 1)]);
        assert_eq!(now.since(&now).count(), 0);
    }
}
