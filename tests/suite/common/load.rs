// SPDX-License-Identifier: MIT OR Apache-2.0
//! As many requests as nginx takes.

use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use super::program::kill;

/// Requests one after the other on several connections, also on new ones when nginx closes them,
/// for as long as this lives.
pub struct Load(Child);

impl Load {
    /// On a port of 127.0.0.1.
    pub fn start(port: u16, uri: &str) -> Self {
        let child = Command::new("wrk")
            .args(["-t1", "-c16", "-d10m"])
            .arg(format!("http://127.0.0.1:{port}{uri}"))
            .stdout(Stdio::null())
            .spawn();
        Self(child.expect("wrk is installed by make test"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        kill("INT", self.0.id());
        let _ = self.0.wait();
    }
}

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
