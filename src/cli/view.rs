// SPDX-License-Identifier: MIT OR Apache-2.0
//! The options of the commands that show records to people.

use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use clap::Args;
use clap::ValueHint;
use ngx_bpf_record::statistics::GroupKey;

use super::choice::ChoiceArgs;
use super::value;

/// Returns whether a file is stdin.
pub fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// The records, and how they are shown.
#[derive(Args, Debug)]
pub struct ViewArgs {
    /// Read records from these files, as --json writes them, also compressed by gzip or zstd; "-" is stdin
    /// [default: trace nginx]
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,

    /// Use ASCII only
    #[arg(long)]
    pub ascii: bool,

    #[command(flatten)]
    pub choice: ChoiceArgs,
}

/// The options of `summary`.
#[derive(Args, Debug)]
pub struct SummaryArgs {
    /// Group requests by KEY: location, server, upstream, peer, status, worker, method, host, client,
    /// container, pod or variable:NAME
    #[arg(long, value_name = "KEY", default_value = "location")]
    pub group: GroupKey,

    /// Compare the records of two files
    #[arg(long, value_names = ["BEFORE", "AFTER"], num_args = 2, conflicts_with = "files", value_hint = ValueHint::FilePath)]
    pub compare: Vec<PathBuf>,

    /// Write one JSON object with all numbers
    #[arg(long)]
    pub json: bool,

    /// Show everything, also what one screen has no room for
    #[arg(long)]
    pub all: bool,

    #[command(flatten)]
    pub view: ViewArgs,
}

/// The options of `waterfall`.
#[derive(Args, Debug)]
pub struct WaterfallArgs {
    /// Show the request with this id: the pid of its worker, the number of its connection, and its number on that
    #[arg(long, value_name = "PID/CONNECTION/NUMBER", conflicts_with = "slowest")]
    pub id: Option<RequestId>,

    /// Show the N slowest requests
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub slowest: u16,

    /// Write a page that contains everything it needs to FILE
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub html: Option<PathBuf>,

    /// Write a trace in Chrome's format, as ui.perfetto.dev opens it, to FILE
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub trace: Option<PathBuf>,

    /// Write an HTTP archive (HAR 1.2) to FILE
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub har: Option<PathBuf>,

    #[command(flatten)]
    pub view: ViewArgs,
}

/// The id of a request, as the views print it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    pub pid: u32,
    pub connection: u64,
    pub number: u64,
}

impl FromStr for RequestId {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let [pid, connection, number] = parts.as_slice() else {
            bail!("not three numbers, separated by \"/\"");
        };
        let wrong = || "not three numbers, separated by \"/\"";
        Ok(Self {
            pid: pid.parse().with_context(wrong)?,
            connection: connection.parse().with_context(wrong)?,
            number: number.parse().with_context(wrong)?,
        })
    }
}

/// The options of `top`.
#[derive(Args, Debug)]
pub struct TopArgs {
    /// Begin with the groups by KEY: location, server, upstream, peer, status, worker, method, host, client,
    /// container, pod or variable:NAME
    #[arg(long, alias = "by", value_name = "KEY", default_value = "location")]
    pub group: GroupKey,

    /// Replay files N times as fast as their requests came
    #[arg(long, value_name = "N", default_value = "1", value_parser = value::speed, requires = "files")]
    pub speed: f64,

    #[command(flatten)]
    pub view: ViewArgs,
}

/// The options of `advise`.
#[derive(Args, Debug)]
pub struct AdviseArgs {
    /// Look for what this rule finds only; may be repeated
    #[arg(long, value_name = "NAME", value_parser = value::rule)]
    pub rule: Vec<&'static str>,

    /// Print what this rule looks for, why, and what to do
    #[arg(long, value_name = "NAME", value_parser = value::rule, conflicts_with_all = ["files", "rule", "json"])]
    pub explain: Option<&'static str>,

    /// Write a JSON line for each finding
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub view: ViewArgs,
}
