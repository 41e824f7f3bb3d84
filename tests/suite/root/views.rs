// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands that show records, of an nginx that they trace.

use std::process::Command;

use serde_json::Value;

use crate::suite::common::build::REWRITE;
use crate::suite::common::build::is_built_without;
use crate::suite::common::client::Client;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::screen::Screen;
use crate::suite::common::tool::PROGRAM;
use crate::suite::common::tool::Tool;
use crate::suite::common::upstream::Upstream;
use crate::suite::common::wait_until;

/// A server with one location that waits, and one that fails.
const HTTP: &str = "
    server {
        listen 127.0.0.1:{port};
        location / { return 200 'hello\\n'; }
        location /slow/ { proxy_pass http://127.0.0.1:{upstream}; }
        location /gone/ { proxy_pass http://127.0.0.1:9; }
    }";

/// The requests that are sent: the uri, and the status.
const REQUESTS: [(&str, u32); 4] = [
    ("/", 200),
    ("/slow/wait-200", 200),
    ("/gone/", 502),
    ("/slow/", 200),
];

/// Runs a command until it has seen all requests, and returns its output.
fn shown(args: &[&str]) -> String {
    let upstream = Upstream::start();
    let nginx = Nginx::with(HTTP, upstream.port);
    let (pid, count) = (nginx.pid().to_string(), REQUESTS.len().to_string());
    let mut command = Command::new(PROGRAM);
    command.args(args).args(["--pid", &pid, "--count", &count]);
    command.env("LANG", "C.UTF-8").env_remove("LC_ALL");
    let mut tool = Tool::spawn(&mut command);
    tool.read_stdout();
    tool.wait_ready(1);
    let mut client = Client::connect(nginx.port);
    for (uri, status) in REQUESTS {
        assert_eq!(client.get(uri).status, status, "{uri}");
    }
    let ended = tool.wait();
    ended.assert_clean();
    assert!(
        ended.stderr.last().unwrap().contains("4 requests, 0 lost"),
        "{ended:?}"
    );
    ended.stdout.join("\n")
}

/// Check the numbers of a summary of traced requests: what was sent, and the delay of the upstream where it belongs.
#[test]
fn summary() {
    if is_built_without(REWRITE) {
        return;
    }
    let numbers: Value = serde_json::from_str(&shown(&["summary", "--json"])).unwrap();
    assert_eq!(numbers["requests"], 4);
    assert_eq!(numbers["statuses"]["200"], 3);
    assert_eq!(numbers["statuses"]["502"], 1);
    assert_eq!(numbers["failed"], 1);
    let groups = numbers["groups"].as_array().unwrap();
    assert_eq!(groups[0]["name"], "/slow/");
    let wait = numbers["stages"]["upstream_wait"]["max"].as_u64().unwrap();
    assert!((200_000_000..1_000_000_000).contains(&wait), "{wait}");
    assert_eq!(numbers["slowest"][0]["request_uri"], "/slow/wait-200");
    let incident = &numbers["incidents"][0];
    assert_eq!(
        (&incident["status"], &incident["failure"]),
        (&502.into(), &"connect_error".into())
    );
    assert_eq!(numbers["lost"], serde_json::json!({}));
}

/// Check the screen of a summary.
#[test]
fn summary_screen() {
    if is_built_without(REWRITE) {
        return;
    }
    let screen = shown(&["summary"]);
    let first = screen.lines().next().unwrap();
    assert!(
        first.starts_with("nginx") && first.contains("1 worker: 4 requests in "),
        "{screen}"
    );
    assert!(first.ends_with("; lost 0"), "{screen}");
    assert!(
        screen.contains("127.0.0.1:9 refused the connection"),
        "{screen}"
    );
    assert!(
        screen.lines().all(|line| line.chars().count() <= 80),
        "{screen}"
    );
}

/// Check the screen of an nginx that is traced: its row, the way to one request, suspending, and leaving.
#[test]
fn top() {
    if is_built_without(REWRITE) {
        return;
    }
    let Some(screen) = Screen::open(100, 30) else {
        return;
    };
    let upstream = Upstream::start();
    let nginx = Nginx::with(HTTP, upstream.port);
    screen.line(&format!("$P top --pid {}", nginx.pid()));
    screen.wait_for("lost 0");
    let mut client = Client::connect(nginx.port);
    assert_eq!(client.get("/slow/wait-200").status, 200);
    screen.wait_for("/slow/");
    screen.keys(&["Enter"]);
    screen.wait_for("/slow/wait-200");
    screen.keys(&["Enter"]);
    screen.wait_for("wait for header");
    screen.keys(&["C-z"]);
    screen.wait_for("Stopped");
    screen.line("clear; fg");
    screen.wait_for("wait for header");
    screen.keys(&["q"]);
    screen.wait_for("1 request, 0 lost (1 seen, 0 filtered)");
    screen.assert_restored();
}

/// Check the screen of requests in flight, that of the command and that of `top`, with a request that hangs.
#[test]
fn in_flight() {
    let Some(screen) = Screen::open(100, 30) else {
        return;
    };
    let upstream = Upstream::start();
    let nginx = Nginx::with(HTTP, upstream.port);
    let mut client = Client::connect(nginx.port);
    client.send("GET /slow/hang HTTP/1.1\r\nHost: a\r\n\r\n");
    let pid = nginx.pid();
    let row = format!("waiting 127.0.0.1:{} ", upstream.port);
    let is_shown = |seen: &String| {
        let mut lines = seen.lines();
        seen.contains("1 request in flight")
            && lines.any(|line| line.contains(&row) && line.ends_with("GET /slow/hang"))
            && seen.contains("by state   waiting 1")
    };
    wait_until("it does not hang", || {
        screen.line(&format!("clear; $P inflight --pid {pid}"));
        screen.wait_for("by worker");
        is_shown(&screen.seen())
    });
    screen.line(&format!("clear; $P top --pid {pid}"));
    screen.wait_for("LOCATION");
    screen.keys(&["i"]);
    screen.wait(is_shown);
    screen.keys(&["Escape"]);
    screen.wait(|seen| seen.contains("LOCATION") && !seen.contains("by state"));
    screen.keys(&["q"]);
    screen.assert_restored();
}

/// Check the lines for people against what was sent.
#[test]
fn pretty() {
    if is_built_without(REWRITE) {
        return;
    }
    let lines = shown(&["--format", "pretty"]);
    let lines: Vec<_> = lines.lines().collect();
    assert_eq!(lines.len(), REQUESTS.len());
    for (line, (uri, status)) in lines.iter().zip(REQUESTS) {
        assert!(
            line.contains(&format!(" {status} GET ")) && line.contains(uri),
            "{line}"
        );
        assert_eq!(line.starts_with('!'), status == 502, "{line}");
    }
    assert!(lines[1].ends_with("██████████"), "{}", lines[1]);
}
