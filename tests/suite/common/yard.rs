// SPDX-License-Identifier: MIT OR Apache-2.0
//! Namespaces for one test: in there a tool without `--pid` finds nothing but what the test has
//! started, and all of that ends with the test.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Instant;

use tempfile::TempDir;

use super::PATIENCE;
use super::build::binary;
use super::nginx::Config;
use super::nginx::Nginx;
use super::program::open_to_all;
use super::program::write_program;
use super::tool::Tool;

/// Pid and mount namespaces, with a `/proc` and a folder.
pub struct Yard {
    /// Its first process ends when its input does, and takes all others with it.
    first: Child,
    /// What the first process is called out here.
    pid: u32,
    /// For files that a test makes.
    folder: TempDir,
}

impl Yard {
    /// Nothing runs in it.
    pub fn new() -> Self {
        let first = Command::new("unshare")
            .args(["--pid", "--mount", "--fork", "--mount-proc", "--kill-child"])
            .arg("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let children = format!("/proc/{0}/task/{0}/children", first.id());
        let end = Instant::now() + PATIENCE;
        let pid = loop {
            assert!(Instant::now() < end, "it has not started");
            let child = fs::read_to_string(&children).unwrap();
            let child = child.trim();
            let name = fs::read_to_string(format!("/proc/{child}/comm"));
            if name.is_ok_and(|name| name.trim() == "cat") {
                break child.parse().unwrap();
            }
            std::thread::yield_now();
        };
        let folder = TempDir::new().unwrap();
        open_to_all(folder.path());
        Self { first, pid, folder }
    }

    /// Its folder.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    /// A command that runs in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--pid", "--mount", "--target", &self.pid.to_string()])
            .arg(program);
        command
    }

    /// nginx with one worker in it.
    pub fn nginx(&self) -> Nginx {
        self.nginx_of(&binary())
    }

    /// The same with another binary.
    pub fn nginx_of(&self, binary: &Path) -> Nginx {
        let script = self.folder().join("start-nginx");
        let text = format!(
            "#!/bin/sh\nexec nsenter --pid --mount --target {} '{}' \"$@\"\n",
            self.pid,
            binary.display()
        );
        write_program(&script, text.as_bytes());
        Nginx::start(&Config {
            binary: script,
            namespace: true,
            ..Config::default()
        })
    }

    /// A program that calls itself an nginx master, and lives as long as the yard.
    pub fn stranger(&self, program: &Path, args: &[&str]) {
        let script = "program=$0; exec -a 'nginx: master process' \"$program\" \"$@\"";
        let mut command = self.command("bash");
        command.args(["-c", script]).arg(program).args(args);
        self.start(&mut command);
    }

    /// A program that lives as long as the yard.
    pub fn start(&self, command: &mut Command) {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        drop(command.spawn().unwrap());
    }

    /// The tool, in here.
    pub fn tool(&self, args: &[&str]) -> Tool {
        let mut command = self.command(super::tool::PROGRAM);
        let mut tool = Tool::spawn(command.args(args));
        tool.read_stdout();
        tool
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        drop(self.first.stdin.take());
        let _ = self.first.wait();
    }
}
