// SPDX-License-Identifier: MIT OR Apache-2.0
//! The loss of records that are no requests: each connection and each blocked worker is written or counted as lost.

use std::io::Read as _;
use std::net::Shutdown;
use std::net::TcpStream;
use std::process::ChildStdout;
use std::process::Command;

use super::fast;
use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_built_without;
use crate::suite::common::lines;
use crate::suite::common::load::wrk;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::ports::free_port;
use crate::suite::common::record::Connection;
use crate::suite::common::record::Line;
use crate::suite::common::tool::Ended;
use crate::suite::common::tool::PROGRAM;
use crate::suite::common::tool::Tool;
use crate::suite::common::wait_right;
use crate::suite::common::wait_until;
use crate::suite::root::blocked::block;
use crate::suite::root::blocked::drain;
use crate::suite::root::blocked::fill;
use crate::suite::root::blocked::piped;
use crate::suite::root::metrics::served;
use crate::suite::root::stalls::read_lines;

/// Connections that end without a request while no one reads the output.
const CONNECTIONS: u64 = 300;

/// Connections of the load, which may end while they are idle.
const OF_LOAD: u32 = 32;

/// Traces nginx with more options, and does not read the output until the ring buffer has lost requests. Returns the
/// port of the metrics, too.
fn with_full_ring(nginx: &Nginx, options: &[&str]) -> (Tool, ChildStdout, u16) {
    let (pid, port) = (nginx.pid().to_string(), free_port());
    let mut command = Command::new(PROGRAM);
    command.args(["--pid", &pid, "--json", "--metrics", &port.to_string()]);
    let mut tool = Tool::spawn(command.args(options));
    let stdout = tool.take_stdout();
    tool.wait_ready(1);
    let lost = || value(port, "ngx_bpf_requests_lost_total{cause=\"ring_full\"}");
    let mut rounds = 0..20;
    while lost() == 0 {
        assert!(rounds.next().is_some(), "the ring buffer is never full");
        wrk(nginx.port, "/", OF_LOAD, 1);
    }
    (tool, stdout, port)
}

/// Returns the value of a metric; 0 when it is not there.
fn value(port: u16, name: &str) -> u64 {
    let text = served(port);
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.map_or(0, |value| value.trim().parse().unwrap())
}

/// Returns the numbers of the only line of stderr that contains `text`.
fn numbers(ended: &Ended, text: &str) -> Vec<u64> {
    let mut lines = ended.stderr.iter().filter(|line| line.contains(text));
    let line = lines.next().unwrap_or_else(|| panic!("{ended:?}"));
    assert!(lines.next().is_none(), "{ended:?}");
    let parts = line.split(|c: char| !c.is_ascii_digit());
    parts.filter_map(|part| part.parse().ok()).collect()
}

/// Returns the record of a connection in a line. `None` for other records.
fn connection(line: String) -> Option<Box<Connection>> {
    match Line::parse(&line) {
        Line::Connection(connection) => Some(connection),
        _ => None,
    }
}

/// Returns the number of lost connections that records report.
fn reported(connections: &[Box<Connection>]) -> u64 {
    let lost = connections.iter();
    lost.filter_map(|record| record.connections_lost).sum()
}

/// Check connections: seen = written + lost, on stderr and in the metrics, and the records that are written report
/// the loss of others.
#[test]
fn connections() {
    if is_built_without(REWRITE) {
        return;
    }
    let nginx = fast();
    let (tool, stdout, port) = with_full_ring(&nginx, &["--connections"]);
    let before = value(port, "ngx_bpf_connections_seen_total");
    assert!(before <= u64::from(OF_LOAD) * 20, "{before}");
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(("127.0.0.1", nginx.port)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        /* nginx closes it, too. */
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
    let lines = lines(stdout);
    let (mut written, mut tries) = (Vec::new(), 0);
    /* The first that has a record reports the loss, when the ring buffer has room again. */
    wait_until("no record reports the loss", || {
        drop(TcpStream::connect(("127.0.0.1", nginx.port)).unwrap());
        tries += 1;
        written.extend(lines.try_iter().filter_map(connection));
        reported(&written) > 0
    });
    drop(nginx);
    let ended = tool.wait();
    written.extend(lines.iter().filter_map(connection));
    let [counted, lost, seen] = numbers(&ended, " connection")[..] else {
        panic!("{ended:?}")
    };
    assert_eq!(counted, written.len() as u64, "{ended:?}");
    assert_eq!(seen, counted + lost, "{ended:?}");
    assert!(lost > 0 && seen >= before + CONNECTIONS, "{ended:?}");
    assert!(
        seen <= before + CONNECTIONS + tries + u64::from(OF_LOAD),
        "{ended:?}"
    );
    assert!(reported(&written) <= lost, "{ended:?}");
    ended.summary();
}

/// Check blocked workers for whose records the ring buffer has no room: the metrics and the last lines of stderr have
/// their number.
#[test]
fn blocked_workers() {
    if is_built_without(REWRITE) {
        return;
    }
    let (nginx, pipe) = piped();
    let (tool, stdout, port) = with_full_ring(&nginx, &["--blocked=200ms"]);
    let lost = || value(port, "ngx_bpf_blocked_lost_total");
    let before = lost();
    for count in 1..=2 {
        block(&nginx, || fill(&pipe), || drain(&pipe));
        wait_right(lost, |lost| *lost >= before + count);
    }
    let counted = lost();
    let lines = read_lines(stdout);
    nginx.quit();
    let ended = tool.wait();
    lines.join().unwrap();
    let last = numbers(&ended, "records of blocked workers were lost");
    assert!(last[0] >= counted, "{counted}: {ended:?}");
    ended.summary();
}
