// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bad input: one line on stderr, the right exit code, nothing attached, nginx untouched.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::process::Stdio;

use tempfile::TempDir;

use crate::suite::common::client::Client;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::nginx::binary;
use crate::suite::common::nginx::open_to_all;
use crate::suite::common::tool::PROGRAM;

/// Runs it to its end. What it complains of, in one line, with exit code 1.
fn complaint(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(output.stdout.is_empty());
    let mut lines = stderr.lines();
    let line = lines.next().unwrap().to_owned();
    assert_eq!(lines.next(), None, "{stderr}");
    line.strip_prefix("ngx-bpf: ").unwrap().to_owned()
}

/// The same with arguments only.
fn complaint_of(args: &[&str]) -> String {
    complaint(Command::new(PROGRAM).args(args))
}

/// Check a pid that nobody has, and one that was somebody's a moment ago.
#[test]
fn no_process() {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    for pid in ["4194304", &child.id().to_string()] {
        let line = complaint_of(&["--pid", pid]);
        assert!(
            line.starts_with(&format!("no process with pid {pid}")),
            "{line}"
        );
    }
}

/// Check processes that are not nginx: another program, and a thread of the kernel.
#[test]
fn not_nginx() {
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let line = complaint_of(&["--pid", &child.id().to_string()]);
    assert!(line.contains("can't be traced: not nginx"), "{line}");
    assert!(line.contains("/cat\""), "{line}");
    drop(child.stdin.take());
    child.wait().unwrap();
    let line = complaint_of(&["--pid", "2"]);
    assert!(
        line.starts_with("failed to open the program of pid 2"),
        "{line}"
    );
}

/// Check that a release that the table does not have is refused by name, even though everything
/// else of it fits, and that a layout from a file is used for it.
#[test]
fn unknown_version() {
    let folder = TempDir::new().unwrap();
    open_to_all(folder.path());
    let copy = folder.path().join("nginx");
    let mut bytes = fs::read(binary()).unwrap();
    let version = version_number(&bytes);
    let unknown = (version / 1000 * 1000 + 999).to_le_bytes();
    let version = version.to_le_bytes();
    let mut patched = 0;
    for at in 0..bytes.len() - 8 {
        if bytes[at..at + 8] == version {
            bytes[at..at + 8].copy_from_slice(&unknown);
            patched += 1;
        }
    }
    assert!(patched > 10, "{patched}");
    fs::write(&copy, bytes).unwrap();
    open_to_all(&copy);
    let nginx = Nginx::start(&Config {
        binary: copy,
        ..Config::default()
    });
    let pid = nginx.pid().to_string();
    let line = complaint_of(&["--pid", &pid]);
    assert!(line.starts_with("no layout known for nginx 1."), "{line}");
    assert!(line.contains(".999 (signature 8,4,8,"), "{line}");
    assert!(
        line.contains("build id ") && line.contains("--layout"),
        "{line}"
    );

    let broken = folder.path().join("layout");
    fs::write(&broken, "nginx x 1.2.3\n  ngx_str_t\n    len none\n").unwrap();
    let broken = broken.display().to_string();
    let line = complaint_of(&["--pid", &pid, "--layout", &broken]);
    assert!(line.contains("line 3"), "{line}");
    let line = complaint_of(&["--pid", &pid, "--layout", "/nowhere/layout"]);
    assert!(line.contains("/nowhere/layout"), "{line}");
    assert_eq!(Client::connect(nginx.port).get("/").status, 200);
}

/// The `nginx_version` that the modules of a binary carry, from the text that it prints.
fn version_number(bytes: &[u8]) -> u64 {
    let is_version = |text: &[u8]| text.starts_with(b"nginx/1.");
    let at = bytes.windows(8).position(is_version).unwrap() + 6;
    let in_version = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let text: Vec<u8> = bytes[at..].iter().copied().take_while(in_version).collect();
    String::from_utf8_lossy(&text)
        .split('.')
        .fold(0, |number, part| {
            number * 1000 + part.parse::<u64>().unwrap()
        })
}

/// Check that without capabilities it says which are missing.
#[test]
fn no_capabilities() {
    let nginx = Nginx::simple();
    let folder = TempDir::new().unwrap();
    open_to_all(folder.path());
    let copy = folder.path().join("ngx-bpf");
    fs::copy(PROGRAM, &copy).unwrap();
    open_to_all(&copy);
    let mut command = Command::new(copy);
    command
        .args(["--pid", &nginx.pid().to_string()])
        .uid(65534)
        .gid(65534);
    let line = complaint(&mut command);
    assert_eq!(
        line,
        "missing CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE: run as root"
    );
}

/// Check an output that can't be opened.
#[test]
fn output() {
    let nginx = Nginx::simple();
    let pid = nginx.pid().to_string();
    for path in ["/nowhere/log", "/"] {
        let line = complaint_of(&["--pid", &pid, "-o", path]);
        assert!(
            line.starts_with(&format!("failed to open \"{path}\"")),
            "{line}"
        );
    }
}
