// SPDX-License-Identifier: MIT OR Apache-2.0
//! The formats of records, and what encodes them.

use std::env;

use jiff::tz::TimeZone;
use ngx_bpf_record::Format;
use ngx_bpf_record::format::json::Json;
use ngx_bpf_record::format::otel::KNOWN_METHODS_VARIABLE;
use ngx_bpf_record::format::otel::Otel;
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
}

/// Returns the encoder of a format.
pub fn encoder(format: OutputFormat) -> Box<dyn Format + Send> {
    match format {
        OutputFormat::Json => Box::new(Json),
        OutputFormat::Otel => Box::new(Otel::new(env::var(KNOWN_METHODS_VARIABLE).ok())),
        OutputFormat::Text => Box::new(Text),
        OutputFormat::Pretty => {
            let look = terminal::look(false);
            let now = move || Look {
                width: terminal::columns(),
                ..look
            };
            Box::new(Pretty::new(now, TimeZone::system()))
        }
    }
}
