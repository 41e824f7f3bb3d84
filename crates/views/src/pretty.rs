// SPDX-License-Identifier: MIT OR Apache-2.0
//! A line for each record, for people at a terminal: when, how it ended, what was asked for, how long it took, and for
//! whom it waited. `--format pretty`.

use std::io;

use jiff::tz::TimeZone;
use ngx_bpf_record::Blocked;
use ngx_bpf_record::Connection;
use ngx_bpf_record::Format;
use ngx_bpf_record::Lost;
use ngx_bpf_record::Request;
use ngx_bpf_record::statistics::has_failed;
use ngx_bpf_record::values::Cut;

use crate::bar::bar;
use crate::cell;
use crate::clock::time_of_day;
use crate::look::Look;
use crate::units;
use ngx_bpf_record::clock::since_epoch;

/// The cells of a bar.
const BAR: usize = 10;

/// The columns of a time, `1.93 ms`, and of the method, `OPTIONS`.
const TIME: usize = 7;
const METHOD: usize = 7;

/// The least columns of what was asked for. A narrower line has no bar.
const TARGET_MIN: usize = 20;

/// The columns before the method: marks, the time of day, the status.
const BEFORE: usize = "!r 21:04:17.123 200 ".len();

/// Writes such lines. The look is asked for each time, since a terminal may change its size.
pub struct Pretty<L> {
    look: L,
    zone: TimeZone,
}

impl<L: FnMut() -> Look> Pretty<L> {
    /// Creates it for times of day in this zone.
    pub fn new(look: L, zone: TimeZone) -> Self {
        Self { look, zone }
    }

    /// Returns the time of day of a moment of a record.
    fn time_of_day(&self, time: Option<&str>) -> String {
        let known = time.and_then(since_epoch);
        known.map_or_else(
            || " ".repeat("21:04:17.123".len()),
            |time| time_of_day(time, &self.zone, "%H:%M:%S.%3f"),
        )
    }

    /// Appends the line of a record that is no request.
    fn other(&mut self, line: &mut Vec<u8>, time: Option<&str>, text: &str) {
        let look = (self.look)();
        let time = self.time_of_day(time);
        let text = format!("-- {time} {text}");
        let text = cell::at_most(&text, look.width, look);
        line.extend_from_slice(look.strong(&text).as_bytes());
        line.push(b'\n');
    }
}

/// Returns what marks a request: `!` that it failed, `r` that an upstream was tried again, `t` that it was a tunnel.
fn marks(request: &Request<'_>) -> String {
    let of_upstream = request.upstreams.iter();
    let tries = of_upstream.filter(|attempt| !attempt.post_action).count();
    let first = if has_failed(request) { '!' } else { ' ' };
    let second = match () {
        () if tries > 1 => 'r',
        () if request.ending.tunnel => 't',
        () => ' ',
    };
    [first, second].into_iter().collect()
}

/// Returns what was asked for: the host and the uri, and the uri alone where both have no room.
fn target(request: &Request<'_>, columns: usize, look: Look) -> String {
    let Some(uri) = request.request_uri.as_deref() else {
        return "(no request line)".to_owned();
    };
    let host = request.http_host.as_deref().unwrap_or_default();
    let both = format!("{host} {uri}");
    if host.is_empty() || cell::width(&both, look) > columns {
        return uri.to_owned();
    }
    both
}

impl<L: FnMut() -> Look> Format for Pretty<L> {
    fn request(&mut self, line: &mut Vec<u8>, request: &Request<'_>) -> io::Result<()> {
        let look = (self.look)();
        let marks = marks(request);
        let time = self.time_of_day(request.time.as_deref());
        let status = request
            .status
            .map_or("  -".to_owned(), |s| format!("{s:>3}"));
        let total = if request.ending.tunnel {
            request.ending.tunnel_ns
        } else {
            request.elapsed_ns
        };
        let total = total.map_or_else(String::new, units::time);
        let total = cell::right(&total, TIME, look);
        let after = 1 + TIME + 1 + BAR;
        let rest = look.width.saturating_sub(BEFORE + METHOD + 1);
        let has_bar = rest >= TARGET_MIN + after;
        let columns = rest.saturating_sub(if has_bar { after } else { 1 + TIME });
        let method = request.request_method.as_deref().unwrap_or("-");
        let method = cell::left(method, METHOD, look);
        let target = cell::left(&target(request, columns, look), columns, look);
        let head = format!("{marks} {time} {status}");
        let head = if marks.starts_with('!') {
            look.failure(&head)
        } else {
            head
        };
        let shares = request.waits.time_ns.as_ref().map_or([0; 4], |shares| {
            [shares.client, shares.nginx, shares.upstream, shares.wait].map(u128::from)
        });
        let bar = match has_bar {
            true => format!(" {}", bar(shares, BAR as u32, look)),
            false => String::new(),
        };
        let text = format!("{head} {method} {target} {total}{bar}");
        line.extend_from_slice(text.trim_end().as_bytes());
        line.push(b'\n');
        Ok(())
    }

    fn connection(&mut self, line: &mut Vec<u8>, connection: &Connection<'_>) -> io::Result<()> {
        let client = connection.peer_addr.as_deref().unwrap_or("a client");
        let end = connection.end.map_or("ended", |end| end.name());
        let stage = connection.stage;
        let text = format!("connection of {client}: {end} ({stage})");
        self.other(line, connection.time.as_deref(), &text);
        Ok(())
    }

    fn lost(&mut self, line: &mut Vec<u8>, lost: &Lost) -> io::Result<()> {
        let text = format!("{} requests were lost ({})", lost.count, lost.cause);
        self.other(line, Some(&lost.time), &text);
        Ok(())
    }

    fn blocked(&mut self, line: &mut Vec<u8>, blocked: &Blocked<'_>) -> io::Result<()> {
        let (pid, time) = (blocked.pid, units::time(blocked.duration_ns));
        let part = blocked.longest_part.map(|part| format!(", mostly {part}"));
        let requests = blocked.waiting_requests;
        let text = format!(
            "worker {pid} was away from its event loop for {time}{}; {requests} requests waited",
            part.unwrap_or_default()
        );
        self.other(line, blocked.time.as_deref(), &text);
        Ok(())
    }

    fn writes(&self, cut: Cut) -> bool {
        matches!(cut, Cut::RequestUri | Cut::HttpHost | Cut::RequestMethod)
    }

    fn width(&self, c: char) -> usize {
        /* At most `\u{10ffff}`: a line is cut to the terminal before it is cut to `--max-line`. */
        c.len_utf8()
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use ngx_bpf_record::Attempt;
    use ngx_bpf_record::Format as _;
    use ngx_bpf_record::Record;
    use ngx_bpf_record::Request;
    use ngx_bpf_record::Shares;
    use ngx_bpf_record::values::End;

    use super::Pretty;
    use crate::cell;
    use crate::hostile::TEXTS;
    use crate::hostile::check;
    use crate::hostile::fill;
    use crate::hostile::looks;
    use crate::hostile::others;
    use crate::look::Look;

    /// Returns a look of this width without colour.
    fn look(width: usize) -> Look {
        Look {
            colour: false,
            ascii: false,
            width,
        }
    }

    /// Returns the line of a request.
    fn line(request: &Request<'_>, look: Look) -> String {
        let mut line = Vec::new();
        let mut pretty = Pretty::new(|| look, TimeZone::UTC);
        pretty.request(&mut line, request).unwrap();
        String::from_utf8(line).unwrap()
    }

    /// Returns a request.
    fn request() -> Request<'static> {
        let mut request = Request {
            time: Some("2026-11-26T20:04:11.183529112Z".to_owned()),
            status: Some(200),
            request_method: Some("GET".into()),
            http_host: Some("shop.example".into()),
            request_uri: Some("/api/orders/7?page=2".into()),
            elapsed_ns: Some(1_930_000_000),
            ..Default::default()
        };
        request.waits.time_ns = Some(Shares {
            client: 1,
            upstream: 80,
            nginx: 9,
            wait: 10,
        });
        request
    }

    /// Check the line of a request at several widths, and without what is not known.
    #[test]
    fn widths() {
        for (width, expected) in [
            (
                80,
                "   20:04:11.183 200 GET     shop.example /api/orders/7?page=2  1.93 s ▓████████▒\n",
            ),
            (
                60,
                "   20:04:11.183 200 GET     /api/orders/7?page=2      1.93 s\n",
            ),
            (40, "   20:04:11.183 200 GET     /ap…  1.93 s\n"),
        ] {
            let line = line(&request(), look(width));
            assert_eq!(line, expected);
            assert_eq!(cell::width(line.trim_end(), look(width)), width);
        }
        let wide = line(&request(), look(120));
        assert!(wide.ends_with("1.93 s ▓████████▒\n"), "{wide}");
        assert_eq!(cell::width(wide.trim_end(), look(120)), 120);
        let ascii = Look {
            ascii: true,
            ..look(80)
        };
        let letters = line(&request(), ascii);
        assert!(letters.ends_with("  1.93 s nuuuuuuuuw\n"), "{letters}");
        let unknown = Request::default();
        let expected = "!                 - -       (no request line)\n";
        assert_eq!(line(&unknown, look(80)), expected);
    }

    /// Check that failures and retries are marked, also without colour.
    #[test]
    fn marked() {
        let mut request = request();
        request.ending.end = Some(End::Timeout);
        request.upstreams = vec![Attempt::default(), Attempt::default()];
        assert!(line(&request, look(80)).starts_with("!r 20:"));
        let coloured = Look {
            colour: true,
            ..look(80)
        };
        assert!(line(&request, coloured).starts_with("\x1b[31m!r 20:"));
    }

    /// Check that hostile records write no control byte, and keep to the width.
    #[test]
    fn hostile() {
        for text in TEXTS {
            let mut request = request();
            fill(&mut request, text);
            for look in looks(&[40, 80, 120]) {
                let mut pretty = Pretty::new(|| look, TimeZone::UTC);
                let mut lines = Vec::new();
                pretty.request(&mut lines, &request).unwrap();
                for other in others(text) {
                    match other {
                        Record::Blocked(blocked) => pretty.blocked(&mut lines, &blocked).unwrap(),
                        Record::Connection(other) => pretty.connection(&mut lines, &other).unwrap(),
                        _ => panic!("{other:?}"),
                    }
                }
                let lines = String::from_utf8(lines).unwrap();
                assert_eq!(lines.matches('\n').count(), 3, "{lines:?}");
                check(&lines, look);
            }
        }
    }
}
