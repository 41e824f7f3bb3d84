// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line without root: help, bad usage; and that the documentation tells of every key.

use std::process::Command;
use std::process::Output;

use super::common::tool::PROGRAM;

/// Runs it to its end.
fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).output().unwrap()
}

/// Check that help and version go to stdout and end with 0.
#[test]
fn help() {
    for args in [["--help"], ["-h"], ["--version"], ["-V"]] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}");
        assert!(output.stdout.starts_with(b"ngx-bpf") || output.stdout.starts_with(b"Tell"));
    }
}

/// Check that bad usage is one line on stderr and exit code 2.
#[test]
fn bad_usage() {
    for args in [
        &["--nonsense"][..],
        &["operand"],
        &["--pid", "0"],
        &["--pid", "-1"],
        &["--pid", "x"],
        &["--pid", "99999999999"],
        &["--count", "0"],
        &["--sample", "0"],
        &["--duration", "10"],
        &["--duration", "-1s"],
        &["--min-duration", "x"],
        &["--status", "600-500"],
        &["--status", ""],
        &["--method", "G T"],
        &["--format", "xml"],
        &["--json", "--format", "text"],
        &["-v", "-q"],
        &["--wait", "--pid", "1"],
        &["--output"],
        &["check", "--sample", "2"],
        &["check", "--pid", "0"],
        &["--json", "check"],
        &["help"],
    ] {
        let output = run(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
        assert!(stderr.starts_with("ngx-bpf: "), "{args:?}: {stderr}");
    }
}
