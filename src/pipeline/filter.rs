// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which requests are told of: all that hold for every option given.

use ngx_bpf_record::Request;
use ngx_bpf_record::host::host_and_port;

use crate::bpf::types::limit;
use crate::cli::Trace;

/// What BPF decides by itself (bpf/filter.bpf.h): requests that numbers rule out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Early {
    /// One request in so many, counted over all that are seen.
    pub sample: u64,
    /// 0: any.
    pub min_duration_ns: u64,
    /// Bit n of all: those with status n. `None`: any.
    pub statuses: Option<[u64; STATUS_WORDS]>,
}

/// 64 statuses in each.
const STATUS_WORDS: usize = limit::STATUS_WORDS.0 as usize;

impl From<&Trace> for Early {
    fn from(cli: &Trace) -> Self {
        let min_duration = cli.min_duration.unwrap_or_default();
        let mut statuses = [0; STATUS_WORDS];
        for status in cli.status.iter().flat_map(|range| range.first..=range.last) {
            statuses[status as usize / 64] |= 1 << (status % 64);
        }
        Self {
            sample: cli.sample.unwrap_or(1),
            min_duration_ns: u64::try_from(min_duration.as_nanos()).unwrap_or(u64::MAX),
            statuses: Some(statuses).filter(|_| !cli.status.is_empty()),
        }
    }
}

/// The lowest status of a failure.
const STATUS_FAILED: u32 = 400;

/// What texts and attempts decide.
#[derive(Debug)]
pub struct Filter {
    /// `--method`; empty: any.
    method: Vec<String>,
    /// `--uri`
    uri: Option<String>,
    /// `--host`
    host: Option<String>,
    /// `--failed`
    failed: bool,
}

impl Filter {
    /// From the options.
    pub fn new(cli: &Trace) -> Self {
        Self {
            method: cli.method.clone(),
            uri: cli.uri.clone(),
            host: cli.host.clone(),
            failed: cli.failed,
        }
    }

    /// Returns whether the request passes every filter. What it does not have never matches. Its uri is what the client
    /// asked for: a prefix that has no query ends within the path.
    pub fn lets_through(&self, request: &Request<'_>) -> bool {
        let is_method = |known: &String| request.request_method.as_deref() == Some(known);
        let begins_with = |prefix: &str| {
            let uri = request.request_uri.as_deref();
            uri.is_some_and(|uri| uri.starts_with(prefix))
        };
        let is_host = |name: &str| {
            let host = request.http_host.as_deref();
            host.is_some_and(|host| host_and_port(host).0.eq_ignore_ascii_case(name))
        };
        (self.method.is_empty() || self.method.iter().any(is_method))
            && self.uri.as_deref().is_none_or(begins_with)
            && self.host.as_deref().is_none_or(is_host)
            && (!self.failed || has_failed(request))
    }
}

/// Returns whether the client got an error, or an upstream has failed, be it that another one has
/// answered in its place.
fn has_failed(request: &Request<'_>) -> bool {
    let subrequests = request.subrequests.iter().flat_map(|sub| &sub.upstreams);
    let mut attempts = request.upstreams.iter().chain(subrequests);
    request.status.is_some_and(|status| status >= STATUS_FAILED)
        || attempts.any(|attempt| attempt.failure.is_some())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use ngx_bpf_record::Request;
    use ngx_bpf_record::schema;

    use super::Early;
    use super::Filter;
    use crate::cli::Cli;
    use crate::cli::Trace;

    /// A command line.
    fn options(args: &[&str]) -> Trace {
        let args = ["ngx-bpf"].iter().chain(args);
        Cli::try_parse_from(args).unwrap().trace
    }

    /// A request with every value that filters look at.
    fn request() -> Request<'static> {
        Request {
            request_method: Some("GET".into()),
            request_uri: Some("/api/x?y=1".into()),
            uri: Some("/index.php".into()),
            http_host: Some("Example.com:8080".into()),
            ..Default::default()
        }
    }

    /// Check each filter with a request that it lets through and one that it does not.
    #[test]
    fn each() {
        for (args, expected) in [
            (&[][..], true),
            (&["--method", "post,get"], true),
            (&["--method", "HEAD"], false),
            (&["--uri", "/api"], true),
            (&["--uri", "/api/x"], true),
            (&["--uri", "/api/x?y="], true),
            (&["--uri", "/api/xy"], false),
            (&["--uri", "/index.php"], false),
            (&["--uri", "/static"], false),
            (&["--host", "example.com"], true),
            (&["--host", "example.com:8080"], true),
            (&["--host", "example.org"], false),
            (&["--uri", "/api", "--method", "POST"], false),
        ] {
            let filter = Filter::new(&options(args));
            assert_eq!(filter.lets_through(&request()), expected, "{args:?}");
        }
    }

    /// Check that a request without the value is not let through.
    #[test]
    fn absent() {
        for args in [["--method", "GET"], ["--uri", ""], ["--host", "a"]] {
            let filter = Filter::new(&options(&args));
            assert!(!filter.lets_through(&Request::default()), "{args:?}");
        }
    }

    /// Check what is a failure: a status, and an attempt of the request or of a subrequest.
    #[test]
    fn failed() {
        let filter = Filter::new(&options(&["--failed"]));
        let with_status = |status| Request {
            status,
            ..Default::default()
        };
        for (status, expected) in [
            (None, false),
            (Some(399), false),
            (Some(400), true),
            (Some(502), true),
        ] {
            assert_eq!(filter.lets_through(&with_status(status)), expected);
        }
        let mut longest = schema::longest();
        longest.status = Some(200);
        assert!(filter.lets_through(&longest));
        longest.upstreams.clear();
        assert!(filter.lets_through(&longest));
        longest.subrequests.clear();
        assert!(!filter.lets_through(&longest));
    }

    /// Check what BPF is told.
    #[test]
    fn early() {
        let early = |args: &[&str]| Early::from(&options(args));
        let none = early(&[]);
        assert_eq!(
            (none.sample, none.min_duration_ns, none.statuses),
            (1, 0, None)
        );
        assert_eq!(early(&["--sample", "100"]).sample, 100);
        assert_eq!(
            early(&["--min-duration", "10ms"]).min_duration_ns,
            10_000_000
        );
        let statuses = early(&["--status", "404,5xx"]).statuses.unwrap();
        let is_in = |status: usize| statuses[status / 64] >> (status % 64) & 1 == 1;
        let all: Vec<usize> = (0..1000).filter(|status| is_in(*status)).collect();
        let expected: Vec<usize> = [404].into_iter().chain(500..=599).collect();
        assert_eq!(all, expected);
    }
}
