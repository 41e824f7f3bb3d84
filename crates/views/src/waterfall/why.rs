// SPDX-License-Identifier: MIT OR Apache-2.0
//! The obvious causes of what happened to a request, in sentences.

use ngx_bpf_record::Attempt;
use ngx_bpf_record::Request;
use ngx_bpf_record::timeline::Segment;
use ngx_bpf_record::timeline::Stage;
use ngx_bpf_record::timeline::timeline;
use ngx_bpf_record::values::Cut;
use ngx_bpf_record::values::End;
use ngx_bpf_record::values::Failure;
use ngx_bpf_record::values::Part;
use ngx_bpf_record::values::Side;
use ngx_bpf_record::values::Timeout;

use crate::units;
use crate::waterfall::rows::after;
use crate::waterfall::rows::name;
use crate::waterfall::total;
use crate::words;

/// The status of a request whose connection nginx closed without an answer.
const NO_ANSWER: u32 = 444;

/// Returns the causes that a record shows, each as one sentence.
pub fn why(request: &Request<'_>) -> Vec<String> {
    let segments = timeline(request).unwrap_or_default();
    let mut sentences: Vec<String> = Vec::new();
    let attempts = request.upstreams.iter().enumerate();
    for (n, attempt) in attempts {
        sentences.extend(of_attempt(request, &segments, n, attempt));
    }
    for sub in &request.subrequests {
        let failed = sub.upstreams.iter().filter_map(|attempt| {
            let (server, what) = (server(attempt), failed(attempt)?);
            Some(format!("Of a subrequest: {server} {what}."))
        });
        sentences.extend(failed);
    }
    sentences.extend(of_end(request));
    sentences.extend(longest(request, &segments));
    sentences
}

/// Returns the name of the server of an attempt.
fn server(attempt: &Attempt<'_>) -> String {
    attempt.addr.as_deref().unwrap_or("the upstream").to_owned()
}

/// Returns how an attempt failed. `None` when it did not.
fn failed(attempt: &Attempt<'_>) -> Option<&'static str> {
    let has_header = attempt.response_header_ns.is_some();
    let is_kept = attempt.reused == Some(true);
    Some(words::failed(attempt.failure?, is_kept, has_header))
}

/// Returns why an attempt failed. `None` when it did not.
fn of_attempt(
    request: &Request<'_>,
    segments: &[Segment],
    n: usize,
    attempt: &Attempt<'_>,
) -> Option<String> {
    let failure = attempt.failure?;
    /* How the request ended says it. */
    if failure == Failure::ClientClosed && request.ending.end.is_some() {
        return None;
    }
    if failure == Failure::Timeout && request.ending.tunnel {
        let server = server(attempt);
        let text = format!("Nothing passed through the tunnel to {server} for proxy_read_timeout.");
        return Some(text);
    }
    let own = segments.iter().filter(|segment| segment.attempt == Some(n));
    let ns: u64 = own.map(Segment::length).sum();
    /* What was wrong after the header may have been seen later than the last byte. */
    let lasted = match ns {
        0 => String::new(),
        _ if attempt.response_header_ns.is_some() => String::new(),
        ns => format!(" ({})", part(request, ns)),
    };
    let server = server(attempt);
    let what = failed(attempt)?;
    if request.upstreams.len() == 1 {
        return Some(format!("{server} {what}{lasted}."));
    }
    let is_cut = request.truncated.contains(&Cut::Upstreams);
    let name = match name(&request.upstreams, n, is_cut).as_str() {
        "last try" => "Last try".to_owned(),
        "post_action" => "Afterwards (post_action)".to_owned(),
        _ => format!("Try {}", n + 1),
    };
    Some(format!("{name}: {server} {what}{lasted}."))
}

/// Returns a time, and its share in the whole.
fn part(request: &Request<'_>, ns: u64) -> String {
    let time = units::time(ns);
    match total(request) {
        Some(total) => {
            let percent = units::percent(u128::from(ns), u128::from(total));
            format!("{time}, {percent} of the time")
        }
        None => time,
    }
}

/// Returns how a request ended that did not end well, or as a tunnel.
fn of_end(request: &Request<'_>) -> Option<String> {
    let ending = &request.ending;
    let after = total(request).map(units::time);
    let after = after.map_or_else(String::new, |time| format!(" after {time}"));
    let last = request.last_awaited();
    let server = last.map_or_else(|| "the upstream".to_owned(), server);
    let phase = ending.last_phase.map(|part| words::doing(part, &server));
    let phase = phase.map_or_else(String::new, |doing| format!("; {doing}"));
    let status = request
        .status
        .map_or_else(String::new, |status| format!(" (status {status})"));
    let has_failed = request
        .last_awaited()
        .is_some_and(|last| last.failure.is_some());
    let is_http1 = request
        .server_protocol
        .as_deref()
        .is_none_or(|p| p.starts_with("HTTP/1"));
    let by = match ending.closed_by {
        Some(Side::Client) => "; the client closed it",
        Some(Side::Nginx) => "; nginx closed the connection",
        Some(Side::Upstream) => "; the upstream closed its connection",
        None => "",
    };
    let text = match ending.end? {
        End::Ok if ending.tunnel => format!("It became a tunnel, which ended{after}{by}."),
        End::Ok => return None,
        End::ClientClosed => format!("The client closed its connection{after}{status}{phase}."),
        End::ClientReset if is_http1 => {
            format!(
                "The client reset its connection, or the kernel gave it up{after}{status}{phase}."
            )
        }
        End::ClientReset => {
            format!(
                "The client cancelled the stream, or reset its connection{after}{status}{phase}."
            )
        }
        End::Timeout if has_failed => return None,
        End::Timeout => match ending.timeout.map(words::expired) {
            Some(expired) => format!("{expired}: nginx gave up{after}{status}."),
            None => format!("A time limit of nginx expired{after}{status}{phase}."),
        },
        End::UpstreamFailed if has_failed => return None,
        End::UpstreamFailed => format!("An upstream failed{after}{status}{phase}."),
        End::Limited => format!("limit_req or limit_conn refused it{status}."),
        End::Rejected if request.status == Some(NO_ANSWER) => {
            "nginx closed the connection without an answer (status 444).".to_owned()
        }
        End::Rejected => format!("nginx itself refused it{status}."),
        End::Error => format!("nginx itself failed{status}{phase}{by}."),
        End::WorkerExit => format!(
            "The worker ended, or gave the connection up at worker_shutdown_timeout,{after}{phase}."
        ),
    };
    Some(text)
}

/// Returns what took the longest part of the time, where that is not said of a failed attempt.
fn longest(request: &Request<'_>, segments: &[Segment]) -> Option<String> {
    let longest = segments.iter().max_by_key(|segment| segment.length())?;
    let attempt = longest.attempt.and_then(|n| request.upstreams.get(n));
    let has_failed = attempt.is_some_and(|attempt| attempt.failure.is_some());
    let is_told = matches!(
        request.ending.timeout,
        Some(Timeout::Header | Timeout::Body | Timeout::Send | Timeout::Resolve)
    );
    /* nginx may have waited for the rest of a response that did not come. */
    let is_cut_short = request.ending.last_phase == Some(Part::UpstreamResponse);
    let is_unclear = is_cut_short && longest.stage == Stage::Nginx;
    if has_failed || is_told || is_unclear || request.ending.tunnel {
        return None;
    }
    let ns = longest.length();
    let later = after(request);
    let later = later.and_then(|span| Some(span.to? - span.from));
    if let Some(later) = later.filter(|later| *later > ns) {
        return Some(of_the_rest(request, later));
    }
    let happened = words::happened(longest.stage, &attempt.map(server).unwrap_or_default());
    let more = more(request, longest, attempt);
    let part = part(request, ns);
    let is_most = ns.saturating_mul(2) >= total(request)?;
    let subject = if is_most { "Most" } else { "The longest part" };
    Some(format!("{subject} ({part}): {happened}{more}."))
}

/// Returns what took the time after the last byte of the response.
fn of_the_rest(request: &Request<'_>, ns: u64) -> String {
    let part = part(request, ns);
    match request.waits.client_stall_ns {
        Some(stall) => format!(
            "Most ({part}) passed after the last byte that was sent: the client took nothing for {}.",
            units::time(stall)
        ),
        None => format!("Most ({part}) passed after the last byte of the response was sent."),
    }
}

/// Returns what more is known of a part of the time.
fn more(request: &Request<'_>, segment: &Segment, attempt: Option<&Attempt<'_>>) -> String {
    let (waits, stage) = (&request.waits, segment.stage);
    let by_nginx = waits.time_ns.as_ref().map_or(0, |shares| shares.nginx);
    let is_paced = by_nginx > segment.length() / 2 && waits.client_stall_ns.is_none();
    if stage == Stage::ClientResponse && is_paced {
        return "; the client took all of it at once: nginx itself set the pace (limit_rate?)"
            .to_owned();
    }
    let tls = attempt.and_then(|attempt| attempt.upstream_tls_ns);
    let (text, ns) = match stage {
        Stage::ClientResponse => (
            "; the client's socket took nothing for",
            waits.client_stall_ns,
        ),
        Stage::UpstreamRequest => ("; its socket took nothing for", waits.upstream_stall_ns),
        Stage::UpstreamWait => (
            "; then the response lay in the socket, since the worker was busy, for",
            waits.upstream_read_wait_ns,
        ),
        Stage::UpstreamConnect => ("; the TLS handshake took", tls),
        _ => ("", None),
    };
    ns.map_or_else(String::new, |ns| format!("{text} {}", units::time(ns)))
}
