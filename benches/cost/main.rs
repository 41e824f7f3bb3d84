// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measures the overhead of tracing: CPU time of an nginx worker per request, without and with
//! tracing, interleaved in one run on one machine; CPU time of the tool per record; the cost for
//! processes that are not traced. It prints tables of medians, spreads and ratios, and asserts
//! nothing.

/* As in tests/integration.rs. Only a part of its harness is used here. */
#![allow(
    clippy::expect_used,
    clippy::missing_docs_in_private_items,
    clippy::unwrap_used,
    dead_code
)]

use std::any::Any;
use std::fs;
use std::path::Path;
use std::process::Command;

mod abuse;
#[path = "../../tests/suite/common/mod.rs"]
mod common;
mod many;
mod own;
mod rivals;

use common::build::kept;
use common::load::wrk;
use common::nginx::Config;
use common::nginx::Nginx;
use common::tool::PROGRAM;
use common::tool::Tool;
use common::tool::bpftool;
use rivals::Bpftrace;
use rivals::Hooks;

/// The number of measurements of each row.
const ROUNDS: usize = 9;

/// The seconds of one measurement.
const SECONDS: u32 = 2;

/// An nginx that is not stripped, for tools that need the names of static functions.
const UNSTRIPPED: &str = "source-symbols/objs/nginx";

/// The socket source for kernels that have no other.
const SYSTEM_CALLS: [&str; 2] = ["--sockets", "syscall"];

/// The server under load. A log of its own would be measured, too.
const HTTP: &str = r#"
    access_log off; keepalive_requests 100000000;
    log_format times escape=json '{"time":"$time_iso8601","addr":"$remote_addr","method":"$request_method","uri":"$request_uri","status":$status,"size":$bytes_sent,"request_time":$request_time,"upstream_addr":"$upstream_addr","upstream_connect_time":"$upstream_connect_time","upstream_header_time":"$upstream_header_time","upstream_response_time":"$upstream_response_time"}';
    upstream kept { server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 100000000; }
    proxy_http_version 1.1;
    proxy_set_header Connection '';
    server {
        listen 127.0.0.1:{port};
        location /static { return 200 'hello\n'; }
        location /proxied { proxy_pass http://kept; }
        location /logged/static { access_log {prefix}/times.log times; return 200 'hello\n'; }
        location /logged/proxied { access_log {prefix}/times.log times; proxy_pass http://kept; }
        location / { root {prefix}/html; sendfile on; }
    }"#;

/// The configuration of the upstream.
const UPSTREAM: &str = "
    access_log off; keepalive_requests 100000000;
    server { listen 127.0.0.1:{port}; location / { return 200 'hello\\n'; } }";

/// Starts what is on while nginx is measured. It ends when the returned value is dropped.
type Start<'a> = Box<dyn Fn() -> Box<dyn Any> + 'a>;

/// One row: its name, the requests, and what is on.
struct Row<'a> {
    name: &'static str,
    uri: &'static str,
    start: Start<'a>,
}

fn main() {
    if std::env::var_os("NGX_BPF_BENCH_ABUSE").is_some() {
        return abuse::measure();
    }
    /* The upstream runs a file of its own, because probes on the traced file would be hit in it, too. */
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("nginx");
    fs::copy(common::build::binary(), &copy).unwrap();
    let upstream = Nginx::start(&Config {
        http: UPSTREAM,
        binary: copy,
        ..Config::default()
    });
    let nginx = Nginx::with(HTTP, upstream.port);
    nginx.file("1m.bin", &vec![b'x'; 1 << 20]);
    println!("{ROUNDS} rounds of {SECONDS} s, alternating; one worker, 16 connections");
    println!("nginx CPU per request, medians; spread is (max - min) / median");
    let other = Nginx::simple();
    let before = build_before();
    for (title, uri) in [
        ("static, return 200", "/static"),
        ("proxied, kept connections", "/proxied"),
        ("1 MB file by sendfile", "/1m.bin"),
    ] {
        heading(title);
        let mut rows = vec![
            row("ngx-bpf", uri, || tool(&nginx, &[])),
            row("ngx-bpf by system calls", uri, || {
                tool(&nginx, &SYSTEM_CALLS)
            }),
        ];
        if uri != "/1m.bin" {
            rows.extend([
                row("--sample 100", uri, || tool(&nginx, &["--sample", "100"])),
                row("--status 5xx", uri, || tool(&nginx, &["--status", "5xx"])),
                row("--tcp", uri, || tool(&nginx, &["--tcp"])),
                row("--connections", uri, || tool(&nginx, &["--connections"])),
                row("--blocked", uri, || tool(&nginx, &["--blocked"])),
                /* The cost before a program can see that the process is not traced. */
                row("ngx-bpf on another nginx", uri, || tool(&other, &[])),
            ]);
        }
        if let Some(before) = &before {
            rows.insert(
                1,
                row("the build before", uri, || of_build(before, &nginx, &[])),
            );
        }
        compare(&nginx, uri, &rows);
        hits(&nginx, uri);
    }
    rivals(upstream.port);
    many::measure(upstream.port);
    abuse::measure();
    own::measure(&nginx);
}

/// Makes a row.
fn row<'a, T: Any>(name: &'static str, uri: &'static str, start: impl Fn() -> T + 'a) -> Row<'a> {
    Row {
        name,
        uri,
        start: Box::new(move || Box::new(start())),
    }
}

fn heading(title: &str) {
    println!(
        "\n{title:<28} {:>9} {:>8} {:>7} {:>9}",
        "us", "spread", "ratio", "added, us"
    );
}

/// Measures other ways to get the times, on an nginx with the names of its static functions.
fn rivals(upstream: u16) {
    let Some(binary) = kept(UNSTRIPPED) else {
        return;
    };
    let nginx = Nginx::start(&Config {
        http: HTTP,
        upstream,
        binary: binary.clone(),
        ..Config::default()
    });
    let output = nginx.prefix().join("bpftrace.out");
    for (title, uri, logged) in [
        ("rivals, static", "/static", "/logged/static"),
        ("rivals, proxied", "/proxied", "/logged/proxied"),
    ] {
        heading(title);
        let rows = [
            row("ngx-bpf", uri, || tool(&nginx, &[])),
            row("ten hooks at entry and return", uri, || Hooks::ten(&binary)),
            row("one uprobe that does nothing", uri, || {
                Hooks::nothing(&binary)
            }),
            row("bpftrace, seven probes", uri, || {
                Bpftrace::attach(&binary, &output)
            }),
            row("access_log in JSON", logged, || ()),
        ];
        compare(&nginx, uri, &rows);
    }
}

/// Measures with nothing on, and with each row, alternating. Prints a line for each.
fn compare(nginx: &Nginx, uri: &str, rows: &[Row<'_>]) {
    let mut off = Vec::new();
    let mut on = vec![Vec::new(); rows.len()];
    measure(nginx, uri);
    for _ in 0..ROUNDS {
        off.push(measure(nginx, uri));
        for (row, samples) in rows.iter().zip(&mut on) {
            let guard = (row.start)();
            samples.push(measure(nginx, row.uri));
            drop(guard);
        }
    }
    let (base, spread) = median(&off);
    println!("{:<28} {:>9.2} {spread:>7.1}%", "nothing", base / 1e3);
    for (row, samples) in rows.iter().zip(&on) {
        let (ns, spread) = median(samples);
        println!(
            "{:<28} {:>9.2} {spread:>7.1}% {:>7.3} {:>9.2}",
            row.name,
            ns / 1e3,
            ns / base,
            (ns - base) / 1e3
        );
    }
}

/// Starts the tool with the options that an operator would use.
fn tool(nginx: &Nginx, args: &[&str]) -> Tool {
    of_build(PROGRAM, nginx, args)
}

/// Starts another build of the tool in the same way.
fn of_build(program: &str, nginx: &Nginx, args: &[&str]) -> Tool {
    let file = nginx.prefix().join("records.json");
    attach(program, nginx.pid(), &file, args)
}

/// Returns the build that is measured in the same rounds as this one, if `NGX_BPF_BENCH_BEFORE` names one.
fn build_before() -> Option<String> {
    std::env::var("NGX_BPF_BENCH_BEFORE").ok()
}

/// Starts a build of the tool on this nginx, and returns when it traces.
fn attach(program: &str, pid: u32, file: &Path, args: &[&str]) -> Tool {
    let _ = fs::remove_file(file);
    let mut tool = Tool::spawn(
        Command::new(program)
            .args(["--json", "-p", &pid.to_string(), "-o"])
            .arg(file)
            .args(args),
    );
    tool.wait_ready(1);
    tool
}

/// Returns nginx's CPU time per request under load, in ns.
fn measure(nginx: &Nginx, uri: &str) -> f64 {
    let worker = nginx.workers()[0];
    let before = cpu_ns(worker, worker);
    let requests = wrk(nginx.port, uri, 16, SECONDS);
    (cpu_ns(worker, worker) - before) as f64 / requests as f64
}

/// Returns the CPU time of a thread, from the scheduler.
fn cpu_ns(pid: u32, thread: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

/// Returns the CPU time of all threads of a process.
fn process_cpu_ns(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let threads = threads.map(|thread| thread.unwrap().file_name().into_string().unwrap());
    threads
        .map(|thread| cpu_ns(pid, thread.parse().unwrap()))
        .sum()
}

/// Returns the median, and the spread around it in percent.
fn median(samples: &[f64]) -> (f64, f64) {
    let mut values = samples.to_vec();
    values.sort_by(f64::total_cmp);
    let median = values[values.len() / 2];
    let spread = values[values.len() - 1] - values[0];
    (median, spread / median * 100.0)
}

/// Prints the runs of the uprobes per request, as the kernel counts them. This is a run of its own,
/// because counting has a cost, too.
fn hits(nginx: &Nginx, uri: &str) {
    const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
    let was = fs::read_to_string(SWITCH).unwrap();
    fs::write(SWITCH, "1").unwrap();
    let tool = tool(nginx, &[]);
    let requests = wrk(nginx.port, uri, 16, SECONDS);
    let programs: Vec<_> = tool
        .bpf_ids("prog")
        .iter()
        .map(|id| bpftool(&["prog", "show", "id", id]))
        .collect();
    fs::write(SWITCH, was.trim()).unwrap();
    drop(tool.stop());
    let uprobes = programs
        .iter()
        .filter(|program| program["type"] == "kprobe");
    let runs: u64 = uprobes
        .filter_map(|program| program["run_cnt"].as_u64())
        .sum();
    println!(
        "{:<28} {:>9.2} per request",
        "uprobe hits",
        runs as f64 / requests as f64
    );
}
