// SPDX-License-Identifier: MIT OR Apache-2.0
//! Other users of the machine can't stop a tool that traces every nginx. In each of these tests a
//! real nginx is traced whatever these users do, all of its requests have records, and the tool
//! ends as soon as it is asked to.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

use crate::suite::common::PATIENCE;
use crate::suite::common::build::binary;
use crate::suite::common::client::Client;
use crate::suite::common::imitation::compile;
use crate::suite::common::imitation::objcopy;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::program::copy_program;
use crate::suite::common::program::kill;
use crate::suite::common::program::open_to_all;
use crate::suite::common::record::assert_equal;
use crate::suite::common::tool::Ended;
use crate::suite::common::tool::PROGRAM;
use crate::suite::common::tool::Tool;
use crate::suite::common::yard::Yard;

/// The limit for "at once", on a machine that is busy.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Sends requests on connections of their own.
fn requests(nginx: &Nginx, count: usize) {
    for _ in 0..count {
        assert_eq!(Client::connect(nginx.port).get("/").status, 200);
    }
}

/// Waits until the tool traces this nginx, which runs in the same yard.
fn wait_traced(tool: &mut Tool, nginx: &Nginx) {
    let status = fs::read_to_string(format!("/proc/{}/status", nginx.pid())).unwrap();
    let pids = status.lines().find(|line| line.starts_with("NSpid:"));
    let pid = pids.unwrap().split_whitespace().last().unwrap().to_owned();
    tool.wait_for_message(&format!("pid {pid}, 1 worker"));
}

/// Ends the tool, which must end at once, and compares its records with the logs of these nginx
/// instances.
fn assert_unharmed(tool: Tool, nginx: Vec<Nginx>) -> Ended {
    let asked = Instant::now();
    kill("TERM", tool.child());
    let ended = tool.wait();
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    ended.assert_clean();
    let logged: Vec<_> = nginx.into_iter().flat_map(Nginx::quit).collect();
    assert!(!logged.is_empty());
    let records = ended.records();
    assert_equal(&records, &logged);
    assert_eq!(records.len(), logged.len());
    ended
}

/// Traces an nginx that was there before a stranger came, and one that starts after it, and sends
/// requests to each of them. Returns the tool's output.
fn beside(yard: &Yard, args: &[&str], come: impl Fn()) -> Ended {
    let first = yard.nginx();
    come();
    let mut tool = yard.tool(&[&["--json", "--wait"], args].concat());
    wait_traced(&mut tool, &first);
    requests(&first, 5);
    come();
    let second = yard.nginx();
    wait_traced(&mut tool, &second);
    requests(&first, 5);
    requests(&second, 5);
    first.wait_logged(10);
    second.wait_logged(5);
    assert_unharmed(tool, vec![first, second])
}

/// Makes a program that passes for an nginx of a known build, and whose debug link names
/// `nginx.debug` beside it. That file does not exist.
fn with_debug_link(folder: &Path) -> PathBuf {
    let program = compile(folder, &[]);
    let debug = folder.join("nginx.debug");
    fs::write(&debug, b"x").unwrap();
    objcopy(
        folder,
        &["--strip-debug", "--add-gnu-debuglink=nginx.debug", "nginx"],
    );
    fs::remove_file(debug).unwrap();
    open_to_all(&program);
    program
}

/// Returns whether this file appears within a time.
fn appears(file: &Path, time: Duration) -> bool {
    let end = Instant::now() + time;
    while !file.exists() {
        if Instant::now() > end {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// Returns the number of lines with this text.
fn count(ended: &Ended, text: &str) -> usize {
    let lines = ended.stderr.iter();
    lines.filter(|line| line.contains(text)).count()
}

/// Check a program whose debug file is a link to the kernel's log, which is a regular file, can be
/// opened, and blocks its reader.
#[test]
fn debug_file_is_kernel_log() {
    let yard = Yard::new();
    let program = with_debug_link(&yard.folder());
    symlink("/proc/kmsg", yard.folder().join("nginx.debug")).unwrap();
    beside(&yard, &[], || yard.stranger(&program, &[]));
}

/// Check that a debug file is not read through a link, even if it is the right file; otherwise a
/// link could lead to a file that only root may read. The same file is read when it is not a link.
#[test]
fn debug_file_is_link() {
    let yard = Yard::new();
    let folder = yard.folder();
    compile(&folder, &["-g"]);
    objcopy(&folder, &["--only-keep-debug", "nginx", "nginx.debug"]);
    objcopy(
        &folder,
        &["--strip-debug", "--add-gnu-debuglink=nginx.debug", "nginx"],
    );
    yard.stranger(&folder.join("nginx"), &[]);
    let layout = || loop {
        let output = yard.command(PROGRAM).args(["check", "--json"]).output();
        let report: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        if let Some(layout) = report["nginx"][0]["layout"].as_str() {
            break layout.to_owned();
        }
    };
    assert_eq!(layout(), "dwarf");
    fs::rename(folder.join("nginx.debug"), folder.join("secret")).unwrap();
    symlink("secret", folder.join("nginx.debug")).unwrap();
    assert_eq!(layout(), "table");
}

/// Check a debug file that alternates between a plain file and a pipe.
#[test]
fn debug_file_becomes_pipe() {
    let yard = Yard::new();
    let program = with_debug_link(&yard.folder());
    let (file, new) = (yard.folder().join("nginx.debug"), yard.folder().join("new"));
    fs::copy(&program, &file).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                fs::copy(&program, &new).unwrap();
                fs::rename(&new, &file).unwrap();
                rustix::fs::mknodat(
                    rustix::fs::CWD,
                    &new,
                    rustix::fs::FileType::Fifo,
                    rustix::fs::Mode::RUSR,
                    0,
                )
                .unwrap();
                fs::rename(&new, &file).unwrap();
            }
        });
        /* This flag lets the thread end even when the test panics. */
        let result = std::panic::catch_unwind(|| {
            beside(&yard, &[], || {
                for _ in 0..20 {
                    yard.stranger(&program, &[]);
                }
            })
        });
        is_over.store(true, Ordering::Relaxed);
        result.unwrap();
    });
}

/// Check a debug file in a user's own file system, whose program never answers: a process that asks
/// it for anything waits, and can't even be killed.
#[test]
fn debug_file_on_deaf_file_system() {
    if !Path::new("/dev/fuse").exists() {
        println!("SKIP: there is no /dev/fuse");
        return;
    }
    let yard = Yard::new();
    let program = with_debug_link(&yard.folder());
    let mounted = yard.folder().join(".debug");
    fs::create_dir(&mounted).unwrap();
    let options = "fd=3,rootmode=40000,user_id=0,group_id=0,allow_other";
    let script = format!(
        "exec 3<>/dev/fuse; mount -i -t fuse -o {options} deaf \"$0\" && touch \"$0-is-mounted\" && \
         exec sleep infinity"
    );
    let mut deaf = yard.command("sh");
    yard.start(deaf.args(["-c", &script]).arg(&mounted));
    if !appears(&yard.folder().join(".debug-is-mounted"), AT_ONCE) {
        println!("SKIP: FUSE can't be mounted here");
        return;
    }
    beside(&yard, &[], || yard.stranger(&program, &[]));
}

/// The arguments with which util-linux runs a program as user nobody, with the capabilities of
/// ngx-bpf.service.
const AS_SERVICE: [&str; 7] = [
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--no-new-privs",
    "--inh-caps=-all,+bpf,+perfmon,+sys_ptrace",
    "--ambient-caps=-all,+bpf,+perfmon,+sys_ptrace",
    "--bounding-set=-all,+bpf,+perfmon,+sys_ptrace",
];

/// Starts the tool as the service runs it.
fn as_service(yard: &Yard, args: &[&str]) -> Tool {
    let copy = yard.folder().join("ngx-bpf");
    if !copy.exists() {
        copy_program(Path::new(PROGRAM), &copy);
    }
    let mut command = yard.command("setpriv");
    let mut tool = Tool::spawn(command.args(AS_SERVICE).arg(copy).args(args));
    tool.read_stdout();
    tool
}

/// Returns whether this kernel requires no more than the service's capabilities to attach.
fn is_service_enough(yard: &Yard) -> bool {
    let nginx = yard.nginx();
    let tool = as_service(yard, &["--json", "--duration", "1ms"]);
    let is_enough = tool.wait().status.success();
    drop(nginx);
    if !is_enough {
        println!("SKIP: this kernel requires more than the service's capabilities");
    }
    is_enough
}

/// Check programs that the service may not read, one that is named nginx and one that has its
/// title: each is reported in one line, which says what to do, and the others are traced, with
/// `--wait` and without.
#[test]
fn unreadable_program() {
    let yard = Yard::new();
    if !is_service_enough(&yard) {
        return;
    }
    let folder = yard.folder();
    for name in ["nginx", "other"] {
        copy_program(Path::new("/bin/sleep"), &folder.join(name));
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o111)).unwrap();
    }
    let mut named = yard.command(folder.join("nginx").to_str().unwrap());
    yard.start(named.arg("infinity"));
    yard.stranger(&folder.join("other"), &["infinity"]);
    for wait in [&[][..], &["--wait"]] {
        let nginx = yard.nginx();
        let mut tool = as_service(&yard, &[&["--json"], wait].concat());
        wait_traced(&mut tool, &nginx);
        requests(&nginx, 5);
        nginx.wait_logged(5);
        let ended = assert_unharmed(tool, vec![nginx]);
        let refusals = count(&ended, "run as root, or with CAP_DAC_READ_SEARCH as well");
        assert_eq!(refusals, 2, "{:?}", ended.stderr);
    }
}

/// Check that with several pids each one that can't be traced is named and the others are traced,
/// and that the tool fails and names all of them when none can.
#[test]
fn pids_that_are_no_nginx() {
    let yard = Yard::new();
    let nginx = yard.nginx();
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let mut other = Command::new("cat")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let [gone, cat, real] = [gone.id(), other.id(), nginx.pid()].map(|pid| pid.to_string());
    let mut tool = Tool::start(&["--json", "-p", &gone, "-p", &cat, "-p", &real], 1);
    requests(&nginx, 5);
    let logged = nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    assert_eq!(ended.records().len(), 5);
    assert_eq!(logged.len(), 5);
    assert_eq!(count(&ended, &format!("no process with pid {gone}")), 1);
    assert_eq!(count(&ended, &format!("pid {cat} (")), 1);
    tool = Tool::spawn(Command::new(PROGRAM).args(["-p", &gone, "-p", &cat]));
    let ended = tool.wait();
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(ended.stderr.len(), 1, "{:?}", ended.stderr);
    assert_eq!(count(&ended, &format!("no process with pid {gone}")), 1);
    assert_eq!(count(&ended, &format!("pid {cat} (")), 1);
    drop(other.stdin.take());
    other.wait().unwrap();
}

/// Check programs that are not an nginx: a script of that name, another program, and one with a
/// terabyte of zeros at its end.
#[test]
fn no_nginx() {
    let yard = Yard::new();
    let folder = yard.folder();
    let huge = folder.join("huge");
    copy_program(Path::new("/bin/sleep"), &huge);
    let file = fs::File::options().write(true).open(&huge).unwrap();
    file.set_len(1 << 40).unwrap();
    drop(file);
    let script = folder.join("nginx");
    fs::write(folder.join("text"), "#!/bin/bash\nsleep infinity\n").unwrap();
    copy_program(&folder.join("text"), &script);
    let come = || {
        yard.start(&mut yard.command(script.to_str().unwrap()));
        yard.stranger(&huge, &["infinity"]);
        yard.stranger(Path::new("/bin/sleep"), &["infinity"]);
    };
    let ended = beside(&yard, &[], come);
    assert_eq!(count(&ended, "exceed the limit"), 1, "{:?}", ended.stderr);
    for program in ["/sleep\"", "/bash\""] {
        assert_eq!(count(&ended, program), 1, "{:?}", ended.stderr);
    }
}

/// Check a debug file on which its owner holds a lease: a process that opens it waits until the
/// owner gives it up.
#[test]
fn debug_file_is_leased() {
    use std::os::fd::AsRawFd as _;
    /* A constant of linux/fcntl.h that the crate does not have. */
    const F_SETSIG: i32 = 10;
    let yard = Yard::new();
    let program = with_debug_link(&yard.folder());
    let debug = yard.folder().join("nginx.debug");
    copy_program(&program, &debug);
    let lease = fs::File::options().write(true).open(&debug).unwrap();
    // SAFETY: neither call takes a pointer. The signal is ignored by default.
    let result = unsafe {
        libc::fcntl(lease.as_raw_fd(), F_SETSIG, libc::SIGURG);
        libc::fcntl(lease.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    let begun = Instant::now();
    beside(&yard, &[], || yard.stranger(&program, &[]));
    /* The kernel takes a lease away after 45 s. */
    assert!(begun.elapsed() < Duration::from_secs(40));
}

/// A process that sets its command line to a gigabyte, as any user may.
const LONG_TITLE: &str = r#"
#include <fcntl.h>
#include <linux/prctl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    unsigned long size = 1UL << 30;
    char *title = mmap(0, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    unsigned long at = (unsigned long)title;
    struct prctl_mm_map map = {
        at, at + 1, at, at + 1, at, at, at, at, at + size - 1, at, at, 0, 0, -1,
    };
    strcpy(title, "nginx: master process");
    if (prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0))
        return 1;
    close(creat(argv[argc - 1], 0600));
    return pause();
}
"#;

/// Check a command line of a gigabyte: only the beginning of a title is read.
#[test]
fn long_title() {
    let yard = Yard::new();
    let folder = yard.folder();
    fs::write(folder.join("title.c"), LONG_TITLE).unwrap();
    compile_c(&folder, "title");
    let ready = folder.join("ready");
    let mut titled = yard.command(folder.join("title").to_str().unwrap());
    yard.start(titled.arg(&ready));
    if !appears(&ready, AT_ONCE) {
        println!("SKIP: this kernel lets no process set its command line");
        return;
    }
    let nginx = yard.nginx();
    let mut tool = yard.tool(&["--json", "--wait"]);
    wait_traced(&mut tool, &nginx);
    let second = yard.nginx();
    wait_traced(&mut tool, &second);
    requests(&nginx, 5);
    nginx.wait_logged(5);
    let status = fs::read_to_string(format!("/proc/{}/status", tool.child())).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let most = most.unwrap().trim().strip_suffix(" kB").unwrap();
    assert!(most.parse::<u64>().unwrap() < 500_000, "{most}");
    drop(second);
    let ended = assert_unharmed(tool, vec![nginx]);
    assert_eq!(count(&ended, "not nginx"), 1, "{:?}", ended.stderr);
}

/// Compiles a program from one file.
fn compile_c(folder: &Path, name: &str) {
    let output = Command::new("clang")
        .args(["-o", name, &format!("{name}.c")])
        .current_dir(folder)
        .output();
    let output = output.expect("clang is installed by make test");
    assert!(output.status.success(), "{output:?}");
}

/// Check six hundred processes that call themselves masters, while the tool may have 1,024 files
/// open: they are examined one by one, and a binary that many of them run is named once.
#[test]
fn many() {
    let yard = Yard::new();
    let own = yard.folder().join("own");
    fs::create_dir(&own).unwrap();
    let script = "for i in $(seq 300); do
        cp /bin/sleep $0/$i
        (exec -a 'nginx: master process' $0/$i infinity) &
        (exec -a 'nginx: master process' sleep infinity) &
        done; touch $0/all; wait";
    let mut all = yard.command("bash");
    yard.start(all.args(["-c", script]).arg(&own));
    assert!(
        appears(&own.join("all"), PATIENCE),
        "the processes have not started"
    );
    for args in [&[][..], &["--wait"]] {
        let nginx = yard.nginx();
        let mut command = yard.command("prlimit");
        command.args(["--nofile=1024:1024", PROGRAM, "--json"]);
        let mut tool = Tool::spawn(command.args(args));
        tool.read_stdout();
        wait_traced(&mut tool, &nginx);
        requests(&nginx, 5);
        nginx.wait_logged(5);
        let ended = assert_unharmed(tool, vec![nginx]);
        assert_eq!(count(&ended, "not nginx"), 301, "{:?}", ended.stderr);
    }
}

/// Check that the limit of open files is raised to the hard limit, because the tool may need more
/// than a shell gives.
#[test]
fn limit_is_raised() {
    let nginx = Nginx::simple();
    let mut command = Command::new("prlimit");
    command.args(["--nofile=256:5000", PROGRAM, "--json", "--pid"]);
    let mut tool = Tool::spawn(command.arg(nginx.pid().to_string()));
    tool.wait_ready(1);
    let limits = fs::read_to_string(format!("/proc/{}/limits", tool.pid())).unwrap();
    let limit = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let numbers: Vec<&str> = limit.unwrap().split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers, ["5000", "5000"]);
}

/// A name that clears a terminal, starts a line that looks like the tool's own, turns the direction
/// of text, and is not UTF-8.
const HOSTILE: &[u8] = b"\x1b[2J\nngx-bpf: \xc2\x9b\xe2\x80\xae\xff\"\\";

/// The same name, escaped.
const SHOWN: &str = r#"\x1b[2J\x0angx-bpf: \u{9b}\u{202e}\xff\"\\"#;

/// Returns whether a character could control a terminal.
fn is_unsafe(c: char) -> bool {
    let is_bidi =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || is_bidi
}

/// Check that a path with such characters is escaped in every message that contains it: about a
/// program that is not an nginx, that is too large, or that may not be read.
#[test]
fn hostile_path_in_messages() {
    let yard = Yard::new();
    let folder = yard.folder().join(OsStr::from_bytes(HOSTILE));
    fs::create_dir(&folder).unwrap();
    open_to_all(&folder);
    for name in ["sleep", "huge", "closed"] {
        copy_program(Path::new("/bin/sleep"), &folder.join(name));
    }
    let huge = fs::File::options().write(true).open(folder.join("huge"));
    huge.unwrap().set_len(1 << 40).unwrap();
    let closed = fs::Permissions::from_mode(0o111);
    fs::set_permissions(folder.join("closed"), closed).unwrap();
    let come = || {
        for name in ["sleep", "huge", "closed"] {
            yard.stranger(&folder.join(name), &["infinity"]);
        }
    };
    let ended = beside(&yard, &["-v"], come);
    for line in &ended.stderr {
        assert!(!line.chars().any(is_unsafe), "{line:?}");
        assert!(
            line.starts_with("ngx-bpf: ") || !line.contains("ngx-bpf"),
            "{line:?}"
        );
    }
    assert_eq!(count(&ended, SHOWN), 3, "{:?}", ended.stderr);
    if is_service_enough(&yard) {
        let nginx = yard.nginx();
        let mut tool = as_service(&yard, &["--json"]);
        wait_traced(&mut tool, &nginx);
        requests(&nginx, 1);
        nginx.wait_logged(1);
        let ended = assert_unharmed(tool, vec![nginx]);
        let line = ended
            .stderr
            .iter()
            .find(|l| l.contains("CAP_DAC_READ_SEARCH"));
        let line = line.unwrap_or_else(|| panic!("{:?}", ended.stderr));
        assert!(
            line.contains(SHOWN) && !line.chars().any(is_unsafe),
            "{line:?}"
        );
    }
}

/// Check that `check` prints such a path escaped, for an nginx that can be traced and for a program
/// that can't, as text and as JSON.
#[test]
fn hostile_path_in_check() {
    let yard = Yard::new();
    let folder = yard.folder().join(OsStr::from_bytes(HOSTILE));
    fs::create_dir(&folder).unwrap();
    open_to_all(&folder);
    let (real, other) = (folder.join("nginx"), folder.join("sleep"));
    copy_program(&binary(), &real);
    copy_program(Path::new("/bin/sleep"), &other);
    let prefix = yard.folder();
    fs::write(
        prefix.join("conf"),
        "daemon off; error_log /dev/null; pid pid; events {} http { access_log off; }",
    )
    .unwrap();
    let mut nginx = yard.command("bash");
    nginx.args(["-c", "exec \"$0\" \"$@\""]).arg(&real);
    nginx.arg("-p").arg(&prefix).args(["-c", "conf"]);
    yard.start(&mut nginx);
    yard.stranger(&other, &["infinity"]);
    let end = Instant::now() + crate::suite::common::PATIENCE;
    let json = loop {
        let output = yard.command(PROGRAM).args(["check", "--json"]).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        let report: Value = serde_json::from_str(&text).unwrap();
        let found = report["nginx"].as_array().unwrap();
        let is_ready = |found: &Value| found["processes"][0]["workers"][0].is_u64();
        if found.len() == 2 && found.iter().any(is_ready) {
            break text;
        }
        assert!(Instant::now() < end, "{report:#}");
    };
    assert!(!json.trim_end().chars().any(is_unsafe), "{json:?}");
    let output = yard.command(PROGRAM).arg("check").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for line in text.lines() {
        assert!(!line.chars().any(is_unsafe), "{line:?}");
        assert!(!line.starts_with("ngx-bpf: "), "{line:?}");
    }
    assert!(text.contains(&format!("{SHOWN}/sleep")), "{text}");
}
