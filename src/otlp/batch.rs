// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is sent, and what becomes of it.

use std::ops::AddAssign;

/// The number of records of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Records {
    pub requests: u64,
    pub connections: u64,
    pub blocked: u64,
}

impl AddAssign for Records {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.connections += other.connections;
        self.blocked += other.blocked;
    }
}

impl Records {
    /// Takes up to this number of records away: first requests, then the others. Returns those that were taken.
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
            left += taken;
            assert_eq!(left, all);
        }
    }
}
