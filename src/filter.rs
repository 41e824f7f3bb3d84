// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which requests are told of: all that hold for every option given.

use std::time::Duration;

use crate::cli::StatusRange;
use crate::cli::Trace;
use crate::request::Request;

/// The filter options, and how many requests have come by.
#[derive(Debug)]
pub struct Filter {
    /// One request in so many, counted over all that are seen.
    sample: u64,
    /// How many were seen.
    seen: u64,
    /// `--min-duration`
    min_duration: Option<Duration>,
    /// `--status`; empty: any.
    status: Vec<StatusRange>,
    /// `--method`; empty: any.
    method: Vec<String>,
    /// `--uri`
    uri: Option<String>,
    /// `--host`
    host: Option<String>,
}

impl Filter {
    /// From the options.
    pub fn new(cli: &Trace) -> Self {
        Self {
            sample: cli.sample.unwrap_or(1),
            seen: 0,
            min_duration: cli.min_duration,
            status: cli.status.clone(),
            method: cli.method.clone(),
            uri: cli.uri.clone(),
            host: cli.host.clone(),
        }
    }

    /// Whether this request is told of. What it does not have can't hold.
    pub fn lets_through(&mut self, request: &Request<'_>) -> bool {
        let nth = self.seen % self.sample;
        self.seen += 1;
        nth == 0
            && self.min_duration.is_none_or(|min| {
                request
                    .duration_ns
                    .is_some_and(|ns| Duration::from_nanos(ns) >= min)
            })
            && any_or(&self.status, |range| {
                request
                    .status
                    .is_some_and(|status| (range.first..=range.last).contains(&status))
            })
            && any_or(&self.method, |method| {
                request.request_method.as_deref() == Some(method)
            })
            && self.uri.as_deref().is_none_or(|prefix| {
                request
                    .uri
                    .as_deref()
                    .is_some_and(|uri| uri.starts_with(prefix))
            })
            && self.host.as_deref().is_none_or(|name| {
                request
                    .http_host
                    .as_deref()
                    .is_some_and(|host| without_port(host).eq_ignore_ascii_case(name))
            })
    }
}

/// Whether one of the items holds, or there are none.
fn any_or<T>(items: &[T], holds: impl FnMut(&T) -> bool) -> bool {
    items.is_empty() || items.iter().any(holds)
}

/// `example.com:8080` without its port; `[::1]:80` likewise.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::Filter;
    use super::without_port;
    use crate::cli::Cli;
    use crate::request::Request;

    /// The filter of a command line.
    fn filter(args: &[&str]) -> Filter {
        let args = ["ngx-bpf"].iter().chain(args);
        Filter::new(&Cli::try_parse_from(args).unwrap().trace)
    }

    /// A request with every value that filters look at.
    fn request() -> Request<'static> {
        Request {
            status: Some(502),
            request_method: Some("GET".into()),
            uri: Some("/api/x".into()),
            http_host: Some("Example.com:8080".into()),
            duration_ns: Some(10_000_000),
            ..Default::default()
        }
    }

    /// Check each filter with a request that it lets through and one that it does not.
    #[test]
    fn each() {
        for (args, expected) in [
            (&[][..], true),
            (&["--status", "404,5xx"], true),
            (&["--status", "404,503-504"], false),
            (&["--method", "post,get"], true),
            (&["--method", "HEAD"], false),
            (&["--uri", "/api"], true),
            (&["--uri", "/static"], false),
            (&["--host", "example.com"], true),
            (&["--host", "example.org"], false),
            (&["--min-duration", "10ms"], true),
            (&["--min-duration", "11ms"], false),
            (&["--status", "502", "--method", "POST"], false),
        ] {
            assert_eq!(filter(args).lets_through(&request()), expected, "{args:?}");
        }
    }

    /// Check that a request without the value is not let through.
    #[test]
    fn absent() {
        for args in [
            ["--status", "200-599"],
            ["--method", "GET"],
            ["--uri", ""],
            ["--host", ""],
            ["--min-duration", "0ns"],
        ] {
            assert!(!filter(&args).lets_through(&Request::default()), "{args:?}");
        }
    }

    /// Check that one request in three is let through, from the first on.
    #[test]
    fn sample() {
        let mut filter = filter(&["--sample", "3"]);
        let passed: Vec<_> = (0..7).map(|_| filter.lets_through(&request())).collect();
        assert_eq!(passed, [true, false, false, true, false, false, true]);
    }

    /// Check hosts with and without a port.
    #[test]
    fn hosts() {
        assert_eq!(without_port("a.b:80"), "a.b");
        assert_eq!(without_port("a.b"), "a.b");
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
    }
}
