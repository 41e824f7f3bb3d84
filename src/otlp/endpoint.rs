// SPDX-License-Identifier: MIT OR Apache-2.0
//! The address of a receiver of OTLP.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::net::ToSocketAddrs as _;
use std::str::FromStr;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use ngx_bpf_record::host::host_and_port;
use ngx_bpf_record::host::without_brackets;

/// The port of a URL without one.
const HTTP_PORT: u16 = 80;

/// The paths of the two kinds of data.
const TRACES: &str = "/v1/traces";
const LOGS: &str = "/v1/logs";
/// That of a kind that is not sent.
const METRICS: &str = "/v1/metrics";

/// A receiver of OTLP. The URL of one of the two paths stands for that kind of data alone, and any other one for both:
/// the paths are added to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The name or the address, without the brackets of IPv6.
    host: String,
    port: u16,
    /// What stands before the paths.
    prefix: String,
    has_traces: bool,
    has_logs: bool,
}

impl FromStr for Endpoint {
    type Err = anyhow::Error;

    /// Parses `http://127.0.0.1:4318`, with or without a path.
    fn from_str(text: &str) -> Result<Self> {
        const FORM: &str = "not a URL of this form: http://127.0.0.1:4318";
        if text.starts_with("https://") {
            bail!(
                "ngx-bpf does not speak TLS: run an OpenTelemetry Collector on this machine, which does, and send to \
                 http://127.0.0.1:4318"
            );
        }
        let rest = text.strip_prefix("http://").context(FORM)?;
        let is_plain = |c: char| c.is_ascii_graphic() && !"@?#\\\"".contains(c);
        ensure!(rest.chars().all(is_plain), FORM);
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (host, port) = host_and_port(authority);
        let is_ipv6 = host.contains(':') && !host.starts_with('[');
        let host = without_brackets(host);
        ensure!(!host.is_empty() && !is_ipv6, FORM);
        let port = port.map_or(Ok(HTTP_PORT), |port| port.parse().context(FORM))?;
        ensure!(port != 0, "port 0 is not allowed: name one");
        let path = path.trim_end_matches('/');
        ensure!(
            !path.ends_with(METRICS),
            "no metrics are sent: name {TRACES}, {LOGS} or neither"
        );
        let (of_traces, of_logs) = (path.strip_suffix(TRACES), path.strip_suffix(LOGS));
        Ok(Self {
            host: host.to_owned(),
            port,
            prefix: of_traces.or(of_logs).unwrap_or(path).to_owned(),
            has_traces: of_logs.is_none(),
            has_logs: of_traces.is_none(),
        })
    }
}

impl Endpoint {
    /// Returns the path for spans, if they are sent.
    pub fn traces(&self) -> Option<String> {
        self.has_traces.then(|| [&self.prefix, TRACES].concat())
    }

    /// Returns the path for log records, if they are sent.
    pub fn logs(&self) -> Option<String> {
        self.has_logs.then(|| [&self.prefix, LOGS].concat())
    }

    /// Returns the value of `Host`.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Returns the addresses of the host.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let found = (self.host.as_str(), self.port).to_socket_addrs()?;
        Ok(found.collect())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    /// Check URLs of a receiver, and of one of its paths.
    #[test]
    fn urls() {
        let both = (Some("/v1/traces"), Some("/v1/logs"));
        for (text, authority, (traces, logs)) in [
            ("http://127.0.0.1:4318", "127.0.0.1:4318", both),
            ("http://[::1]:4318/", "[::1]:4318", both),
            ("http://collector", "collector:80", both),
            ("http://a:1/v1/traces", "a:1", (Some("/v1/traces"), None)),
            ("http://a:1/x/v1/logs/", "a:1", (None, Some("/x/v1/logs"))),
            (
                "http://a:1/x",
                "a:1",
                (Some("/x/v1/traces"), Some("/x/v1/logs")),
            ),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.authority(), authority);
            let paths = (endpoint.traces(), endpoint.logs());
            assert_eq!(
                (paths.0.as_deref(), paths.1.as_deref()),
                (traces, logs),
                "{text}"
            );
        }
    }

    /// Check texts that are no such URL, and what is said about TLS.
    #[test]
    fn refused() {
        for text in [
            "",
            "127.0.0.1:4318",
            "http://",
            "http:///v1/traces",
            "http://:4318",
            "http://::1:4318",
            "http://a:0",
            "http://a:99999",
            "http://user@a:1",
            "http://a:1/?x",
            "http://a:1/v1/metrics",
            "http://a b:1",
            "http://a:1/\r\nx",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
        let error = "https://a:4318".parse::<Endpoint>().unwrap_err();
        assert!(error.to_string().contains("does not speak TLS"), "{error}");
    }
}
