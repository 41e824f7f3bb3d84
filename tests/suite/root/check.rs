// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx-bpf check`: what it finds is true, and tracing does as it says.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use serde_json::Value;

use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::tool::PROGRAM;

/// Runs `ngx-bpf check` to its end.
fn check(args: &[&str]) -> Output {
    let output = Command::new(PROGRAM).arg("check").args(args).output();
    output.unwrap()
}

/// The last line, which tells whether tracing would work.
fn last_line(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().last().unwrap_or_default().to_owned()
}

/// Check that everything is found for a running nginx, and that the probes are on instructions that
/// the kernel emulates.
#[test]
fn works() {
    let nginx = Nginx::start(&Config {
        workers: 2,
        ..Config::default()
    });
    let pid = nginx.pid().to_string();
    let text = check(&["--pid", &pid]);
    assert_eq!(text.status.code(), Some(0));
    assert_eq!(last_line(&text), "tracing would work");
    let json = check(&["--pid", &pid, "--json"]);
    assert_eq!(json.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(report["works"], true);
    assert_eq!(
        report["kernel"]["missing_capabilities"],
        serde_json::json!([])
    );
    let found = &report["nginx"][0];
    assert_eq!(found["processes"][0]["pid"], nginx.pid());
    let mut workers = nginx.workers();
    workers.sort_unstable();
    assert_eq!(found["processes"][0]["workers"], serde_json::json!(workers));
    assert_eq!(found["layout"], "table");
    let probes = found["probes"].as_array().unwrap();
    assert_eq!(probes.len(), 3);
    assert!(
        probes.iter().all(|probe| probe["emulated"] == true),
        "{probes:#?}"
    );
}

/// Check that what is in the way is told, last, with exit code 1.
#[test]
fn does_not_work() {
    let output = check(&["--pid", "4194304"]);
    assert_eq!(output.status.code(), Some(1));
    let line = last_line(&output);
    assert!(
        line.starts_with("tracing would not work: no process with pid 4194304"),
        "{line}"
    );

    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let output = check(&["--pid", &child.id().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let line = last_line(&output);
    assert!(line.contains("not nginx"), "{line}");
    drop(child.stdin.take());
    child.wait().unwrap();
}

/// Check that somebody who may not trace is told what is missing.
#[test]
fn without_capabilities() {
    let folder = tempfile::TempDir::new().unwrap();
    crate::suite::common::nginx::open_to_all(folder.path());
    let copy = folder.path().join("ngx-bpf");
    std::fs::copy(PROGRAM, &copy).unwrap();
    crate::suite::common::nginx::open_to_all(&copy);
    let output = Command::new(copy)
        .args(["check"])
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line = last_line(&output);
    assert_eq!(
        line,
        "tracing would not work: missing CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE: run as root"
    );
}
