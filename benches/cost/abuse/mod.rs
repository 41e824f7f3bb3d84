// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a hostile client costs a traced nginx. Each kind of abuse is a fixed amount of work, done in
//! steps: nginx has handled a step when it answers a request that was sent after it, so that it
//! handles the same events each time, traced or not.

mod http1;
mod http2;
mod http3;
mod idle;
mod raw;
mod upstreams;

use std::collections::BTreeMap;
use std::net::TcpListener;

use idle::Idle;

use crate::common::http3::is_missing;
use crate::common::nginx::Config;
use crate::common::nginx::Nginx;
use crate::common::ports::free_port;
use crate::common::tls;
use crate::common::tool::PROGRAM;
use crate::cpu::cpu_ns;
use crate::interval::median;
use crate::tracing::build_before;
use crate::tracing::of_build;

/// The rounds, each without tracing and with it.
const ROUNDS: usize = 7;

/// The goal. Rows that miss it are marked with `!`, and nothing fails: noise of other processes moves a
/// ratio by more than what separates one kind from another, and docs/overhead.md has the kinds that miss
/// it, with the reasons.
const RATIO_MAX: f64 = 1.3;

/// The servers: HTTP/1 with TLS and without, and HTTP/2.
const HTTP: &str = "
    access_log off; keepalive_requests 100000000; client_header_timeout 600s; send_timeout 600s;
    client_max_body_size 100m;
    proxy_http_version 1.1; proxy_read_timeout 600s;
    map $http_upgrade $upgrade { default upgrade; '' ''; }
    server {
        listen 127.0.0.1:{port} reuseport;
        location / { return 200 'hello\\n'; }
        location /raw { proxy_pass http://127.0.0.1:{upstream}; proxy_buffering off;
                        proxy_request_buffering off;
                        proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgrade; }
        location /file { root {prefix}/html; }
    }
    server {
        listen 127.0.0.1:{tls} ssl;
        location / { return 200 'hello\\n'; }
    }
    server {
        listen 127.0.0.1:{http2} http2;
        location / { return 200 'hello\\n'; }
        location /raw { proxy_pass http://127.0.0.1:{upstream}; }
        location /buffered { proxy_pass http://127.0.0.1:{upstream}; }
        location /file { root {prefix}/html; }
    }";

/// The server of HTTP/3, where nginx has it.
const HTTP3: &str = "
    server {
        listen 127.0.0.1:{http3} quic;
        location / { return 200 'hello\n'; }
        location /file { root {prefix}/html; }
    }";

/// What hostile clients work with.
struct Target {
    nginx: Nginx,
    tls: u16,
    http2: u16,
    http3: u16,
    /// Where the upstream's connections arrive.
    upstream: TcpListener,
}

/// Does a fixed amount of hostile work. Returns how often it was done.
type Work = fn(&Target) -> u64;

/// The kinds of abuse, by name.
const KINDS: &[(&str, Work)] = &[
    ("no abuse: return 200", http1::requests),
    ("requests, 64 in a packet", http1::pipelined),
    ("connections without a byte", http1::churn),
    ("requests that are no HTTP", http1::nonsense),
    ("a header, byte by byte", http1::header),
    ("a body, byte by byte", http1::body),
    ("a body, byte by byte, proxied", http1::proxied_body),
    ("a file, read 32 KiB at a time", http1::slow_file),
    ("TLS handshakes that are left", http1::handshakes),
    ("TLS, a byte in each record", http1::tls_header),
    ("a tunnel, byte by byte", upstreams::tunnel),
    ("an upstream, byte by byte", upstreams::response),
    ("HTTP/2: return 200", http2::requests),
    ("HTTP/2: resets", http2::resets),
    ("HTTP/2: resets, proxied", http2::proxied_resets),
    ("HTTP/2: PINGs", http2::pings),
    ("HTTP/2: PINGs, client is deaf", http2::deaf_pings),
    ("HTTP/2: PINGs, 20 open bodies", http2::open_bodies),
    ("HTTP/2: windows of a byte", http2::windows),
    ("HTTP/2: DATA of a byte", http2::data),
    ("HTTP/2: headers, byte by byte", http2::headers),
];

/// The same of HTTP/3.
const KINDS_OF_HTTP3: &[(&str, Work)] = &[
    ("HTTP/3: return 200", http3::requests),
    ("HTTP/3: beside 100 half-open", http3::half_open),
    ("HTTP/3: resets", http3::resets),
];

/// Measures every kind, or those whose name contains `NGX_BPF_BENCH_ABUSE`.
pub fn measure() {
    let wanted = std::env::var("NGX_BPF_BENCH_ABUSE").unwrap_or_default();
    let has_http3 = !is_missing();
    let target = start(has_http3);
    let of_http3 = KINDS_OF_HTTP3.iter().filter(|_| has_http3);
    let kinds: Vec<_> = KINDS
        .iter()
        .chain(of_http3)
        .filter(|(name, _)| name.contains(&wanted))
        .collect();
    let mut programs = vec![None, Some(PROGRAM.to_owned())];
    programs.extend(build_before().map(Some));
    let mut samples: BTreeMap<(&str, &Option<String>), Vec<f64>> = BTreeMap::new();
    for round in 0..=ROUNDS {
        for program in &programs {
            let guard = program
                .as_ref()
                .map(|program| of_build(program, &target.nginx, &[]));
            for (name, work) in &kinds {
                let ns = spent(&target, *work);
                /* The first round only warms up. */
                if round > 0 {
                    samples.entry((name, program)).or_default().push(ns);
                }
            }
            drop(guard);
        }
    }
    println!("\nabuse: CPU of nginx for each piece of hostile work, {ROUNDS} rounds");
    println!(
        "{:<32} {:>9} {:>8} {:>9} {:>8} {:>7} {:>7}",
        "", "us", "spread", "traced", "spread", "ratio", "of least"
    );
    for (name, _) in &kinds {
        let of = |program| &samples[&(*name, program)][..];
        print(name, of(&programs[0]), programs[1..].iter().map(of));
    }
}

/// Starts the servers.
fn start(has_http3: bool) -> Target {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let (http, tls) = tls::with_port(&[HTTP, if has_http3 { HTTP3 } else { "" }].concat());
    let [http2, http3] = [(); 2].map(|()| free_port());
    let http = http.replace("{http2}", &http2.to_string());
    let http = http.replace("{http3}", &http3.to_string());
    let config = Config {
        http: &http,
        upstream: upstream.local_addr().unwrap().port(),
        ..Config::default()
    };
    let nginx = Nginx::prepared_with(&config, tls::certificate);
    nginx.file("file", &vec![b'x'; 1 << 20]);
    Target {
        nginx,
        tls,
        http2,
        http3,
        upstream,
    }
}

/// Prints the row of a kind: without tracing, and with each program. Where other processes disturb a
/// round, its samples are too high, so that the ratio of the least ones is closer.
fn print<'a>(name: &str, off: &[f64], traced: impl Iterator<Item = &'a [f64]>) {
    let least = |samples: &[f64]| samples.iter().copied().fold(f64::INFINITY, f64::min);
    let (base, spread) = median(off);
    print!("{name:<32} {:>9.3} {spread:>7.1}%", base / 1e3);
    for on in traced {
        let (ns, spread) = median(on);
        let ratio = least(on) / least(off);
        let mark = if ratio > RATIO_MAX { '!' } else { ' ' };
        print!(
            " {:>9.3} {spread:>7.1}% {:>7.3} {ratio:>7.3} {mark}",
            ns / 1e3,
            ns / base
        );
    }
    println!();
}

/// Returns nginx's CPU time for each piece of work, in ns.
fn spent(target: &Target, work: Work) -> f64 {
    let worker = target.nginx.workers()[0];
    let before = cpu_ns(worker, worker);
    let count = work(target);
    /* The ends of its connections are a part of the work. */
    Idle::new(target.nginx.port).wait();
    (cpu_ns(worker, worker) - before) as f64 / count as f64
}
