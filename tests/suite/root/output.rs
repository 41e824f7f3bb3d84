// SPDX-License-Identifier: MIT OR Apache-2.0
//! Outputs other than a plain file: full, unread, or of another user.

use std::fs;
use std::fs::File;
use std::io::Read as _;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::chown;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;

use crate::suite::common::PATIENCE;
use crate::suite::common::client::Client;
use crate::suite::common::delay;
use crate::suite::common::lines;
use crate::suite::common::load::wrk;
use crate::suite::common::nginx::Config;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::program::kill;
use crate::suite::common::program::make_fifo;
use crate::suite::common::tool::PROGRAM;
use crate::suite::common::tool::Tool;
use crate::suite::common::wait_until;

/// Sends requests over one connection.
fn requests(nginx: &Nginx, count: usize) {
    let mut client = Client::connect(nginx.port);
    for _ in 0..count {
        assert_eq!(client.get("/").status, 200);
    }
}

/// Starts the tool with JSON records to a file.
fn with_output(nginx: &Nginx, path: &Path) -> Tool {
    let mut tool = Tool::spawn(
        Command::new(PROGRAM)
            .args(["--json", "-v", "--pid", &nginx.pid().to_string(), "-o"])
            .arg(path),
    );
    tool.wait_ready(1);
    tool
}

/// A small file system that ends with the test.
struct Disk(TempDir);

impl Disk {
    /// Has room for the records of a hundred requests.
    const SIZE: usize = 256 << 10;

    /// Mounts it.
    fn mount() -> Self {
        let folder = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        let size = format!("size={}", Self::SIZE);
        mount.args(["-t", "tmpfs", "-o", &size, "none"]);
        assert!(mount.arg(folder.path()).status().unwrap().success());
        Self(folder)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Check a disk that is full for a while: records meanwhile are lost, no line is torn, and the exit
/// code is 0, because something was written afterwards.
#[test]
fn full_disk_and_back() {
    let nginx = Nginx::simple();
    let disk = Disk::mount();
    let (log, other) = (disk.0.path().join("log"), disk.0.path().join("other"));
    let mut tool = with_output(&nginx, &log);
    /* Two pages are left: enough for a few lines. */
    fs::write(&other, vec![b'x'; Disk::SIZE - 8192]).unwrap();
    requests(&nginx, 50);
    tool.wait_for_message("failed to write records: No space left on device");
    fs::remove_file(&other).unwrap();
    nginx.wait_logged(50);
    requests(&nginx, 1);
    nginx.wait_logged(51);
    let ended = tool.stop();
    let summary = ended.summary();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(summary.lost > 0 && summary.written > 0 && summary.seen == 51);
    let text = fs::read_to_string(&log).unwrap();
    let parsed = text.lines().map(serde_json::from_str::<serde_json::Value>);
    let parsed: Vec<_> = parsed.map(Result::unwrap).collect();
    let requests = parsed.iter().filter(|record| record["type"] == "request");
    assert_eq!(requests.count() as u64, summary.written);
}

/// Check a limit of the file's size: no signal ends the tool, records beyond the limit are lost and
/// counted, and the last line is whole. The exit code is 1, because nothing more was written.
#[test]
fn file_size_limit() {
    let nginx = Nginx::simple();
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log");
    let mut tool = with_output(&nginx, &log);
    let limit = Command::new("prlimit")
        .args(["--fsize=20000", "--pid", &tool.pid().to_string()])
        .status();
    assert!(limit.unwrap().success());
    requests(&nginx, 100);
    tool.wait_for_message("failed to write records: File too large");
    nginx.wait_logged(100);
    let ended = tool.stop();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let summary = ended.summary();
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.ends_with("}\n"), "{text}");
    /* The line that reports the loss may still have fitted. */
    let requests = text
        .lines()
        .filter(|line| line.starts_with("{\"type\":\"request\""));
    assert_eq!(requests.count() as u64, summary.written);
    assert!(summary.written > 0 && summary.lost > 0, "{summary:?}");
    assert_eq!(summary.seen, 100);
}

/// Check a FIFO without a reader: tracing begins and signals work. A later reader gets the records
/// that have waited.
#[test]
fn fifo_that_is_read_later() {
    let nginx = Nginx::simple();
    let folder = TempDir::new().unwrap();
    let fifo = folder.path().join("fifo");
    make_fifo(&fifo);
    let tool = with_output(&nginx, &fifo);
    requests(&nginx, 20);
    nginx.wait_logged(20);
    let reader = lines(File::open(&fifo).unwrap());
    let records: Vec<_> = (0..20)
        .map(|_| reader.recv_timeout(PATIENCE).unwrap())
        .collect();
    assert!(
        records
            .iter()
            .all(|line| line.starts_with("{\"type\":\"request\""))
    );
    let ended = tool.stop();
    ended.assert_clean();
    assert_eq!(ended.summary().written, 20);
    assert!(
        ended
            .stderr
            .iter()
            .any(|line| line.contains("no one reads the output"))
    );
}

/// Check a FIFO that is never read: the first signal ends the tool, and the records that have
/// waited count as lost. The same holds when SIGUSR1 reopens a file that has become a FIFO.
#[test]
fn unread_fifo() {
    let nginx = Nginx::simple();
    let folder = TempDir::new().unwrap();
    let (fifo, log) = (folder.path().join("fifo"), folder.path().join("log"));
    make_fifo(&fifo);
    let tool = with_output(&nginx, &fifo);
    requests(&nginx, 5);
    nginx.wait_logged(5);
    let ended = tool.stop();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let summary = ended.summary();
    assert_eq!((summary.written, summary.lost), (0, 5));
    let mut tool = with_output(&nginx, &log);
    fs::rename(&fifo, &log).unwrap();
    tool.signal("USR1");
    tool.wait_for_message("no one reads the output");
    let ended = tool.stop();
    ended.assert_clean();
}

/// Check that a stderr that no one reads delays neither tracing nor its end.
#[test]
fn unread_stderr() {
    let nginx = Nginx::simple();
    let (mut unread, mut stderr) = std::io::pipe().unwrap();
    /* As many bytes as a pipe takes. */
    // SAFETY: the call takes a number, and the descriptor is open.
    let size = unsafe { libc::fcntl(stderr.as_raw_fd(), libc::F_GETPIPE_SZ) };
    let full = vec![b'x'; usize::try_from(size).unwrap()];
    stderr.write_all(&full).unwrap();
    let mut child = Command::new(PROGRAM)
        .args(["--json", "-v", "--pid", &nginx.pid().to_string()])
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .unwrap();
    let stdout = lines(child.stdout.take().unwrap());
    let mut served = 0;
    wait_until("nothing is traced", || {
        requests(&nginx, 1);
        served += 1;
        stdout.try_recv().is_ok()
    });
    let asked = Instant::now();
    kill("TERM", child.id());
    assert!(child.wait().unwrap().success());
    assert!(asked.elapsed() < PATIENCE / 4, "{:?}", asked.elapsed());
    assert!(stdout.iter().count() < served);
    let mut text = Vec::new();
    unread.read_to_end(&mut text).unwrap();
    assert!(text == full, "the pipe was not full");
}

/// Check that a second signal, while what was recorded goes to a reader that is slow, ends the tool at
/// once, with a message, the sums that are known, and exit code 1.
#[test]
fn second_signal() {
    let nginx = Nginx::start(&Config {
        http: "server { listen 127.0.0.1:{port}; access_log off; keepalive_requests 1000000;
               location / { return 200; } }",
        ..Config::default()
    });
    let mut tool = Tool::unread(nginx.pid());
    let mut stdout = tool.take_stdout();
    tool.wait_ready(1);
    wrk(nginx.port, "/", 8, 1);
    tool.signal("TERM");
    let asked = Instant::now();
    let mut is_asked_again = false;
    let mut bytes = [0; 4096];
    while stdout.read(&mut bytes).unwrap() > 0 {
        delay(Duration::from_millis(50));
        if !is_asked_again && asked.elapsed() > Duration::from_millis(1200) {
            tool.signal("TERM");
            is_asked_again = true;
            break;
        }
    }
    assert!(
        is_asked_again,
        "the tool has ended before the second signal"
    );
    let ended = tool.wait();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let last = ended.stderr.last().unwrap();
    assert!(
        last.contains("ended at once by a second signal"),
        "{ended:?}"
    );
    /* What the slow reader had not taken by then is lost. */
    let summary = ended.summary();
    assert!(summary.written > 0 && summary.lost > 0, "{ended:?}");
}

/// Check that nothing is written to a link, a file or a FIFO that another user has put into a
/// folder that everyone may write to; that root's own link is followed, and that a hint mentions
/// the file's mode.
#[test]
fn files_of_strangers() {
    let nginx = Nginx::simple();
    let pid = nginx.pid().to_string();
    let outer = TempDir::new().unwrap();
    let shared = outer.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
    let victim = outer.path().join("victim");
    fs::write(&victim, "secret").unwrap();
    let (link, file, fifo) = (
        shared.join("link"),
        shared.join("file"),
        shared.join("fifo"),
    );
    symlink(&victim, &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(65534), Some(65534)).unwrap();
    symlink(outer.path(), shared.join("folder")).unwrap();
    std::os::unix::fs::lchown(shared.join("folder"), Some(65534), None).unwrap();
    fs::write(&file, "").unwrap();
    chown(&file, Some(65534), None).unwrap();
    make_fifo(&fifo);
    chown(&fifo, Some(65534), None).unwrap();
    let through_folder = shared.join("folder/victim");
    for path in [&link, &file, &fifo, &through_folder] {
        let output = Command::new(PROGRAM)
            .args(["--pid", &pid, "-o"])
            .arg(path)
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("of another user (uid 65534)"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    assert_eq!(fs::read(&victim).unwrap(), b"secret");
    assert!(fs::read(&file).unwrap().is_empty());
    let own = shared.join("own");
    symlink("new", &own).unwrap();
    let tool = with_output(&nginx, &own);
    requests(&nginx, 1);
    nginx.wait_logged(1);
    tool.stop().assert_clean();
    let new = fs::metadata(shared.join("new")).unwrap();
    assert!(new.len() > 0);
    assert_eq!(new.permissions().mode() & 0o137, 0);
    fs::set_permissions(shared.join("new"), fs::Permissions::from_mode(0o644)).unwrap();
    let mut tool = with_output(&nginx, &own);
    tool.wait_for_message("everybody may read the output");
    tool.stop().assert_clean();
}
