// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tool under test, run as a user runs it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::mpsc::Receiver;

use serde_json::Value;

use super::PATIENCE;
use super::lines;
use super::program::children;
use super::program::kill;
use super::record::Blocked;
use super::record::Connection;
use super::record::Line;
use super::record::Lost;
use super::record::Record;
use super::wait_right;
use super::wait_until;

/// The program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_ngx-bpf");

/// A running tool.
pub struct Tool {
    child: Child,
    /// Lines of stdout. `None` when a test reads it itself.
    stdout: Option<Receiver<String>>,
    stderr: Receiver<String>,
    /// Lines of stderr that were read.
    said: Vec<String>,
}

/// The output and the status of a tool that has ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: Vec<String>,
    /// Lines of stderr, except those in `inferred`.
    pub stderr: Vec<String>,
    /// Messages about inferred layouts, which the tool prints for some builds of the suite.
    pub inferred: Vec<String>,
}

impl Tool {
    /// Traces this process with JSON records, and returns when tracing has started.
    pub fn trace(pid: u32) -> Self {
        Self::start(&["--pid", &pid.to_string(), "--json"], 1)
    }

    /// Starts the tool, and returns when it traces this number of nginx instances.
    pub fn start(args: &[&str], targets: usize) -> Self {
        let mut tool = Self::spawn(Command::new(PROGRAM).args(args));
        tool.read_stdout();
        tool.wait_ready(targets);
        tool
    }

    /// Traces this process with JSON records, and does not read them yet. Tracing may not have
    /// started.
    pub fn unread(pid: u32) -> Self {
        Self::spawn(Command::new(PROGRAM).args(["--pid", &pid.to_string(), "--json"]))
    }

    /// Starts the tool, and does not read its stdout yet. `NGX_BPF_TEST_SOCKETS` sets the socket
    /// source, unless the test chooses one or another program starts the tool.
    pub fn spawn(command: &mut Command) -> Self {
        if let Some(source) = std::env::var_os("NGX_BPF_TEST_SOCKETS")
            && command.get_program() == PROGRAM
            && !command.get_args().any(|arg| arg == "--sockets")
        {
            command.arg("--sockets").arg(source);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = lines(child.stderr.take().unwrap());
        Self {
            child,
            stdout: None,
            stderr,
            said: Vec::new(),
        }
    }

    /// Waits for the line that tracing has started, once for each nginx.
    pub fn wait_ready(&mut self, targets: usize) {
        for _ in 0..targets {
            self.wait_for_message(": tracing ");
        }
    }

    /// Waits for a line on stderr that contains `text`.
    pub fn wait_for_message(&mut self, text: &str) -> String {
        loop {
            match self.stderr.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!("the tool has not printed {text:?}: {:?}", self.said),
            }
        }
    }

    /// Starts to read its stdout.
    pub fn read_stdout(&mut self) {
        self.stdout = Some(lines(self.take_stdout()));
    }

    /// Returns its stdout, for a test that reads it itself, or closes it.
    pub fn take_stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the tool's pid when another program has started it.
    pub fn child(&self) -> u32 {
        children(self.pid())[0]
    }

    /// Waits until it has opened a file whose path ends so.
    pub fn wait_opened(&self, path: &str) {
        wait_until(&format!("the tool has not opened {path}"), || {
            let files = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
            let mut links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
            links.any(|link| link.ends_with(path))
        });
    }

    /// Returns the workers of the connections that it keeps in the kernel.
    pub fn known_workers(&self) -> BTreeSet<u32> {
        let entries = self.map_entries("connections");
        let pids = entries.iter().map(|entry| entry["key"]["pid"].as_u64());
        pids.map(|pid| u32::try_from(pid.unwrap()).unwrap())
            .collect()
    }

    /// Waits until these workers satisfy a condition.
    pub fn wait_known(&self, is_right: impl Fn(&BTreeSet<u32>) -> bool) {
        wait_right(|| self.known_workers(), is_right);
    }

    /// Returns the entries of the one map that has this name, as bpftool shows their types.
    pub fn map_entries(&self, name: &str) -> Vec<Value> {
        let mut maps = self.bpf_ids("map");
        maps.retain(|id| bpftool(&["map", "show", "id", id])["name"] == name);
        assert_eq!(maps.len(), 1, "{maps:?}");
        let entries = bpftool(&["map", "dump", "id", maps.first().unwrap()]);
        let entries = entries.as_array().unwrap().iter();
        entries.map(|entry| entry["formatted"].clone()).collect()
    }

    /// Waits until the map with this name has a number of entries.
    pub fn wait_map(&self, name: &str, count: usize) {
        wait_right(|| self.map_entries(name), |entries| entries.len() == count);
    }

    /// Returns the ids of its objects in the kernel: `map`, `prog` or `link`.
    pub fn bpf_ids(&self, kind: &str) -> BTreeSet<String> {
        self.bpf_ids_of(self.pid(), kind)
    }

    /// Returns the same when another program has started the tool.
    pub fn bpf_ids_of(&self, pid: u32, kind: &str) -> BTreeSet<String> {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
        descriptors
            .filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok())
            .filter_map(|text| {
                let mut lines = text.lines();
                let id = lines.find_map(|line| line.strip_prefix(&format!("{kind}_id:")))?;
                Some(id.trim().to_owned())
            })
            .collect()
    }

    /// Returns the number of instructions that the verifier processed in each of its programs; 0 before
    /// Linux 5.16, which does not say.
    pub fn verified_instructions(&self) -> BTreeMap<String, u64> {
        let descriptors = fs::read_dir(format!("/proc/{}/fdinfo", self.pid())).unwrap();
        let infos = descriptors.filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok());
        let programs = infos.filter_map(|text| {
            let value = |key| text.lines().find_map(|line| line.strip_prefix(key));
            value("prog_type:")?;
            let verified =
                value("verified_insns:").map_or(0, |count| count.trim().parse().unwrap());
            let program = bpftool(&["prog", "show", "id", value("prog_id:")?.trim()]);
            Some((program["name"].as_str().unwrap().to_owned(), verified))
        });
        programs.collect()
    }

    /// Returns its resident memory, in bytes.
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS")
    }

    /// Returns a number of its memory, in bytes, by the kernel's name for it.
    pub fn memory(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let mut values = status.lines().filter_map(|line| line.split_once(':'));
        let value = values.find(|(found, _)| *found == name).unwrap().1;
        let kib = value.trim().strip_suffix(" kB").unwrap();
        kib.parse::<u64>().unwrap() << 10
    }

    pub fn signal(&self, name: &str) {
        kill(name, self.pid());
    }

    /// Asks the tool to end, and waits for it.
    pub fn stop(self) -> Ended {
        self.signal("INT");
        self.wait()
    }

    /// Waits until it ends.
    pub fn wait(mut self) -> Ended {
        let stdout = self.stdout.iter().flat_map(|lines| lines.iter()).collect();
        let status = self.child.wait().unwrap();
        let mut stderr = std::mem::take(&mut self.said);
        stderr.extend(self.stderr.iter());
        let is_inferred = |line: &mut String| line.contains("is inferred from its code");
        let inferred = stderr.extract_if(.., is_inferred).collect();
        Ended {
            status,
            stdout,
            stderr,
            inferred,
        }
    }
}

/// Returns the report of `ngx-bpf check` about a process.
pub fn check(pid: u32, args: &[&str]) -> Value {
    let output = Command::new(PROGRAM)
        .args(["check", "--json", "--pid", &pid.to_string()])
        .args(args)
        .output();
    serde_json::from_slice(&output.unwrap().stdout).unwrap()
}

/// Runs bpftool, and returns its JSON output.
pub fn bpftool(args: &[&str]) -> Value {
    let output = Command::new("bpftool").arg("--json").args(args).output();
    let output = output.expect("bpftool is installed by make test");
    serde_json::from_slice(&output.stdout).unwrap()
}

impl Drop for Tool {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The numbers of the last line on stderr.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    pub written: u64,
    pub lost: u64,
    pub seen: u64,
    pub filtered: u64,
}

impl Ended {
    /// Returns the records of requests, in order.
    pub fn records(&self) -> Vec<Record> {
        self.lines()
            .into_iter()
            .filter_map(|line| match line {
                Line::Request(record) => Some(record),
                _ => None,
            })
            .collect()
    }

    /// Returns the records of connections, in order.
    pub fn connections(&self) -> Vec<Connection> {
        let lines = self.lines().into_iter();
        lines
            .filter_map(|line| match line {
                Line::Connection(connection) => Some(*connection),
                _ => None,
            })
            .collect()
    }

    /// Returns the records of losses, in order.
    pub fn lost(&self) -> Vec<Lost> {
        self.lines()
            .into_iter()
            .filter_map(|line| match line {
                Line::Lost(lost) => Some(lost),
                _ => None,
            })
            .collect()
    }

    /// Returns the records of blocked workers, in order.
    pub fn blocked(&self) -> Vec<Blocked> {
        self.lines()
            .into_iter()
            .filter_map(|line| match line {
                Line::Blocked(blocked) => Some(*blocked),
                _ => None,
            })
            .collect()
    }

    /// Returns every line of stdout, which must all be records.
    fn lines(&self) -> Vec<Line> {
        self.stdout.iter().map(|line| Line::parse(line)).collect()
    }

    /// Returns the numbers of the last line of stderr, and asserts that they add up.
    pub fn summary(&self) -> Summary {
        let line = self.stderr.last().expect("a last line");
        let numbers: Vec<u64> = line
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|part| part.parse().ok())
            .collect();
        let [written, lost, seen, filtered] = numbers[..] else {
            panic!("no summary: {line}");
        };
        assert_eq!(seen, written + filtered + lost, "{line}");
        Summary {
            written,
            lost,
            seen,
            filtered,
        }
    }

    /// Asserts that it ended as asked, and that nothing was lost.
    pub fn assert_clean(&self) {
        assert_eq!(self.status.code(), Some(0), "{:?}", self.stderr);
        assert_eq!(self.summary().lost, 0, "{:?}", self.stderr);
    }
}
