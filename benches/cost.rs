// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tracing costs nginx: CPU time of its worker a request, with and without, interleaved in one
//! run on one machine. Prints a table of medians, spreads and ratios; asserts nothing.

/* As in tests/integration.rs, of whose harness only a part is used here. */
#![allow(
    clippy::expect_used,
    clippy::missing_docs_in_private_items,
    clippy::unwrap_used,
    dead_code
)]

use std::fs;
use std::process::Command;

#[path = "../tests/suite/common/mod.rs"]
mod common;

use common::load::wrk;
use common::nginx::Config;
use common::nginx::Nginx;
use common::tool::PROGRAM;
use common::tool::Tool;

/// How often each of the two is measured.
const ROUNDS: usize = 5;

/// How long one measurement takes.
const SECONDS: u32 = 3;

/// Programs on nginx's functions: each run is a trap in nginx.
const UPROBES: [&str; 3] = ["init_connection", "free_request", "send_output_queue"];

/// The server under load; its own log would be measured, too.
const HTTP: &str = "
    access_log off; keepalive_requests 100000000;
    upstream kept { server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 100000000; }
    server {
        listen 127.0.0.1:{port};
        location /static { return 200 'hello\\n'; }
        location /proxied {
            proxy_pass http://kept;
            proxy_http_version 1.1;
            proxy_set_header Connection '';
        }
        location / { root {prefix}/html; sendfile on; }
    }";

/// What the upstream answers.
const UPSTREAM: &str = "
    access_log off; keepalive_requests 100000000;
    server { listen 127.0.0.1:{port}; location / { return 200 'hello\\n'; } }";

/// One measurement: nanoseconds of the worker's CPU time a request, and requests a second.
struct Sample {
    cpu_ns: f64,
    rate: f64,
}

fn main() {
    /* A file of its own: probes on the traced one would hit it, too. */
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("nginx");
    fs::copy(common::nginx::binary(), &copy).unwrap();
    let upstream = Nginx::start(&Config {
        http: UPSTREAM,
        binary: copy,
        ..Config::default()
    });
    let nginx = Nginx::with(HTTP, upstream.port);
    nginx.file("1m.bin", &vec![b'x'; 1 << 20]);
    println!(
        "{ROUNDS} rounds of {SECONDS} s, with and without in turn; one worker, 16 connections"
    );
    println!("nginx CPU a request, medians; spread is (max - min) / median\n");
    println!(
        "{:<14} {:>9} {:>7} {:>9} {:>7} {:>7} {:>9} {:>9} {:>12}",
        "request",
        "off, us",
        "spread",
        "on, us",
        "spread",
        "ratio",
        "more, us",
        "rate on",
        "uprobes/req"
    );
    for (name, uri) in [
        ("static", "/static"),
        ("proxied, kept", "/proxied"),
        ("1 MB file", "/1m.bin"),
    ] {
        row(name, &nginx, uri);
    }
}

/// Measures and prints one row.
fn row(name: &str, nginx: &Nginx, uri: &str) {
    let (mut off, mut on) = (Vec::new(), Vec::new());
    measure(nginx, uri);
    for _ in 0..ROUNDS {
        off.push(measure(nginx, uri));
        let tool = start(nginx);
        on.push(measure(nginx, uri));
        drop(tool.stop());
    }
    let (off_ns, off_spread) = median(&off);
    let (on_ns, on_spread) = median(&on);
    let rate = on.iter().map(|sample| sample.rate).sum::<f64>() / on.len() as f64;
    println!(
        "{name:<14} {:>9.2} {off_spread:>6.1}% {:>9.2} {on_spread:>6.1}% {:>7.3} {:>9.2} {rate:>9.0} {:>12.2}",
        off_ns / 1e3,
        on_ns / 1e3,
        on_ns / off_ns,
        (on_ns - off_ns) / 1e3,
        hits(nginx, uri),
    );
}

/// The tool as an operator leaves it on.
fn start(nginx: &Nginx) -> Tool {
    let file = nginx.prefix().join("records.json");
    let _ = fs::remove_file(&file);
    let mut tool = Tool::spawn(
        Command::new(PROGRAM)
            .args(["--json", "-p", &nginx.pid().to_string(), "-o"])
            .arg(file),
    );
    tool.wait_ready(1);
    tool
}

/// One load.
fn measure(nginx: &Nginx, uri: &str) -> Sample {
    let worker = nginx.workers()[0];
    let before = cpu_ns(worker);
    let requests = wrk(nginx.port, uri, 16, SECONDS);
    Sample {
        cpu_ns: (cpu_ns(worker) - before) as f64 / requests as f64,
        rate: requests as f64 / f64::from(SECONDS),
    }
}

/// CPU time of a process, from the scheduler.
fn cpu_ns(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

/// The median, and the spread around it in percent.
fn median(samples: &[Sample]) -> (f64, f64) {
    let mut values: Vec<f64> = samples.iter().map(|sample| sample.cpu_ns).collect();
    values.sort_by(f64::total_cmp);
    let median = values[values.len() / 2];
    (
        median,
        (values[values.len() - 1] - values[0]) / median * 100.0,
    )
}

/// Uprobes hit a request, as the kernel counts the runs of BPF programs: in a run of its own,
/// since counting costs, too.
fn hits(nginx: &Nginx, uri: &str) -> f64 {
    const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
    let was = fs::read_to_string(SWITCH).unwrap();
    fs::write(SWITCH, "1").unwrap();
    let tool = start(nginx);
    let requests = wrk(nginx.port, uri, 16, SECONDS);
    let output = Command::new("bpftool")
        .args(["-j", "prog", "show"])
        .output()
        .expect("bpftool is installed by make bench");
    fs::write(SWITCH, was.trim()).unwrap();
    drop(tool.stop());
    let programs: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let runs: u64 = programs
        .as_array()
        .unwrap()
        .iter()
        .filter(|program| UPROBES.iter().any(|name| program["name"] == *name))
        .filter_map(|program| program["run_cnt"].as_u64())
        .sum();
    runs as f64 / requests as f64
}
