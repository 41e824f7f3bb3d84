// SPDX-License-Identifier: MIT OR Apache-2.0
//! `--max-line`: limits the length of a line. Programs that read lines have limited buffers (Fluent
//! Bit's `exec` one of 4 KiB), and a line that they cut is no longer a record.

use std::borrow::Cow;
use std::io;

use crate::blocked::Blocked;
use crate::format::Format;
use crate::request::Request;
use crate::tcp::Tcp;
use crate::values::Cut;

/// The least limit. Every record fits into a line of this length, in every format, when all texts
/// are cut and all that may be left out is.
pub const MAX_LINE_MIN: usize = 4000;

/// The number of bytes to which a text is cut at most, as it is written.
const TEXT_MIN: usize = 32;

/// Appends the line of a request, of at most `max` bytes with its end. When the line would be
/// longer, the longest texts are cut, and when that is not enough, subrequests and attempts are
/// left out. `truncated` names what was cut.
///
/// Fails when the request can't be encoded.
pub fn append_line(
    format: &mut dyn Format,
    lines: &mut Vec<u8>,
    request: &mut Request<'_>,
    max: Option<usize>,
) -> io::Result<()> {
    loop {
        let start = lines.len();
        format.request(lines, request)?;
        let excess = (lines.len() - start).saturating_sub(max.unwrap_or(usize::MAX));
        if excess == 0 || !shorten(format, request, excess) {
            return Ok(());
        }
        lines.truncate(start);
    }
}

/// Appends the line of a blocked worker, of at most `max` bytes with its end: its stacks are cut.
///
/// Fails when the record can't be encoded.
pub fn append_blocked(
    format: &mut dyn Format,
    lines: &mut Vec<u8>,
    blocked: &mut Blocked<'_>,
    max: Option<usize>,
) -> io::Result<()> {
    loop {
        let start = lines.len();
        format.blocked(lines, blocked)?;
        let is_short = max.is_none_or(|max| lines.len() - start <= max);
        if is_short || !blocked.leave_out() {
            return Ok(());
        }
        lines.truncate(start);
    }
}

/// Shortens the request by about `excess` bytes. Returns false when it can't be shortened any more.
fn shorten(format: &dyn Format, request: &mut Request<'_>, excess: usize) -> bool {
    let mut texts = texts(request);
    texts.retain(|(cut, _)| format.writes(*cut));
    let widths: Vec<usize> = texts.iter().map(|(_, text)| width(format, text)).collect();
    let saved = |level: usize| -> usize { widths.iter().map(|w| w.saturating_sub(level)).sum() };
    if saved(TEXT_MIN) < excess {
        return leave_out(request);
    }
    /* Texts that are longer than `level` are cut to it: the greatest level that saves enough bytes. */
    let (mut level, mut high) = (TEXT_MIN, widths.iter().copied().max().unwrap_or(TEXT_MIN));
    while level < high {
        let middle = (level + high).div_ceil(2);
        if saved(middle) >= excess {
            level = middle;
        } else {
            high = middle - 1;
        }
    }
    let mut cuts = Vec::new();
    for ((cut, text), width) in texts.into_iter().zip(&widths) {
        if *width > level {
            shorten_text(format, text, level);
            cuts.push(cut);
        }
    }
    cuts.into_iter().for_each(|cut| note(request, cut));
    true
}

/// Returns the texts that clients or the configuration may make long, each with the key that names it in
/// `truncated`.
fn texts<'r, 'a>(request: &'r mut Request<'a>) -> Vec<(Cut, &'r mut Cow<'a, str>)> {
    let of_request = [
        (Cut::RequestMethod, &mut request.request_method),
        (Cut::RequestUri, &mut request.request_uri),
        (Cut::Uri, &mut request.uri),
        (Cut::HttpHost, &mut request.http_host),
        (Cut::Location, &mut request.place.location),
        (Cut::ServerName, &mut request.place.server_name),
        (Cut::UpstreamName, &mut request.place.upstream_name),
        (Cut::SslServerName, &mut request.tls.ssl_server_name),
    ];
    let subrequests = request.subrequests.iter_mut();
    let of_subrequests = subrequests.map(|sub| (Cut::Subrequests, &mut sub.uri));
    let variables = request.place.variables.values_mut();
    let headers = request.place.headers.values_mut();
    let asked = variables.map(|text| (Cut::Variables, text));
    let asked = asked.chain(headers.map(|text| (Cut::Headers, text)));
    of_request
        .into_iter()
        .chain(of_subrequests)
        .filter_map(|(cut, text)| Some((cut, text.as_mut()?)))
        .chain(asked)
        .collect()
}

/// Leaves out the last subrequest or, when there is none, the last attempt but one, then `tcp`, then a name in
/// the configuration, and the last attempt at last. Returns false when there is nothing to leave out.
fn leave_out(request: &mut Request<'_>) -> bool {
    if request.subrequests.pop().is_some() {
        note(request, Cut::Subrequests);
        return true;
    }
    if let Some(last_but_one) = request.upstreams.len().checked_sub(2) {
        request.upstreams.remove(last_but_one);
        note(request, Cut::Upstreams);
        return true;
    }
    if !request.tcp.is_empty() {
        request.tcp = Tcp::default();
        note(request, Cut::Tcp);
        return true;
    }
    if let Some(name) = request.place.leave_out() {
        note(request, name);
        return true;
    }
    if request.upstreams.pop().is_some() {
        note(request, Cut::Upstreams);
        return true;
    }
    false
}

/// Adds a key to `truncated`, once.
fn note(request: &mut Request<'_>, cut: Cut) {
    if !request.truncated.contains(&cut) {
        request.truncated.push(cut);
    }
}

/// Returns the number of bytes of a text as it is written.
fn width(format: &dyn Format, text: &str) -> usize {
    text.chars().map(|c| format.width(c)).sum()
}

/// Cuts a text to the characters that fit into `max` bytes as they are written.
fn shorten_text(format: &dyn Format, text: &mut Cow<'_, str>, max: usize) {
    let mut written = 0;
    let end = text.char_indices().find_map(|(at, c)| {
        written += format.width(c);
        (written > max).then_some(at)
    });
    if let Some(end) = end {
        text.to_mut().truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::MAX_LINE_MIN;
    use super::append_line;
    use crate::format::Format;
    use crate::format::json::Json;
    use crate::format::otel::Otel;
    use crate::format::text::Text;
    use crate::request::Request;
    use crate::schema::definition;
    use crate::schema::longest;
    use crate::values::Cut;

    /// Returns the length and the JSON of a request's line.
    fn line(request: &mut Request<'_>, max: Option<usize>) -> (usize, serde_json::Value) {
        let mut lines = b"{}\n".to_vec();
        append_line(&mut Json, &mut lines, request, max).unwrap();
        let line = lines.strip_prefix(b"{}\n").unwrap();
        (line.len(), serde_json::from_slice(line).unwrap())
    }

    /// Check that the longest texts are cut to the same length, that no character is split, that
    /// `truncated` names them, and that the line is as long as allowed.
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
        let (cut, _) = line(&mut request, Some(len - 1));
        assert!(cut < len);
        assert_eq!(request.truncated, [Cut::Uri]);
    }

    /// Check that exactly the texts whose keys are marked in the definition can be cut.
    #[test]
    fn marked() {
        let mut longest = longest();
        longest.subrequests.clear();
        longest.place.variables.clear();
        longest.place.headers.clear();
        let mut cut: Vec<_> = super::texts(&mut longest)
            .into_iter()
            .map(|(cut, _)| cut.name().to_owned())
            .collect();
        cut.sort();
        let definition = definition();
        let properties = definition["$defs"]["request"]["properties"].as_object();
        let marked = properties.unwrap().iter();
        let marked = marked.filter(|(_, property)| property.get("x-cut").is_some());
        assert!(marked.map(|(key, _)| key).eq(&cut), "{cut:?}");
    }

    /// Check that the longest possible record fits into the shortest line, in every format.
    #[test]
    fn longest_record() {
        let formats: [&mut dyn Format; 3] = [&mut Json, &mut Otel::new(None), &mut Text];
        for (n, format) in formats.into_iter().enumerate() {
            let mut lines = Vec::new();
            let mut request = longest();
            append_line(format, &mut lines, &mut request, Some(MAX_LINE_MIN)).unwrap();
            let len = lines.len();
            assert!(
                (MAX_LINE_MIN / 4..=MAX_LINE_MIN).contains(&len),
                "{n}: {len}"
            );
            if n == 0 {
                assert!(request.subrequests.is_empty());
                assert!(request.upstreams.len() < longest().upstreams.len());
            }
        }
    }
}
