// SPDX-License-Identifier: MIT OR Apache-2.0
//! strace as a witness of each moment.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use tempfile::TempDir;

use crate::suite::common::PATIENCE;
use crate::suite::common::client::Client;
use crate::suite::common::lines;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;
use crate::suite::root::sockets::sources;
use crate::suite::root::times::post_slowly;

/// A proxy that passes on everything at once.
const HTTP: &str = "
    proxy_buffering off;
    proxy_request_buffering off;
    server { listen 127.0.0.1:{port}; location / { proxy_pass http://127.0.0.1:{upstream}; } }";

/// An upstream that is slow, too.
const URI: &str = "/wait-60/head/wait-30/body-10";

/// The header that `post_slowly()` sends for it.
const HEADER: &str =
    "POST /wait-60/head/wait-30/body-10 HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n";

/// The most by which the readings of the two clocks may differ.
const CLOCKS_NS: u64 = 100_000;

/// A system call in strace's output.
#[derive(Debug)]
struct Call {
    name: String,
    fd: i64,
    result: i64,
    begin_ns: u64,
}

impl Call {
    /// `1700000000.123456789 recvfrom(3, ""..., 1024, 0, NULL, NULL) = 80`
    fn parse(line: &str) -> Option<Self> {
        let (time, rest) = line.split_once(' ')?;
        let (name, args) = rest.split_once('(')?;
        let (args, result) = args.rsplit_once(" = ")?;
        let fd = args.split([',', ')']).next()?;
        Some(Self {
            name: name.to_owned(),
            fd: fd.parse().unwrap_or(-1),
            result: result.split(' ').next()?.parse().ok()?,
            begin_ns: time.replace('.', "").parse().ok()?,
        })
    }

    /// Returns whether it is one of these calls on this descriptor, and has moved bytes.
    fn moved(&self, names: &[&str], fd: i64) -> bool {
        names.contains(&self.name.as_str()) && self.fd == fd && self.result > 0
    }
}

/// Starts strace on a process, and writes its system calls to a file. Returns `None` when there is
/// no strace.
fn strace(pid: u32, file: &Path) -> Option<Child> {
    let form = ["--absolute-timestamps=unix,ns", "-s0"];
    let spawned = Command::new("strace")
        .args(form)
        .args(["-p", &pid.to_string(), "-o"])
        .arg(file)
        .stderr(Stdio::piped())
        .spawn();
    let mut strace = match spawned {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        spawned => spawned.unwrap(),
    };
    let said = lines(strace.stderr.take().unwrap());
    let said = said.recv_timeout(PATIENCE).unwrap();
    assert!(said.contains("attached"), "{said}");
    Some(strace)
}

/// Check that each moment lies between the system call that strace saw for it and the next one,
/// with every socket source.
#[test]
fn moments() {
    let upstream = Upstream::start();
    let nginx = Nginx::with(HTTP, upstream.port);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("strace");
    let Some(mut strace) = strace(nginx.workers()[0], &file) else {
        println!("SKIP this machine: strace is not installed");
        return;
    };
    let pid = nginx.pid().to_string();
    let tools: Vec<_> = sources()
        .iter()
        .map(|source| Tool::start(&["--pid", &pid, "--json", "--sockets", source], 1))
        .collect();
    assert!(!tools.is_empty(), "there is no socket source");
    post_slowly(&mut Client::connect(nginx.port), URI);
    let logged = nginx.quit();
    strace.wait().unwrap();
    let calls = fs::read_to_string(&file).unwrap();
    let calls: Vec<Call> = calls.lines().filter_map(Call::parse).collect();
    let between = bounds(&calls);
    for tool in tools {
        let ended = tool.wait();
        ended.assert_clean();
        let records = ended.records();
        assert_equal(&records, &logged);
        for (time, (from, to)) in moments_of(&records[0]).into_iter().zip(between) {
            let (from, to) = (&calls[from], &calls[to]);
            let within = from.begin_ns - CLOCKS_NS..=to.begin_ns + CLOCKS_NS;
            assert!(
                within.contains(&time),
                "{time}: {from:?}, {to:?}, {:#?}",
                records[0]
            );
        }
    }
}

/// The number of moments of a request.
const MOMENTS: usize = 10;

/// Returns the moments of a record in the order of time, by the wall clock: nginx accepts the
/// connection, and so on until the last byte of the response.
fn moments_of(record: &Record) -> [u64; MOMENTS] {
    let p = &record.phases;
    let origin = record.first_ns() - p.downstream_request_first_byte_time.unwrap();
    let times = [
        Some(0),
        p.downstream_request_first_byte_time,
        p.downstream_request_last_byte_time,
        p.upstream_connect_time,
        p.upstream_request_first_byte_time,
        p.upstream_request_last_byte_time,
        p.upstream_response_first_byte_time,
        p.upstream_response_last_byte_time,
        p.downstream_response_first_byte_time,
        p.downstream_response_last_byte_time,
    ];
    times.map(|time| origin + time.unwrap())
}

/// Returns the two system calls between whose beginnings each moment lies.
fn bounds(calls: &[Call]) -> [(usize, usize); MOMENTS] {
    let named = |name: &str| calls.iter().position(|call| call.name == name).unwrap();
    let (accept, connect) = (named("accept4"), named("connect"));
    let moved = |names: [&str; 3], fd| -> Vec<usize> {
        let calls = calls.iter().enumerate();
        let moved = calls.filter(|(_, call)| call.moved(&names, fd));
        moved.map(|(n, _)| n).collect()
    };
    let (reads, sends) = (["recvfrom", "readv", "read"], ["sendto", "writev", "write"]);
    let [client, upstream] = [calls[accept].result, calls[connect].fd];
    let [received, sent] = [reads, sends].map(|names| moved(names, client));
    let [responses, requests] = [reads, sends].map(|names| moved(names, upstream));
    let mut read = 0;
    let header_end = received.iter().find(|call| {
        read += calls[**call].result;
        read >= HEADER.len() as i64
    });
    [
        (accept, received[0]),
        next(received[0]),
        next(*header_end.unwrap()),
        next(connect),
        next(requests[0]),
        next(*requests.last().unwrap()),
        next(responses[0]),
        next(*responses.last().unwrap()),
        next(sent[0]),
        next(*sent.last().unwrap()),
    ]
}

/// Returns a call, and the next one.
fn next(call: usize) -> (usize, usize) {
    (call, call + 1)
}
