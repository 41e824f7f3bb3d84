// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end of tracing: as asked, with all records written, detached, with exit code 0 and the right
//! numbers.

use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::suite::common::client::Client;
use crate::suite::common::delay;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::record::Record;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tool::PROGRAM;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;

/// A tool that is killed.
mod killed;

/// Sends requests over one connection.
fn requests(nginx: &Nginx, count: usize) {
    let mut client = Client::connect(nginx.port);
    for _ in 0..count {
        assert_eq!(client.get("/").status, 200);
    }
}

/// Check that each signal writes what was recorded, and ends with 0.
#[test]
fn signals() {
    for signal in ["INT", "TERM", "HUP"] {
        let nginx = Nginx::simple();
        let tool = Tool::trace(nginx.pid());
        requests(&nginx, 100);
        nginx.wait_logged(100);
        tool.signal(signal);
        let ended = tool.wait();
        ended.assert_clean();
        assert_eq!(ended.records().len(), 100, "{signal}");
        assert_eq!(ended.stderr.len(), 2, "{:?}", ended.stderr);
        assert_equal(&ended.records(), &nginx.quit());
    }
}

/// Check that a signal that comes twice at once, as `timeout` sends it, also writes what was
/// recorded.
#[test]
fn same_signal_twice() {
    let nginx = Nginx::simple();
    let tool = Tool::trace(nginx.pid());
    requests(&nginx, 100);
    nginx.wait_logged(100);
    tool.signal("TERM");
    tool.signal("TERM");
    let ended = tool.wait();
    ended.assert_clean();
    assert_eq!(ended.records().len(), 100);
}

/// Check that a reader that leaves ends the tool, without a message.
#[test]
fn closed_pipe() {
    let nginx = Nginx::simple();
    let mut tool = Tool::unread(nginx.pid());
    let mut stdout = BufReader::new(tool.take_stdout());
    tool.wait_ready(1);
    requests(&nginx, 1);
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"type\":\"request\""));
    /* The tool must notice that the reader has left without another request. */
    drop(stdout);
    let ended = tool.wait();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(ended.stderr.len(), 2, "{:?}", ended.stderr);
    ended.summary();
}

/// Check `--count`: it writes this number of records. Requests after them are neither filtered nor
/// lost, because they were not asked for; the number of a filter stays as it was. A loss that BPF
/// counts after the end does not count.
#[test]
fn count() {
    let nginx = Nginx::simple();
    let pid = nginx.pid().to_string();
    let three = Tool::start(&["--json", "-n", "3", "-p", &pid], 1);
    let one = Tool::start(&["--json", "-n", "1", "-p", &pid], 1);
    let filtered = Tool::start(&["--json", "-n", "2", "--uri", "/x", "-p", &pid], 1);
    let mut client = Client::connect(nginx.port);
    for uri in ["/", "/x", "/", "/x"] {
        client.get(uri);
    }
    requests(&nginx, 50);
    for (tool, last_line) in [
        (three, "3 requests, 0 lost (3 seen, 0 filtered)"),
        (one, "1 request, 0 lost (1 seen, 0 filtered)"),
        (filtered, "2 requests, 0 lost (4 seen, 2 filtered)"),
    ] {
        let ended = tool.wait();
        ended.assert_clean();
        assert_eq!(ended.records().len() as u64, ended.summary().written);
        assert_eq!(
            *ended.stderr.last().unwrap(),
            format!("ngx-bpf: {last_line}")
        );
    }
}

/// Check `--duration`.
#[test]
fn duration() {
    let nginx = Nginx::simple();
    let tool = Tool::start(
        &["--json", "-d", "200ms", "-p", &nginx.pid().to_string()],
        1,
    );
    requests(&nginx, 5);
    let ended = tool.wait();
    ended.assert_clean();
}

/// Check that the filters and the sample are applied, and that the equation holds.
#[test]
fn filters() {
    let upstream = Upstream::start();
    let nginx = Nginx::with(
        "server { listen 127.0.0.1:{port}; location / { return 200; } location /no { return 404; }
         location /slow { proxy_pass http://127.0.0.1:{upstream}/wait-300; } }",
        upstream.port,
    );
    let pid = nginx.pid().to_string();
    let slow = Tool::start(&["--json", "--min-duration", "300ms", "-p", &pid], 1);
    let status = Tool::start(&["--json", "--status", "4xx", "-p", &pid], 1);
    let sample = Tool::start(&["--json", "--sample", "10", "-p", &pid], 1);
    let mut client = Client::connect(nginx.port);
    for n in 0..40 {
        client.get(if n % 4 == 0 { "/no" } else { "/" });
    }
    client.get("/slow");
    drop(client);
    drop(nginx.quit());
    let status = status.wait();
    status.assert_clean();
    assert_eq!(status.summary().filtered, 31);
    assert_eq!(status.records().len(), 10);
    assert!(
        status
            .records()
            .iter()
            .all(|record| record.status == Some(404))
    );
    let sample = sample.wait();
    sample.assert_clean();
    assert_eq!((sample.records().len(), sample.summary().filtered), (5, 36));
    sample.records().iter().for_each(Record::assert_complete);
    let slow = slow.wait();
    slow.assert_clean();
    assert_eq!((slow.records().len(), slow.summary().filtered), (1, 40));
    assert_eq!(slow.records()[0].uri.as_deref(), Some("/slow"));
}

/// Check that requests of a sample have all their times when the requests around them are left out:
/// with upstreams, and pipelined.
#[test]
fn sample() {
    const HTTP: &str = "
        upstream kept { server 127.0.0.1:{upstream}; keepalive 1; }
        server {
            listen 127.0.0.1:{port};
            proxy_http_version 1.1;
            proxy_set_header Connection '';
            location / { proxy_pass http://kept; }
        }";
    let upstream = Upstream::start();
    let nginx = Nginx::with(HTTP, upstream.port);
    let tool = Tool::start(
        &["--json", "--sample", "3", "-p", &nginx.pid().to_string()],
        1,
    );
    let mut client = Client::connect(nginx.port);
    for n in 0..9 {
        assert_eq!(client.get(&format!("/{n}")).status, 200);
    }
    let pipelined = (9..18).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: t\r\n\r\n"));
    client.send(pipelined.collect::<String>());
    for _ in 0..9 {
        assert_eq!(client.receive().status, 200);
    }
    drop(client);
    drop(nginx.quit());
    let ended = tool.wait();
    ended.assert_clean();
    let records = ended.records();
    let uris: Vec<_> = records.iter().filter_map(|r| r.uri.as_deref()).collect();
    assert_eq!(uris, ["/0", "/3", "/6", "/9", "/12", "/15"]);
    for record in &records {
        record.assert_complete();
        assert!(record.phases.upstream_response_last_byte_time.is_some());
    }
    assert_eq!(records[1].upstreams[0].reused, Some(true));
}

/// Check that the text format is the line of the project's design card, and that a hint names
/// `--json` when the format was not chosen and stdout is a pipe.
#[test]
fn text() {
    let nginx = Nginx::simple();
    let tool = Tool::start(&["-p", &nginx.pid().to_string()], 1);
    requests(&nginx, 1);
    let port = nginx.port;
    drop(nginx.quit());
    let ended = tool.wait();
    let [line] = &ended.stdout[..] else {
        panic!("{ended:?}");
    };
    let (accept, rest) = line.split_once(",127.0.0.1:").unwrap();
    assert!(accept.parse::<u64>().is_ok(), "{line}");
    assert!(
        rest.contains(&format!("=>127.0.0.1:{port}, /, 200, request_size=")),
        "{line}"
    );
    assert!(
        rest.contains(", downstream_response_last_byte_time="),
        "{line}"
    );
    assert!(!rest.contains("upstream_connect_time"), "{line}");
    assert!(ended.stderr[1].contains("--json writes JSON"), "{ended:?}");
    assert_eq!(ended.stderr.len(), 3, "{ended:?}");
}

/// Check that `-o` appends, that SIGUSR1 opens a new file after the old one was moved away, and
/// that no line is lost or split.
#[test]
fn output_file() {
    let nginx = Nginx::simple();
    let folder = TempDir::new().unwrap();
    let (file, moved) = (folder.path().join("log"), folder.path().join("log.1"));
    let path = file.display().to_string();
    let mut tool = Tool::spawn(Command::new(PROGRAM).args([
        "--json",
        "-o",
        &path,
        "-v",
        "-p",
        &nginx.pid().to_string(),
    ]));
    tool.wait_ready(1);
    requests(&nginx, 30);
    fs::rename(&file, &moved).unwrap();
    tool.signal("USR1");
    tool.wait_for_message("reopened");
    requests(&nginx, 20);
    nginx.wait_logged(50);
    let ended = tool.stop();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(ended.summary().written, 50);
    let count = |path| fs::read_to_string(path).unwrap().lines().count();
    assert_eq!(count(&file) + count(&moved), 50);
    assert!(count(&file) >= 20);
    let second = Tool::spawn(Command::new(PROGRAM).args([
        "-n",
        "1",
        "-o",
        &path,
        "-p",
        &nginx.pid().to_string(),
    ]));
    let mut second = second;
    second.wait_ready(1);
    requests(&nginx, 1);
    assert_eq!(second.wait().status.code(), Some(0));
    assert!(count(&file) >= 21);
}

/// Check that a full disk is reported once, that the loss is counted, that tracing goes on, and
/// that the exit code is 1 when nothing could be written afterwards.
#[test]
fn full_disk() {
    let nginx = Nginx::simple();
    let mut tool = Tool::spawn(Command::new(PROGRAM).args([
        "-o",
        "/dev/full",
        "-p",
        &nginx.pid().to_string(),
    ]));
    tool.wait_ready(1);
    requests(&nginx, 10);
    tool.wait_for_message("failed to write records");
    /* Long enough for the tool to try to report the loss, which fails as well. */
    delay(Duration::from_millis(300));
    requests(&nginx, 10);
    nginx.wait_logged(20);
    let ended = tool.stop();
    assert_eq!(ended.status.code(), Some(1));
    let to_the_end = &ended.stderr[ended.stderr.len() - 2];
    assert!(
        to_the_end.contains("the output failed to the end: 20 records not written"),
        "{ended:?}"
    );
    let complaints = ended
        .stderr
        .iter()
        .filter(|line| line.contains("failed to write"));
    assert_eq!(complaints.count(), 1, "{:?}", ended.stderr);
    let summary = ended.summary();
    assert_eq!((summary.written, summary.lost, summary.seen), (0, 20, 20));
}

/// Check that `--self-stats` reports the overhead, while the tool runs and when it ends.
#[test]
fn self_stats() {
    let nginx = Nginx::start(&Config::default());
    let pid = nginx.pid().to_string();
    let mut tool = Tool::start(&["--json", "--self-stats=100ms", "-p", &pid], 1);
    let mut client = Client::connect(nginx.port);
    for _ in 0..20 {
        client.get("/");
    }
    /* The probe is in every nginx of this binary: those of other tests may hit it, too. */
    let hits = |line: &str| -> u64 {
        let rest = line.strip_prefix("ngx-bpf: free_request: ").unwrap();
        let (hits, rest) = rest.split_once(" hits, ").unwrap();
        let each: u64 = rest.strip_suffix(" ns each").unwrap().parse().unwrap();
        assert!(each > 0);
        hits.parse().unwrap()
    };
    while hits(&tool.wait_for_message("free_request: ")) < 20 {}
    drop(client);
    drop(nginx.quit());
    let ended = tool.wait();
    assert_eq!(ended.records().len(), 20);
    let mut lines = ended.stderr.iter().rev();
    let last = lines.find_map(|line| line.strip_prefix("ngx-bpf: this process: "));
    let last = last.unwrap();
    let number = |text: &str, unit: &str| -> f64 {
        let (before, _) = text.split_once(unit).unwrap();
        before.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(number(last, " s of cpu") > 0.0, "{last}");
    assert!(number(last, " MiB resident") > 1.0, "{last}");
    assert!(number(last, " KiB used") >= 4096.0, "{last}");
}
