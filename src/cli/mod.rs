// SPDX-License-Identifier: MIT OR Apache-2.0
//! The definition of the command line for clap. Only `main` and `commands` use it;
//! `commands::trace` converts it to the settings of the layers below. Parsing does not access the
//! machine.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::CommandFactory as _;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use clap::ValueHint;
use clap::error::ErrorKind;
use ngx_bpf_record::limits::ASKED_MAX;
use ngx_bpf_record::redact::DEFAULT_KEYS;

use crate::attach::socket_source::SocketSource;
use crate::host::container::PodName;
use crate::metrics::route::Route;
use crate::output::OutputFormat;
use asked::HeaderArg;
use value::DEFAULT_MAX_LINE;
use value::Interval;
use value::ListenAddress;
use value::MaxLine;
use value::PidList;
use value::Secrets;
use value::StatusRange;

pub mod asked;
pub mod complaint;
pub mod hint;
pub mod value;

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
        let names = self.trace.header.iter().map(|header| &header.name);
        let headers = names.collect::<BTreeSet<_>>().len();
        for (option, count) in [
            ("--variable", self.trace.variable.len()),
            ("--header", headers),
        ] {
            if count > ASKED_MAX {
                let message = format!(
                    "{count} names for \"{option}\" are too many, since a record has room for {ASKED_MAX}: \
                     leave some out, or let a second ngx-bpf report the others"
                );
                return Err(Self::command().error(ErrorKind::TooManyValues, message));
            }
        }
        for (option, is_given) in [
            ("--route", !self.trace.route.is_empty()),
            ("--stats", self.trace.stats),
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
}

/// The outputs of `--generate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Generate {
    /// The man page, in roff
    Man,
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

    /// Print the struct layout found in an nginx binary or its debug file
    #[command(disable_version_flag = true)]
    Layout {
        /// An nginx binary; its debug file is found where gdb finds it
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

/// The options that name a source of the layout of nginx's structs.
#[derive(Args, Clone, Debug)]
pub struct LayoutArgs {
    /// Take the struct layout of nginx from FILE, as "ngx-bpf layout" prints it; it is checked against the
    /// code of nginx
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub layout: Option<PathBuf>,

    /// Use the FILE of --layout even where the code of nginx contradicts it; if FILE is wrong, so are the
    /// records
    #[arg(long, requires = "layout")]
    pub trust_layout: bool,

    /// Take the layout, and symbols that the binary lacks, from the debug information in FILE, which must
    /// belong to the same build; with --layout, take the symbols only
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub debug_info: Option<PathBuf>,
}

/// The options that choose nginx processes.
#[derive(Args, Debug)]
pub struct Pids {
    /// Trace only these nginx: a master with all its workers, or a single worker. Several pids are
    /// separated by spaces, commas or newlines, as pgrep prints them; may be repeated [default: every
    /// nginx that runs]
    #[arg(short, long, value_name = "PID", num_args = 1..)]
    pid: Vec<PidList>,
}

impl Pids {
    /// The pids that the user named, in order; empty for every nginx.
    pub fn named(&self) -> Vec<u32> {
        self.pid.iter().flat_map(|list| &list.0).copied().collect()
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

    /// Replace the values of these query-string keys by REDACTED ("none" disables it)
    #[arg(long, value_name = "KEYS", default_value = DEFAULT_KEYS)]
    pub redact: Secrets,

    /// Strip query strings
    #[arg(long, conflicts_with = "redact")]
    pub no_query: bool,

    #[command(flatten)]
    pub layout: LayoutArgs,
}

/// The options of tracing.
#[derive(Args, Debug)]
pub struct TraceArgs {
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

    /// Write JSON lines; the same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,

    /// Write records in this format [default: text]
    #[arg(long, value_name = "FORMAT", value_enum)]
    format: Option<FormatArg>,

    /// Append to FILE instead of stdout; SIGUSR1 reopens it
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,

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

    /// Report tracing overhead on stderr at exit, and every TIME if given (measuring adds some overhead)
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = ""
    )]
    pub self_stats: Option<Interval>,

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

    /// Replace the values of these query-string keys by REDACTED ("none" disables it)
    #[arg(long, value_name = "KEYS", default_value = DEFAULT_KEYS)]
    pub redact: Secrets,

    /// Strip query strings
    #[arg(long, conflicts_with = "redact")]
    pub no_query: bool,

    /// Shorten the longest strings of a record until its line, with its end, has at most BYTES ("none"
    /// disables it)
    #[arg(long, value_name = "BYTES", default_value = DEFAULT_MAX_LINE)]
    pub max_line: MaxLine,

    /// Serve metrics for Prometheus at http://ADDR:PORT/metrics [ADDR: 127.0.0.1]
    #[arg(long, value_name = "[ADDR:]PORT")]
    pub metrics: Option<ListenAddress>,

    /// In metrics, count requests as NAME if their URI, as the client sent it and without its query,
    /// matches PATTERN, in which "*" stands for anything; may be repeated
    #[arg(long, value_name = "NAME=PATTERN")]
    pub route: Vec<Route>,

    /// In metrics, show nginx's own counters as well, as stub_status does: connections and requests of
    /// each master
    #[arg(long)]
    pub stats: bool,

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

impl TraceArgs {
    /// Returns the format of the records: text unless the user chose another.
    pub fn format(&self) -> OutputFormat {
        match self.format {
            _ if self.json => OutputFormat::Json,
            Some(FormatArg::Json) => OutputFormat::Json,
            Some(FormatArg::Otel) => OutputFormat::Otel,
            Some(FormatArg::Text) | None => OutputFormat::Text,
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
    /// One line for people
    Text,
    /// One JSON object per line
    Json,
    /// One flat JSON object per line, with OpenTelemetry's names
    Otel,
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
