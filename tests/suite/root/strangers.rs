// SPDX-License-Identifier: MIT OR Apache-2.0
//! Other users of the machine can't stop a tool that traces every nginx. In each of these tests a
//! real nginx is traced whatever these users do, all of its requests have records, and the tool
//! ends as soon as it is asked to.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use crate::suite::common::client::Client;
use crate::suite::common::imitation;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::program::copy_program;
use crate::suite::common::program::kill;
use crate::suite::common::record::assert_equal;
use crate::suite::common::service::Service;
use crate::suite::common::tool::Ended;
use crate::suite::common::tool::PROGRAM;
use crate::suite::common::tool::Tool;
use crate::suite::common::wait_for;
use crate::suite::common::yard::Yard;

mod names;

mod debug_files;

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
    /* It may be found before it has started its worker, which is traced, too. */
    tool.wait_for_message(&format!("pid {pid}, "));
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

/// Waits until one of these files is there, and returns it.
fn first_of<const N: usize>(files: [&Path; N]) -> &Path {
    wait_for(|| {
        let file = files.into_iter().find(|file| file.exists());
        file.ok_or_else(|| format!("none of {files:?} has appeared"))
    })
}

/// Returns the number of lines with this text.
fn count(ended: &Ended, text: &str) -> usize {
    let lines = ended.stderr.iter();
    lines.filter(|line| line.contains(text)).count()
}

/// Starts the tool as the installed service runs it on this kernel: as an unprivileged user, with the
/// service's capabilities.
fn as_service(yard: &Yard, args: &[&str]) -> Tool {
    let copy = yard.folder().join("ngx-bpf");
    if !copy.exists() {
        copy_program(Path::new(PROGRAM), &copy);
    }
    let capabilities = Service::installed().capabilities.into_iter();
    let added = capabilities.map(|name| format!(",+{}", name[4..].to_lowercase()));
    let set = format!("-all{}", added.collect::<String>());
    let mut command = yard.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg("--no-new-privs");
    for kind in ["inh-caps", "ambient-caps", "bounding-set"] {
        command.arg(format!("--{kind}={set}"));
    }
    let mut tool = Tool::spawn(command.arg(copy).args(args));
    tool.read_stdout();
    tool
}

/// Check programs that the service may not read, one that is named nginx and one that has its
/// title: each is reported in one line, which says what to do, and the others are traced, with
/// `--wait` and without.
#[test]
fn unreadable_program() {
    let yard = Yard::new();
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

/// A process that sets its command line to a gigabyte, as any user may, and then makes its first file;
/// the second one when the kernel does not know the call (no `CONFIG_CHECKPOINT_RESTORE`).
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
    unsigned known;
    if (prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, &known, 0, 0))
        return !close(creat(argv[2], 0600));
    char *title = mmap(0, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    unsigned long at = (unsigned long)title;
    struct prctl_mm_map map = {
        at, at + 1, at, at + 1, at, at, at, at, at + size - 1, at, at, 0, 0, -1,
    };
    strcpy(title, "nginx: master process");
    if (prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0))
        return 1;
    close(creat(argv[1], 0600));
    return pause();
}
"#;

/// Check a command line of a gigabyte: only the beginning of a title is read.
#[test]
fn long_title() {
    let yard = Yard::new();
    let folder = yard.folder();
    fs::write(folder.join("title.c"), LONG_TITLE).unwrap();
    imitation::tool(&folder, "clang", &["-o", "title", "title.c"]);
    let (ready, unknown) = (folder.join("ready"), folder.join("unknown"));
    let mut titled = yard.command(folder.join("title").to_str().unwrap());
    yard.start(titled.args([&ready, &unknown]));
    if first_of([&ready, &unknown]) == unknown {
        println!("SKIP this kernel: it lets no process set its command line");
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
    first_of([&own.join("all")]);
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
