// SPDX-License-Identifier: MIT OR Apache-2.0
//! `--otlp`: every request is in a batch that the receiver has taken, or is counted as lost.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use crossbeam_channel::bounded;
use ngx_bpf_record::values::Cause;
use tempfile::TempDir;

use crate::suite::common::client::Client;
use crate::suite::common::collector::Collector;
use crate::suite::common::collector::Reply;
use crate::suite::common::load::wrk;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::ports::free_port;
use crate::suite::common::record::Line;
use crate::suite::common::spans::Tree;
use crate::suite::common::spans::hex;
use crate::suite::common::tool::Ended;
use crate::suite::common::tool::Tool;
use crate::suite::root::trace_context::FIRST;
use crate::suite::root::trace_context::SECOND;

/// How long the end may wait for a receiver, and what a slow machine may add.
const END: Duration = Duration::from_secs(8);

/// A tool that sends to a receiver, and writes JSON to a file.
pub struct Sending {
    tool: Tool,
    file: PathBuf,
    _folder: TempDir,
}

impl Sending {
    /// Starts one.
    pub fn start(nginx: &Nginx, url: &str, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("records.json");
        let (pid, path) = (nginx.pid().to_string(), file.display().to_string());
        let all = ["--pid", &pid, "--otlp", url, "--json", "-o", &path];
        Self {
            tool: Tool::start(&[&all, options].concat(), 1),
            file,
            _folder: folder,
        }
    }

    /// Ends it by SIGTERM, in bounded time. Returns the lines of the file as well.
    pub fn stop(self) -> (Ended, Vec<Line>) {
        let begun = Instant::now();
        self.tool.signal("TERM");
        let ended = self.tool.wait();
        assert!(begun.elapsed() < END, "{:?}", begun.elapsed());
        let text = fs::read_to_string(self.file).unwrap();
        (ended, text.lines().map(Line::parse).collect())
    }
}

/// Returns the number of requests that lines report as lost by the receiver.
fn lost(lines: &[Line]) -> u64 {
    let of_receiver = lines.iter().filter_map(|line| match line {
        Line::Lost(lost) if lost.cause == Cause::Otlp => Some(lost.count),
        _ => None,
    });
    of_receiver.sum()
}

/// Returns the number of lines of requests.
fn requests(lines: &[Line]) -> usize {
    let is_request = |line: &&Line| matches!(line, Line::Request(_));
    lines.iter().filter(is_request).count()
}

/// Sends this number of requests, one after the other.
fn get(client: &mut Client, count: usize) {
    for _ in 0..count {
        client.get("/");
    }
}

/// Check that each request is a log record, and a span unless its trace is not sampled, with the same ids; that a
/// connection without a request is a log record; and that what was collected is sent at the end.
#[test]
fn both() {
    let collector = Collector::start(|_, _| Reply::Taken);
    let nginx = Nginx::simple();
    let sending = Sending::start(&nginx, &collector.url(), &["--connections"]);
    let mut client = Client::connect(nginx.port);
    for header in [
        format!("traceparent: {FIRST}\r\n"),
        format!("traceparent: {SECOND}\r\n"),
        String::new(),
    ] {
        client.send(format!(
            "GET /a?sig=x HTTP/1.1\r\nHost: test\r\n{header}\r\n"
        ));
        client.receive();
    }
    drop(client);
    drop(Client::connect(nginx.port));
    collector.wait_requests(3);
    get(&mut Client::connect(nginx.port), 1);
    nginx.wait_logged(4);
    let (ended, lines) = sending.stop();
    ended.assert_clean();
    assert_eq!(
        (requests(&lines), ended.summary().written, lost(&lines)),
        (4, 4, 0)
    );
    let (logs, trees) = (collector.logs("nginx.request"), collector.trees());
    assert_eq!((logs.len(), trees.len()), (4, 3));
    assert_eq!(hex(&logs[0].trace_id), FIRST[3..35]);
    assert_eq!(hex(&logs[1].trace_id), SECOND[3..35]);
    assert!(logs[1].span_id.is_empty());
    for (log, tree) in [
        (&logs[0], &trees[0]),
        (&logs[2], &trees[1]),
        (&logs[3], &trees[2]),
    ] {
        assert_eq!(log.trace_id, tree.server.trace_id);
        assert_eq!(log.span_id, tree.server.span_id);
        assert_eq!(log.time_unix_nano, tree.server.start_time_unix_nano);
        tree.assert_nested();
    }
    let body = format!("{:?}", logs[0].body);
    assert!(body.contains("GET /a?sig=REDACTED 200"), "{body}");
    assert!(!collector.logs("nginx.connection").is_empty());
}

/// Check that nothing is written to stdout where only the receiver is named, and that its numbers add up.
#[test]
fn alone() {
    let collector = Collector::start(|_, _| Reply::Taken);
    let nginx = Nginx::simple();
    let pid = nginx.pid().to_string();
    let traces = format!("{}/v1/traces", collector.url());
    let tool = Tool::start(&["--pid", &pid, "--otlp", &traces], 1);
    get(&mut Client::connect(nginx.port), 5);
    drop(nginx);
    let ended = tool.wait();
    ended.assert_clean();
    assert!(ended.stdout.is_empty());
    assert_eq!((collector.trees().len(), ended.summary().written), (5, 5));
    assert!(collector.logs("nginx.request").is_empty());
}

/// Check that the spans that are written and those that are sent are the same ones.
#[test]
fn same_ids() {
    let collector = Collector::start(|_, _| Reply::Taken);
    let nginx = Nginx::simple();
    let pid = nginx.pid().to_string();
    let options = ["--format", "otlp", "--otlp", &collector.url()];
    let tool = Tool::start(&[&["--pid", &pid], &options[..]].concat(), 1);
    get(&mut Client::connect(nginx.port), 5);
    drop(nginx);
    let ended = tool.wait();
    ended.assert_clean();
    let ids = |trees: Vec<Tree>| -> Vec<_> {
        let servers = trees.into_iter().map(|tree| tree.server);
        servers.map(|span| (span.trace_id, span.span_id)).collect()
    };
    let written = ids(Tree::of_lines(&ended.stdout));
    assert_eq!(written.len(), 5);
    assert_eq!(ids(collector.trees()), written);
}

/// Check that a batch is sent again after 429 and 503, that one that is refused is lost, and that what a partial success
/// rejects is counted, each in a record of JSON, too. A warning about what is taken is reported once.
#[test]
fn refused() {
    let mut logs = 0;
    let collector = Collector::start(move |_, path| {
        if path == "/v1/traces" {
            return Reply::Taken;
        }
        logs += 1;
        match logs {
            1 => Reply::Status(429, "Retry-After: 1\r\n"),
            2 => Reply::Status(503, ""),
            4 => Reply::Status(400, ""),
            5 => Reply::Partly(2),
            _ => Reply::Warned("old"),
        }
    });
    let nginx = Nginx::simple();
    let mut sending = Sending::start(&nginx, &collector.url(), &[]);
    let mut client = Client::connect(nginx.port);
    get(&mut client, 3);
    collector.wait_came("/v1/logs", 3);
    collector.wait_requests(3);
    sending.tool.wait_for_message("takes records again");
    get(&mut client, 4);
    collector.wait_came("/v1/logs", 4);
    get(&mut client, 5);
    collector.wait_came("/v1/logs", 5);
    nginx.wait_logged(12);
    let (ended, lines) = sending.stop();
    assert_eq!(ended.status.code(), Some(0), "{:?}", ended.stderr);
    let summary = ended.summary();
    assert_eq!((summary.written, summary.lost, summary.seen), (6, 6, 12));
    assert_eq!((requests(&lines), lost(&lines)), (12, 6));
    let said = |text: &str| ended.stderr.iter().any(|line| line.contains(text));
    assert!(
        said("status 400: \"no\"") && said("has rejected 2 spans or log records"),
        "{:?}",
        ended.stderr
    );
    let warned = ended
        .stderr
        .iter()
        .filter(|line| line.contains("has taken a batch, and says: \"old\""));
    assert_eq!(warned.count(), 1, "{:?}", ended.stderr);
    assert!(!said("rejected 0"), "{:?}", ended.stderr);
    let reported = collector.logs("nginx.lost");
    assert!(!reported.is_empty());
}

/// Check that a receiver that serves only one of the two paths is reported once, and that the end says so.
#[test]
fn one_path() {
    for unserved in ["/v1/traces", "/v1/logs"] {
        let collector = Collector::start(move |_, path| match path == unserved {
            true => Reply::Status(404, ""),
            false => Reply::Taken,
        });
        let nginx = Nginx::simple();
        let sending = Sending::start(&nginx, &collector.url(), &[]);
        for count in 1..4 {
            get(&mut Client::connect(nginx.port), 1);
            collector.wait_came(unserved, count);
        }
        nginx.wait_logged(3);
        let (ended, lines) = sending.stop();
        assert_eq!(ended.status.code(), Some(1), "{:?}", ended.stderr);
        assert_eq!((ended.summary().lost, lost(&lines)), (3, 3));
        let sent = ended
            .stderr
            .iter()
            .filter(|line| line.contains("failed to send") || line.contains("takes records again"));
        assert_eq!(sent.count(), 1, "{:?}", ended.stderr);
    }
}

/// Check that losses in a batch that was refused are sent again.
#[test]
fn losses_again() {
    let mut logs = 0;
    let collector = Collector::start(move |_, path| {
        logs += usize::from(path == "/v1/logs");
        match (path, logs) {
            ("/v1/logs", ..3) => Reply::Status(400, ""),
            _ => Reply::Taken,
        }
    });
    let nginx = Nginx::simple();
    let sending = Sending::start(&nginx, &collector.url(), &[]);
    get(&mut Client::connect(nginx.port), 1);
    collector.wait_came("/v1/logs", 3);
    nginx.wait_logged(1);
    let (ended, lines) = sending.stop();
    assert_eq!(ended.status.code(), Some(0), "{:?}", ended.stderr);
    assert_eq!((ended.summary().lost, lost(&lines)), (1, 1));
    let reported = collector.logs("nginx.lost");
    let bodies: Vec<_> = reported
        .iter()
        .map(|log| format!("{:?}", log.body))
        .collect();
    assert!(
        bodies.len() == 1 && bodies[0].contains("1 requests lost: otlp"),
        "{bodies:?}"
    );
}

/// Check that a receiver that is not there at first, and comes later, gets all, and that this is reported.
#[test]
fn restarted() {
    let port = free_port();
    let nginx = Nginx::simple();
    let mut sending = Sending::start(&nginx, &format!("http://127.0.0.1:{port}"), &[]);
    get(&mut Client::connect(nginx.port), 5);
    sending
        .tool
        .wait_for_message("failed to send to http://127.0.0.1");
    let collector = Collector::at(port, |_, _| Reply::Taken);
    sending.tool.wait_for_message("takes records again");
    collector.wait_requests(5);
    let (ended, lines) = sending.stop();
    ended.assert_clean();
    assert_eq!((requests(&lines), ended.summary().written), (5, 5));
    assert_eq!(collector.trees().len(), 5);
}

/// Check that a receiver that never answers, and one that is not there, hold up neither tracing nor the end, and that
/// every request is lost and reported.
#[test]
fn silent() {
    let collector = Collector::start(|_, _| Reply::Silence);
    for url in [collector.url(), format!("http://127.0.0.1:{}", free_port())] {
        let nginx = Nginx::simple();
        let sending = Sending::start(&nginx, &url, &[]);
        get(&mut Client::connect(nginx.port), 5);
        nginx.wait_logged(5);
        let (ended, lines) = sending.stop();
        assert_eq!(ended.status.code(), Some(1), "{:?}", ended.stderr);
        let summary = ended.summary();
        assert_eq!((summary.written, summary.lost, summary.seen), (0, 5, 5));
        assert_eq!((requests(&lines), lost(&lines)), (5, 5));
        let said = ended
            .stderr
            .iter()
            .any(|line| line.contains("the receiver of --otlp failed to the end"));
        assert!(said, "{:?}", ended.stderr);
    }
}

/// Check that a receiver that takes the first batch, and the others when the load is over, loses requests, and that each
/// is taken or counted.
#[test]
fn slow() {
    let nginx = Nginx::start(&Config {
        http: "server { listen 127.0.0.1:{port}; access_log off; keepalive_requests 1000000;
               location / { return 200 'hello\\n'; } }",
        workers: 2,
        ..Config::default()
    });
    let (is_loaded, over) = bounded::<()>(0);
    let collector = Collector::start(move |number, _| match number {
        0 => Reply::Taken,
        _ => Reply::After(over.clone()),
    });
    let pid = nginx.pid().to_string();
    let tool = Tool::start(&["--pid", &pid, "--otlp", &collector.url()], 1);
    let answered = wrk(nginx.port, "/", 32, 4);
    let resident = tool.resident();
    drop((is_loaded, nginx));
    let ended = tool.wait();
    let summary = ended.summary();
    println!("{summary:?}, {resident} bytes resident");
    assert!(
        (answered..answered + 64).contains(&summary.seen),
        "{answered} {summary:?}"
    );
    assert!(
        summary.written > 0 && summary.lost > 0 && resident < 128 << 20,
        "{summary:?} {resident}"
    );
    /* A batch whose answer has not come when the end gives up counts as lost, and was taken. */
    let taken = collector.logs("nginx.request").len() as u64;
    assert!(taken >= summary.written, "{taken} {summary:?}");
}
