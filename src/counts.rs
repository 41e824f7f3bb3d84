// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many requests were seen, filtered and lost.

use ngx_bpf_record::Lost;
use ngx_bpf_record::values::Cause;

/// What was counted since tracing began, summed over all objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that ended.
    pub seen: u64,
    /// Requests that were not asked for.
    pub filtered: u64,
    /// Requests lost, by cause.
    pub lost: [u64; Cause::ALL.len()],
    /// Processes that could not be traced.
    pub untraced_processes: u64,
    /// Bytes in a ring buffer, the most there were.
    pub waiting_max: u64,
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

    /// Takes back what was counted after this moment: `late` requests that were delivered, and those
    /// that BPF has kept back or lost. What is left is what was asked for, and still adds up.
    pub fn end_at(&mut self, moment: &Self, late: u64) {
        let kept_back = self.filtered.saturating_sub(moment.filtered);
        let lost = self.lost().saturating_sub(moment.lost());
        self.seen = self.seen.saturating_sub(late + kept_back + lost);
        (self.filtered, self.lost) = (moment.filtered, moment.lost);
    }

    /// Notes that these were reported in the stream.
    pub fn note_reported(&mut self, lost: &Lost) {
        self.lost[lost.cause as usize] += lost.count;
    }

    /// All that were lost.
    pub fn lost(&self) -> u64 {
        self.lost.iter().sum()
    }

    /// How many were lost for each cause.
    pub fn by_cause(&self) -> impl Iterator<Item = (Cause, u64)> {
        Cause::ALL.into_iter().zip(self.lost)
    }

    /// What was lost since `before`, a record for each cause.
    pub fn since(&self, before: &Self, time: &str) -> Vec<Lost> {
        Cause::ALL
            .into_iter()
            .zip(self.lost.into_iter().zip(before.lost))
            .filter(|(_, (now, before))| now > before)
            .map(|(cause, (now, before))| Lost {
                time: time.to_owned(),
                count: now - before,
                cause,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use ngx_bpf_record::values::Cause;

    use super::Counts;

    /// Check that what comes after the end is taken back, and that the rest adds up.
    #[test]
    fn end_at() {
        let moment = Counts {
            seen: 10,
            filtered: 3,
            lost: [1, 0, 0, 0, 0],
            ..Default::default()
        };
        let mut counts = Counts {
            seen: 30,
            filtered: 8,
            lost: [5, 0, 0, 0, 0],
            ..Default::default()
        };
        /* 17 were delivered, of which one was wanted. */
        counts.end_at(&moment, 16);
        assert_eq!((counts.seen, counts.filtered, counts.lost()), (5, 3, 1));
        assert_eq!(counts.seen, 1 + counts.filtered + counts.lost());
    }

    /// Check that only new losses are reported, by cause.
    #[test]
    fn since() {
        let before = Counts {
            lost: [5, 1, 0, 0, 0],
            ..Default::default()
        };
        let now = Counts {
            lost: [5, 3, 1, 0, 0],
            ..Default::default()
        };
        let lost = now.since(&before, "t");
        let reported: Vec<_> = lost.iter().map(|lost| (lost.count, lost.cause)).collect();
        assert_eq!(reported, [(2, Cause::InflightFull), (1, Cause::BadRead)]);
        assert!(now.since(&now, "t").is_empty());
    }
}
