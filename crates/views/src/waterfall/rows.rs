// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rows of a waterfall: a request's parts in order, and a heading for each attempt at an upstream.

use ngx_bpf_record::Attempt;
use ngx_bpf_record::Request;
use ngx_bpf_record::timeline::Class;
use ngx_bpf_record::timeline::Segment;
use ngx_bpf_record::timeline::Stage;
use ngx_bpf_record::timeline::timeline;
use ngx_bpf_record::values::Cut;
use ngx_bpf_record::values::Failure;
use ngx_bpf_record::values::Part;

use crate::units;
use crate::waterfall::total;
use crate::words;

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// What the rows after it belong to.
    Heading(Heading),
    /// A part of the time.
    Span(Span),
}

/// What rows belong to: an attempt, or a subrequest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heading {
    /// How far it is indented, in steps.
    pub depth: usize,
    /// What it is: `try 1`.
    pub title: String,
    /// What is known of it.
    pub about: Vec<String>,
    /// How it ended.
    pub outcome: Option<String>,
    /// Whether that is a failure.
    pub has_failed: bool,
}

/// A part of the time, in nanoseconds since the first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// How far it is indented, in steps.
    pub depth: usize,
    /// What happened.
    pub name: &'static str,
    /// When it began.
    pub from: u64,
    /// When it ended. `None` when that is not known.
    pub to: Option<u64>,
    /// For whom the request waited. `None` of a tunnel, which is no wait.
    pub class: Option<Class>,
}

/// The rows of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// The rows.
    pub rows: Vec<Row>,
    /// Where the axis ends. `None` of a request without bars.
    pub end: Option<u64>,
    /// Why there are no bars, or no times at all.
    pub note: Option<&'static str>,
}

/// Returns the rows of a request.
pub fn rows(request: &Request<'_>) -> Rows {
    let mut rows = Vec::new();
    let first = request.phases.downstream_request_first_byte_time;
    let segments = timeline(request);
    let (end, note) = match &segments {
        Some(segments) => {
            add_segments(&mut rows, request, segments);
            (total(request), None)
        }
        None => {
            add_moments(&mut rows, request);
            (None, Some(why_no_bars(request)))
        }
    };
    let first = first.unwrap_or_default();
    let is_late = |(_, attempt): &(usize, &Attempt<'_>)| attempt.post_action;
    for (n, attempt) in request.upstreams.iter().enumerate().filter(is_late) {
        rows.push(Row::Heading(heading(request, &request.upstreams, n, 0)));
        rows.extend(spans(attempt, first, 1).into_iter().map(Row::Span));
    }
    for sub in &request.subrequests {
        let status = sub.status.map(|status| status.to_string());
        rows.push(Row::Heading(Heading {
            depth: 0,
            title: "subrequest".to_owned(),
            about: sub.uri.iter().map(ToString::to_string).collect(),
            outcome: status,
            has_failed: false,
        }));
        for (n, attempt) in sub.upstreams.iter().enumerate() {
            rows.push(Row::Heading(heading(request, &sub.upstreams, n, 1)));
            rows.extend(spans(attempt, first, 2).into_iter().map(Row::Span));
        }
    }
    Rows { rows, end, note }
}

/// Returns the part of a request's time after its timeline, from the last byte of the response to the end: its name,
/// and for whom it waited in it.
pub fn after(request: &Request<'_>) -> Option<Span> {
    let from = request.duration_ns?;
    let to = request.elapsed_ns.filter(|end| *end > from)?;
    let is_sending = request.ending.last_phase == Some(Part::ClientResponse);
    let (name, class) = match () {
        () if request.ending.tunnel => ("tunnel", None),
        () if is_sending => ("no more was sent", Some(Class::Client)),
        () => ("after last byte", Some(Class::Nginx)),
    };
    let to = Some(to);
    Some(Span {
        depth: 0,
        name,
        from,
        to,
        class,
    })
}

/// Adds the segments of a timeline, with the attempts between them.
fn add_segments(rows: &mut Vec<Row>, request: &Request<'_>, segments: &[Segment]) {
    let attempts = &request.upstreams;
    let mut next = 0;
    let last = segments.iter().rposition(|s| s.attempt.is_some());
    let mut add_headings = |rows: &mut Vec<Row>, until: usize| {
        for n in next..until.max(next) {
            if !attempts[n].post_action {
                rows.push(Row::Heading(heading(request, attempts, n, 0)));
            }
        }
        next = until.max(next);
    };
    for (place, segment) in segments.iter().enumerate() {
        if let Some(n) = segment.attempt {
            add_headings(rows, n + 1);
        }
        if last.is_none() && segment.stage == Stage::ClientResponse {
            add_headings(rows, attempts.len());
        }
        rows.push(Row::Span(Span {
            depth: usize::from(segment.attempt.is_some()),
            name: words::stage(segment.stage),
            from: segment.from,
            to: Some(segment.to),
            class: Some(segment.stage.class()),
        }));
        if last == Some(place) {
            add_headings(rows, attempts.len());
        }
    }
    add_headings(rows, attempts.len());
    rows.extend(after(request).map(Row::Span));
}

/// Adds the moments of a request that are known, of which none is a part of the time.
fn add_moments(rows: &mut Vec<Row>, request: &Request<'_>) {
    let p = &request.phases;
    let first = p.downstream_request_first_byte_time.unwrap_or_default();
    let span = |name, time: u64| Span {
        depth: 0,
        name,
        from: time.saturating_sub(first),
        to: None,
        class: None,
    };
    let before = [
        ("request began", p.downstream_request_first_byte_time),
        ("header complete", p.downstream_request_last_byte_time),
        ("body complete", p.downstream_request_body_last_byte_time),
    ];
    let after = [
        ("response began", p.downstream_response_first_byte_time),
        ("last byte sent", p.downstream_response_last_byte_time),
    ];
    let known = |(name, time): (&'static str, Option<u64>)| Some(Row::Span(span(name, time?)));
    rows.extend(before.into_iter().filter_map(known));
    for (n, attempt) in request.upstreams.iter().enumerate() {
        if !attempt.post_action {
            rows.push(Row::Heading(heading(request, &request.upstreams, n, 0)));
            rows.extend(spans(attempt, first, 1).into_iter().map(Row::Span));
        }
    }
    rows.extend(after.into_iter().filter_map(known));
}

/// Returns why a request has no bars.
fn why_no_bars(request: &Request<'_>) -> &'static str {
    match () {
        () if request.partial => "Tracing began inside this request: its times are not known.",
        () if total(request).is_none() => "How long this request lasted is not known.",
        () if request.phases.downstream_request_first_byte_time.is_none() => {
            "It is not known when this request began."
        }
        () => "No bars: the record does not say for whom the request waited (time_ns).",
    }
}

/// Returns the heading of an attempt.
fn heading(request: &Request<'_>, attempts: &[Attempt<'_>], n: usize, depth: usize) -> Heading {
    let attempt = &attempts[n];
    let cut = if depth == 0 {
        Cut::Upstreams
    } else {
        Cut::Subrequests
    };
    let title = name(attempts, n, request.truncated.contains(&cut));
    let mut about: Vec<String> = attempt.addr.iter().map(ToString::to_string).collect();
    about.extend(connection(attempt));
    Heading {
        depth,
        title,
        about,
        outcome: outcome(attempt),
        has_failed: attempt.failure.is_some(),
    }
}

/// Returns the name of an attempt. Where some are left out, it is not known which number the last one has.
pub fn name(attempts: &[Attempt<'_>], n: usize, is_cut: bool) -> String {
    let is_last = attempts.len() > 1 && n + 1 == attempts.len();
    match () {
        () if attempts[n].post_action => "post_action".to_owned(),
        () if is_last && is_cut => "last try".to_owned(),
        () => format!("try {}", n + 1),
    }
}

/// Returns which connection an attempt was made on.
fn connection(attempt: &Attempt<'_>) -> Option<String> {
    let is_connect = matches!(
        attempt.failure,
        Some(Failure::ConnectError | Failure::ConnectTimeout)
    );
    match attempt.reused {
        Some(true) => {
            let idle = attempt.reused_idle_ns.map(units::time);
            let idle = idle.map_or_else(String::new, |idle| format!(", {idle} idle"));
            let number = attempt.connection_requests;
            let number = number.map_or_else(String::new, |n| format!(", request {n} on it"));
            Some(format!("kept{idle}{number}"))
        }
        Some(false) => {
            let tls = attempt.upstream_tls_ns.map(units::time);
            let tls = tls.map_or_else(String::new, |tls| format!(", TLS {tls}"));
            Some(format!("new connection{tls}"))
        }
        None => is_connect.then(|| "new connection".to_owned()),
    }
}

/// Returns how an attempt ended. Where no header came, the status is nginx's own, and is left out.
fn outcome(attempt: &Attempt<'_>) -> Option<String> {
    let status = attempt.status.map(|status| status.to_string());
    let Some(failure) = attempt.failure else {
        return status;
    };
    let is_status = failure.is_of_status();
    match status.filter(|_| attempt.response_header_ns.is_some() && !is_status) {
        Some(status) => Some(format!("{status}, {failure}")),
        None => Some(failure.to_string()),
    }
}

/// Returns the parts of an attempt that are known: each ends with the next moment.
fn spans(attempt: &Attempt<'_>, first: u64, depth: usize) -> Vec<Span> {
    let moments = [
        (Stage::UpstreamConnect, attempt.upstream_connect_time),
        (
            Stage::UpstreamRequest,
            attempt.upstream_request_first_byte_time,
        ),
        (Stage::UpstreamWait, attempt.upstream_request_last_byte_time),
        (
            Stage::UpstreamResponse,
            attempt.upstream_response_first_byte_time,
        ),
    ];
    let known = moments.into_iter();
    let known = known.filter_map(|(stage, time)| Some((stage, time?.saturating_sub(first))));
    let known: Vec<_> = known.collect();
    let last = attempt.upstream_response_last_byte_time;
    let last = last.map(|time| time.saturating_sub(first));
    let ends = known.iter().skip(1).map(|(_, at)| Some(*at));
    let parts = known.iter().zip(ends.chain([last]));
    parts
        .filter(|((_, from), to)| *to != Some(*from))
        .map(|((stage, from), to)| Span {
            depth,
            name: words::stage(*stage),
            from: *from,
            to: to.filter(|to| to > from),
            class: Some(stage.class()),
        })
        .collect()
}
