// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tool gives up when it has started, as the kernel shows it for each thread; and what works
//! after that: what it writes, serves and follows.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::chown;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::suite::common::build::DEBIAN;
use crate::suite::common::client::Client;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::patched::patch;
use crate::suite::common::patched::renumbered;
use crate::suite::common::patched::version;
use crate::suite::common::ports::free_port;
use crate::suite::common::program::copy_program;
use crate::suite::common::program::kill;
use crate::suite::common::program::open_to_all;
use crate::suite::common::service::Service;
use crate::suite::common::tool::PROGRAM;
use crate::suite::common::tool::Tool;
use crate::suite::common::wait_for;
use crate::suite::common::wait_right;
use crate::suite::root::listeners;
use crate::suite::root::metrics::served;
use crate::suite::root::metrics::wait_line;

mod newcomers;

/// `CAP_DAC_OVERRIDE`, `CAP_DAC_READ_SEARCH`, `CAP_SYS_PTRACE`, `CAP_SYS_ADMIN`, `CAP_PERFMON` and
/// `CAP_BPF`.
const DAC_OVERRIDE: u64 = 1 << 1;
const DAC_READ_SEARCH: u64 = 1 << 2;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;

/// The user and the group `www-data` of Debian.
const WEB: u32 = 33;

/// What `/proc` says of a thread.
#[derive(Debug)]
struct Thread(BTreeMap<String, String>);

impl Thread {
    /// Returns a value.
    fn value(&self, key: &str) -> &str {
        &self.0[key]
    }

    /// Returns a set of capabilities.
    fn set(&self, key: &str) -> u64 {
        u64::from_str_radix(self.value(key), 16).unwrap()
    }
}

/// Returns all threads of a process. Those that end meanwhile are left out.
fn threads(pid: u32) -> Vec<Thread> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let texts = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    let threads = texts.map(|text| {
        let lines = text.lines().filter_map(|line| line.split_once(":\t"));
        Thread(
            lines
                .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
                .collect(),
        )
    });
    threads.collect()
}

/// Waits until the tool says that it has given up what it does not need.
fn wait_fenced(tool: &mut Tool) {
    let said = tool.wait_for_message("system calls");
    assert!(said.contains("gave up system calls"), "{said}");
}

/// Returns what a tool needs to follow new processes on this kernel.
fn needed() -> u64 {
    let admin = Service::installed().capabilities.contains("CAP_SYS_ADMIN");
    BPF | PERFMON | SYS_PTRACE | if admin { SYS_ADMIN } else { 0 }
}

/// The capabilities that the threads of a tool must have.
struct Expected {
    /// Those of the first thread.
    following: u64,
    /// Those of the thread that writes.
    writing: u64,
    /// Whether the tool may reduce its bounding set.
    bounds: bool,
}

impl Expected {
    /// Waits until all threads have what they must have, since each one drops its own, soon after it was
    /// started.
    fn wait(&self, tool: &Tool) -> Vec<Thread> {
        wait_for(|| {
            let threads = threads(tool.pid());
            let wrong = threads.iter().find(|thread| !self.is_met(thread));
            let names: Vec<_> = threads.iter().map(|thread| thread.value("Name")).collect();
            let mut all = ["records", "collect", "metrics"].iter();
            let are_all_there = all.all(|name| names.contains(name));
            if wrong.is_none() && are_all_there {
                return Ok(threads);
            }
            Err(format!("{wrong:?} {names:?}"))
        })
    }

    /// Returns whether a thread has exactly what it must have.
    fn is_met(&self, thread: &Thread) -> bool {
        let reading = self.following & (BPF | SYS_PTRACE | DAC_READ_SEARCH);
        let held = match thread.value("Name") {
            _ if thread.value("Pid") == thread.value("Tgid") => self.following,
            "records" => self.writing,
            "lookout" => reading,
            _ => 0,
        };
        let is_lookout = thread.value("Name") == "lookout";
        let bound = if is_lookout { self.following } else { held };
        thread.set("CapEff") == held
            && thread.set("CapPrm") == held
            && thread.set("CapInh") == 0
            && thread.set("CapAmb") == 0
            && (!self.bounds || thread.set("CapBnd") & !bound == 0)
            && thread.value("Seccomp") == "2"
            && thread.value("NoNewPrivs") == "1"
    }
}

/// Makes a copy of Debian's nginx that claims to be a release that the table does not have. Its layout is
/// inferred, so that it is another one.
fn copy_of_unknown_release(to: &Path) {
    let known = version(Path::new(DEBIAN));
    let (branch, _) = known.rsplit_once('.').unwrap();
    let changes = renumbered(&known, &format!("{branch}.9"));
    patch(Path::new(DEBIAN), to, &changes);
}

/// Waits until a file has this number of lines, and returns the last one.
fn wait_lines(path: &Path, count: usize) -> String {
    let read = || fs::read_to_string(path).unwrap_or_default();
    let text = wait_right(read, |text| text.matches('\n').count() == count);
    text.lines().last().unwrap().to_owned()
}

/// A folder with a program that nginx is started from, and one for the output.
struct Place {
    folder: TempDir,
    port: u16,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        open_to_all(folder.path());
        let place = Self {
            folder,
            port: free_port(),
        };
        fs::create_dir(place.folder.path().join("out")).unwrap();
        copy_program(Path::new(DEBIAN), &place.program());
        place
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("nginx")
    }

    fn output(&self) -> PathBuf {
        self.folder.path().join("out/requests.json")
    }

    /// Puts a program with another layout at the path of the program.
    fn put_another(&self) {
        let new = self.folder.path().join("new");
        copy_of_unknown_release(&new);
        fs::rename(new, self.program()).unwrap();
    }

    /// Gives the folder of the output to `www-data`, who alone may write to it.
    fn give_away(&self) {
        let out = self.folder.path().join("out");
        chown(&out, Some(WEB), Some(WEB)).unwrap();
        fs::set_permissions(&out, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Starts the tool for one nginx.
    fn start(&self, command: &mut Command, nginx: &Nginx) -> Tool {
        let (port, pid) = (self.port.to_string(), nginx.pid().to_string());
        command.args(["--json", "-v", "--pid", &pid, "--metrics", &port, "-o"]);
        Tool::spawn(command.arg(self.output()))
    }
}

/// Checks that an upgrade to a file with another layout is followed, that the metrics are served, and
/// that the output is opened again.
fn assert_works(place: &Place, tool: &mut Tool, nginx: &Nginx) {
    let output = place.output();
    let serve = || assert_eq!(Client::connect(nginx.port).get("/").status, 200);
    tool.wait_ready(1);
    serve();
    assert!(!wait_lines(&output, 1).contains("inferred"));
    place.put_another();
    nginx.signal("USR2");
    nginx.wait_for_log("start new binary process ");
    nginx.wait_for_log("start worker process ");
    let new_master = nginx.pid_of_file();
    tool.wait_for_message(&format!("pid {new_master}, 1 worker"));
    nginx.signal("QUIT");
    nginx.wait_for_log("gracefully shutting down");
    nginx.wait_for_log(": exit");
    serve();
    let last = wait_lines(&output, 2);
    assert!(last.contains("\"layout\":\"inferred\""), "{last}");
    fs::rename(&output, output.with_extension("old")).unwrap();
    tool.signal("USR1");
    tool.wait_for_message("reopened the output");
    serve();
    wait_lines(&output, 1);
    assert!(served(place.port).contains("\nngx_bpf_requests_seen_total "));
    if listeners::are_shown() {
        let queue = listeners::line(
            "queue_connections",
            new_master,
            ("127.0.0.1", nginx.port),
            0,
        );
        wait_line(&queue, || served(place.port));
    }
    kill("QUIT", new_master);
}

/// Returns an nginx that can be upgraded.
fn upgradable(place: &Place) -> Nginx {
    Nginx::start(&Config {
        binary: place.program(),
        daemon: true,
        ..Config::default()
    })
}

/// Check that a tool that root starts keeps what it needs to follow processes, and that the thread
/// that writes can still open its file where only another user may write.
#[test]
fn root() {
    let place = Place::new();
    place.give_away();
    let nginx = upgradable(&place);
    let mut tool = place.start(&mut Command::new(PROGRAM), &nginx);
    wait_fenced(&mut tool);
    let expected = Expected {
        following: needed() | DAC_READ_SEARCH,
        writing: DAC_OVERRIDE,
        bounds: true,
    };
    expected.wait(&tool);
    assert_works(&place, &mut tool, &nginx);
    tool.wait().assert_clean();
}

/// Check that `--user` becomes that user, and no other capability than those for following is left.
#[test]
fn user() {
    let place = Place::new();
    place.give_away();
    let nginx = upgradable(&place);
    let mut tool = place.start(Command::new(PROGRAM).args(["--user", "www-data"]), &nginx);
    wait_fenced(&mut tool);
    let expected = Expected {
        following: needed() | DAC_READ_SEARCH,
        writing: 0,
        bounds: true,
    };
    for thread in expected.wait(&tool) {
        assert_eq!(thread.value("Uid"), "33\t33\t33\t33");
        assert_eq!(thread.value("Gid"), "33\t33\t33\t33");
        assert_eq!(thread.value("Groups"), "");
    }
    assert_works(&place, &mut tool, &nginx);
    assert_eq!(fs::metadata(place.output()).unwrap().uid(), WEB);
    tool.wait().assert_clean();
}

/// Check that a service, whose bounding set is reduced already, gives up the rest within its own filter
/// of system calls.
#[test]
fn service() {
    let place = Place::new();
    open_to_all(&place.folder.path().join("out"));
    fs::set_permissions(
        place.folder.path().join("out"),
        fs::Permissions::from_mode(0o777),
    )
    .unwrap();
    let nginx = upgradable(&place);
    let folder = TempDir::new().unwrap();
    let mut tool = place.start(&mut Service::installed().command(&folder), &nginx);
    wait_fenced(&mut tool);
    let expected = Expected {
        following: needed(),
        writing: 0,
        bounds: false,
    };
    expected.wait(&tool);
    assert_works(&place, &mut tool, &nginx);
    tool.wait().assert_clean();
}

/// Check that an unknown user is an error, and so is another user for a tool that is not root.
#[test]
fn no_such_user() {
    let failure = |command: &mut Command, name: &str| {
        let output = command.args(["--user", name]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(
        failure(&mut Command::new(PROGRAM), "no-such-user"),
        "ngx-bpf: no user \"no-such-user\" in /etc/passwd\n"
    );
    let folder = TempDir::new().unwrap();
    let said = failure(&mut Service::installed().command(&folder), "www-data");
    assert!(
        said.starts_with("ngx-bpf: failed to become user \"www-data\": only root can: "),
        "{said}"
    );
}
