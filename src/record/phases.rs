// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ten times of a request: their public names, in the order in which they are written.

use serde::Serialize;
use serde::Serializer;

/// One of the times. docs/fields.md tells the moment of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// First byte of the request read.
    DownstreamRequestFirstByte,
    /// Header of the request complete.
    DownstreamRequestLastByte,
    /// Body of the request complete.
    DownstreamRequestBodyLastByte,
    /// Connect to the upstream begun.
    UpstreamConnect,
    /// First bytes of the request sent to the upstream.
    UpstreamRequestFirstByte,
    /// Last bytes of it.
    UpstreamRequestLastByte,
    /// First bytes of the upstream's response read.
    UpstreamResponseFirstByte,
    /// Last bytes of it.
    UpstreamResponseLastByte,
    /// First bytes of the response sent to the client.
    DownstreamResponseFirstByte,
    /// Last bytes of it.
    DownstreamResponseLastByte,
}

impl Phase {
    /// All of them, in their order.
    #[cfg(test)]
    pub const ALL: [Self; NAMES.len()] = [
        Self::DownstreamRequestFirstByte,
        Self::DownstreamRequestLastByte,
        Self::DownstreamRequestBodyLastByte,
        Self::UpstreamConnect,
        Self::UpstreamRequestFirstByte,
        Self::UpstreamRequestLastByte,
        Self::UpstreamResponseFirstByte,
        Self::UpstreamResponseLastByte,
        Self::DownstreamResponseFirstByte,
        Self::DownstreamResponseLastByte,
    ];
}

/// Public names, in the order of `Phase`.
const NAMES: [&str; 10] = [
    "downstream_request_first_byte_time",
    "downstream_request_last_byte_time",
    "downstream_request_body_last_byte_time",
    "upstream_connect_time",
    "upstream_request_first_byte_time",
    "upstream_request_last_byte_time",
    "upstream_response_first_byte_time",
    "upstream_response_last_byte_time",
    "downstream_response_first_byte_time",
    "downstream_response_last_byte_time",
];

/// The times that are known, nanoseconds since the request's `phases_origin`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Phases([Option<u64>; NAMES.len()]);

impl Phases {
    /// Notes a time, if there is one.
    pub fn set(&mut self, phase: Phase, time: Option<u64>) {
        self.0[phase as usize] = time;
    }

    /// A time, if it is known.
    pub fn get(&self, phase: Phase) -> Option<u64> {
        self.0[phase as usize]
    }

    /// Takes over the times that the other knows.
    pub fn extend(&mut self, other: &Self) {
        for (ours, theirs) in self.0.iter_mut().zip(other.0) {
            *ours = theirs.or(*ours);
        }
    }

    /// Whether no time is known.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// The names and values of those that are known.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES
            .into_iter()
            .zip(self.0)
            .filter_map(|(name, time)| Some((name, time?)))
    }
}

impl Serialize for Phases {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}
