// SPDX-License-Identifier: MIT OR Apache-2.0
//! What one part of the tool does not hold up: attaching to a new binary the records of the others, and
//! a reader that does not read everything else.

use std::fs;
use std::fs::File;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::ChildStdout;
use std::process::Command;
use std::thread::JoinHandle;

use tempfile::TempDir;

use crate::suite::common::build::DEBIAN;
use crate::suite::common::client::Client;
use crate::suite::common::load::Load;
use crate::suite::common::load::wrk;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::ports::free_port;
use crate::suite::common::program::copy_program;
use crate::suite::common::program::kill;
use crate::suite::common::program::make_fifo;
use crate::suite::common::program::open_to_all;
use crate::suite::common::record::Line;
use crate::suite::common::record::Record;
use crate::suite::common::tool::PROGRAM;
use crate::suite::common::tool::Tool;
use crate::suite::common::wait_for;
use crate::suite::common::wait_right;
use crate::suite::root::metrics::served;

/// Answers everything at once, and logs nothing.
const FAST: &str = "
    server { listen 127.0.0.1:{port}; access_log off; keepalive_requests 1000000;
             location / { return 200; } }";

/// An nginx whose binary another file can take the place of: this machine's own, because a script is not
/// replaced by another file.
struct Replaceable {
    /// It runs.
    nginx: Nginx,
    /// The path of its binary.
    path: PathBuf,
    /// Where that is.
    _folder: TempDir,
}

impl Replaceable {
    /// Starts a copy of nginx.
    fn start(http: &str, workers: usize) -> Self {
        let folder = TempDir::new().unwrap();
        open_to_all(folder.path());
        let path = folder.path().join("nginx");
        copy_program(Path::new(DEBIAN), &path);
        let nginx = Nginx::start(&Config {
            http,
            workers,
            binary: path.clone(),
            daemon: true,
            ..Config::default()
        });
        Self {
            nginx,
            path,
            _folder: folder,
        }
    }

    /// Upgrades nginx to another file, which has to be attached to. Returns the new master, and its
    /// first worker.
    fn upgrade(&self) -> (u32, u32) {
        let new = self.path.with_extension("new");
        copy_program(Path::new(DEBIAN), &new);
        fs::rename(&new, &self.path).unwrap();
        self.nginx.signal("USR2");
        self.nginx.wait_for_log("start new binary process ");
        let worker = self.nginx.wait_for_worker();
        (self.nginx.pid_of_file(), worker)
    }
}

/// Starts the tool, whose stdout is a pipe that no one reads.
fn unread(nginx: &Nginx, args: &[&str]) -> (Tool, ChildStdout) {
    let pid = nginx.pid().to_string();
    let mut tool = Tool::spawn(
        Command::new(PROGRAM)
            .args(["--json", "--pid", &pid])
            .args(args),
    );
    let stdout = tool.take_stdout();
    tool.wait_ready(1);
    (tool, stdout)
}

/// Waits until a pipe has no room for a line, so that who writes to it is blocked.
fn wait_blocked(pipe: &impl AsRawFd) {
    /* A pipe may leave the end of a page empty. */
    const ROOM: i32 = 8192;
    wait_for(|| {
        let mut waiting: i32 = 0;
        // SAFETY: the descriptor is open, and the pointer leads to an int that lives until it returns.
        let size = unsafe {
            libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut waiting);
            libc::fcntl(pipe.as_raw_fd(), libc::F_GETPIPE_SZ)
        };
        if size > 0 && waiting > size - ROOM {
            return Ok(());
        }
        Err(format!("{waiting} of {size} bytes"))
    });
}

/// Reads all lines, in a thread.
pub fn read_lines(stdout: ChildStdout) -> JoinHandle<Vec<Line>> {
    std::thread::spawn(move || {
        let lines = BufReader::new(stdout).lines();
        lines.map(|line| Line::parse(&line.unwrap())).collect()
    })
}

/// The requests among lines.
fn requests(lines: Vec<Line>) -> Vec<Record> {
    let requests = lines.into_iter().filter_map(|line| match line {
        Line::Request(record) => Some(record),
        _ => None,
    });
    requests.collect()
}

/// Check that nothing is lost when a binary is attached to while another one is at a high rate, with
/// requests so large that the ring buffer has room for few.
#[test]
fn upgrade_at_full_rate() {
    let http =
        "limit_req_zone $server_port zone=steady:64k rate=2000r/s; keepalive_requests 100000;
         large_client_header_buffers 4 8k;
         server { listen 127.0.0.1:{port}; access_log off; root {prefix}/html;
                  location / { limit_req zone=steady burst=1000; try_files /file =404; } }";
    let old = Replaceable::start(http, 1);
    old.nginx.file("file", b"hello");
    let mut tool = Tool::trace(old.nginx.pid());
    let uri = format!("/{}", "x".repeat(1500));
    let load = Load::start(old.nginx.port, &uri);
    let (new_master, _) = old.upgrade();
    tool.wait_for_message(&format!("pid {new_master}, "));
    drop(load);
    kill("QUIT", new_master);
    old.nginx.signal("QUIT");
    let ended = tool.wait();
    ended.assert_clean();
    assert!(ended.summary().written > 100, "{:?}", ended.summary());
}

/// Check that an upgrade is followed while stdout is blocked: all requests of the new master's worker
/// are there once the pipe is read, in order.
#[test]
fn upgrade_while_blocked() {
    const COUNT: usize = 50;
    let old = Replaceable::start(FAST, 1);
    let (mut tool, stdout) = unread(&old.nginx, &[]);
    /* As many as fill the pipe, and leave room in the ring buffer, which all binaries share. */
    let mut client = Client::connect(old.nginx.port);
    let uri = format!("/{}", "x".repeat(1000));
    for _ in 0..200 {
        assert_eq!(client.get(&uri).status, 200);
    }
    wait_blocked(&stdout);
    let (new_master, worker) = old.upgrade();
    tool.wait_for_message(&format!("pid {new_master}, "));
    old.nginx.signal("WINCH");
    old.nginx.wait_for_log("gracefully shutting down");
    old.nginx.signal("QUIT");
    let mut client = Client::connect(old.nginx.port);
    old.nginx.wait_workers(1);
    for n in 0..COUNT {
        assert_eq!(client.get(&format!("/new/{n}")).status, 200);
    }
    let reader = read_lines(stdout);
    drop(client);
    kill("QUIT", new_master);
    let ended = tool.wait();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let records = requests(reader.join().unwrap());
    assert_eq!(records.len() as u64, ended.summary().written);
    let new = records.iter().filter(|record| record.pid == worker);
    let uris: Vec<_> = new.filter_map(|record| record.uri.clone()).collect();
    let expected = (0..COUNT).map(|n| format!("/new/{n}"));
    assert!(uris.into_iter().eq(expected));
}

/// Check that metrics are served while stdout is blocked, and go on to count what is seen.
#[test]
fn metrics_while_blocked() {
    let nginx = Nginx::with(FAST, 0);
    let port = free_port();
    let (tool, stdout) = unread(&nginx, &["--metrics", &port.to_string()]);
    wrk(nginx.port, "/", 8, 1);
    wait_blocked(&stdout);
    let seen = || {
        let body = served(port);
        let mut lines = body.lines();
        let seen = lines.find_map(|line| line.strip_prefix("ngx_bpf_requests_seen_total "));
        seen.unwrap().parse::<u64>().unwrap()
    };
    /* All of the load is seen some time after it. */
    let before = wait_right(seen, |seen| *seen > 1000);
    assert_eq!(Client::connect(nginx.port).get("/").status, 200);
    wait_right(seen, |seen| *seen > before);
    let reader = read_lines(stdout);
    drop(nginx);
    let ended = tool.wait();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let records = requests(reader.join().unwrap());
    assert_eq!(records.len() as u64, ended.summary().written);
}

/// Check that SIGUSR1 is served while the output is a FIFO that is not read: what the FIFO does not have
/// whole goes to the file that takes its place.
#[test]
fn reopened_while_blocked() {
    let folder = TempDir::new().unwrap();
    let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
    make_fifo(&path);
    let mut options = File::options();
    let mut fifo = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)
        .unwrap();
    let nginx = Nginx::with(FAST, 0);
    let (mut tool, _stdout) = unread(&nginx, &["-v", "-o", path.to_str().unwrap()]);
    wrk(nginx.port, "/", 8, 1);
    wait_blocked(&fifo);
    fs::rename(&path, &moved).unwrap();
    tool.signal("USR1");
    tool.wait_for_message("reopened the output");
    drop(nginx);
    let ended = tool.wait();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let mut old = String::new();
    fifo.read_to_string(&mut old).unwrap();
    let old = old.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let new = fs::read_to_string(&path).unwrap();
    let lines = old.lines().chain(new.lines()).map(Line::parse).collect();
    assert_eq!(requests(lines).len() as u64, ended.summary().written);
    assert!(!old.is_empty() && !new.is_empty());
}
