// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bad input leads to one line on stderr and the right exit code. Nothing is attached, and nginx is
//! unchanged.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use tempfile::TempDir;

use crate::suite::common::client::Client;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::program::copy_program;
use crate::suite::common::program::make_fifo;
use crate::suite::common::program::open_to_all;
use crate::suite::common::tool::PROGRAM;
use crate::suite::common::tool::Tool;

/// Runs a command, asserts that it ends with exit code 1, and returns the one line that it prints.
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

/// Does the same with ngx-bpf and these arguments.
fn complaint_of(args: &[&str]) -> String {
    complaint(Command::new(PROGRAM).args(args))
}

/// Check a pid that never existed, and the pid of a process that has just ended.
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

/// Check processes that are not nginx: another program, and a kernel thread.
#[test]
fn not_nginx() {
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let line = complaint_of(&["--pid", &child.id().to_string()]);
    assert!(line.contains("can't be traced: not nginx"), "{line}");
    assert!(line.contains("/cat\""), "{line}");
    drop(child.stdin.take());
    child.wait().unwrap();
    /* A pid namespace has no kernel thread. */
    if fs::read_to_string("/proc/2/comm").ok().as_deref() != Some("kthreadd\n") {
        println!("SKIP this machine: pid 2 is not a kernel thread here");
        return;
    }
    let line = complaint_of(&["--pid", "2"]);
    assert!(
        line.starts_with("failed to open the program of pid 2"),
        "{line}"
    );
}

/// Check several pids of which some do not exist, or belong to another program. Each of these is
/// reported in a line of its own, and the nginx among them is traced. Without an nginx all are
/// reported in one line.
#[test]
fn pids_that_are_no_nginx() {
    let nginx = Nginx::simple();
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let (pid, cat) = (nginx.pid().to_string(), child.id().to_string());
    let gone = "4194304";
    let tool = Tool::start(&["--json", "--pid", gone, &pid, "-p", &cat], 1);
    assert_eq!(Client::connect(nginx.port).get("/").status, 200);
    let line = complaint_of(&["--pid", gone, &cat]);
    assert!(line.starts_with("no process with pid 4194304: "), "{line}");
    assert!(line.contains(&format!("; pid {cat} (\"")), "{line}");
    drop(nginx.quit());
    let ended = tool.wait();
    ended.assert_clean();
    assert_eq!(ended.records().len(), 1);
    let [first, second, ..] = &ended.stderr[..] else {
        panic!("{ended:?}");
    };
    assert!(first.contains("no process with pid 4194304"), "{first}");
    assert!(second.contains(&format!("pid {cat} (\"")), "{second}");
    assert_eq!(ended.stderr.len(), 4, "{ended:?}");
    drop(child.stdin.take());
    child.wait().unwrap();
}

/// Check layout files: the message about a broken file has the line number, the one about a missing
/// member names it, and a complete file is used.
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
    assert!(line.contains(": print one with `ngx-bpf layout`"), "{line}");
    let table = include_str!("../../../crates/nginx-binary/layouts.txt");
    let line = complaint(&table.replace("    request_length", "    request_width"));
    assert!(
        line.contains("\" has no ngx_http_request_s.request_length, which is read: print one"),
        "{line}"
    );
    let line = complaint_of(&["--pid", &pid, "--layout", "/nowhere/layout"]);
    assert!(line.contains("/nowhere/layout"), "{line}");
    let shifts = "    +65535 PCRE\n".repeat(2000);
    let line = complaint(&format!("nginx x 1.2.3\n  s\n{shifts}"));
    assert!(line.contains("more than 1000 lines of s"), "{line}");
    let huge = fs::File::create(&file).unwrap();
    huge.set_len(1 << 40).unwrap();
    for option in ["--layout", "--debug-info"] {
        let line = complaint_of(&["--pid", &pid, option, &file]);
        let expected = line.contains("has more than") || line.contains("exceed the limit");
        assert!(expected, "{line}");
    }
    fs::remove_file(&file).unwrap();
    fs::write(&file, table).unwrap();
    let tool = Tool::start(&["--json", "--pid", &pid, "--layout", &file], 1);
    assert_eq!(Client::connect(nginx.port).get("/").status, 200);
    drop(nginx.quit());
    tool.wait().assert_clean();
}

/// Check that an option refuses a file that is not regular, and does not wait for it: a pipe
/// without a writer, a device, a folder.
#[test]
fn no_regular_file() {
    let nginx = Nginx::simple();
    let pid = nginx.pid().to_string();
    let folder = TempDir::new().unwrap();
    let pipe = folder.path().join("pipe").display().to_string();
    make_fifo(Path::new(&pipe));
    for path in [&pipe, "/dev/zero", "/"] {
        for option in ["--layout", "--debug-info"] {
            let line = complaint_of(&["--pid", &pid, option, path]);
            assert!(line.ends_with("not a regular file"), "{line}");
        }
        let line = complaint_of(&["layout", path]);
        assert!(line.ends_with("not a regular file"), "{line}");
    }
}

/// Check that missing capabilities are named.
#[test]
fn no_capabilities() {
    let nginx = Nginx::simple();
    let folder = TempDir::new().unwrap();
    open_to_all(folder.path());
    let copy = folder.path().join("ngx-bpf");
    copy_program(Path::new(PROGRAM), &copy);
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
