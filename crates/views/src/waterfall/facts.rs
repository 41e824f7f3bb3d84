// SPDX-License-Identifier: MIT OR Apache-2.0
//! What else is known of a request, each fact in a few words.

use ngx_bpf_record::Request;
use ngx_bpf_record::Shares;
use ngx_bpf_record::TcpConnection;
use ngx_bpf_record::timeline::Class;
use ngx_bpf_record::values::CacheStatus;

use crate::bar::apportion;
use crate::look;
use crate::units;
use crate::waterfall::id;

/// Returns what a request asked for: its URL, as far as it is known.
pub fn asked(request: &Request<'_>) -> String {
    let Some(uri) = request.request_uri.as_deref() else {
        return "(no request line)".to_owned();
    };
    match request.http_host.as_deref() {
        Some(host) => format!("{}://{host}{uri}", request.scheme),
        None => uri.to_owned(),
    }
}

/// Returns where a request belongs to.
pub fn place(request: &Request<'_>) -> Vec<String> {
    let place = &request.place;
    let mut facts = Vec::new();
    facts.extend(request.time.clone());
    facts.push(format!("id {} (worker/connection/request)", id(request)));
    let mut add = |name: &str, value: Option<&str>| {
        facts.extend(value.map(|value| format!("{name} {value}")));
    };
    let cache = request.upstream_cache_status.map(CacheStatus::name);
    add("client", request.remote_addr.as_deref());
    let server = place.server_name.as_deref();
    add(
        "server",
        server.filter(|name| request.http_host.as_deref() != Some(name)),
    );
    add("location", place.location.as_deref());
    add("upstream", place.upstream_name.as_deref());
    add("cache", cache);
    add("pod", request.container.pod.as_deref());
    add("namespace", request.container.namespace.as_deref());
    add("trace", request.trace.trace_id.as_deref());
    let redirects = place.redirects.map(|n| n.to_string());
    add("internal redirects", redirects.as_deref());
    add("configured in", place.config.server.as_deref());
    for (name, value) in &place.variables {
        add(&format!("${name}"), Some(value));
    }
    for (name, value) in &place.headers {
        add(&format!("{name}:"), Some(value));
    }
    facts
}

/// Returns how a request ended, and how much it sent.
pub fn result(request: &Request<'_>) -> Vec<String> {
    let mut facts = Vec::new();
    facts.push(
        request
            .status
            .map_or_else(|| "no status".to_owned(), |status| status.to_string()),
    );
    facts.extend(super::total(request).map(units::time));
    let sent = request.response_size;
    let sent = sent.and_then(|sent| u64::try_from(sent).ok());
    facts.extend(sent.map(units::size));
    facts.extend(request.server_protocol.as_deref().map(str::to_owned));
    facts
}

/// Returns for whom a request waited, the longest first, in per cent that add up to 100, and the sum. `None` when the
/// record does not say.
pub fn shares(request: &Request<'_>) -> Option<(Vec<(Class, String)>, u64)> {
    let Shares {
        client,
        upstream,
        nginx,
        wait,
    } = request.waits.time_ns.clone()?;
    let parts = [client, nginx, upstream, wait].map(u128::from);
    let tenths = apportion(&parts, 1_000);
    let mut shares: Vec<_> = look::CLASSES.into_iter().zip(parts).zip(tenths).collect();
    shares.sort_by_key(|((_, ns), _)| std::cmp::Reverse(*ns));
    let texts = shares.into_iter().filter(|((_, ns), _)| *ns > 0);
    let texts = texts.map(|((class, _), tenths)| {
        let text = match tenths {
            0 => "<0.1 %".to_owned(),
            tenths => format!("{}.{} %", tenths / 10, tenths % 10),
        };
        (class, text)
    });
    let sum = parts.iter().sum::<u128>();
    (sum > 0).then(|| (texts.collect(), u64::try_from(sum).unwrap_or(u64::MAX)))
}

/// Returns what happened besides.
pub fn also(request: &Request<'_>) -> Vec<String> {
    let waits = &request.waits;
    let mut facts = Vec::new();
    for (name, ns) in [
        ("accept queue", waits.accept_queue_ns),
        ("TLS handshake", request.tls.tls_handshake_ns),
        ("read wait", waits.read_wait_ns),
        ("read wait of the response", waits.upstream_read_wait_ns),
        ("client took nothing for", waits.client_stall_ns),
        ("upstream took nothing for", waits.upstream_stall_ns),
        ("the tunnel lived", request.ending.tunnel_ns),
    ] {
        facts.extend(ns.map(|ns| format!("{name} {}", units::time(ns))));
    }
    for (name, bytes) in [
        ("request body", waits.request_temp_file_bytes),
        ("response", waits.response_temp_file_bytes),
    ] {
        let size = bytes.map(units::size);
        facts.extend(size.map(|size| format!("{size} of the {name} in a temporary file")));
    }
    for (name, tcp) in [
        ("client", &request.tcp.client),
        ("upstream", &request.tcp.upstream),
    ] {
        facts.extend(tcp.iter().flat_map(|tcp| of_tcp(name, tcp)));
    }
    facts
}

/// Returns what the kernel says of a connection. It counts retransmits over the whole life of the connection.
fn of_tcp(name: &str, tcp: &TcpConnection) -> Vec<String> {
    let mut facts = Vec::new();
    let rtt = tcp.rtt_us.map(|us| units::time(u64::from(us) * 1_000));
    facts.extend(rtt.map(|rtt| format!("{name} rtt {rtt}")));
    let again = tcp.retransmits.map(u64::from).map(units::count);
    facts.extend(again.map(|n| format!("{n} retransmits of the {name}'s connection")));
    let limited = tcp.rwnd_limited_ns.map(units::time);
    facts.extend(limited.map(|time| format!("{name}'s receive window was too small for {time}")));
    facts
}
