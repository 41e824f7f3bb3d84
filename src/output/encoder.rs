// SPDX-License-Identifier: MIT OR Apache-2.0
//! The formats of records, and what encodes them.

use std::env;

use jiff::tz::TimeZone;
use ngx_bpf_record::Format;
use ngx_bpf_record::format::conventions::KNOWN_METHODS_VARIABLE;
use ngx_bpf_record::format::json::Json;
use ngx_bpf_record::format::otel::Otel;
use ngx_bpf_record::format::otlp::Identity;
use ngx_bpf_record::format::otlp::Traces;
use ngx_bpf_record::format::text::Text;
use ngx_bpf_views::look::Look;
use ngx_bpf_views::pretty::Pretty;

use crate::host::terminal;

/// The formats of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// One line, with all times.
    Text,
    /// One line for people at a terminal.
    Pretty,
    /// One JSON object a line.
    Json,
    /// One flat JSON object a line, with the names of OpenTelemetry.
    Otel,
    /// OpenTelemetry's spans: a batch of requests a line.
    Otlp,
}

/// What encodes records.
pub enum Encoder {
    /// One line for each record.
    Records(Box<dyn Format + Send>),
    /// One line for many requests, and none for other records.
    Batches(Box<Traces>),
}

impl Encoder {
    /// Returns that of a format. `service` is the name of the service in spans.
    pub fn new(format: OutputFormat, service: Option<String>) -> Self {
        let known_methods = env::var(KNOWN_METHODS_VARIABLE).ok();
        match format {
            OutputFormat::Json => Self::Records(Box::new(Json)),
            OutputFormat::Otel => Self::Records(Box::new(Otel::new(known_methods))),
            OutputFormat::Otlp => {
                let traces = Traces::new(identity(service), known_methods);
                Self::Batches(Box::new(traces))
            }
            OutputFormat::Text => Self::Records(Box::new(Text)),
            OutputFormat::Pretty => {
                let look = terminal::look(false);
                let now = move || Look {
                    width: terminal::columns(),
                    ..look
                };
                Self::Records(Box::new(Pretty::new(now, TimeZone::system())))
            }
        }
    }
}

/// Returns what OpenTelemetry's resources have besides what records have.
pub fn identity(service: Option<String>) -> Identity {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy().into_owned();
    Identity {
        service,
        host_name: Some(name).filter(|name| !name.is_empty()),
    }
}
