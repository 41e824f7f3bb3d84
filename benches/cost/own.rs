// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tool itself takes, and what it costs processes that are not traced.

use std::fs;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use crate::common::client::Client;
use crate::common::load::wrk;
use crate::common::nginx::Nginx;
use crate::common::tool::PROGRAM;
use crate::common::tool::Tool;
use crate::cpu::process_cpu_ns;
use crate::interval::median;
use crate::tracing::SYSTEM_CALLS;
use crate::tracing::attach;
use crate::tracing::tool;

/// The number of measurements of each row.
const ROUNDS: usize = 9;

/// The seconds of one measurement.
const SECONDS: u32 = 4;

/// Measures all of it on this nginx.
pub fn measure(nginx: &Nginx) {
    println!("\nthe tool");
    for uri in ["/static", "/proxied"] {
        records(nginx, uri);
    }
    start(nginx);
    println!("\na socket call of a process that is not traced");
    untraced(nginx, "ngx-bpf", &[]);
    untraced(nginx, "ngx-bpf by system calls", &SYSTEM_CALLS);
}

/// Prints the tool's own CPU time per record and its memory, at full rate and with a file as its
/// output.
fn records(nginx: &Nginx, uri: &str) {
    let tool = tool(nginx, &[]);
    let before = process_cpu_ns(tool.pid());
    let requests = wrk(nginx.port, uri, 16, SECONDS);
    let cpu = process_cpu_ns(tool.pid()) - before;
    let resident = tool.resident() as f64 / f64::from(1 << 20);
    let summary = tool.stop().summary();
    println!(
        "{uri:<10} {:>6.2} us of its CPU per record, {resident:.1} MiB resident, {:.0} requests/s, {} lost",
        cpu as f64 / requests as f64 / 1e3,
        requests as f64 / f64::from(SECONDS),
        summary.lost
    );
}

/// Prints the time from the start to the first record, and the slowest request while probes are
/// attached and detached, with one request per millisecond.
fn start(nginx: &Nginx) {
    let mut first = Vec::new();
    let mut client = Client::connect(nginx.port);
    for _ in 0..ROUNDS {
        let file: PathBuf = nginx.prefix().join("first.json");
        let _ = fs::remove_file(&file);
        let started = Instant::now();
        let tool = Tool::spawn(
            Command::new(PROGRAM)
                .args(["--json", "-p", &nginx.pid().to_string(), "-o"])
                .arg(&file),
        );
        while !fs::metadata(&file).is_ok_and(|metadata| metadata.len() > 0) {
            client.get("/static");
        }
        first.push(started.elapsed().as_secs_f64());
        drop(tool.stop());
    }
    let (median, spread) = median(&first);
    println!("start to first record: {median:.2} s (spread {spread:.0} %)");
    let (pid, file) = (nginx.pid(), nginx.prefix().join("records.json"));
    let quiet = longest(&mut client, Duration::from_secs(2), || ());
    let busy = longest(&mut client, Duration::from_secs(2), || {
        drop(attach(PROGRAM, pid, &file, &[]).stop());
    });
    println!(
        "slowest request, one per millisecond: {:.2} ms alone, {:.2} ms while probes come and go",
        quiet.as_secs_f64() * 1e3,
        busy.as_secs_f64() * 1e3
    );
}

/// Returns the slowest request while `act` runs again and again, for at least this time.
fn longest(client: &mut Client, at_least: Duration, act: impl Fn() + Sync) -> Duration {
    let end = Instant::now() + at_least;
    std::thread::scope(|scope| {
        let acting = scope.spawn(|| {
            while Instant::now() < end {
                act();
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let mut longest = Duration::ZERO;
        while !acting.is_finished() {
            let sent = Instant::now();
            client.get("/static");
            longest = longest.max(sent.elapsed());
            std::thread::sleep(Duration::from_millis(1));
        }
        longest
    })
}

/// Prints the cost of a small send and the recv that follows it, for a process that is not traced.
fn untraced(nginx: &Nginx, name: &str, args: &[&str]) {
    const CALLS: u32 = 200_000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut out = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut back, _) = listener.accept().unwrap();
    out.set_nodelay(true).unwrap();
    let mut round = || {
        let started = Instant::now();
        let mut byte = [0];
        for _ in 0..CALLS {
            out.write_all(b"x").unwrap();
            back.read_exact(&mut byte).unwrap();
        }
        started.elapsed().as_nanos() as f64 / f64::from(2 * CALLS)
    };
    round();
    let (mut off, mut on) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        off.push(round());
        let tool = tool(nginx, args);
        on.push(round());
        drop(tool.stop());
    }
    let ((off, off_spread), (on, on_spread)) = (median(&off), median(&on));
    println!(
        "{name:<28} {off:.0} ns (spread {off_spread:.0} %) without, {on:.0} ns ({on_spread:.0} %) with"
    );
}
