// SPDX-License-Identifier: MIT OR Apache-2.0
//! One subrequest that had an upstream (auth_request, mirror, SSI, slice, a cache's update).

use std::borrow::Cow;

use serde::Serialize;

use crate::decode::event::SubrequestEvent;
use crate::decode::facts::lossy;
use crate::decode::facts::nonzero;
use crate::record::attempt::Around;
use crate::record::attempt::Attempt;
use crate::record::attempt::Next;

/// One subrequest, as users see it.
#[derive(Debug, Serialize)]
pub struct Subrequest<'a> {
    /// `$uri`, there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<Cow<'a, str>>,
    /// `$status`, there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u32>,
    /// First connect to last byte of a response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ns: Option<u64>,
    /// Every attempt, in order.
    pub upstreams: Vec<Attempt<'a>>,
}

impl<'a> Subrequest<'a> {
    /// From its event, within its request.
    pub fn new(event: &SubrequestEvent<'a>, around: Around) -> Self {
        let attempts = &event.attempts;
        let first = attempts.first().and_then(|a| nonzero(a.record.connect_ns));
        let last = attempts.iter().map(|a| a.record.response_last_ns).max();
        let status = event.record.status;
        Self {
            uri: lossy(event.uri),
            status: nonzero(status),
            duration_ns: first
                .zip(last.and_then(nonzero))
                .and_then(|(first, last)| last.checked_sub(first))
                .filter(|_| around.origin.is_some()),
            upstreams: Attempt::all(
                attempts,
                Around {
                    next: Next::Answer(status),
                    answered_ns: None,
                    ..around
                },
            ),
        }
    }
}
