// SPDX-License-Identifier: MIT OR Apache-2.0
//! The options of tracing.

use std::path::PathBuf;

use clap::Args;
use clap::ValueEnum;
use clap::ValueHint;

use super::choice::ChoiceArgs;
use super::value;
use super::value::DEFAULT_MAX_LINE;
use super::value::Interval;
use super::value::ListenAddress;
use super::value::MaxLine;
use crate::metrics::route::Route;
use crate::otlp::Endpoint;
use crate::output::OutputFormat;

/// The options of tracing.
#[derive(Args, Debug)]
pub struct TraceArgs {
    /// Write JSON lines; the same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,

    /// Write records in this format [default: pretty on a terminal, text elsewhere]
    #[arg(long, value_name = "FORMAT", value_enum)]
    format: Option<FormatArg>,

    /// Send requests as spans, and all records as log records, to a receiver of OTLP by HTTP, such as an OpenTelemetry
    /// Collector: http://HOST:4318. Lines are written only where --output, --json or --format asks for them
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub otlp: Option<Endpoint>,

    /// In spans, call the service NAME [default: the name of the request's server, else nginx]
    #[arg(long, value_name = "NAME", value_parser = value::service)]
    pub service: Option<String>,

    /// Write only requests whose client states a trace (a traceparent header)
    #[arg(long)]
    pub traced_only: bool,

    /// Append to FILE instead of stdout; SIGUSR1 reopens it
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,

    /// Report tracing overhead on stderr at exit, and every TIME if given (measuring adds some overhead)
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = ""
    )]
    pub self_stats: Option<Interval>,

    /// Shorten the longest strings of a record until its line, with its end, has at most BYTES ("none"
    /// disables it)
    #[arg(long, value_name = "BYTES", default_value = DEFAULT_MAX_LINE)]
    pub max_line: MaxLine,

    /// Serve metrics for Prometheus at http://ADDR:PORT/metrics [ADDR: 127.0.0.1]
    #[arg(long, value_name = "[ADDR:]PORT")]
    pub metrics: Option<ListenAddress>,

    /// In metrics, name those of requests and attempts as NAMES says
    #[arg(long, value_name = "NAMES", default_value = "nginx")]
    pub metrics_names: MetricNamesArg,

    /// In metrics, count requests as NAME if their URI, as the client sent it and without its query,
    /// matches PATTERN, in which "*" stands for anything; may be repeated
    #[arg(long, value_name = "NAME=PATTERN")]
    pub route: Vec<Route>,

    /// In metrics, show nginx's own counters as well, as stub_status does: connections and requests of
    /// each master
    #[arg(long)]
    pub stats: bool,

    #[command(flatten)]
    pub choice: ChoiceArgs,
}

impl TraceArgs {
    /// Returns the format of the records. Unless the user chose one, it is that for people where stdout is a terminal and
    /// takes them, and text elsewhere.
    pub fn format(&self, is_terminal: bool) -> OutputFormat {
        match self.format {
            _ if self.json => OutputFormat::Json,
            Some(FormatArg::Json) => OutputFormat::Json,
            Some(FormatArg::Otel) => OutputFormat::Otel,
            Some(FormatArg::Otlp) => OutputFormat::Otlp,
            Some(FormatArg::Text) => OutputFormat::Text,
            Some(FormatArg::Pretty) => OutputFormat::Pretty,
            None if is_terminal && self.output.is_none() => OutputFormat::Pretty,
            None => OutputFormat::Text,
        }
    }

    /// Returns whether records are written as lines.
    pub fn writes_lines(&self) -> bool {
        self.otlp.is_none() || self.output.is_some() || !self.is_format_open()
    }

    /// Returns whether nothing but spans is written or sent, or lines have nothing else.
    pub fn writes_only_spans(&self) -> bool {
        match (self.writes_lines(), &self.otlp) {
            (false, Some(endpoint)) => endpoint.logs().is_none(),
            /* A terminal chooses among others. */
            _ => self.format(false) == OutputFormat::Otlp,
        }
    }

    /// Returns whether the user chose no format.
    pub fn is_format_open(&self) -> bool {
        !self.json && self.format.is_none()
    }
}

/// The values of `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// One line, with all times
    Text,
    /// One line for people at a terminal
    Pretty,
    /// One JSON object per line
    Json,
    /// One flat JSON object per line, with OpenTelemetry's names
    Otel,
    /// OpenTelemetry's spans: one ExportTraceServiceRequest per line, of many requests
    Otlp,
}

/// The values of `--metrics-names`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MetricNamesArg {
    /// ngx-bpf's own: nginx_http_requests_total, nginx_http_request_duration_seconds and so on
    Nginx,
    /// Those of OpenTelemetry: http_server_request_duration_seconds, http_client_request_duration_seconds
    Otel,
}
