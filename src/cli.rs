// SPDX-License-Identifier: MIT OR Apache-2.0
//! The options, as plain data. Parsing never touches the machine.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use clap::ValueHint;

use crate::metrics::route::Route;
use crate::sockets::Sockets;

/// What the command line asks for.
#[derive(Debug, Parser)]
#[command(
    name = "ngx-bpf",
    version,
    disable_version_flag = true,
    disable_help_subcommand = true,
    args_conflicts_with_subcommands = true,
    about = "Tell where the time of every nginx request went, in nanoseconds",
    long_about = "Tell where the time of every nginx request went, in nanoseconds.\n\n\
        Attaches to a running, unmodified nginx and writes one record a request to stdout: when \
        its connection was accepted, when the request was read, forwarded to the upstream and \
        answered. Needs root, and Linux 5.15 or newer with BTF.",
    after_help = "TIME is a number and a unit: 10s, 500ms, 2m.\n\
        LIST has commas between its items, and no spaces.\n\n\
        Exit status: 0 ended as asked, or the traced nginx ended; 1 failed; 2 bad usage."
)]
pub struct Cli {
    /// Something else than tracing.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Of tracing.
    #[command(flatten)]
    pub trace: Trace,

    /// Print the man page, or the completions of a shell
    #[arg(long, value_name = "WHAT", value_enum, exclusive = true)]
    pub generate: Option<Generate>,

    /// Print version
    #[arg(short = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

/// What is made of this definition.
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

/// What else there is.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say what tracing would do, and attach nothing
    #[command(
        disable_version_flag = true,
        after_help = "Exit status: 0 tracing would work, 1 it would not, 2 bad usage."
    )]
    Check(Check),

    /// Print the struct layout found in an nginx binary or its debug file
    #[command(disable_version_flag = true)]
    Layout {
        /// An nginx binary; its debug file is found as gdb finds it
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

/// Where the layout of nginx's structs is from, when it is not to be found.
#[derive(Args, Debug)]
pub struct LayoutOptions {
    /// Take the struct layout of nginx from FILE, as "ngx-bpf layout" prints it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "debug_info")]
    pub layout: Option<PathBuf>,

    /// Take it from the debug information in FILE, which must be of the same build, and from there
    /// the symbols that the binary lacks
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub debug_info: Option<PathBuf>,
}

/// Options of `check`.
#[derive(Args, Debug)]
pub struct Check {
    /// Look at this nginx; may be repeated [default: every nginx that runs]
    #[arg(short, long = "pid", value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pids: Vec<u32>,

    /// Write one JSON object
    #[arg(long)]
    pub json: bool,

    /// Of the layout.
    #[command(flatten)]
    pub layout: LayoutOptions,
}

/// Options of tracing.
#[derive(Args, Debug)]
pub struct Trace {
    /// Trace this nginx master and all its workers, or this one worker; may be repeated
    /// [default: every nginx that runs]
    #[arg(short, long = "pid", value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pids: Vec<u32>,

    /// Trace those that start later, too, and do not end with the last of them
    #[arg(long, conflicts_with = "pids")]
    pub wait: bool,

    /// Write JSON lines; the same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,

    /// Write records in this form
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// Append to FILE instead of stdout; opened again on SIGUSR1
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,

    /// Stop after TIME
    #[arg(short, long, value_name = "TIME", value_parser = parse_time)]
    pub duration: Option<Duration>,

    /// Stop after N requests
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Only requests that took at least TIME
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub min_duration: Option<Duration>,

    /// Only these statuses: 404, 5xx, 500-503
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub status: Vec<StatusRange>,

    /// Only these request methods
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parse_method)]
    pub method: Vec<String>,

    /// Only requests whose uri begins with PREFIX
    #[arg(long, value_name = "PREFIX")]
    pub uri: Option<String>,

    /// Only requests with this Host, in any case; a port in it does not count
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,

    /// Only one request in N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub sample: Option<u64>,

    /// Tell on stderr what tracing costs, at the end and every TIME if given; counting costs, too
    #[arg(
        long,
        value_name = "TIME",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        value_parser = parse_interval
    )]
    pub self_stats: Option<Interval>,

    /// In query strings, tell REDACTED instead of the values of these keys; "none": tell all
    #[arg(long, value_name = "KEYS", default_value = DEFAULT_SECRETS)]
    pub redact: Secrets,

    /// Tell no query strings
    #[arg(long, conflicts_with = "redact")]
    pub no_query: bool,

    /// Cut the longest strings of a record until its line has at most BYTES, its end included;
    /// "none": cut nothing
    #[arg(long, value_name = "BYTES", default_value = DEFAULT_MAX_LINE)]
    pub max_line: MaxLine,

    /// Serve metrics for Prometheus at http://ADDR:PORT/metrics [ADDR: 127.0.0.1]
    #[arg(long, value_name = "[ADDR:]PORT")]
    pub metrics: Option<Address>,

    /// In metrics, count requests whose uri is PATTERN ("*": anything) as NAME; may be repeated
    #[arg(long, value_name = "NAME=PATTERN", requires = "metrics")]
    pub route: Vec<Route>,

    /// Of the layout.
    #[command(flatten)]
    pub layout: LayoutOptions,

    /// Take the bytes on sockets from this source, for tests
    #[arg(long, value_name = "SOURCE", value_enum, hide = true)]
    pub sockets: Option<Sockets>,

    /// Tell more on stderr
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,

    /// Tell errors only on stderr
    #[arg(short, long)]
    pub quiet: bool,
}

impl Trace {
    /// The form of the records.
    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One line for people
    Text,
    /// One JSON object a line
    Json,
    /// The same under OpenTelemetry's names, flat
    Otel,
}

/// When something is told: every so often, or at the end only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval(pub Option<Duration>);

/// What OpenTelemetry's semantic conventions redact by default (`url.query`).
const DEFAULT_SECRETS: &str = "X-Amz-Signature,X-Amz-Credential,X-Amz-Security-Token,\
    AWSAccessKeyId,Signature,sig,X-Goog-Signature";

/// Keys of query strings whose values are secret.
#[derive(Clone, Debug)]
pub struct Secrets(pub Vec<String>);

impl FromStr for Secrets {
    type Err = anyhow::Error;

    /// `key,key` or `none`.
    fn from_str(text: &str) -> Result<Self> {
        if text == "none" {
            return Ok(Self(Vec::new()));
        }
        let keys: Vec<String> = text.split(',').map(str::to_owned).collect();
        let is_key = |key: &String| !key.is_empty() && !key.contains(['?', '&', ';', '=']);
        ensure!(keys.iter().all(is_key), "no keys of a query string");
        Ok(Self(keys))
    }
}

/// What Fluent Bit's `exec` reads at once: its buffer of 4 KiB has a 0 at the end.
const DEFAULT_MAX_LINE: &str = "4095";

/// Every record fits into this, when all that may be cut is cut.
pub const MAX_LINE_MIN: usize = 3584;

/// Bytes of the longest line, its end included.
#[derive(Clone, Copy, Debug)]
pub struct MaxLine(pub Option<usize>);

impl FromStr for MaxLine {
    type Err = anyhow::Error;

    /// A number or `none`.
    fn from_str(text: &str) -> Result<Self> {
        if text == "none" {
            return Ok(Self(None));
        }
        let bytes = text.parse().context("no number of bytes")?;
        ensure!(
            bytes >= MAX_LINE_MIN,
            "less than {MAX_LINE_MIN}: not every record would fit"
        );
        Ok(Self(Some(bytes)))
    }
}

/// Where metrics are served.
#[derive(Clone, Copy, Debug)]
pub struct Address(pub SocketAddr);

impl FromStr for Address {
    type Err = anyhow::Error;

    /// `127.0.0.1:9913`, `[::1]:9913` or `9913`.
    fn from_str(text: &str) -> Result<Self> {
        let local = || Some((Ipv4Addr::LOCALHOST, text.parse().ok()?).into());
        let address: Option<SocketAddr> = text.parse().ok().or_else(local);
        let address = address.context("no address and port: 127.0.0.1:9913, [::1]:9913, 9913")?;
        ensure!(
            address.port() != 0,
            "port 0 is any, and nobody would know which"
        );
        Ok(Self(address))
    }
}

/// A range of status codes, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    /// The lowest.
    pub first: u32,
    /// The highest.
    pub last: u32,
}

impl FromStr for StatusRange {
    type Err = anyhow::Error;

    /// `404`, `5xx` or `500-503`, from 0 to 999 as nginx writes them.
    fn from_str(text: &str) -> Result<Self> {
        let code = |text: &str| {
            let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            ensure!(digits, "\"{text}\" is no status: 404, 5xx or 500-503");
            Ok(text.parse()?)
        };
        let (first, last) = match (text.strip_suffix("xx"), text.split_once('-')) {
            (Some(class), _) => (code(&format!("{class}00"))?, code(&format!("{class}99"))?),
            (None, Some((first, last))) => (code(first)?, code(last)?),
            (None, None) => (code(text)?, code(text)?),
        };
        ensure!(first <= last, "\"{text}\" begins behind its end");
        Ok(Self { first, last })
    }
}

/// clap's complaint in one line: its first line, and where help is.
pub fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let what = first.strip_prefix("error: ").unwrap_or(first);
    format!("{what}; try \"ngx-bpf --help\"")
}

/// A number with a unit. Zero is a time, too.
fn parse_time(text: &str) -> Result<Duration> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .context("no unit: 10s, 500ms, 2m")?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().context("no time: 10s, 500ms, 2m")?;
    let nanoseconds = match unit {
        "ns" => Some(number),
        "us" => number.checked_mul(1_000),
        "ms" => number.checked_mul(1_000_000),
        "s" => number.checked_mul(1_000_000_000),
        "m" => number.checked_mul(60_000_000_000),
        "h" => number.checked_mul(3_600_000_000_000),
        _ => bail!("unknown unit \"{unit}\": ns, us, ms, s, m, h"),
    };
    Ok(Duration::from_nanos(nanoseconds.context("too long")?))
}

/// A time, or nothing.
fn parse_interval(text: &str) -> Result<Interval> {
    let every = (!text.is_empty()).then(|| parse_time(text)).transpose()?;
    Ok(Interval(every))
}

/// A method as nginx knows them: upper case.
fn parse_method(text: &str) -> Result<String> {
    let known = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'-');
    ensure!(
        !text.is_empty() && text.bytes().all(known),
        "no request method"
    );
    Ok(text.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory as _;

    use super::Address;
    use super::Cli;
    use super::StatusRange;
    use super::parse_method;
    use super::parse_time;

    /// Check the definition itself, as clap asks for.
    #[test]
    fn definition() {
        Cli::command().debug_assert();
    }

    /// Check times with every unit, and what is none.
    #[test]
    fn times() {
        assert_eq!(parse_time("10s").unwrap(), Duration::from_secs(10));
        assert_eq!(parse_time("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(parse_time("2m").unwrap(), Duration::from_secs(120));
        assert_eq!(parse_time("0ns").unwrap(), Duration::ZERO);
        for text in [
            "",
            "s",
            "10",
            "-1s",
            "1.5s",
            "10 s",
            "10S",
            "99999999999999h",
        ] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    /// Check the three forms of a status, and what is none.
    #[test]
    fn statuses() {
        let range = |text: &str| text.parse::<StatusRange>().map(|r| (r.first, r.last));
        assert_eq!(range("404").unwrap(), (404, 404));
        assert_eq!(range("5xx").unwrap(), (500, 599));
        assert_eq!(range("500-503").unwrap(), (500, 503));
        for text in [
            "", "x", "xx", "5x", "55xx", "503-500", "40", "4o4", "-500", "500-", "+50",
        ] {
            assert!(range(text).is_err(), "{text}");
        }
    }

    /// Check that metrics are served on loopback unless an address is given.
    #[test]
    fn addresses() {
        let address = |text: &str| text.parse::<Address>().map(|address| address.0.to_string());
        assert_eq!(address("9913").unwrap(), "127.0.0.1:9913");
        assert_eq!(address("0.0.0.0:9913").unwrap(), "0.0.0.0:9913");
        assert_eq!(address("[::1]:9913").unwrap(), "[::1]:9913");
        for text in ["", "0", "localhost:9913", "127.0.0.1", ":9913", "99999"] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    /// Check that methods are folded to upper case, and nothing else is let through.
    #[test]
    fn methods() {
        assert_eq!(parse_method("get").unwrap(), "GET");
        assert_eq!(parse_method("M-SEARCH").unwrap(), "M-SEARCH");
        for text in ["", "GET POST", "GET\n", "G1"] {
            assert!(parse_method(text).is_err(), "{text:?}");
        }
    }
}
