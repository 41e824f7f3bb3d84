// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interprets what a request waited for.

use ngx_bpf_record::Waits;

use crate::decode::facts::Facts;
use crate::decode::nonzero;
use crate::decode::since;

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
