// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is sent, and what becomes of it.

use std::ops::AddAssign;

use ngx_bpf_record::values::Cause;

/// The number of records of each kind, and the losses that they report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Records {
    pub requests: u64,
    pub connections: u64,
    pub blocked: u64,
    /// The requests that are reported as lost, of each cause, in the order of `Cause::ALL`.
    pub losses: [u64; Cause::ALL.len()],
}

impl AddAssign for Records {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.connections += other.connections;
        self.blocked += other.blocked;
        for (count, other) in self.losses.iter_mut().zip(other.losses) {
            *count += other;
        }
    }
}

impl Records {
    /// Takes up to this number of records away: first requests, then the others. Returns those that were taken.
    /// The losses stay: they are not records that are counted.
    pub fn split(&mut self, mut count: u64) -> Self {
        let mut take = |from: &mut u64| {
            let taken = count.min(*from);
            *from -= taken;
            count -= taken;
            taken
        };
        Self {
            requests: take(&mut self.requests),
            connections: take(&mut self.connections),
            blocked: take(&mut self.blocked),
            losses: Default::default(),
        }
    }
}

/// Records, as the bodies of two requests. One that is empty is not sent.
#[derive(Debug, Default)]
pub struct Batch {
    /// The records in it.
    pub records: Records,
    /// The body for `/v1/traces`.
    pub traces: Vec<u8>,
    /// The body for `/v1/logs`.
    pub logs: Vec<u8>,
}

/// Takes what has become of records, in their order: those that the receiver has taken, and those that are lost.
pub type Outcome = Box<dyn Fn(Records, Records) + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::Records;

    /// Check that records are taken away up to their number, requests first.
    #[test]
    fn split() {
        let all = Records {
            requests: 3,
            connections: 2,
            blocked: 1,
            losses: [1, 2, 3, 4, 5, 6],
        };
        for (count, expected) in [
            (0, [0, 0, 0]),
            (2, [2, 0, 0]),
            (4, [3, 1, 0]),
            (u64::MAX, [3, 2, 1]),
        ] {
            let mut left = all;
            let taken = left.split(count);
            assert_eq!([taken.requests, taken.connections, taken.blocked], expected);
            assert_eq!(left.losses, all.losses);
            left += taken;
            assert_eq!(left, all);
        }
    }
}
