// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ids of traces and spans.

use std::hash::BuildHasher as _;
use std::hash::RandomState;
use std::sync::LazyLock;

use crate::request::Request;

/// What the ids of this process follow from. The system's generator makes the keys of the standard library's hash maps.
static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Makes the ids of a request, of which none is 0. They are random, and the same in every output of this process: a
/// request without `traceparent` that is written as spans and also sent is one trace.
pub(super) struct Ids {
    /// Two sequences (SplitMix64) that begin at random places. One alone has too few places for ids of 128 bits.
    states: [u64; 2],
}

impl Ids {
    /// Begins at places that follow from what no two requests have in common.
    pub fn of(request: &Request<'_>) -> Self {
        let number = (request.connection, request.connection_requests);
        let identity = (request.pid, number, request.time.as_deref());
        Self {
            states: [0, 1].map(|sequence| KEYS.hash_one((sequence, identity))),
        }
    }

    /// Returns the id of a span.
    pub fn span(&mut self) -> u64 {
        loop {
            let id = next(&mut self.states[0]);
            if id != 0 {
                return id;
            }
        }
    }

    /// Returns the id of a trace.
    pub fn trace(&mut self) -> u128 {
        let high = next(&mut self.states[1]);
        u128::from(high) << 64 | u128::from(self.span())
    }
}

/// Returns the next number of a sequence.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Appends an id as hexadecimal digits: 16 of them are one word.
pub(super) fn write_hex(out: &mut Vec<u8>, word: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = word.to_be_bytes();
    out.extend(digits.iter().flat_map(|byte| {
        [
            DIGITS[usize::from(byte >> 4)],
            DIGITS[usize::from(byte & 15)],
        ]
    }));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Ids;
    use super::write_hex;
    use crate::request::Request;

    /// Returns the ids of a request on a connection.
    fn ids(connection: u64) -> [u128; 3] {
        let request = Request {
            connection: Some(connection),
            ..Default::default()
        };
        let mut ids = Ids::of(&request);
        [ids.trace(), ids.span().into(), ids.span().into()]
    }

    /// Check that ids differ, and that those of one request are the same.
    #[test]
    fn of_request() {
        let all: BTreeSet<u128> = (0..10_000).flat_map(ids).collect();
        assert_eq!(all.len(), 30_000);
        assert_eq!(ids(7), ids(7));
    }

    /// Check that a word is written with all of its digits.
    #[test]
    fn hexadecimal() {
        let mut text = Vec::new();
        write_hex(&mut text, 0x00f0_67aa_0ba9_02b7);
        assert_eq!(text, b"00f067aa0ba902b7");
    }
}
