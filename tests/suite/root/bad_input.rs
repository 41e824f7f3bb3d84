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
use crate::suite::common::tool::Tool;

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
/// else of it fits.
#[test]
fn unknown_version() {
    let version = version(&fs::read(binary()).unwrap());
    let (branch, _) = version.rsplit_once('.').unwrap();
    let unknown = format!("{branch}.9");
    let nginx = Patched::start(
        &version,
        &[
            (
                &number(&version).to_le_bytes(),
                &number(&unknown).to_le_bytes(),
            ),
            (
                format!("nginx/{version}").as_bytes(),
                format!("nginx/{unknown}").as_bytes(),
            ),
        ],
    );
    let pid = nginx.nginx.pid().to_string();
    let line = complaint_of(&["--pid", &pid]);
    let expected = format!("no layout known for nginx {unknown} (signature 8,4,8,");
    assert!(line.starts_with(&expected), "{line}");
    assert!(
        line.contains("build id ") && line.contains("--layout"),
        "{line}"
    );
    nginx.assert_untouched();
}

/// Check that a fork is not read as the nginx that it says to be compatible with.
#[test]
fn fork() {
    let version = version(&fs::read(binary()).unwrap());
    let nginx = Patched::start(
        &version,
        &[(
            format!("\0nginx/{version}").as_bytes(),
            format!("\0Angie/{version}").as_bytes(),
        )],
    );
    let line = complaint_of(&["--pid", &nginx.nginx.pid().to_string()]);
    let expected = format!("no layout known for Angie/{version}, which is nginx {version} (");
    assert!(line.starts_with(&expected), "{line}");
    nginx.assert_untouched();
}

/// Check layouts from files: broken ones name the line, one that lacks a member names it, and one
/// that is whole is used.
#[test]
fn layout_file() {
    let nginx = Nginx::simple();
    let pid = nginx.pid().to_string();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("layout").display().to_string();
    let complaint = |text: &str| {
        fs::write(&file, text).unwrap();
        complaint_of(&["--pid", &pid, "--layout", &file])
    };
    let line = complaint("nginx x 1.2.3\n  ngx_str_t\n    len none\n");
    assert!(line.contains("line 3"), "{line}");
    let line = complaint("nginx x 1.2.3\n");
    assert!(line.contains("has nothing for nginx 1."), "{line}");
    let table = include_str!("../../../nginx_headers/layouts.txt");
    let line = complaint(&table.replace("    request_length", "    request_width"));
    assert!(
        line.contains("the layout has no ngx_http_request_s.request_length"),
        "{line}"
    );
    let line = complaint_of(&["--pid", &pid, "--layout", "/nowhere/layout"]);
    assert!(line.contains("/nowhere/layout"), "{line}");
    fs::write(&file, table).unwrap();
    let tool = Tool::start(&["--json", "--pid", &pid, "--layout", &file], 1);
    assert_eq!(Client::connect(nginx.port).get("/").status, 200);
    drop(nginx.quit());
    tool.wait().assert_clean();
}

/// An nginx with some of its bytes changed.
struct Patched {
    nginx: Nginx,
    _folder: TempDir,
}

impl Patched {
    /// Each of the texts must be there.
    fn start(version: &str, changes: &[(&[u8], &[u8])]) -> Self {
        let folder = TempDir::new().unwrap();
        open_to_all(folder.path());
        let copy = folder.path().join("nginx");
        let mut bytes = fs::read(binary()).unwrap();
        for (from, to) in changes {
            assert_eq!(from.len(), to.len(), "{version}");
            let places: Vec<usize> = (0..bytes.len() - from.len())
                .filter(|at| bytes[*at..].starts_with(from))
                .collect();
            assert!(!places.is_empty(), "{version}");
            for at in places {
                bytes[at..at + to.len()].copy_from_slice(to);
            }
        }
        fs::write(&copy, bytes).unwrap();
        open_to_all(&copy);
        let nginx = Nginx::start(&Config {
            binary: copy,
            ..Config::default()
        });
        Self {
            nginx,
            _folder: folder,
        }
    }

    /// Checks that it still serves.
    fn assert_untouched(&self) {
        assert_eq!(Client::connect(self.nginx.port).get("/").status, 200);
    }
}

/// The version that a binary prints.
fn version(bytes: &[u8]) -> String {
    let is_version = |text: &[u8]| text.starts_with(b"\0nginx/1.");
    let at = bytes.windows(9).position(is_version).unwrap() + 7;
    let in_version = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let text: Vec<u8> = bytes[at..].iter().copied().take_while(in_version).collect();
    String::from_utf8(text).unwrap()
}

/// The `nginx_version` of its modules.
fn number(version: &str) -> u64 {
    version.split('.').fold(0, |number, part| {
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
