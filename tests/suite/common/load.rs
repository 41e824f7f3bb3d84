// SPDX-License-Identifier: MIT OR Apache-2.0
//! As many requests as nginx takes.

use std::process::Command;

/// Loads a port of 127.0.0.1 for a while. How many requests were answered.
pub fn wrk(port: u16, uri: &str, connections: u32, seconds: u32) -> u64 {
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")])
        .arg(format!("http://127.0.0.1:{port}{uri}"))
        .output()
        .expect("wrk is installed by make test");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .find_map(|line| line.split_once(" requests in "))
        .and_then(|(count, _)| count.trim().parse().ok())
        .unwrap_or_else(|| panic!("{text}"))
}
