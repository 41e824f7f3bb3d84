// SPDX-License-Identifier: MIT OR Apache-2.0
//! The definition of the command line for clap. Only `main` and `commands` use it;
//! `commands::trace` converts it to the settings of the layers below. Parsing does not access the
//! machine.

use std::path::PathBuf;

use clap::Args;
use clap::CommandFactory as _;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use clap::ValueHint;
use clap::error::ErrorKind;
use ngx_bpf_record::limits::ASKED_MAX;
use ngx_bpf_record::statistics::GroupKey;

use layout::LayoutArgs;
use pids::Pids;
use redaction::RedactionArgs;
use trace::MetricNamesArg;
use trace::TraceArgs;
use view::AdviseArgs;
use view::SummaryArgs;
use view::TopArgs;
use view::ViewArgs;
use view::WaterfallArgs;

pub mod asked;
pub mod choice;
pub mod complaint;
pub mod hint;
pub mod layout;
pub mod pids;
pub mod redaction;
pub mod trace;
pub mod value;
pub mod view;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "ngx-bpf",
    version,
    disable_version_flag = true,
    args_conflicts_with_subcommands = true,
    about = "Report where the time of every nginx request went, in nanoseconds",
    long_about = "Report where the time of every nginx request went, in nanoseconds.\n\n\
        Attaches to a running, unmodified nginx and writes one record per request to stdout: when \
        its connection was accepted, when the request was read, forwarded to the upstream and \
        answered. It needs root, or CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE (before Linux 6.6 also \
        CAP_SYS_ADMIN), and Linux 5.15 or newer with BTF.",
    after_help = "TIME is a number and a unit, one of ns, us, ms, s, m and h: 10s, 1.5s, 500ms, 1m30s. Without \
        a unit it is in seconds.\n\
        The items of LIST are separated by commas, without spaces.\n\n\
        Exit status: 0 ended as asked, or the traced nginx ended; 1 failed, or the output failed; 2 bad \
        usage."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Subcommands>,

    #[command(flatten)]
    pub trace: TraceArgs,

    /// Print the man page, or the completions of a shell
    #[arg(long, value_name = "WHAT", value_enum, exclusive = true)]
    pub generate: Option<Generate>,

    /// Print version
    #[arg(short = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

impl Cli {
    /// Returns the command line, unless its options do not go together: one that may be repeated was
    /// repeated too often, or one about metrics is there without metrics.
    pub fn checked(self) -> Result<Self, clap::Error> {
        let view = self.command.as_ref().and_then(Subcommands::view);
        let choice = view.map_or(&self.trace.choice, |view| &view.choice);
        let group = self.command.as_ref().and_then(Subcommands::group);
        let of_group = group.and_then(GroupKey::variable);
        let of_group = of_group.filter(|name| choice.variable.iter().all(|asked| asked != name));
        let variables = choice.variable.len() + usize::from(of_group.is_some());
        for (option, count) in [
            ("--variable", variables),
            ("--header", choice.header_names().len()),
        ] {
            if count > ASKED_MAX {
                let message = format!(
                    "{count} names for \"{option}\" are too many, since a record has room for {ASKED_MAX}: \
                     leave some out, or let a second ngx-bpf report the others"
                );
                return Err(Self::command().error(ErrorKind::TooManyValues, message));
            }
        }
        let files = || self.command.iter().flat_map(Subcommands::files);
        if files().filter(|file| view::is_stdin(file)).count() > 1 {
            let message = "stdin (\"-\") can be read only once: name it once";
            return Err(Self::command().error(ErrorKind::TooManyValues, message));
        }
        let is_read = files().next().is_some();
        if let Some(option) = choice.only_for_tracing().filter(|_| is_read) {
            let message = format!(
                "\"{option}\" is for tracing, and records are read from files: leave it out, or leave the files out"
            );
            return Err(Self::command().error(ErrorKind::ArgumentConflict, message));
        }
        self.check_spans()?;
        for (option, is_given) in [
            ("--route", !self.trace.route.is_empty()),
            ("--stats", self.trace.stats),
            (
                "--metrics-names",
                self.trace.metrics_names != MetricNamesArg::Nginx,
            ),
        ] {
            if is_given && self.trace.metrics.is_none() {
                let message = format!(
                    "\"{option}\" changes nothing, since no metrics are served: add \"--metrics [ADDR:]PORT\""
                );
                return Err(Self::command().error(ErrorKind::ArgumentConflict, message));
            }
        }
        Ok(self)
    }

    /// Fails for options that spans have no use for, or that only spans have.
    fn check_spans(&self) -> Result<(), clap::Error> {
        let has_spans = self.trace.writes_only_spans();
        let has_service = has_spans || self.trace.otlp.is_some();
        let choice = &self.trace.choice;
        let message = if !has_service && self.trace.service.is_some() {
            "\"--service\" changes nothing, since there are no spans: add \"--format otlp\" or \"--otlp URL\""
                .to_owned()
        } else {
            let others = [
                ("--connections", choice.connections),
                ("--blocked", choice.blocked.is_some()),
            ];
            let mut others = others
                .into_iter()
                .filter(|(_, is_given)| has_spans && *is_given);
            let Some((option, _)) = others.next() else {
                return Ok(());
            };
            format!(
                "\"{option}\" asks for records that are no spans, and only spans are written: leave it out"
            )
        };
        Err(Self::command().error(ErrorKind::ArgumentConflict, message))
    }
}

/// The outputs of `--generate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Generate {
    /// The man page, in roff
    Man,
    /// The man page of `ngx-bpf advise`
    ManAdvise,
    /// The man page of `ngx-bpf check`
    ManCheck,
    /// The man page of `ngx-bpf inflight`
    ManInflight,
    /// The man page of `ngx-bpf layout`
    ManLayout,
    /// The man page of `ngx-bpf summary`
    ManSummary,
    /// The man page of `ngx-bpf top`
    ManTop,
    /// The man page of `ngx-bpf waterfall`
    ManWaterfall,
    /// Completions for bash
    Bash,
    /// Completions for zsh
    Zsh,
    /// Completions for fish
    Fish,
}

/// The commands besides tracing.
#[derive(Debug, Subcommand)]
pub enum Subcommands {
    /// Report whether tracing would work, and attach nothing to nginx
    #[command(
        disable_version_flag = true,
        after_help = "Exit status: 0 tracing would work; 1 it would not, or not for every PID that was \
            named; 2 bad usage."
    )]
    Check(CheckArgs),

    /// Print the requests that nginx has not ended, and what it does with each; attach nothing to nginx
    #[command(
        disable_version_flag = true,
        after_help = "Exit status: 0 all were read, also where there are none; 1 some nginx could not be read; \
            2 bad usage."
    )]
    Inflight(InflightArgs),

    /// Show where the time of requests went: of those that are traced until the end, or of recorded ones
    #[command(
        disable_version_flag = true,
        after_help = "Exit status: 0 ended as asked; 1 failed; 2 bad usage."
    )]
    Summary(Box<SummaryArgs>),

    /// Show each part of the time of one request, or of the slowest ones
    #[command(
        disable_version_flag = true,
        after_help = "Exit status: 0 ended as asked; 1 failed, or there is no such request; 2 bad usage."
    )]
    Waterfall(Box<WaterfallArgs>),

    /// Show what happens now, or replay recorded requests
    #[command(
        disable_version_flag = true,
        after_help = "Exit status: 0 ended as asked; 1 failed, or stdout is no terminal; 2 bad usage."
    )]
    Top(Box<TopArgs>),

    /// Say what could be changed, and why: of an nginx that is traced until the end, or of recorded requests
    #[command(
        disable_version_flag = true,
        after_help = "Exit status: 0 nothing was found; 1 failed; 2 bad usage; 3 something was found."
    )]
    Advise(Box<AdviseArgs>),

    /// Print the struct layout found in an nginx binary or its debug file
    #[command(
        disable_version_flag = true,
        after_help = "Exit status: 0 it was printed; 1 failed; 2 bad usage."
    )]
    Layout {
        /// An nginx binary; its debug file is found where gdb finds it
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

impl Subcommands {
    /// Returns the options of a command that shows records.
    fn view(&self) -> Option<&ViewArgs> {
        match self {
            Self::Advise(options) => Some(&options.view),
            Self::Summary(options) => Some(&options.view),
            Self::Top(options) => Some(&options.view),
            Self::Waterfall(options) => Some(&options.view),
            Self::Check(_) | Self::Inflight(_) | Self::Layout { .. } => None,
        }
    }

    /// Returns what requests are grouped by.
    fn group(&self) -> Option<&GroupKey> {
        match self {
            Self::Summary(options) => Some(&options.group),
            Self::Top(options) => Some(&options.group),
            _ => None,
        }
    }

    /// Returns the files that records are read from.
    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let compared = match self {
            Self::Summary(options) => options.compare.as_slice(),
            _ => &[],
        };
        let files = self.view().into_iter().flat_map(|view| &view.files);
        files.chain(compared)
    }
}

/// The options of `check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    #[command(flatten)]
    pub pids: Pids,

    /// Write one JSON object with all details
    #[arg(long)]
    pub json: bool,

    /// Print the details: every feature of the kernel, the build, and where each probe would go
    #[arg(short, long)]
    pub verbose: bool,

    #[command(flatten)]
    pub layout: LayoutArgs,
}

/// The options of `inflight`.
#[derive(Args, Debug)]
pub struct InflightArgs {
    #[command(flatten)]
    pub pids: Pids,

    /// Write JSON lines
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub redaction: RedactionArgs,

    #[command(flatten)]
    pub layout: LayoutArgs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::Parser as _;

    use super::Cli;

    /// Check that more names than BPF has room for are bad usage.
    #[test]
    fn too_many() {
        let parse = |option: &str, count: usize| {
            let args = (0..count).map(|n| format!("--{option}=name{n}"));
            let cli = Cli::try_parse_from(std::iter::once("ngx-bpf".to_owned()).chain(args));
            cli.and_then(Cli::checked)
        };
        for option in ["variable", "header"] {
            assert!(parse(option, 8).is_ok());
            let error = parse(option, 9).unwrap_err();
            let message = error.to_string();
            let expected = format!("9 names for \"--{option}\" are too many");
            assert!(message.contains(&expected), "{message}");
        }
    }

    /// Check the definition of the command line, as clap recommends.
    #[test]
    fn definition() {
        Cli::command().debug_assert();
    }
}
