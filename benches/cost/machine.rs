// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where and when was measured, and what.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;

use jiff::Timestamp;

use crate::common::build::about;
use crate::common::build::binary;
use crate::common::sources::project;

/// Returns what is known of this machine, each as its name and its value.
pub fn facts() -> Vec<(&'static str, String)> {
    let cpus = available_parallelism().map_or(0, usize::from);
    let cpu = value_in("/proc/cpuinfo", "model name\t: ").unwrap_or_else(|| "CPU".to_owned());
    let system = value_in("/etc/os-release", "PRETTY_NAME=").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let nginx = about(&binary());
    let nginx = nginx.lines().next().unwrap_or_default();
    let nginx = nginx.trim_start_matches("nginx version: ");
    let date = Timestamp::now().strftime("%Y-%m-%d").to_string();
    let mut facts = vec![
        ("date", date),
        ("CPUs", format!("{cpus} of {cpu}")),
        (
            "system",
            format!("{}, Linux {}", system.trim_matches('"'), kernel.trim()),
        ),
        ("nginx", format!("{nginx} ({})", binary().display())),
    ];
    if let Some(commit) = commit() {
        facts.push(("commit", commit));
    }
    facts
}

/// Returns the rest of the first line of a file that begins so.
fn value_in(path: impl AsRef<Path>, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(value.to_owned())
}

/// Returns the commit that was built, and whether files differ from it. `None` outside of a repository.
fn commit() -> Option<String> {
    let output = Command::new("git")
        .args([
            "describe",
            "--always",
            "--dirty",
            "--abbrev=10",
            "--exclude=*",
        ])
        .current_dir(project())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
