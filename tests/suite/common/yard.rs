// SPDX-License-Identifier: MIT OR Apache-2.0
//! Namespaces for one test. A tool without `--pid` finds only what the test has started in them,
//! and all of that ends with the test.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use tempfile::TempDir;

use super::build::binary;
use super::nginx::Config;
use super::nginx::Nginx;
use super::program::children;
use super::program::open_to_all;
use super::program::write_program;
use super::tool::Tool;
use super::wait_for;

/// Pid and mount namespaces, with a `/proc` and a folder.
pub struct Yard {
    /// The first process. It ends when its input ends, and all other processes end with it.
    first: Child,
    /// The pid of the first process, outside of the namespace.
    pid: u32,
    folder: TempDir,
}

impl Yard {
    /// Makes empty namespaces.
    pub fn new() -> Self {
        let first = Command::new("unshare")
            .args(["--pid", "--mount", "--fork", "--mount-proc", "--kill-child"])
            .arg("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = wait_for(|| {
            let has_started = |child: &u32| {
                let name = fs::read_to_string(format!("/proc/{child}/comm"));
                name.is_ok_and(|name| name.trim() == "cat")
            };
            let child = children(first.id()).into_iter().find(has_started);
            child.ok_or_else(|| "the first process has not started".to_owned())
        });
        let folder = TempDir::new().unwrap();
        open_to_all(folder.path());
        Self { first, pid, folder }
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    /// Returns a command that runs in the namespaces.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--pid", "--mount", "--target", &self.pid.to_string()])
            .arg(program);
        command
    }

    /// Starts an nginx with one worker.
    pub fn nginx(&self) -> Nginx {
        self.nginx_of(&binary())
    }

    /// Starts an nginx with one worker, of another binary.
    pub fn nginx_of(&self, binary: &Path) -> Nginx {
        self.nginx_by(&format!("'{}' \"$@\"", binary.display()))
    }

    /// Starts an nginx with one worker that strace stops in the first call of this system call.
    pub fn nginx_stopped_in(&self, call: &str) -> Nginx {
        self.nginx_by(&format!(
            "strace -D -f -qq -o /dev/null -e trace={call} -e inject={call}:signal=STOP:when=1 '{}' \"$@\"",
            binary().display()
        ))
    }

    /// Starts an nginx with one worker in a mount namespace of its own, on an overlay over the folder
    /// of a binary, as in a container.
    pub fn container(&self, binary: &Path) -> Nginx {
        let (folder, name) = (binary.parent().unwrap(), binary.file_name().unwrap());
        self.nginx_by(&format!(
            "unshare --mount sh -ec 'mount -t tmpfs none /mnt; mkdir /mnt/upper /mnt/work /mnt/root
             mount -t overlay none /mnt/root -o lowerdir={},upperdir=/mnt/upper,workdir=/mnt/work
             exec /mnt/root/{} \"$@\"' sh \"$@\"",
            folder.display(),
            Path::new(name).display()
        ))
    }

    /// Starts an nginx for a steady load, as `Nginx::steady()` does.
    pub fn steady(&self) -> Option<Nginx> {
        Nginx::steady(Config {
            binary: self.script(&format!("'{}' \"$@\"", binary().display())),
            namespace: true,
            ..Config::default()
        })
    }

    /// Starts an nginx with one worker by a command of a shell.
    fn nginx_by(&self, command: &str) -> Nginx {
        Nginx::start(&Config {
            binary: self.script(command),
            namespace: true,
            ..Config::default()
        })
    }

    /// Writes a script that runs a command of a shell in the namespaces.
    fn script(&self, command: &str) -> PathBuf {
        let mut script = tempfile::Builder::new();
        let script = script.prefix("start-nginx-").tempfile_in(self.folder());
        let script = script.unwrap().into_temp_path().keep().unwrap();
        let text = format!(
            "#!/bin/sh\nexec nsenter --pid --mount --target {} {command}\n",
            self.pid
        );
        write_program(&script, text.as_bytes());
        script
    }

    /// Starts a program that calls itself an nginx master. It lives as long as the namespaces.
    pub fn stranger(&self, program: &Path, args: &[&str]) {
        let script = "program=$0; exec -a 'nginx: master process' \"$program\" \"$@\"";
        let mut command = self.command("bash");
        command.args(["-c", script]).arg(program).args(args);
        self.start(&mut command);
    }

    /// Starts a program that lives as long as the namespaces.
    pub fn start(&self, command: &mut Command) {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        drop(command.spawn().unwrap());
    }

    /// Starts the tool in the namespaces.
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
