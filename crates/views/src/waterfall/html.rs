// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waterfalls as a page that needs nothing else: no script, no file and no network.

use ngx_bpf_record::Request;
use ngx_bpf_record::timeline::Class;
use ngx_bpf_record::timeline::timeline;

use crate::look;
use crate::units;
use crate::waterfall::clock;
use crate::waterfall::facts;
use crate::waterfall::rows::Row;
use crate::waterfall::rows::after;
use crate::waterfall::rows::rows;
use crate::waterfall::section;
use crate::waterfall::section::Bars;
use crate::waterfall::section::escaped;
use crate::waterfall::total;
use crate::words;

/// What a browser may load: nothing, except for the styles in the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The patterns of classes, so that they differ without colours as well. Upstreams have none.
const PATTERNS: &str = r#"<svg class="none" aria-hidden="true"><defs>
<pattern id="client" width="4" height="4" patternUnits="userSpaceOnUse"><rect class="f-paper" width="4" height="4"/><rect class="f-client" width="2" height="2"/><rect class="f-client" x="2" y="2" width="2" height="2"/></pattern>
<pattern id="nginx" width="4" height="4" patternUnits="userSpaceOnUse"><rect class="f-nginx" width="4" height="4"/><rect class="f-paper" width="1" height="1"/><rect class="f-paper" x="2" y="2" width="1" height="1"/></pattern>
<pattern id="wait" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect class="f-paper" width="5" height="5"/><rect class="f-wait" width="3" height="5"/></pattern>
</defs></svg>
"#;

/// Returns requests as a page of HTML: all of them on one clock, and then each with its rows.
pub fn html(requests: &[Request<'_>]) -> String {
    let mut page = String::new();
    let count = units::count(requests.len() as u64);
    let noun = if requests.len() == 1 {
        "request"
    } else {
        "requests"
    };
    page.push_str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page += &format!("<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width\">\n");
    page += &format!("<title>ngx-bpf: {count} {noun}</title>\n");
    page += &format!(
        "<style>\n{}</style>\n</head>\n<body>\n",
        include_str!("page.css")
    );
    page.push_str(PATTERNS);
    let heading = match requests {
        [_] => "Where the time of a request went".to_owned(),
        _ => format!("Where the time of {count} {noun} went"),
    };
    page += &format!("<h1>{heading}</h1>\n");
    page += &legend();
    if requests.len() > 1 {
        page += &overview(requests);
    }
    for (n, request) in requests.iter().enumerate() {
        page += &section::of(request, n);
    }
    page.push_str("</body>\n</html>\n");
    page
}

/// Returns what the fills of bars mean.
fn legend() -> String {
    let mut text = "<p class=\"legend soft\">".to_owned();
    for class in look::CLASSES {
        let name = look::name(class);
        text += &format!(
            "<svg aria-hidden=\"true\"><rect class=\"{name}\" width=\"26\" height=\"12\"/></svg>{name}"
        );
    }
    text + "</p>\n"
}

/// Returns all requests on one clock, in the order in which they began.
fn overview(requests: &[Request<'_>]) -> String {
    let begins: Vec<_> = requests.iter().map(clock::begin).collect();
    let mut placed: Vec<_> = clock::since_first(&begins)
        .into_iter()
        .zip(requests)
        .enumerate()
        .collect();
    placed.sort_by_key(|(n, (from, _))| (from.is_none(), *from, *n));
    let ends = placed.iter().filter_map(|(_, (from, request))| {
        Some((*from)?.saturating_add(total(request).unwrap_or_default()))
    });
    let end = ends.max().unwrap_or_default();
    let begin = requests
        .iter()
        .filter_map(|request| request.time.as_deref());
    let begin = begin.min().map_or_else(String::new, |begin| {
        format!(
            "<p class=\"soft\">The clock begins at {}.</p>\n",
            escaped(begin)
        )
    });
    let mut table = begin;
    table.push_str(
        "<table>\n<colgroup><col class=\"n\"><col class=\"asked\"><col class=\"status\">",
    );
    table.push_str("<col class=\"n\"><col></colgroup>\n");
    table += &format!(
        "<tr><th class=\"n\">begins</th><th>request</th><th></th><th class=\"n\">took</th><th>{}</th></tr>\n",
        section::scale(end)
    );
    for (n, (from, request)) in placed {
        table += &line(n, from, request, end);
    }
    table + "</table>\n"
}

/// Returns the line of a request in the overview.
fn line(n: usize, from: Option<u64>, request: &Request<'_>, end: u64) -> String {
    let method = request.request_method.as_deref().unwrap_or_default();
    let uri = request.request_uri.as_deref();
    let asked = format!("{method} {}", uri.unwrap_or("(no request line)"));
    let begins = from.map_or_else(|| "-".to_owned(), units::time);
    let took = total(request).map_or_else(String::new, units::time);
    let bars = from.map_or_else(String::new, |from| bars(request, from, end));
    let status = section::status(request);
    format!(
        "<tr><td class=\"n\">{begins}</td><td class=\"one\" title=\"{}\"><a href=\"#r{n}\"><bdi>{}</bdi></a></td>\
         <td>{status}</td><td class=\"n\">{took}</td><td>{bars}</td></tr>\n",
        escaped(&facts::asked(request)),
        escaped(asked.trim())
    )
}

/// Returns the bar of a request on the clock of all: its parts, or its whole time where they are not known.
fn bars(request: &Request<'_>, from: u64, end: u64) -> String {
    let mut bars = Bars::new(end);
    let at = |ns: u64| from.saturating_add(ns);
    let rows = rows(request);
    let mut add = |name: &str, class: Option<Class>, part: (u64, u64)| {
        bars.add(name, class, at(part.0), at(part.1));
    };
    match rows.end {
        Some(_) => {
            for segment in timeline(request).into_iter().flatten() {
                let name = words::stage(segment.stage);
                add(
                    name,
                    Some(segment.stage.class()),
                    (segment.from, segment.to),
                );
            }
            if let Some(rest) = after(request)
                && let Some(to) = rest.to
            {
                add(rest.name, rest.class, (rest.from, to));
            }
        }
        None => add("the request", None, (0, total(request).unwrap_or_default())),
    }
    let has_row = rows.rows.iter().any(|row| matches!(row, Row::Span(_)));
    if has_row { bars.svg() } else { String::new() }
}
