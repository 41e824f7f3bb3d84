// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interprets what a request waited for.

use ngx_bpf_record::Waits;

use crate::decode::facts::Facts;
use crate::decode::nonzero;

impl Facts<'_, '_> {
    /// Returns what the request waited for, as far as it is certain.
    pub fn waits(&self) -> Waits {
        let record = &self.0.record;
        Waits {
            queue_ns: self.queue_ns(),
            body_read_ns: self.body_read_ns(),
            client_stall_ns: self.client_stall_ns(),
            upstream_stall_ns: self.upstream_stall_ns(),
            request_temp_file_bytes: nonzero(record.request_spilt),
            response_temp_file_bytes: nonzero(record.response_spilt),
        }
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
