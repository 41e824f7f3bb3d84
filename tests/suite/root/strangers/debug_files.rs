// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debug files that a stranger names: links, pipes, and files that never answer.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;

use super::beside;
use super::count;
use super::first_of;
use crate::suite::common::imitation::compile;
use crate::suite::common::imitation::objcopy;
use crate::suite::common::program::copy_program;
use crate::suite::common::program::open_to_all;
use crate::suite::common::tool::Ended;
use crate::suite::common::tool::PROGRAM;
use crate::suite::common::wait_right;
use crate::suite::common::yard::Yard;

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

/// Asserts that at least this number of strangers, those that came first, were taken for an nginx: their
/// layout was looked up, and with it the debug file.
fn assert_examined(ended: &Ended, strangers: usize) {
    let examined = count(ended, "tracing nginx ") - count(ended, ", 1 worker");
    assert!(examined >= strangers, "{:?}", ended.stderr);
}

/// Check a program whose debug file is a link to the kernel's log, which is a regular file, can be
/// opened, and blocks its reader.
#[test]
fn debug_file_is_kernel_log() {
    let yard = Yard::new();
    let program = with_debug_link(&yard.folder());
    symlink("/proc/kmsg", yard.folder().join("nginx.debug")).unwrap();
    let ended = beside(&yard, &[], || yard.stranger(&program, &[]));
    assert_examined(&ended, 1);
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
    let read = || {
        let output = yard.command(PROGRAM).args(["check", "--json"]).output();
        let report: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        let layout = report["nginx"][0]["layout"].as_str();
        layout.map(str::to_owned)
    };
    let layout = || wait_right(read, Option::is_some).unwrap();
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
        assert_examined(&result.unwrap(), 20);
    });
}

/// Check a debug file in a user's own file system, whose program never answers: a process that asks
/// it for anything waits, and can't even be killed.
#[test]
fn debug_file_on_deaf_file_system() {
    if !Path::new("/dev/fuse").exists() {
        println!("SKIP this kernel: there is no /dev/fuse");
        return;
    }
    let yard = Yard::new();
    let program = with_debug_link(&yard.folder());
    let mounted = yard.folder().join(".debug");
    fs::create_dir(&mounted).unwrap();
    let options = "fd=3,rootmode=40000,user_id=0,group_id=0,allow_other";
    let (is_mounted, refused) = (
        yard.folder().join("is-mounted"),
        yard.folder().join("refused"),
    );
    let script = format!(
        "{{ exec 3<>/dev/fuse && mount -i -t fuse -o {options} deaf \"$0\"; }} 2>\"$2.new\" || \
         {{ mv \"$2.new\" \"$2\"; exit; }}; touch \"$1\"; exec sleep infinity"
    );
    let mut deaf = yard.command("bash");
    deaf.args(["-c", &script])
        .args([&mounted, &is_mounted, &refused]);
    yard.start(&mut deaf);
    if first_of([&is_mounted, &refused]) == refused {
        let said = fs::read_to_string(&refused).unwrap();
        let reasons = [
            "No such device",
            "unknown filesystem type",
            "denied",
            "not permitted",
        ];
        let is_known = reasons.iter().any(|reason| said.contains(reason));
        assert!(is_known, "{said}");
        println!("SKIP this kernel: it mounts no FUSE: {}", said.trim());
        return;
    }
    let ended = beside(&yard, &[], || yard.stranger(&program, &[]));
    assert_examined(&ended, 1);
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
    let ended = beside(&yard, &[], || yard.stranger(&program, &[]));
    assert_examined(&ended, 1);
    /* The kernel takes a lease away after 45 s. */
    assert!(begun.elapsed() < Duration::from_secs(40));
}
