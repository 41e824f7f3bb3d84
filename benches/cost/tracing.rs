// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the tool is started while nginx is measured.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::nginx::Nginx;
use crate::common::ports::free_port;
use crate::common::tool::PROGRAM;
use crate::common::tool::Tool;

/// The socket source for kernels that have no other.
pub const SYSTEM_CALLS: [&str; 2] = ["--sockets", "syscall"];

/// Starts the tool with the options that an operator would use.
pub fn tool(nginx: &Nginx, args: &[&str]) -> Tool {
    of_build(PROGRAM, nginx, args)
}

/// Starts another build of the tool in the same way.
pub fn of_build(program: &str, nginx: &Nginx, args: &[&str]) -> Tool {
    let file = nginx.prefix().join("records.json");
    attach(program, nginx.pid(), &file, args)
}

/// Returns the build that is measured in the same rounds as this one, if `NGX_BPF_BENCH_BEFORE` names one.
pub fn build_before() -> Option<String> {
    std::env::var("NGX_BPF_BENCH_BEFORE").ok()
}

/// Starts a build of the tool on this nginx, and returns when it traces.
pub fn attach(program: &str, pid: u32, file: &Path, args: &[&str]) -> Tool {
    let _ = fs::remove_file(file);
    let mut tool = Tool::spawn(
        Command::new(program)
            .args(["--json", "-p", &pid.to_string(), "-o"])
            .arg(file)
            .args(args),
    );
    tool.wait_ready(1);
    tool
}

/// Starts a build that serves metrics and writes its records nowhere. There is no option that leaves them out.
pub fn metrics(program: &str, nginx: &Nginx) -> Tool {
    let mut tool = Tool::spawn(
        Command::new(program)
            .args(["-p", &nginx.pid().to_string(), "-o", "/dev/null"])
            .args(["--metrics", &free_port().to_string()]),
    );
    tool.wait_ready(1);
    tool
}
