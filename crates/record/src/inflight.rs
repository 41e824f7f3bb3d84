// SPDX-License-Identifier: MIT OR Apache-2.0
//! The record of a request that has not ended.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::format::escape::Escaped;
use crate::limits;
use crate::schema::TIME_PATTERN;
use crate::values;

/// A request that nginx has not ended: a line of `ngx-bpf inflight`. Keys without a value are not there. A key that
/// a [`Request`](crate::Request) has, too, has the same meaning, as far as the request has come.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "inflight")]
#[schemars(deny_unknown_fields)]
pub struct Inflight<'a> {
    /// When nginx's memory was read.
    #[schemars(extend("pattern" = TIME_PATTERN, "x-unit" = "RFC 3339, UTC, nine decimals"))]
    pub time: String,
    /// The pid of the worker.
    #[schemars(extend("x-source" = "the kernel"))]
    pub pid: u32,
    /// `$connection`
    #[schemars(range(min = 1), extend("x-source" = "`c->number`"))]
    pub connection: u64,
    /// `$connection_requests`
    #[schemars(range(min = 1), extend("x-source" = "`c->requests`"))]
    pub connection_requests: u64,
    /// How long ago nginx began with the request: `$request_time` so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ms",
        "x-source" = "`r->start_sec`, `r->start_msec`",
        "x-absent" = "nginx's time is not one of the past; freenginx, Tengine"
    ))]
    pub age_ms: Option<u64>,
    /// What nginx does with it (below).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-source" = "`r->write_event_handler`, `r->phase_handler`, `c->buffered`, `r->request_body`, `r->upstream`",
        "x-absent" = "nginx waits for something else, or for nothing: `limit_rate`, a subrequest without an upstream, a \
                      resolver, a disk"
    ))]
    pub state: Option<values::State>,
    /// The address of the upstream that `state` is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::ADDR_MAX), extend(
        "x-source" = "`u->state->peer`",
        "x-absent" = "`state` is about no upstream"
    ))]
    pub upstream_addr: Option<Cow<'a, str>>,
    /// `$remote_addr`
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::ADDR_MAX), extend(
        "x-source" = "`c->addr_text`",
        "x-absent" = "it could not be read"
    ))]
    pub remote_addr: Option<Cow<'a, str>>,
    /// `$server_protocol`
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::PROTOCOL_MAX), extend(
        "x-source" = "`r->http_protocol`",
        "x-absent" = "nginx has not read the request line"
    ))]
    pub server_protocol: Option<Cow<'a, str>>,
    /// `$request_method`
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::METHOD_MAX), extend(
        "x-source" = "`r->method_name`",
        "x-absent" = "nginx has not read the request line"
    ))]
    pub request_method: Option<Cow<'a, str>>,
    /// `$request_uri`. Secrets in its query are redacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::URI_MAX), extend(
        "x-source" = "`r->unparsed_uri`",
        "x-absent" = "nginx has not read the request line"
    ))]
    pub request_uri: Option<Cow<'a, str>>,
    /// `$http_host`
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::HOST_MAX), extend(
        "x-source" = "`r->headers_in.host`",
        "x-absent" = "nginx has not read it"
    ))]
    pub http_host: Option<Cow<'a, str>>,
    /// The status of the response's header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 999), extend(
        "x-source" = "`r->headers_out.status`",
        "x-absent" = "there is no response yet"
    ))]
    pub status: Option<u32>,
    /// `$request_length` so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0), extend(
        "x-unit" = "bytes",
        "x-source" = "`r->request_length`",
        "x-absent" = "it is negative"
    ))]
    pub request_size: Option<i64>,
    /// `$bytes_sent` so far.
    #[schemars(range(min = 0), extend("x-unit" = "bytes", "x-source" = "`c->sent`"))]
    pub response_size: i64,
}

/// Displays a line for people. Text of clients is escaped.
impl fmt::Display for Inflight<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.age_ms {
            Some(age) => write!(f, "{}.{:03}s", age / 1000, age % 1000)?,
            None => f.write_str("age unknown")?,
        }
        if let Some(state) = self.state {
            match state {
                /* As nginx's own messages and documentation name the directive. */
                values::State::LimitReqDelay => f.write_str(", limit_req delay")?,
                _ => write!(f, ", {}", state.name().replace('_', " "))?,
            }
        }
        let texts = [
            &self.upstream_addr,
            &self.remote_addr,
            &self.request_method,
            &self.http_host,
            &self.request_uri,
        ];
        let before = [" ", ", client ", ", ", ", host ", ", "];
        for (before, text) in before.into_iter().zip(texts) {
            if let Some(text) = text {
                write!(f, "{before}{}", Escaped(text))?;
            }
        }
        if let Some(status) = self.status {
            write!(f, ", {status}")?;
        }
        if let Some(size) = self.request_size {
            write!(f, ", {size} bytes read")?;
        }
        write!(f, ", {} bytes sent", self.response_size)?;
        write!(f, ", pid {}, connection {}", self.pid, self.connection)
    }
}

#[cfg(test)]
mod tests {
    use super::Inflight;
    use crate::values::State;

    /// Check a line with all parts, whose text is escaped, and one of which little is known.
    #[test]
    fn lines() {
        let request = Inflight {
            pid: 7,
            connection: 8,
            age_ms: Some(12_034),
            state: Some(State::SendingRequest),
            upstream_addr: Some("127.0.0.1:81".into()),
            remote_addr: Some("::1".into()),
            request_method: Some("GET".into()),
            request_uri: Some("/\x1b[31m".into()),
            http_host: Some("t".into()),
            status: Some(200),
            request_size: Some(83),
            response_size: 9,
            ..Default::default()
        };
        assert_eq!(
            request.to_string(),
            "12.034s, sending request 127.0.0.1:81, client ::1, GET, host t, /\\x1b[31m, 200, \
             83 bytes read, 9 bytes sent, pid 7, connection 8"
        );
        let delayed = Inflight {
            state: Some(State::LimitReqDelay),
            ..Default::default()
        };
        let line = "age unknown, limit_req delay, 0 bytes sent, pid 0, connection 0";
        assert_eq!(delayed.to_string(), line);
        assert_eq!(
            Inflight::default().to_string(),
            "age unknown, 0 bytes sent, pid 0, connection 0"
        );
    }
}
