// SPDX-License-Identifier: MIT OR Apache-2.0
//! The options about query strings.

use clap::Args;
use ngx_bpf_record::Redaction;
use ngx_bpf_record::redact::DEFAULT_KEYS;

use super::value::Secrets;

/// The options that remove secrets from query strings.
#[derive(Args, Debug)]
pub struct RedactionArgs {
    /// Replace the values of these query-string keys by REDACTED ("none" disables it)
    #[arg(long, value_name = "KEYS", default_value = DEFAULT_KEYS)]
    redact: Secrets,

    /// Strip query strings
    #[arg(long, conflicts_with = "redact")]
    no_query: bool,
}

impl RedactionArgs {
    /// Returns what is removed from query strings.
    pub fn redaction(&self) -> Redaction {
        if self.no_query {
            Redaction::Query
        } else {
            Redaction::Keys(self.redact.0.clone())
        }
    }
}
