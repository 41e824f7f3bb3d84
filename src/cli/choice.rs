// SPDX-License-Identifier: MIT OR Apache-2.0
//! The options that choose what is traced and reported, whatever is done with it.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::Args;
use clap::ValueHint;

use super::asked;
use super::asked::HeaderArg;
use super::layout::LayoutArgs;
use super::pids::Pids;
use super::redaction::RedactionArgs;
use super::value;
use super::value::StatusRange;
use crate::attach::socket_source::SocketSource;
use crate::host::container::PodName;

/// The options that choose what is traced and reported.
#[derive(Args, Debug)]
pub struct ChoiceArgs {
    #[command(flatten)]
    pub pids: Pids,

    /// Also trace nginx instances that start later; keep running when none is left
    #[arg(long, conflicts_with = "pid")]
    pub wait: bool,

    /// Trace only nginx in this container: its id, or at least the first 12 characters of it; may be
    /// repeated
    #[arg(long, value_name = "ID", value_parser = value::container_id)]
    pub container: Vec<String>,

    /// Trace only nginx in this pod of Kubernetes: its name, or its namespace, a slash and its name; may
    /// be repeated
    #[arg(long, value_name = "NAME", value_parser = value::pod)]
    pub pod: Vec<PodName>,

    /// Stop after TIME
    #[arg(short, long, value_name = "TIME", value_parser = value::time)]
    pub duration: Option<Duration>,

    /// Stop after N requests
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Write only requests that took at least TIME
    #[arg(long, value_name = "TIME", value_parser = value::time)]
    pub min_duration: Option<Duration>,

    /// Write only requests with these statuses: 404, 5xx, 500-503
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub status: Vec<StatusRange>,

    /// Write only requests with these methods, in upper or lower case
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = value::method)]
    pub method: Vec<String>,

    /// Write only requests whose URI begins with PREFIX, as the client sent it, before any rewrite
    #[arg(long, value_name = "PREFIX")]
    pub uri: Option<String>,

    /// Write only requests with this Host, in upper or lower case, with any port
    #[arg(long, value_name = "NAME", value_parser = value::host)]
    pub host: Option<String>,

    /// Write only requests that failed: with a status of 400 or more, with a failed attempt at an
    /// upstream, also in a subrequest, or because their worker ended
    #[arg(long)]
    pub failed: bool,

    /// Write only one request in N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub sample: Option<u64>,

    /// Add the value of nginx's variable NAME to records, if nginx has evaluated it by the end of the request;
    /// up to eight times
    #[arg(long, value_name = "NAME", value_parser = asked::variable)]
    pub variable: Vec<String>,

    /// Add the request header NAME to records, and with a VALUE write only requests that have it with this
    /// value; up to eight names
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub header: Vec<HeaderArg>,

    /// Add to records where their server, and their group of upstream servers, stand in the configuration
    #[arg(long)]
    pub config_lines: bool,

    /// Also write a record each time that a worker did not come back to its event loop for at least TIME,
    /// so that all of its requests waited [default TIME: 100ms]
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "100ms",
        value_parser = value::time
    )]
    pub blocked: Option<Duration>,

    /// Also write a record for each connection of a client that ends without a request, as with a failed TLS
    /// handshake, or while it waits for its next request; filters do not apply to these
    #[arg(long)]
    pub connections: bool,

    /// Add to records the round-trip time, the retransmits and the congestion window of the TCP connections of
    /// their client and their last upstream
    #[arg(long)]
    pub tcp: bool,

    #[command(flatten)]
    pub redaction: RedactionArgs,

    /// Become user NAME before anything is opened, and keep only the capabilities that tracing needs
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Username)]
    pub user: Option<String>,

    #[command(flatten)]
    pub layout: LayoutArgs,

    /// Take the bytes on sockets from this source, for tests
    #[arg(long, value_name = "SOURCE", value_parser = value::socket_source, hide = true)]
    pub sockets: Option<SocketSource>,

    /// Print more on stderr
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,

    /// Print only errors on stderr
    #[arg(short, long)]
    pub quiet: bool,
}

impl ChoiceArgs {
    /// Returns the statuses that pass; empty for any.
    pub fn statuses(&self) -> Vec<RangeInclusive<u32>> {
        let ranges = self.status.iter();
        ranges.map(|range| range.first..=range.last).collect()
    }

    /// Returns the names of the headers that the user named, each once.
    pub fn header_names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for header in &self.header {
            if !names.contains(&header.name) {
                names.push(header.name.clone());
            }
        }
        names
    }

    /// Returns the headers that must have a value.
    pub fn header_values(&self) -> Vec<(String, String)> {
        let headers = self.header.iter();
        headers
            .filter_map(|header| Some((header.name.clone(), header.value.clone()?)))
            .collect()
    }

    /// Returns an option that only tracing has, if one was given.
    pub fn only_for_tracing(&self) -> Option<&'static str> {
        let adds_headers = self.header.iter().any(|header| header.value.is_none());
        let given = [
            ("--wait", self.wait),
            ("--duration", self.duration.is_some()),
            ("--count", self.count.is_some()),
            ("--sample", self.sample.is_some()),
            ("--variable", !self.variable.is_empty()),
            ("--header NAME", adds_headers),
            ("--config-lines", self.config_lines),
            ("--blocked", self.blocked.is_some()),
            ("--connections", self.connections),
            ("--tcp", self.tcp),
            ("--user", self.user.is_some()),
            ("--layout", self.layout.layout.is_some()),
            ("--debug-info", self.layout.debug_info.is_some()),
        ];
        let mut given = given.into_iter().filter(|(_, is_given)| *is_given);
        given.next().map(|(option, _)| option)
    }
}
