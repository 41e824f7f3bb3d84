// SPDX-License-Identifier: MIT OR Apache-2.0
//! Workers that do not come back to their event loop (`--blocked`), and the requests that wait for them.

use std::fs;
use std::fs::File;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use ngx_bpf_record::values::BlockPart;

use crate::suite::common::build::REWRITE;
use crate::suite::common::build::about;
use crate::suite::common::build::binary;
use crate::suite::common::build::is_built_without;
use crate::suite::common::build::is_script;
use crate::suite::common::client::Client;
use crate::suite::common::delay;
use crate::suite::common::disk::Disk;
use crate::suite::common::nginx::Nginx;
use crate::suite::common::program::kill;
use crate::suite::common::program::stop;
use crate::suite::common::record::Blocked;
use crate::suite::common::record::Record;
use crate::suite::common::tool::Ended;
use crate::suite::common::tool::Tool;
use crate::suite::common::wait_right;

/// How long a test blocks the worker, in milliseconds.
const BLOCK_MS: u64 = 300;

/// As long as a tick of the kernel's timer may be, in nanoseconds. Waits are measured in ticks.
const TICK_NS: u64 = 10_000_000;

/// The option of nginx's configure that leaves out patterns.
const WITHOUT_PATTERNS: &str = "--without-pcre";

/// The system call in which a worker waits that writes to a full pipe.
const WRITE: libc::c_long = libc::SYS_write;

/// A server one of whose locations has a log of its own. nginx waits for each write to a log.
const HTTP: &str = "
    server {
        listen 127.0.0.1:{port};
        location / { return 200 'hello\\n'; }
        location /blocks { access_log {prefix}/log/blocks; return 200 'hello\\n'; }
    }";

/// Returns nginx, and the other end of its pipe.
pub fn piped() -> (Nginx, File) {
    let mut pipe = None;
    let nginx = Nginx::prepared(HTTP, 9, |prefix| pipe = Some(make_pipe(prefix)));
    (nginx, pipe.unwrap())
}

/// Makes the pipe, and opens it so that nothing waits for an other end.
fn make_pipe(prefix: &Path) -> File {
    let path = prefix.join("log/blocks");
    fs::create_dir(prefix.join("log")).unwrap();
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    let mut options = File::options();
    options.read(true).write(true);
    options.custom_flags(libc::O_NONBLOCK).open(path).unwrap()
}

/// Fills the pipe.
pub fn fill(mut pipe: &File) {
    while pipe.write(&[b'\n'; 4096]).is_ok() {}
    while pipe.write(b"\n").is_ok() {}
}

/// Takes everything out of the pipe.
pub fn drain(mut pipe: &File) {
    let mut bytes = [0; 4096];
    while pipe.read(&mut bytes).is_ok() {}
}

/// Waits until a process is in a system call.
fn wait_in_call(pid: u32, call: libc::c_long) {
    let read = || fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap();
    let call = call.to_string();
    wait_right(read, |text| text.split(' ').next() == Some(&call));
}

/// Traces until the record of a blocked worker is written, and nginx has ended. Its functions have no names
/// when the worker has ended before.
fn until_record(nginx: Nginx, option: &str, requests: impl FnOnce(&Nginx)) -> Ended {
    let output = tempfile::NamedTempFile::new().unwrap();
    let (pid, path) = (nginx.pid().to_string(), output.path().to_str().unwrap());
    let tool = Tool::start(&["--pid", &pid, "--json", option, "--output", path], 1);
    requests(&nginx);
    let read = || fs::read_to_string(path).unwrap();
    wait_right(read, |text| text.contains("\"blocked\""));
    let mut ended = ended(nginx, tool);
    ended.stdout = read().lines().map(str::to_owned).collect();
    ended
}

/// Blocks the worker by a request between two calls, while another one arrives. Returns the worker.
pub fn block(nginx: &Nginx, begin: impl FnOnce(), end: impl FnOnce()) -> u32 {
    let worker = nginx.workers()[0];
    let mut innocent = Client::connect(nginx.port);
    innocent.get("/");
    nginx.wait_logged(1);
    begin();
    Client::connect(nginx.port).get("/blocks");
    wait_in_call(worker, WRITE);
    innocent.send("GET /innocent HTTP/1.1\r\nHost: test\r\n\r\n");
    delay(Duration::from_millis(BLOCK_MS));
    end();
    innocent.receive();
    worker
}

/// Asserts that a time is as long as the worker was blocked, as far as a busy machine keeps to it.
fn assert_blocked(ns: Option<u64>) {
    let least = BLOCK_MS * 950_000;
    assert!(ns.is_some_and(|ns| ns >= least), "{ns:?}");
}

/// Returns the only request for this uri.
fn request<'r>(records: &'r [Record], uri: &str) -> &'r Record {
    let mut all = records.iter();
    let found = all.find(|record| record.uri.as_deref() == Some(uri));
    found.unwrap_or_else(|| panic!("no {uri}: {records:#?}"))
}

/// Returns when it began and ended, in nanoseconds since 1970, and asserts that its parts add up.
fn range(blocked: &Blocked) -> (u64, u64) {
    let parts = [
        blocked.on_cpu_ns,
        blocked.io_ns,
        blocked.runqueue_ns,
        blocked.sleep_ns,
    ];
    let sum: u64 = parts.into_iter().map(Option::unwrap).sum();
    assert_eq!(sum, blocked.duration_ns, "{blocked:#?}");
    let time: jiff::Timestamp = blocked.time.as_deref().unwrap().parse().unwrap();
    let began = u64::try_from(time.as_nanosecond()).unwrap();
    (began, began + blocked.duration_ns)
}

/// Asserts that the stacks show where the worker was: in the kernel, and in nginx.
fn assert_stacks(blocked: &Blocked) {
    let has = |stack: &[String], part: &str| stack.iter().any(|frame| frame.contains(part));
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    if symbols.starts_with("0000000000000000 ") || symbols.is_empty() {
        println!("SKIP this kernel: it hides its symbols");
    } else {
        assert!(has(&blocked.kernel_stack, "pipe_write+"), "{blocked:#?}");
        assert!(!has(&blocked.kernel_stack, "__schedule+"), "{blocked:#?}");
    }
    let stack = &blocked.user_stack;
    assert!(!stack.is_empty(), "{blocked:#?}");
    if has(stack, "(libasan.so") {
        println!("SKIP: AddressSanitizer's frames leave no room for those of nginx");
        return;
    }
    if !stack[0].ends_with("(libc.so.6)") {
        println!("SKIP: the C library does not say who calls its functions");
        return;
    }
    if are_files_hidden() {
        return;
    }
    assert!(has(stack, "write+"), "{stack:#?}");
    let file = binary();
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(has(stack, &format!("({name})")), "{stack:#?}");
    if has_symbol("ngx_http_free_request") {
        assert!(has(stack, "ngx_http_free_request+"), "{stack:#?}");
    }
}

/// Returns whether no file of nginx can be read for its symbols. If so, it prints that this is skipped.
fn are_files_hidden() -> bool {
    let are_hidden = is_script();
    if are_hidden {
        println!("SKIP this machine: the files of this nginx are in mounts that only it sees");
    }
    are_hidden
}

/// Returns whether nginx has the symbol of a function. If not, it prints that this is skipped.
fn has_symbol(function: &str) -> bool {
    let bytes = fs::read(binary()).unwrap();
    let name = format!("{function}\0");
    let has = bytes.windows(name.len()).any(|at| at == name.as_bytes());
    if !has {
        println!("SKIP: this build has no symbol {function}");
    }
    has
}

/// Traces until nginx has ended.
fn ended(nginx: Nginx, tool: Tool) -> Ended {
    nginx.quit();
    let ended = tool.wait();
    ended.assert_clean();
    ended
}

/// Check a worker that is blocked by one request, while another one waits: the record of the worker and
/// that of the request agree.
#[test]
fn innocent_request() {
    let (nginx, pipe) = piped();
    let mut worker = 0;
    let ended = until_record(nginx, "--blocked", |nginx| {
        worker = block(nginx, || fill(&pipe), || drain(&pipe));
    });
    let (blocked, records) = (ended.blocked(), ended.records());
    let [blocked] = &blocked[..] else {
        panic!("{blocked:#?}");
    };
    assert_eq!(blocked.pid, worker);
    assert_blocked(Some(blocked.duration_ns));
    assert_blocked(blocked.sleep_ns);
    assert_eq!(blocked.longest_part, Some(BlockPart::Sleep), "{blocked:#?}");
    assert_eq!(blocked.longest_part_ns, blocked.sleep_ns, "{blocked:#?}");
    assert_stacks(blocked);
    let (began, end) = range(blocked);
    let innocent = request(&records, "/innocent");
    let waited = innocent.waits.read_wait_ns.unwrap();
    assert_eq!(blocked.waiting_requests, 1, "{blocked:#?}");
    assert_eq!(blocked.waiting_ns, blocked.waiting_max_ns);
    let context = format!("{blocked:#?}\n{innocent:#?}");
    assert_blocked(Some(waited));
    /* It was read after the worker came back, and had come when the worker was blocked. */
    let (read, waited_for_it) = (innocent.first_ns(), blocked.waiting_ns.unwrap());
    assert!(began < read - waited + TICK_NS && end < read, "{context}");
    let after = waited.checked_sub(waited_for_it).unwrap();
    assert!(after <= read - end + TICK_NS, "{context}");
    /* The one that blocks is answered before it blocks. */
    let guilty = request(&records, "/blocks");
    assert!(guilty.waits.read_wait_ns.is_none_or(|wait| wait < waited));
    assert!(guilty.first_ns() > began && guilty.first_ns() < end);
}

/// Check a worker that waits for a file system.
#[test]
fn frozen_disk() {
    if is_script() {
        println!("SKIP this machine: this nginx has another root folder, without the file system");
        return;
    }
    let mut disk = None;
    let prepare = |prefix: &Path| {
        disk = Disk::mount(prefix);
        let _ = fs::create_dir(prefix.join("log"));
    };
    let nginx = Nginx::prepared(HTTP, 9, prepare);
    let Some(disk) = disk else {
        println!("SKIP this machine: it can't mount a file as a file system");
        return;
    };
    let tool = Tool::start(
        &["--pid", &nginx.pid().to_string(), "--json", "--blocked"],
        1,
    );
    let freeze = || assert!(disk.freeze("-f"));
    block(&nginx, freeze, || assert!(disk.freeze("-u")));
    let ended = ended(nginx, tool);
    let blocked = ended.blocked();
    let [blocked] = &blocked[..] else {
        panic!("{blocked:#?}");
    };
    range(blocked);
    assert_blocked(blocked.io_ns);
    assert_eq!(blocked.longest_part, Some(BlockPart::Io), "{blocked:#?}");
    assert_eq!(blocked.waiting_requests, 1, "{blocked:#?}");
}

/// Gives a process a CPU before all others, so that only samples show where it is. Returns false where this
/// machine refuses that.
fn is_not_preempted(pid: u32) -> bool {
    let pid = pid.to_string();
    let status = Command::new("chrt").args(["-f", "-p", "1", &pid]).status();
    let is_done = status.is_ok_and(|status| status.success());
    if !is_done {
        println!("SKIP this machine: it gives nginx no priority, so that other tasks take its CPU");
    }
    is_done
}

/// Check a worker that computes: a pattern takes it long. Its stack shows that, although nothing takes it
/// off its CPU.
#[test]
fn computing() {
    if is_built_without(REWRITE) {
        return;
    }
    if about(&binary()).contains(WITHOUT_PATTERNS) {
        println!("SKIP: this nginx is built without patterns");
        return;
    }
    let nginx = Nginx::with(
        "server {
             listen 127.0.0.1:{port};
             location / { return 200 'hello\\n'; }
             location /computes { if ($arg_a ~ '^(a+)+$') { return 200 'yes\\n'; } return 200 'no\\n'; }
         }",
        9,
    );
    let mut is_alone = false;
    let ended = until_record(nginx, "--blocked=20ms", |nginx| {
        let mut client = Client::connect(nginx.port);
        client.get("/");
        is_alone = is_not_preempted(nginx.workers()[0]);
        client.get(&format!("/computes?a={}b", "a".repeat(23)));
    });
    let blocked = ended.blocked();
    blocked.iter().for_each(|blocked| {
        range(blocked);
    });
    let longest = blocked.iter().max_by_key(|blocked| blocked.on_cpu_ns);
    let longest = longest.expect("a blocked worker");
    assert!(longest.on_cpu_ns.unwrap() >= 10_000_000, "{blocked:#?}");
    let computes = request(&ended.records(), "/computes").first_ns();
    let (began, end) = range(longest);
    assert!(began < computes && computes < end, "{blocked:#?}");
    if is_alone {
        assert_eq!(longest.longest_part, Some(BlockPart::OnCpu), "{longest:#?}");
        assert!(!longest.user_stack.is_empty(), "{longest:#?}");
    }
    /* A worker that never had a CPU for itself may have no sample. */
    let is_seen = is_alone || !longest.user_stack.is_empty();
    if is_seen && !are_files_hidden() && has_symbol("ngx_http_regex_exec") {
        let mut stack = longest.user_stack.iter();
        /* Some builds leave the frame of ngx_http_regex_exec() before they go on in ngx_regex_exec(). */
        let is_there = stack.any(|frame| frame.contains("regex_exec+"));
        assert!(is_there, "{longest:#?}");
    }
}

/// Check a worker that is stopped: it sleeps, and nothing but that is asked of it.
#[test]
fn stopped() {
    let nginx = Nginx::simple();
    let tool = Tool::start(
        &["--pid", &nginx.pid().to_string(), "--json", "--blocked"],
        1,
    );
    let worker = nginx.workers()[0];
    Client::connect(nginx.port).get("/");
    stop(worker);
    delay(Duration::from_millis(BLOCK_MS));
    kill("CONT", worker);
    Client::connect(nginx.port).get("/");
    let ended = ended(nginx, tool);
    let blocked = ended.blocked();
    /* On a slow machine it may be away at other times as well. */
    let longest = blocked.iter().max_by_key(|blocked| blocked.sleep_ns);
    let blocked = longest.expect("a blocked worker");
    range(blocked);
    assert_blocked(blocked.sleep_ns);
    assert_eq!(blocked.waiting_requests, 0, "{blocked:#?}");
}

/// Check that idle and busy workers are not blocked, each for longer than the time that was asked for, and that a
/// shorter time is not reported.
#[test]
fn not_blocked() {
    let (nginx, pipe) = piped();
    let args = ["--pid", &nginx.pid().to_string(), "--json", "--blocked=2s"];
    let tool = Tool::start(&args, 1);
    block(&nginx, || fill(&pipe), || drain(&pipe));
    let longer = Duration::from_millis(2500);
    delay(longer);
    let end = Instant::now() + longer;
    while Instant::now() < end {
        assert_eq!(Client::connect(nginx.port).get("/").status, 200);
        /* So few requests are never lost, also when other tests have the CPUs. */
        delay(Duration::from_millis(1));
    }
    let ended = ended(nginx, tool);
    assert_eq!(ended.blocked(), []);
}

/// Check that nothing is loaded for it, and nothing is kept of it, when it is not asked for.
#[test]
fn off() {
    let (nginx, pipe) = piped();
    let tool = Tool::trace(nginx.pid());
    block(&nginx, || fill(&pipe), || drain(&pipe));
    let programs = tool.verified_instructions();
    assert!(programs.contains_key("free_request"), "{programs:?}");
    let of_turns = ["task_switch", "sample", "turn"];
    assert!(!of_turns.iter().any(|name| programs.contains_key(*name)));
    let ended = ended(nginx, tool);
    assert_eq!(ended.blocked(), []);
}
