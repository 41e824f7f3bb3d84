// SPDX-License-Identifier: MIT OR Apache-2.0
//! The values of options, and the forms in which they are written.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use jiff::SignedDuration;
use ngx_bpf_record::MAX_LINE_MIN;
use ngx_bpf_record::host::host_and_port;
use ngx_bpf_views::advise::RULES;

use crate::attach::socket_source::SocketSource;
use crate::host::container::PodName;

/// The time between reports; `None` for a report at the end only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval(pub Option<Duration>);

impl FromStr for Interval {
    type Err = anyhow::Error;

    /// Parses a time, or an empty text.
    fn from_str(text: &str) -> Result<Self> {
        let every = (!text.is_empty()).then(|| time(text)).transpose()?;
        ensure!(
            every.is_none_or(|every| every >= INTERVAL_MIN),
            "less than 100 ms: it would cost more than what it reports"
        );
        Ok(Self(every))
    }
}

/// Parses how many times as fast a file is replayed.
pub fn speed(text: &str) -> Result<f64> {
    let speed: f64 = text.parse()?;
    ensure!(
        speed.is_finite() && speed >= 0.001,
        "it is less than 0.001, or no number"
    );
    Ok(speed)
}

/// Parses the name of a rule of `advise`.
pub fn rule(text: &str) -> Result<&'static str> {
    let known = RULES.iter().find(|rule| rule.name == text);
    let rule = known.with_context(|| {
        let names: Vec<_> = RULES.iter().map(|rule| rule.name).collect();
        format!("it is none of {}", names.join(", "))
    })?;
    Ok(rule.name)
}

/// The shortest interval, which is the interval at which counters are read.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Keys of query strings whose values are redacted.
#[derive(Clone, Debug)]
pub struct Secrets(pub Vec<String>);

impl FromStr for Secrets {
    type Err = anyhow::Error;

    /// Parses `key,key` or `none`.
    fn from_str(text: &str) -> Result<Self> {
        if text == "none" {
            return Ok(Self(Vec::new()));
        }
        let keys: Vec<String> = text.split(',').map(str::to_owned).collect();
        let is_key = |key: &String| !key.is_empty() && !key.contains(['?', '&', ';', '=']);
        ensure!(
            keys.iter().all(is_key),
            "not keys of a query string: separate them by commas, or pass none"
        );
        Ok(Self(keys))
    }
}

/// The default of `--max-line`: the longest line that Fluent Bit's `exec` reads. Its buffer of 4
/// KiB ends with a NUL.
pub const DEFAULT_MAX_LINE: &str = "4095";

/// The most bytes of a line, with its end; `None` for any length.
#[derive(Clone, Copy, Debug)]
pub struct MaxLine(pub Option<usize>);

impl FromStr for MaxLine {
    type Err = anyhow::Error;

    /// Parses a number or `none`.
    fn from_str(text: &str) -> Result<Self> {
        if text == "none" {
            return Ok(Self(None));
        }
        let bytes = text.parse().context("not a number of bytes")?;
        ensure!(
            bytes >= MAX_LINE_MIN,
            "less than {MAX_LINE_MIN}: not every record would fit"
        );
        Ok(Self(Some(bytes)))
    }
}

/// The address at which metrics are served.
#[derive(Clone, Copy, Debug)]
pub struct ListenAddress(pub SocketAddr);

impl FromStr for ListenAddress {
    type Err = anyhow::Error;

    /// Parses `127.0.0.1:9913`, `[::1]:9913` or `9913`.
    fn from_str(text: &str) -> Result<Self> {
        let local = || Some((Ipv4Addr::LOCALHOST, text.parse().ok()?).into());
        let address: Option<SocketAddr> = text.parse().ok().or_else(local);
        let address =
            address.context("not an address with a port: 127.0.0.1:9913, [::1]:9913, 9913")?;
        ensure!(address.port() != 0, "port 0 is not allowed: name one");
        Ok(Self(address))
    }
}

/// A list of pids, as `pgrep` prints it or a person writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PidList(pub Vec<u32>);

impl FromStr for PidList {
    type Err = anyhow::Error;

    /// Parses numbers that are separated by spaces, commas or newlines.
    fn from_str(text: &str) -> Result<Self> {
        let words = text.split(|c: char| c == ',' || c.is_whitespace());
        let pids = words.filter(|word| !word.is_empty()).map(pid);
        let pids: Vec<u32> = pids.collect::<Result<_>>()?;
        ensure!(
            !pids.is_empty(),
            "it contains no pid: is nginx running, and did pgrep find it?"
        );
        Ok(Self(pids))
    }
}

/// Parses one pid. The kernel's pids are less than 2^22.
fn pid(word: &str) -> Result<u32> {
    let pid: Option<i32> = word.parse().ok().filter(|pid| *pid > 0);
    let pid = pid.and_then(|pid| u32::try_from(pid).ok());
    pid.with_context(|| format!("\"{}\" is not a pid", word.escape_debug()))
}

/// A range of status codes, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    /// The lowest status.
    pub first: u32,
    /// The highest status.
    pub last: u32,
}

impl FromStr for StatusRange {
    type Err = anyhow::Error;

    /// Parses `404`, `5xx` or `500-503`, from 0 to 999 as nginx writes them.
    fn from_str(text: &str) -> Result<Self> {
        let code = |code: &str| {
            let digits = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
            ensure!(digits, "\"{text}\" is not a status: 404, 5xx or 500-503");
            Ok(code.parse()?)
        };
        let (first, last) = match (text.strip_suffix("xx"), text.split_once('-')) {
            (Some(class), _) => (code(&format!("{class}00"))?, code(&format!("{class}99"))?),
            (None, Some((first, last))) => (code(first)?, code(last)?),
            (None, None) => (code(text)?, code(text)?),
        };
        ensure!(
            first <= last,
            "\"{text}\" is not a range: its start is greater than its end"
        );
        Ok(Self { first, last })
    }
}

/// Parses a number with a unit, or in seconds without one. Zero is allowed.
pub fn time(text: &str) -> Result<Duration> {
    const FORM: &str = "not a time: 10s, 1.5s, 500ms, 1m30s; units: ns, us, ms, s, m, h";
    let ends_with_number = text.ends_with(|c: char| c.is_ascii_digit());
    let is_part = |c: char| c.is_ascii_digit() || c.is_ascii_lowercase() || ". ".contains(c);
    let is_time = text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(is_part);
    let time = format!("{text}{}", if ends_with_number { "s" } else { "" });
    let time = time.parse::<SignedDuration>().ok().filter(|_| is_time);
    time.and_then(|time| Duration::try_from(time).ok())
        .context(FORM)
}

/// Parses the name of a host, and drops its port, since the port of a `Host` header is not compared
/// either.
pub fn host(text: &str) -> Result<String> {
    let name = host_and_port(text).0;
    let is_part = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    ensure!(
        !name.is_empty() && !name.contains(is_part),
        "not a host name: example.com, 127.0.0.1, [::1]"
    );
    Ok(name.to_owned())
}

/// Parses the id of a container, or its beginning. A runtime before it, as Kubernetes shows it
/// (`containerd://`), is dropped.
pub fn container_id(text: &str) -> Result<String> {
    let id = text.split_once("://").map_or(text, |(_, id)| id);
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    ensure!(
        (12..=64).contains(&id.len()) && id.bytes().all(is_digit),
        "not the id of a container: 12 to 64 hexadecimal digits in lower case"
    );
    Ok(id.to_owned())
}

/// Parses the name of a pod, with or without a namespace.
pub fn pod(text: &str) -> Result<PodName> {
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, text),
    };
    let is_part = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'-' | b'.');
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(is_part);
    ensure!(
        is_name(name) && namespace.is_none_or(is_name),
        "not the name of a pod: web-0, shop/web-0"
    );
    Ok(PodName {
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
    })
}

/// Parses a socket source, by its name in `ngx-bpf check --json`.
pub fn socket_source(text: &str) -> Result<SocketSource> {
    match text {
        "tracepoint" => Ok(SocketSource::Tracepoint),
        "fexit" => Ok(SocketSource::Fexit),
        "syscall" => Ok(SocketSource::Syscall),
        _ => bail!("not one of tracepoint, fexit, syscall"),
    }
}

/// Parses the name of a service.
pub fn service(text: &str) -> Result<String> {
    ensure!(
        !text.is_empty() && !text.contains(char::is_control),
        "not the name of a service"
    );
    Ok(text.to_owned())
}

/// Parses a request method. Returns it in upper case, as nginx has it.
pub fn method(text: &str) -> Result<String> {
    let known = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'-');
    ensure!(
        !text.is_empty() && text.bytes().all(known),
        "not a request method"
    );
    Ok(text.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::ListenAddress;
    use super::PidList;
    use super::StatusRange;
    use super::container_id;
    use super::method;
    use super::pod;
    use super::time;

    /// Check times with every unit and without one, and texts that are not times.
    #[test]
    fn times() {
        assert_eq!(time("10s").unwrap(), Duration::from_secs(10));
        assert_eq!(time("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(time("2m").unwrap(), Duration::from_secs(120));
        assert_eq!(time("0ns").unwrap(), Duration::ZERO);
        assert_eq!(time("7us").unwrap(), Duration::from_micros(7));
        assert_eq!(time("1h").unwrap(), Duration::from_secs(3600));
        assert_eq!(time("1m30s").unwrap(), Duration::from_secs(90));
        assert_eq!(time("1.5s").unwrap(), Duration::from_millis(1500));
        assert_eq!(time("5").unwrap(), Duration::from_secs(5));
        assert_eq!(time("0.25").unwrap(), Duration::from_millis(250));
        assert_eq!(time("10 s").unwrap(), Duration::from_secs(10));
        assert_eq!(time("0").unwrap(), Duration::ZERO);
        for text in [
            "",
            ".",
            "s",
            "-1",
            "-1s",
            "10S",
            "10x",
            "1d",
            "1s ago",
            "1 2",
            "pt5s",
            "1.2.3",
            "99999999999999999999",
        ] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    /// Check the separators of pids, and texts that are not pids.
    #[test]
    fn pids() {
        let pids = |text: &str| text.parse::<PidList>().map(|list| list.0);
        assert_eq!(pids("7").unwrap(), [7]);
        assert_eq!(pids("10638\n10639\n").unwrap(), [10638, 10639]);
        assert_eq!(pids(" 1,2, 3\t4\r\n").unwrap(), [1, 2, 3, 4]);
        for text in ["", " ", ",", "0", "-1", "x", "1 x", "1;2", "99999999999"] {
            assert!(pids(text).is_err(), "{text:?}");
        }
    }

    /// Check the three forms of a status, and texts that are not one.
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
        let address = |text: &str| {
            text.parse::<ListenAddress>()
                .map(|address| address.0.to_string())
        };
        assert_eq!(address("9913").unwrap(), "127.0.0.1:9913");
        assert_eq!(address("0.0.0.0:9913").unwrap(), "0.0.0.0:9913");
        assert_eq!(address("[::1]:9913").unwrap(), "[::1]:9913");
        for text in ["", "0", "localhost:9913", "127.0.0.1", ":9913", "99999"] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    /// Check ids of containers and names of pods, and texts that are neither.
    #[test]
    fn containers() {
        let whole = "0123456789abcdef".repeat(4);
        for (text, id) in [
            ("0123456789ab", "0123456789ab"),
            (&whole, &whole),
            (&format!("containerd://{whole}"), &whole),
        ] {
            assert_eq!(container_id(text).unwrap(), id);
        }
        let long = format!("{whole}0");
        for text in ["", "0123456789a", "0123456789AB", "nginx-web-01", &long] {
            assert!(container_id(text).is_err(), "{text}");
        }
        let named = pod("shop/web-0").unwrap();
        assert_eq!(
            (named.namespace.as_deref(), &*named.name),
            (Some("shop"), "web-0")
        );
        assert_eq!(pod("web").unwrap().namespace, None);
        for text in ["", "/", "/web", "shop/", "a/b/c", "Web", "a b"] {
            assert!(pod(text).is_err(), "{text}");
        }
    }

    /// Check that methods become upper case, and that nothing else is accepted.
    #[test]
    fn methods() {
        assert_eq!(method("get").unwrap(), "GET");
        assert_eq!(method("M-SEARCH").unwrap(), "M-SEARCH");
        for text in ["", "GET POST", "GET\n", "G1"] {
            assert!(method(text).is_err(), "{text:?}");
        }
    }
}
