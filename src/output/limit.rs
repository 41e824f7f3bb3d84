// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long a line may be. What reads lines has buffers (Fluent Bit's `exec` one of 4 KiB), and a
//! line that is cut elsewhere is no record any more.

use std::borrow::Cow;

use anyhow::Result;

use super::Sink;
use crate::record::request::Request;

/// So much of a text is left, as it is written, however long the line.
const TEXT_MIN: usize = 64;

/// Appends the line of a request, of at most `max` bytes with its end: of the longest texts the ends
/// are left out, and where that is not enough, subrequests and attempts. What was cut is named.
pub fn append_line(
    sink: &mut dyn Sink,
    lines: &mut Vec<u8>,
    request: &mut Request<'_>,
    max: Option<usize>,
) -> Result<()> {
    loop {
        let start = lines.len();
        sink.request(lines, request)?;
        let excess = (lines.len() - start).saturating_sub(max.unwrap_or(usize::MAX));
        if excess == 0 || !shorten(sink, request, excess) {
            return Ok(());
        }
        lines.truncate(start);
    }
}

/// Takes away about so many bytes. False when nothing is left to be taken.
fn shorten(sink: &dyn Sink, request: &mut Request<'_>, excess: usize) -> bool {
    let mut texts = texts(request);
    texts.retain(|(name, _)| sink.writes(name));
    let widths: Vec<usize> = texts.iter().map(|(_, text)| width(sink, text)).collect();
    let saved = |level: usize| -> usize { widths.iter().map(|w| w.saturating_sub(level)).sum() };
    if saved(TEXT_MIN) < excess {
        return leave_out(request);
    }
    /* All that are longer than the level are cut to it. */
    let (mut level, mut high) = (TEXT_MIN, widths.iter().copied().max().unwrap_or(TEXT_MIN));
    while level < high {
        let middle = (level + high).div_ceil(2);
        if saved(middle) >= excess {
            level = middle;
        } else {
            high = middle - 1;
        }
    }
    let mut names = Vec::new();
    for ((name, text), width) in texts.into_iter().zip(&widths) {
        if *width > level {
            cut(sink, text, level);
            names.push(name);
        }
    }
    names.into_iter().for_each(|name| tell(request, name));
    true
}

/// The texts that clients make long, by the key that is named when they are cut.
fn texts<'r, 'a>(request: &'r mut Request<'a>) -> Vec<(&'static str, &'r mut Cow<'a, str>)> {
    let of_request = [
        ("request_method", &mut request.request_method),
        ("request_uri", &mut request.request_uri),
        ("uri", &mut request.uri),
        ("http_host", &mut request.http_host),
        ("ssl_server_name", &mut request.ssl_server_name),
    ];
    let subrequests = request.subrequests.iter_mut();
    let of_subrequests = subrequests.map(|sub| ("subrequests", &mut sub.uri));
    of_request
        .into_iter()
        .chain(of_subrequests)
        .filter_map(|(name, text)| Some((name, text.as_mut()?)))
        .collect()
}

/// Leaves out the last subrequest; without any, the last attempt but one.
fn leave_out(request: &mut Request<'_>) -> bool {
    if request.subrequests.pop().is_some() {
        tell(request, "subrequests");
        return true;
    }
    let Some(last_but_one) = request.upstreams.len().checked_sub(2) else {
        return false;
    };
    request.upstreams.remove(last_but_one);
    tell(request, "upstreams");
    true
}

/// Names what was cut, once.
fn tell(request: &mut Request<'_>, name: &'static str) {
    if !request.truncated.contains(&name) {
        request.truncated.push(name);
    }
}

/// Bytes of a text as they are written.
fn width(sink: &dyn Sink, text: &str) -> usize {
    text.chars().map(|c| sink.width(c)).sum()
}

/// Leaves the characters that fit into so many bytes as they are written.
fn cut(sink: &dyn Sink, text: &mut Cow<'_, str>, max: usize) {
    let mut written = 0;
    let end = text.char_indices().find_map(|(at, c)| {
        written += sink.width(c);
        (written > max).then_some(at)
    });
    if let Some(end) = end {
        text.to_mut().truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::append_line;
    use crate::cli::Format;
    use crate::cli::value::MAX_LINE_MIN;
    use crate::output::sink;
    use crate::record::request::Request;

    /// The line of a request in JSON.
    fn line(request: &mut Request<'_>, max: Option<usize>) -> (usize, serde_json::Value) {
        let mut lines = b"{}\n".to_vec();
        append_line(&mut *sink(Format::Json), &mut lines, request, max).unwrap();
        let line = lines.strip_prefix(b"{}\n").unwrap();
        (line.len(), serde_json::from_slice(line).unwrap())
    }

    /// Check that the longest texts are cut to one length, no character in the middle, that they are
    /// named, and that the line is as long as it may be.
    #[test]
    fn longest_first() {
        let mut request = Request {
            request_method: Some("GET".into()),
            request_uri: Some("/%c3%bc".repeat(600).into()),
            uri: Some("/ü\u{202e}".repeat(300).into()),
            http_host: Some("host".repeat(100).into()),
            ..Default::default()
        };
        let (whole, _) = line(&mut request, None);
        assert!(whole > 7_000);
        assert!(request.truncated.is_empty());
        let (len, json) = line(&mut request, Some(4_000));
        assert!((3_980..=4_000).contains(&len), "{len}");
        assert_eq!(json["truncated"], serde_json::json!(["request_uri", "uri"]));
        assert_eq!(json["http_host"], "host".repeat(100));
        let uri = json["uri"].as_str().unwrap();
        assert!("/ü\u{202e}".repeat(300).starts_with(uri), "{uri}");
    }

    /// Check that a line that is not too long is left as it is.
    #[test]
    fn short() {
        let mut request = Request {
            uri: Some("/".repeat(4_000).into()),
            ..Default::default()
        };
        let (len, _) = line(&mut request, None);
        assert_eq!(line(&mut request, Some(len)).0, len);
        assert!(request.truncated.is_empty());
        let (cut, json) = line(&mut request, Some(len - 1));
        assert!(cut < len);
        assert_eq!(json["truncated"], serde_json::json!(["uri"]));
    }

    /// Check that the longest record of all fits into the shortest line, in every format.
    #[test]
    fn longest_record() {
        for format in Format::value_variants() {
            let mut lines = Vec::new();
            let mut request = Request::longest();
            let max = Some(MAX_LINE_MIN);
            append_line(&mut *sink(*format), &mut lines, &mut request, max).unwrap();
            assert!(lines.len() <= MAX_LINE_MIN, "{format:?}: {}", lines.len());
            assert!(
                lines.len() > MAX_LINE_MIN / 4,
                "{format:?}: {}",
                lines.len()
            );
            if *format == Format::Json {
                assert!(request.subrequests.is_empty());
                assert!(request.upstreams.len() < 8);
                let last = request.upstreams.last().unwrap();
                assert_eq!(last.status, Some(7));
            }
        }
    }
}
