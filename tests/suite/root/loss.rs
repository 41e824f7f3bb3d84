// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loss: every request that is seen is written, filtered or counted as lost.

use std::io::BufRead as _;
use std::io::BufReader;

use ngx_bpf_record::values::Cause;

use crate::suite::common::load::wrk;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Line;
use crate::suite::common::tool::Tool;

/// Records that are no requests.
mod others;

/// Starts an nginx that has no access log and answers everything at once.
fn fast() -> Nginx {
    Nginx::start(&Config {
        http: "server { listen 127.0.0.1:{port}; access_log off; keepalive_requests 1000000;
               location / { return 200 'hello\\n'; } }",
        workers: 2,
        ..Config::default()
    })
}

/// The memory that the tool may have resident while it traces. A debug build has up to 43 MiB, of which
/// 31 are pages of its own unoptimized code; a release build has 25.
const RESIDENT_MAX: u64 = if cfg!(debug_assertions) { 48 } else { 32 } << 20;

/// Check that at full rate every request is written, or counted and reported as lost, in bounded
/// memory.
#[test]
fn full_rate() {
    let seconds = std::env::var("NGX_BPF_TEST_LOAD_SECONDS")
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(5);
    let nginx = fast();
    let tool = Tool::trace(nginx.pid());
    println!("verified instructions: {:?}", tool.verified_instructions());
    let answered = wrk(nginx.port, "/", 32, seconds);
    let resident = tool.resident();
    assert!(resident <= RESIDENT_MAX, "{resident}");
    drop(nginx);
    let ended = tool.wait();
    let summary = ended.summary();
    assert_eq!(ended.status.code(), Some(0));
    /* wrk does not wait for the answers to its last requests. */
    assert!(
        (answered..answered + 64).contains(&summary.seen),
        "{answered} {summary:?}"
    );
    assert_eq!(ended.records().len() as u64, summary.written);
    let lost = ended.lost();
    /* Workers do not disturb each other where one of them is preempted in the middle of a run. */
    assert!(lost.iter().all(|lost| lost.cause == Cause::RingFull));
    assert_eq!(
        lost.iter().map(|lost| lost.count).sum::<u64>(),
        summary.lost
    );
    println!("{answered} requests answered, {resident} bytes resident, {summary:?}");
}

/// Check a reader that stops reading: nginx goes on, and the loss is counted, and reported in the
/// stream as soon as it moves again.
#[test]
fn stalled_reader() {
    let nginx = fast();
    let mut tool = Tool::unread(nginx.pid());
    let stdout = tool.take_stdout();
    tool.wait_ready(1);
    let answered = wrk(nginx.port, "/", 32, 3);
    let reader = std::thread::spawn(move || {
        let mut lines = Vec::new();
        for line in BufReader::new(stdout).lines() {
            lines.push(Line::parse(&line.unwrap()));
        }
        lines
    });
    drop(nginx);
    let ended = tool.wait();
    let lines = reader.join().unwrap();
    let summary = ended.summary();
    let mut reported = 0;
    let mut written = 0;
    for line in lines {
        match line {
            Line::Request(_) => written += 1,
            Line::Connection(connection) => panic!("{connection:#?}"),
            Line::Lost(lost) => {
                assert_eq!(lost.cause, Cause::RingFull);
                assert!(lost.time.ends_with('Z'));
                reported += lost.count;
            }
            Line::Blocked(blocked) => panic!("{blocked:?}"),
        }
    }
    assert!(summary.lost > 0, "{summary:?}");
    assert_eq!((written, reported), (summary.written, summary.lost));
    assert!(
        (answered..answered + 64).contains(&summary.seen),
        "{answered} {summary:?}"
    );
}

/// Check that a reader that never reads again does not delay the end, and that the records that it
/// did not take are counted.
#[test]
fn reader_that_never_reads() {
    let nginx = fast();
    let mut tool = Tool::unread(nginx.pid());
    let stdout = tool.take_stdout();
    tool.wait_ready(1);
    wrk(nginx.port, "/", 32, 1);
    let ended = tool.stop();
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.summary().lost > 0);
    drop(stdout);
}
