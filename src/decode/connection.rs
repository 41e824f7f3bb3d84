// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decodes the ends of connections, and finds out why they ended.

use anyhow::Result;
use anyhow::ensure;
use ngx_bpf_record::Connection;
use ngx_bpf_record::values::ConnectionEnd;
use ngx_bpf_record::values::Stage;
use plain::Plain;

use crate::bpf::types;
use crate::bpf::types::close_state;
use crate::bpf::types::request_flag;
use crate::decode::clock::Clock;
use crate::decode::facts::address;
use crate::decode::nonzero;
use crate::decode::since;
use crate::decode::wire;

// SAFETY: the records of wire.h hold plain integers only, and no implicit padding (-Wpadded).
unsafe impl Plain for types::connection_record {}

/// The end of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionEvent(pub types::connection_record);

impl ConnectionEvent {
    /// Decodes a record of this kind. Fails when its length is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        ensure!(
            bytes.len() == size_of::<types::connection_record>(),
            "a connection of {} bytes",
            bytes.len()
        );
        wire::copy(bytes).map(Self)
    }

    /// Returns the connection; `clock` gives its wall time.
    pub fn connection(&self, clock: Clock) -> Connection<'static> {
        let record = &self.0;
        let (peer_addr, peer_port) = address(&record.peer).unzip();
        let (server_addr, server_port) = address(&record.local).unzip();
        let (closed, accepted) = (nonzero(record.closed_ns), nonzero(record.accepted_ns));
        let end = self.end();
        let stage = self.stage(end);
        Connection {
            time: closed.and_then(|ns| clock.wall(ns).ok()),
            pid: record.pid,
            connection: record.connection,
            connection_requests: nonzero(record.connection_requests),
            peer_addr: peer_addr.map(|addr| addr.to_string().into()),
            peer_port: peer_port.and_then(nonzero),
            server_addr: server_addr.map(|addr| addr.to_string().into()),
            server_port: server_port.and_then(nonzero),
            stage,
            end,
            downstream_accept_time: accepted,
            accept_queue_ns: since(nonzero(record.established_ns), accepted),
            connection_ns: since(accepted, closed),
            idle_ns: since(nonzero(record.idle_ns), closed).filter(|_| stage == Stage::Keepalive),
            tls_handshake_ns: since(
                nonzero(record.handshake_first_ns),
                nonzero(record.handshake_last_ns),
            )
            .filter(|_| self.is(close_state::CLOSE_SECURE)),
            ..Default::default()
        }
    }

    fn is(&self, state: close_state) -> bool {
        self.0.state & state.0 != 0
    }

    fn has(&self, flag: request_flag) -> bool {
        self.0.flags & flag.0 != 0
    }

    /// Returns how far the connection had come.
    fn stage(&self, end: Option<ConnectionEnd>) -> Stage {
        if self.is(close_state::CLOSE_IDLE) {
            Stage::Keepalive
        } else if self.is(close_state::CLOSE_HANDSHAKE) {
            Stage::TlsHandshake
        } else if end == Some(ConnectionEnd::Rejected) {
            Stage::ProxyProtocol
        } else if self.is(close_state::CLOSE_SECURE)
            || self.is(close_state::CLOSE_HTTP2)
            || self.is(close_state::CLOSE_READ)
        {
            Stage::BeforeRequest
        } else {
            Stage::Accepted
        }
    }

    /// Returns why the connection ended. `None` when it is not certain.
    fn end(&self) -> Option<ConnectionEnd> {
        let is_tls = self.is(close_state::CLOSE_HANDSHAKE) || self.is(close_state::CLOSE_SECURE);
        let is_timeout = self.has(request_flag::REQUEST_READ_TIMEOUT)
            || self.has(request_flag::REQUEST_TIMED_OUT);
        let is_failed = self.has(request_flag::REQUEST_SOCKET_ERROR);
        let is_plain = !is_tls && !self.is(close_state::CLOSE_HTTP2);
        let is_first = is_plain && !self.is(close_state::CLOSE_IDLE);
        /* nginx makes a request of whatever is not a PROXY protocol header, also if it is not HTTP. Over TLS it only
         * peeks at the header. */
        let is_refused = self.is(close_state::CLOSE_READ) || self.is(close_state::CLOSE_UNREAD);
        if is_timeout {
            Some(ConnectionEnd::Timeout)
        } else if is_failed {
            Some(ConnectionEnd::ClientReset)
        } else if is_tls && self.has(request_flag::REQUEST_BROKEN) {
            Some(ConnectionEnd::TlsError)
        } else if self.has(request_flag::REQUEST_EOF) {
            Some(ConnectionEnd::ClientClosed)
        } else if self.has(request_flag::REQUEST_CLOSED) {
            Some(ConnectionEnd::Reclaimed)
        } else if is_first && is_refused {
            Some(ConnectionEnd::Rejected)
        } else if self.is(close_state::CLOSE_RESET) {
            Some(ConnectionEnd::ClientReset)
        } else if is_first && self.is(close_state::CLOSE_BY_CLIENT) {
            Some(ConnectionEnd::ClientClosed)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use ngx_bpf_record::values::ConnectionEnd;
    use ngx_bpf_record::values::Stage;

    use super::ConnectionEvent;
    use crate::bpf::types;
    use crate::bpf::types::close_state;
    use crate::bpf::types::request_flag;
    use crate::decode::clock::Clock;

    /// Returns the stage and the end of a connection.
    fn found(state: &[close_state], flags: &[request_flag]) -> (Stage, Option<ConnectionEnd>) {
        let record = types::connection_record {
            state: state.iter().fold(0, |all, state| all | state.0),
            flags: flags.iter().fold(0, |all, flag| all | flag.0),
            ..Default::default()
        };
        let connection = ConnectionEvent(record).connection(Clock::now());
        (connection.stage, connection.end)
    }

    /// What BPF says of a connection, its stage and its end.
    type Case<'a> = (
        &'a [close_state],
        &'a [request_flag],
        Stage,
        Option<ConnectionEnd>,
    );

    /// Asserts the stage and the end of connections.
    fn check(cases: &[Case<'_>]) {
        for (state, flags, stage, end) in cases {
            assert_eq!(found(state, flags), (*stage, *end), "{state:?} {flags:?}");
        }
    }

    const EOF: request_flag = request_flag::REQUEST_EOF;
    const BROKEN: request_flag = request_flag::REQUEST_BROKEN;
    const FAILED: request_flag = request_flag::REQUEST_SOCKET_ERROR;
    const LATE: request_flag = request_flag::REQUEST_READ_TIMEOUT;
    const CLOSED: request_flag = request_flag::REQUEST_CLOSED;
    const READ: close_state = close_state::CLOSE_READ;
    const HTTP2: close_state = close_state::CLOSE_HTTP2;
    const IDLE: close_state = close_state::CLOSE_IDLE;
    const RESET: close_state = close_state::CLOSE_RESET;

    /// Check connections without TLS.
    #[test]
    fn plain() {
        use ConnectionEnd as End;
        use Stage::Accepted;
        use Stage::BeforeRequest;
        use Stage::Keepalive;
        use Stage::ProxyProtocol;
        const BY_CLIENT: close_state = close_state::CLOSE_BY_CLIENT;
        const UNREAD: close_state = close_state::CLOSE_UNREAD;
        check(&[
            (&[], &[], Accepted, None),
            (&[], &[EOF], Accepted, Some(End::ClientClosed)),
            (&[BY_CLIENT], &[], Accepted, Some(End::ClientClosed)),
            (&[RESET], &[], Accepted, Some(End::ClientReset)),
            (&[RESET, READ], &[], ProxyProtocol, Some(End::Rejected)),
            (&[UNREAD], &[], ProxyProtocol, Some(End::Rejected)),
            (&[READ], &[], ProxyProtocol, Some(End::Rejected)),
            (&[READ], &[EOF], BeforeRequest, Some(End::ClientClosed)),
            (&[HTTP2, READ], &[], BeforeRequest, None),
            (&[IDLE, READ], &[], Keepalive, None),
            (&[IDLE, READ], &[CLOSED], Keepalive, Some(End::Reclaimed)),
            (&[IDLE, READ], &[LATE], Keepalive, Some(End::Timeout)),
        ]);
    }

    /// Check connections with TLS.
    #[test]
    fn encrypted() {
        use ConnectionEnd as End;
        use Stage::BeforeRequest;
        use Stage::TlsHandshake;
        const SHAKING: close_state = close_state::CLOSE_HANDSHAKE;
        const SECURE: close_state = close_state::CLOSE_SECURE;
        check(&[
            (&[SHAKING], &[EOF], TlsHandshake, Some(End::ClientClosed)),
            (
                &[SHAKING],
                &[EOF, BROKEN],
                TlsHandshake,
                Some(End::TlsError),
            ),
            (
                &[SHAKING],
                &[EOF, FAILED],
                TlsHandshake,
                Some(End::ClientReset),
            ),
            (&[SHAKING], &[LATE], TlsHandshake, Some(End::Timeout)),
            (&[SHAKING, READ], &[], TlsHandshake, None),
            (
                &[SHAKING, RESET],
                &[EOF, BROKEN],
                TlsHandshake,
                Some(End::TlsError),
            ),
            (&[SECURE], &[EOF], BeforeRequest, Some(End::ClientClosed)),
            (
                &[SECURE, READ],
                &[BROKEN],
                BeforeRequest,
                Some(End::TlsError),
            ),
        ]);
    }

    /// Check that a record of another length is an error.
    #[test]
    fn length() {
        let record = types::connection_record::default();
        // SAFETY: the record is plain: integers without padding.
        let bytes = unsafe { plain::as_bytes(&record) };
        assert!(ConnectionEvent::decode(bytes).is_ok());
        assert!(ConnectionEvent::decode(&bytes[1..]).is_err());
    }
}
