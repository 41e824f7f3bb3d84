// SPDX-License-Identifier: MIT OR Apache-2.0
//! nginx in namespaces of its own, as in a container, with the tool outside and inside.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::suite::common::build::DEBIAN;
use crate::suite::common::build::binary;
use crate::suite::common::client::Client;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::program::copy_program;
use crate::suite::common::program::kill;
use crate::suite::common::program::open_to_all;
use crate::suite::common::program::write_program;
use crate::suite::common::record::Logged;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tool::PROGRAM;
use crate::suite::common::tool::Tool;
use crate::suite::common::wait_right;

/// An nginx in pid and mount namespaces of its own.
struct Contained {
    nginx: Nginx,
    _folder: TempDir,
}

impl Contained {
    /// Starts it with another root folder, at a path that exists only there.
    fn start() -> Self {
        let contained = Self::with(
            "mount --rbind / /mnt; mount -t tmpfs none /mnt/srv; cp BINARY /mnt/srv/nginx
             exec chroot /mnt /srv/nginx \"$@\"",
        );
        assert!(!Path::new("/srv/nginx").exists());
        contained
    }

    /// Starts it on an overlay of its own, over the folder of a binary that others may use as well.
    fn over(lower: &Path) -> Self {
        Self::with(&format!(
            "mount -t tmpfs none /mnt; mkdir /mnt/upper /mnt/work /mnt/root
             mount -t overlay none /mnt/root -o lowerdir={},upperdir=/mnt/upper,workdir=/mnt/work
             exec /mnt/root/nginx \"$@\"",
            lower.display()
        ))
    }

    /// Starts it with two workers, by a script.
    fn with(script: &str) -> Self {
        let folder = TempDir::new().unwrap();
        open_to_all(folder.path());
        let file = folder.path().join("script");
        let script = script.replace("BINARY", &binary().display().to_string());
        let text = format!(
            "#!/bin/sh\nexec unshare --mount --pid --fork --mount-proc --kill-child \
             sh -ec '{script}' sh \"$@\"\n"
        );
        write_program(&file, text.as_bytes());
        let nginx = Nginx::start(&Config {
            binary: file,
            workers: 2,
            namespace: true,
            ..Config::default()
        });
        Self {
            nginx,
            _folder: folder,
        }
    }

    /// Sends requests, reloads nginx, and sends requests to the new workers. Returns the host's pid
    /// of each worker, by the pid that nginx knows.
    fn serve(&self) -> BTreeMap<u32, u32> {
        let mut pids = BTreeMap::new();
        self.requests(20);
        pids.extend(self.workers());
        self.nginx.signal("HUP");
        for _ in 0..2 {
            self.nginx.wait_for_worker();
        }
        self.requests(20);
        pids.extend(self.workers());
        self.nginx.wait_logged(40);
        pids
    }

    /// Sends requests on connections of their own.
    fn requests(&self, count: usize) {
        for _ in 0..count {
            assert_eq!(Client::connect(self.nginx.port).get("/").status, 200);
        }
    }

    /// Returns the pids of the workers: in the namespace, and on the host.
    fn workers(&self) -> BTreeMap<u32, u32> {
        let workers = self.nginx.workers().into_iter();
        workers.map(|pid| (inner_pid(pid), pid)).collect()
    }
}

/// Returns the pid of a process in its own namespace.
fn inner_pid(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("NSpid:"));
    let last = line.unwrap().split_whitespace().last();
    last.unwrap().parse().unwrap()
}

/// Returns nginx's log with the host's pids.
fn as_host(mut logged: Vec<Logged>, pids: &BTreeMap<u32, u32>) -> Vec<Logged> {
    for logged in &mut logged {
        assert_ne!(pids[&logged.pid], logged.pid);
        logged.pid = pids[&logged.pid];
    }
    logged
}

/// Check that an nginx in a container is traced from the host, including a reload, and that pids
/// are the host's.
#[test]
fn from_host() {
    let contained = Contained::start();
    let tool = Tool::trace(contained.nginx.pid());
    let pids = contained.serve();
    let logged = as_host(contained.nginx.quit(), &pids);
    let ended = tool.wait();
    ended.assert_clean();
    assert_equal(&ended.records(), &logged);
    assert_eq!(ended.records().len(), 40);
}

/// Check that inside the container pids are the container's, for existing workers and for those
/// that a reload starts.
#[test]
fn from_inside() {
    let contained = Contained::start();
    let mut tool = Tool::spawn(
        Command::new("nsenter")
            .args(["--pid", "--mount", "--target"])
            .args([&contained.nginx.pid().to_string(), PROGRAM, "--json"])
            .args(["--pid", "1"]),
    );
    tool.read_stdout();
    tool.wait_ready(1);
    contained.serve();
    /* The first process of a namespace ends all others with it, so the tool is ended before. */
    kill("INT", tool.child());
    let ended = tool.wait();
    ended.assert_clean();
    assert!(ended.stderr[0].ends_with("pid 1, 2 workers"), "{ended:?}");
    assert_equal(&ended.records(), &contained.nginx.quit());
    assert_eq!(ended.records().len(), 40);
}

/// Check the command line that people copy, with the pids of all workers from `pgrep`: unquoted
/// they are several words, quoted they are one value with newlines. Among them is the shell that
/// runs it, because its own command line matches: it is reported, and the workers are traced.
#[test]
fn pids_of_pgrep() {
    let contained = Contained::start();
    /* A worker sets its title some time after its master has logged that it was started. */
    for worker in contained.nginx.workers() {
        let title = || fs::read_to_string(format!("/proc/{worker}/cmdline")).unwrap();
        wait_right(title, |title| title.starts_with("nginx: worker"));
    }
    let mut served = 0;
    for pids in [
        "--pid $(pgrep -f \"nginx: worker\") --json",
        "--pid \"$(pgrep -f \"nginx: worker\")\" --json",
        "--json --pid $(pgrep -f \"nginx: worker\")",
        "--json --pid \"$(pgrep -d, -f \"nginx: worker\")\"",
    ] {
        let mut tool = Tool::spawn(
            Command::new("nsenter")
                .args(["--pid", "--mount", "--target"])
                .arg(contained.nginx.pid().to_string())
                .args(["sh", "-c", &format!("exec {PROGRAM} {pids}")]),
        );
        tool.read_stdout();
        tool.wait_ready(2);
        contained.requests(20);
        served += 20;
        contained.nginx.wait_logged(served);
        kill("INT", tool.child());
        let ended = tool.wait();
        ended.assert_clean();
        assert_eq!(ended.records().len(), 20, "{pids}");
        let [shell, one, two, _] = &ended.stderr[..] else {
            panic!("{pids}: {ended:?}");
        };
        assert!(shell.contains("can't be traced: not nginx"), "{shell}");
        assert!(
            one.ends_with("1 worker") && two.ends_with("1 worker"),
            "{ended:?}"
        );
        assert_equal(&ended.records(), &contained.nginx.logged()[served - 20..]);
    }
}

/// Check containers that share the layer with their binary. Probes see all of them, and only the
/// traced one has records; when two are traced, each request has one record.
#[test]
fn shared_layer() {
    let folder = TempDir::new().unwrap();
    open_to_all(folder.path());
    copy_program(Path::new(DEBIAN), &folder.path().join("nginx"));
    let (one, two) = (
        Contained::over(folder.path()),
        Contained::over(folder.path()),
    );
    let tool_of_one = Tool::trace(one.nginx.pid());
    let pids = [one.nginx.pid().to_string(), two.nginx.pid().to_string()];
    let tool_of_both = Tool::start(&["--json", "--pid", &pids[0], "--pid", &pids[1]], 2);
    let (one_pids, two_pids) = (one.serve(), two.serve());
    let logged = as_host(one.nginx.quit(), &one_pids);
    let ended = tool_of_one.wait();
    ended.assert_clean();
    assert_eq!(ended.summary().seen, 40);
    assert_equal(&ended.records(), &logged);
    let logged = [logged, as_host(two.nginx.quit(), &two_pids)].concat();
    let ended = tool_of_both.wait();
    ended.assert_clean();
    assert_eq!(ended.summary().seen, 80);
    assert_equal(&ended.records(), &logged);
}

/// Check that a pid namespace without nginx is reported as the reason why none is found, with what
/// to do, by `check`, by tracing and by `--wait`; and that the host's is not.
#[test]
fn missing_host_pid() {
    let nginx = Nginx::simple();
    let inside = |args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", PROGRAM]);
        command.args(args);
        command
    };
    let expected = "no nginx is running in this pid namespace, which is not the host's: set hostPID: true \
                    (or --pid=host), or start it here";
    for args in [&["check"][..], &["--json"]] {
        let output = inside(args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert!(text.trim_end().ends_with(expected), "{text}");
    }
    let mut tool = Tool::spawn(&mut inside(&["--json", "--wait"]));
    assert_eq!(
        tool.wait_for_message(expected),
        format!("ngx-bpf: {expected}")
    );
    kill("INT", tool.child());
    tool.wait();
    let pid = nginx.pid().to_string();
    let output = Command::new(PROGRAM)
        .args(["check", "--pid", &pid])
        .output();
    assert_eq!(output.unwrap().status.code(), Some(0));
}

/// Check that the tool refuses to run where `/proc` belongs to another pid namespace, because pids
/// would be mixed up.
#[test]
fn foreign_proc() {
    let nginx = Nginx::simple();
    let pid = nginx.pid().to_string();
    for args in [&["--pid", &pid][..], &["check", "--pid", &pid], &["--wait"]] {
        let output = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", PROGRAM])
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        let expected =
            "/proc is of another pid namespace: mount this one's, as \"unshare --mount-proc\" does";
        assert!(text.trim_end().ends_with(expected), "{text}");
    }
}
