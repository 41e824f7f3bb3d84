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
            name: asked_name(name)?,
            value,
        })
    }
}

/// Parses the name of a variable of nginx, with or without its `$`.
pub fn variable(text: &str) -> Result<String> {
    asked_name(text.strip_prefix('$').unwrap_or(text))
}

/// Returns a name that BPF compares, in lower case.
fn asked_name(name: &str) -> Result<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    ensure!(
        (1..=ASKED_NAME_MAX).contains(&name.len()) && name.bytes().all(is_plain),
        "\"{name}\" is not a name of at most {ASKED_NAME_MAX} letters, digits, _ and -"
    );
    Ok(name.to_ascii_lowercase())
}
