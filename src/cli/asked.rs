// SPDX-License-Identifier: MIT OR Apache-2.0
//! The values of options that ask for more of a request: variables and headers.

use std::str::FromStr;

use anyhow::Result;
use anyhow::ensure;
use ngx_bpf_record::limits::ASKED_NAME_MAX;
use ngx_bpf_record::limits::ASKED_VALUE_MAX;

/// A header of requests, and the value that it must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderArg {
    /// In lower case.
    pub name: String,
    pub value: Option<String>,
}

impl FromStr for HeaderArg {
    type Err = anyhow::Error;

    /// Parses `NAME` or `NAME=VALUE`.
    fn from_str(text: &str) -> Result<Self> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        ensure!(
            value
                .as_ref()
                .is_none_or(|value| value.len() <= ASKED_VALUE_MAX && !value.is_empty()),
            "a value has 1 to {ASKED_VALUE_MAX} bytes"
        );
        Ok(Self {
            name: asked_name(name, HEADER_SIGNS)?,
            value,
        })
    }
}

/// Parses the name of a variable of nginx, with or without its `$`.
pub fn variable(text: &str) -> Result<String> {
    asked_name(text.strip_prefix('$').unwrap_or(text), VARIABLE_SIGNS)
}

/// What the name of a variable may have besides letters and digits.
const VARIABLE_SIGNS: &str = "_-";

/// The same for the name of a header: a token of RFC 9110.
const HEADER_SIGNS: &str = "!#$%&'*+-.^_`|~";

/// Returns a name that BPF compares, in lower case. It has letters, digits and some signs.
fn asked_name(name: &str, signs: &str) -> Result<String> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || signs.contains(c);
    ensure!(
        (1..=ASKED_NAME_MAX).contains(&name.len()) && name.chars().all(is_legal),
        "a name has 1 to {ASKED_NAME_MAX} letters, digits and {signs}"
    );
    Ok(name.to_ascii_lowercase())
}
