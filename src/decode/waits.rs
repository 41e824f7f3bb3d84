// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interprets what a request waited for.

use ngx_bpf_record::Waits;

use crate::bpf::types::request_flag;
use crate::bpf::types::wait_kind;
use crate::decode::facts::Facts;
use crate::decode::nonzero;
use crate::decode::since;

/// `WAIT_UNKNOWN` of bpf/wire.h: it is not known how long the wait was.
const WAIT_UNKNOWN: u64 = u64::MAX;

impl Facts<'_, '_> {
    /// Returns what the request waited for, as far as it is certain.
    pub fn waits(&self) -> Waits {
        let record = &self.0.record;
        Waits {
            accept_queue_ns: self.accept_queue_ns(),
            read_wait_ns: nonzero(record.read_wait_ns).filter(|_| !self.is_partial()),
            upstream_read_wait_ns: self.upstream_read_wait_ns(),
            queue_ns: self.queue_ns(),
            body_read_ns: self.body_read_ns(),
            limit_req_delay_ns: self.wait_ns(wait_kind::WAIT_LIMIT_REQ),
            auth_ns: self.wait_ns(wait_kind::WAIT_AUTH),
            resolve_ns: self.wait_ns(wait_kind::WAIT_RESOLVE),
            cache_lock_ns: self.wait_ns(wait_kind::WAIT_CACHE_LOCK),
            wait_ns: self.mixed_wait_ns(),
            client_stall_ns: self.client_stall_ns(),
            upstream_stall_ns: self.upstream_stall_ns(),
            request_temp_file_bytes: nonzero(record.request_spilt),
            response_temp_file_bytes: nonzero(record.response_spilt),
            time_ns: None,
        }
    }

    /// Returns how long the connection waited for nginx to accept it. Only its first request waited for that.
    fn accept_queue_ns(&self) -> Option<u64> {
        let record = &self.0.record;
        let accepted = nonzero(record.accepted_ns).filter(|_| record.connection_requests == 1);
        since(nonzero(record.established_ns), accepted).filter(|_| !self.is_partial())
    }

    /// Returns how long the first bytes of the last response lay in the upstream's socket.
    fn upstream_read_wait_ns(&self) -> Option<u64> {
        let last = self.last_awaited()?;
        nonzero(last.record.read_wait_ns).filter(|_| !self.is_partial())
    }

    /// Returns how long nginx made the request wait for this alone.
    fn wait_ns(&self, kind: wait_kind) -> Option<u64> {
        let ns = self.0.record.waits[kind.0 as usize];
        let is_mixed = self.has(request_flag::REQUEST_WAIT_MIXED);
        nonzero(ns).filter(|ns| *ns != WAIT_UNKNOWN && !is_mixed && !self.is_partial())
    }

    /// Returns how long nginx made the request wait, where a module that is not its own may have done so as well.
    fn mixed_wait_ns(&self) -> Option<u64> {
        let waits = self.0.record.waits;
        let is_known = !waits.contains(&WAIT_UNKNOWN) && !self.is_partial();
        let is_mixed = self.has(request_flag::REQUEST_WAIT_MIXED);
        let sum = waits.into_iter().fold(0, u64::saturating_add);
        nonzero(sum).filter(|_| is_mixed && is_known)
    }

    /// Returns how long the client's socket took nothing of the response. What goes through a tunnel is not
    /// one.
    fn client_stall_ns(&self) -> Option<u64> {
        nonzero(self.0.record.client_stall_ns).filter(|_| !self.is_partial() && !self.is_tunnel())
    }

    /// Returns how long the sockets of all attempts took nothing of the request.
    fn upstream_stall_ns(&self) -> Option<u64> {
        let awaited = self
            .0
            .attempts
            .iter()
            .filter(|attempt| !attempt.is_after(self.answered_ns()));
        let stalls = awaited.map(|attempt| attempt.record.stall_ns);
        nonzero(stalls.fold(0, u64::saturating_add)).filter(|_| !self.is_partial())
    }
}

#[cfg(test)]
mod tests {
    use super::WAIT_UNKNOWN;
    use crate::bpf::types::request_flag;
    use crate::decode::facts::Facts;
    use crate::decode::facts::tests::event;

    /// Check that BPF has the same number for a wait of unknown length: all bits are set.
    #[test]
    fn unknown_as_in_bpf() {
        let header = include_str!("../../bpf/wire.h");
        assert!(header.contains("#define WAIT_UNKNOWN (~0ULL)\n"));
        assert_eq!(WAIT_UNKNOWN, !0);
    }

    /// Returns the five keys of an event with these waits: of limit_req, auth_request, the cache's lock and the
    /// resolver.
    fn keys(waits: [u64; 4], flags: u32) -> [Option<u64>; 5] {
        let mut event = event();
        event.record.waits = waits;
        event.record.flags |= flags;
        let waits = Facts(&event).waits();
        [
            waits.limit_req_delay_ns,
            waits.auth_ns,
            waits.cache_lock_ns,
            waits.resolve_ns,
            waits.wait_ns,
        ]
    }

    /// Check that each wait has its key, that one of unknown length has none, and that a module that is not nginx's own
    /// leaves only the sum, if that is known.
    #[test]
    fn waits() {
        let mixed = request_flag::REQUEST_WAIT_MIXED.0;
        let none = [None; 5];
        assert_eq!(keys([0; 4], 0), none);
        assert_eq!(keys([0; 4], mixed), none);
        let of = [Some(1), Some(2), Some(3), Some(4), None];
        assert_eq!(keys([1, 2, 3, 4], 0), of);
        assert_eq!(
            keys([1, 2, 3, 4], mixed),
            [None, None, None, None, Some(10)]
        );
        let unknown = [1, 2, WAIT_UNKNOWN, 0];
        assert_eq!(keys(unknown, 0), [Some(1), Some(2), None, None, None]);
        assert_eq!(keys(unknown, mixed), none);
        assert_eq!(keys([1, 2, 3, 4], request_flag::REQUEST_ADOPTED.0), none);
    }
}
