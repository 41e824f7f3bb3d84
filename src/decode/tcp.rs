// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interprets what the kernel counts of the TCP connections of a request.

use ngx_bpf_record::Tcp;
use ngx_bpf_record::TcpConnection;

use crate::bpf::types;
use crate::decode::facts::Facts;
use crate::decode::nonzero;

impl Facts<'_, '_> {
    /// Returns the connections of the client and of the last upstream that the client waited for.
    pub fn tcp(&self) -> Tcp {
        let numbers = &self.0.record.upstream_tcp;
        let last = self.last_awaited();
        let is_last = last.is_some_and(|last| last.record.index == numbers.index);
        Tcp {
            client: connection(&self.0.record.client_tcp),
            upstream: connection(numbers).filter(|_| is_last),
        }
    }
}

/// Returns a connection. `None` when it was not read.
fn connection(numbers: &types::tcp_numbers) -> Option<TcpConnection> {
    Some(TcpConnection {
        rtt_us: nonzero(numbers.srtt_us).map(|srtt_us| srtt_us >> 3),
        retransmits: nonzero(numbers.retransmits),
        cwnd: nonzero(numbers.cwnd)?,
        rwnd_limited_ns: nonzero(numbers.rwnd_limited_ns),
    })
}

#[cfg(test)]
mod tests {
    use ngx_bpf_record::Tcp;
    use ngx_bpf_record::TcpConnection;

    use crate::bpf::types;
    use crate::decode::facts::Facts;
    use crate::decode::facts::tests::event;
    use crate::decode::wire::AttemptEvent;

    /// Check that a connection that was not read is absent, and that an upstream's counts only for the attempt of
    /// which it was read.
    #[test]
    fn connections() {
        let mut event = event();
        assert_eq!(Facts(&event).tcp(), Tcp::default());
        let numbers = types::tcp_numbers {
            srtt_us: 807,
            cwnd: 10,
            index: 1,
            ..Default::default()
        };
        let expected = Some(TcpConnection {
            rtt_us: Some(100),
            cwnd: 10,
            ..Default::default()
        });
        event.record.client_tcp = numbers;
        event.record.upstream_tcp = numbers;
        event.attempts = (0..3)
            .map(|index| AttemptEvent {
                record: types::attempt {
                    index,
                    connect_ns: 2_000,
                    ..Default::default()
                },
                addr: b"127.0.0.1:80",
            })
            .collect();
        assert_eq!(Facts(&event).tcp().client, expected);
        assert_eq!(Facts(&event).tcp().upstream, None);
        /* One that begins after the response is of a `post_action`. */
        event.attempts[2].record.connect_ns = 5_000;
        assert_eq!(Facts(&event).tcp().upstream, expected);
    }
}
