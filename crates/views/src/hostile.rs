// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records whose texts are made to break a screen, and what holds for every screen that shows them.

use ngx_bpf_record::Blocked;
use ngx_bpf_record::Connection;
use ngx_bpf_record::Record;
use ngx_bpf_record::Request;
use ngx_bpf_record::format::escape::is_unsafe;
use ngx_bpf_record::values::BlockPart;
use ngx_bpf_record::values::CacheStatus;
use unicode_width::UnicodeWidthChar as _;

use crate::cell;
use crate::look::Look;

/// What a terminal or a browser must not obey, and characters that take no column, two, or fewer than they have together.
pub const TEXTS: [&str; 11] = [
    "\x1b[2J\x1b]0;title\x07\x1b[31m",
    "\u{9b}2J\u{90}q\u{9c}\u{85}\x7f\x08\x0c",
    "\u{202e}evil\u{2066}\u{200b}\u{feff}\u{61c}\u{200e}",
    "漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字",
    "👍\u{1f3fd}👍\u{1f3fd}👩\u{200d}👩\u{200d}👧🇩🇪1\u{fe0f}\u{20e3}",
    "\u{644}\u{627}\u{644}\u{627}\u{915}\u{94d}\u{937}\u{93f}\u{1100}\u{1161}\u{11a8}\u{a4f8}\u{a4fc}",
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>&lt;",
    "a\u{301}\u{301}\u{301}\r\n\t\0\u{9b}31m",
    "]]></style></svg><svg onload=alert(1)>",
    "\u{2028}\u{2029}\u{ad}\u{3164}\u{e0001}\u{fff9}\u{1d173}",
];

/// The escape sequences that a look has.
const CODES: [&str; 7] = [
    "\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[33m", "\x1b[34m", "\x1b[35m", "\x1b[36m",
];

/// Puts a text wherever a request has one, and many of it into its uri.
pub fn fill(request: &mut Request<'static>, text: &'static str) {
    let long = format!("/{}", text.repeat(4_096 / text.len()));
    request.request_uri = Some(long.into());
    for value in [
        &mut request.remote_addr,
        &mut request.server_addr,
        &mut request.server_protocol,
        &mut request.request_method,
        &mut request.http_host,
        &mut request.upstream_addr,
        &mut request.place.location,
        &mut request.place.server_name,
        &mut request.place.upstream_name,
        &mut request.place.config.server,
        &mut request.place.config.upstream,
        &mut request.trace.trace_id,
        &mut request.container.pod,
        &mut request.container.pod_uid,
        &mut request.container.container_id,
    ] {
        *value = Some(text.into());
    }
    for subrequest in &mut request.subrequests {
        subrequest.uri = Some(text.into());
    }
    let of_subrequests = request.subrequests.iter_mut();
    let of_subrequests = of_subrequests.flat_map(|subrequest| &mut subrequest.upstreams);
    for attempt in request.upstreams.iter_mut().chain(of_subrequests) {
        attempt.addr = Some(text.into());
    }
    request.place.variables.insert(text.into(), text.into());
    request.place.headers.insert(text.into(), text.into());
    request.upstream_cache_status = Some(CacheStatus::Miss);
}

/// Returns a record of a blocked worker and one of a connection, whose texts are this one.
pub fn others(text: &'static str) -> [Record<'static>; 2] {
    [
        Record::Blocked(Box::new(Blocked {
            time: Some(text.to_owned()),
            duration_ns: 1_000_000_000,
            waiting_requests: 9,
            waiting_ns: Some(1_000_000_000),
            longest_part: Some(BlockPart::Sleep),
            longest_part_ns: Some(1),
            kernel_stack: vec![text.to_owned()],
            user_stack: vec![text.to_owned()],
            ..Default::default()
        })),
        Record::Connection(Box::new(Connection {
            time: Some(text.to_owned()),
            peer_addr: Some(text.into()),
            server_addr: Some(text.into()),
            ..Default::default()
        })),
    ]
}

/// Returns a screen without the escape sequences of its look.
pub fn plain(screen: &str) -> String {
    let codes = CODES.iter();
    codes.fold(screen.to_owned(), |screen, code| screen.replace(code, ""))
}

/// Checks that a screen has no byte that a terminal obeys but those of its look, and no line that is wider than that.
pub fn check(screen: &str, look: Look) {
    let screen = match look.colour {
        true => plain(screen),
        false => screen.to_owned(),
    };
    for line in screen.split('\n') {
        let mut chars = line.chars();
        let bad = chars.find(|c| is_unsafe(*c) || c.width().unwrap_or_default() == 0);
        assert_eq!(bad, None, "{line:?}");
        assert!(cell::width(line, look) <= look.width, "{look:?} {line:?}");
        assert!(!look.ascii || line.is_ascii(), "{line:?}");
    }
}

/// Returns looks of all kinds at these widths.
pub fn looks(widths: &[usize]) -> Vec<Look> {
    let kinds = [(false, false), (false, true), (true, false), (true, true)];
    let of_width = |width: &usize| {
        let width = *width;
        kinds.map(|(colour, ascii)| Look {
            colour,
            ascii,
            width,
        })
    };
    widths.iter().flat_map(of_width).collect()
}
