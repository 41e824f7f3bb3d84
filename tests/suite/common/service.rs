// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service as its unit describes it, without systemd. User, capabilities, `NoNewPrivileges` and
//! system calls are read from packaging/, so the tests use what is installed.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::program::copy_program;
use super::program::open_to_all;
use super::tool::PROGRAM;

/// The unit.
const UNIT: &str = include_str!("../../../packaging/ngx-bpf.service");

/// The script that extends the unit on some kernels.
const GENERATOR: &str = include_str!("../../../packaging/ngx-bpf.generator");

/// The system calls of systemd's groups.
const CALLS: &str = include_str!("../../data/syscalls.tsv");

/// The group that systemd always allows when it allows anything.
const ALWAYS: &str = "@default";

/// A user and a group without an entry in /etc/passwd and /etc/group.
const NOBODY: u32 = 64_123;

/// The capabilities that the project's unit may name, and their numbers.
const CAPABILITIES: [(&str, u32); 5] = [
    ("CAP_DAC_READ_SEARCH", 2),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
];

/// The rights of the service.
#[derive(Clone, Debug)]
pub struct Service {
    pub capabilities: BTreeSet<String>,
    pub calls: BTreeSet<u32>,
}

impl Service {
    /// Returns the rights of the installed service on the kernel that runs here.
    pub fn installed() -> Self {
        let text = format!("{UNIT}\n{}", drop_in());
        let set = |key| -> BTreeSet<String> {
            let values = values(&text, key).flat_map(str::split_whitespace);
            values.map(str::to_owned).collect()
        };
        let capabilities = set("AmbientCapabilities");
        assert_eq!(capabilities, set("CapabilityBoundingSet"));
        assert_eq!(set("NoNewPrivileges"), BTreeSet::from(["yes".to_owned()]));
        assert_eq!(
            set("SystemCallErrorNumber"),
            BTreeSet::from(["EPERM".to_owned()])
        );
        let mut calls = numbers(ALWAYS);
        for names in values(&text, "SystemCallFilter") {
            let (is_forbidden, names) = match names.strip_prefix('~') {
                Some(names) => (true, names),
                None => (false, names),
            };
            for name in names.split_whitespace() {
                let numbers = numbers(name);
                if is_forbidden {
                    calls.retain(|number| !numbers.contains(number));
                } else {
                    calls.extend(numbers);
                }
            }
        }
        Self {
            capabilities,
            calls,
        }
    }

    /// Returns the rights without one capability.
    pub fn without(&self, capability: &str) -> Self {
        let mut less = self.clone();
        assert!(less.capabilities.remove(capability), "{capability}");
        less
    }

    /// Returns the rights without one system call.
    pub fn without_call(&self, name: &str) -> Self {
        let mut less = self.clone();
        less.calls.retain(|call| !numbers(name).contains(call));
        less
    }

    /// Returns a command that runs the program as the service's user, with these rights. The
    /// program is a copy in this folder, which that user can reach.
    pub fn command(&self, folder: &TempDir) -> Command {
        let copy = folder.path().join("ngx-bpf");
        if !copy.exists() {
            open_to_all(folder.path());
            copy_program(Path::new(PROGRAM), &copy);
        }
        let mut command = Command::new(copy);
        let known = CAPABILITIES.into_iter();
        let held: Vec<u32> = known
            .filter(|(name, _)| self.capabilities.contains(*name))
            .map(|(_, number)| number)
            .collect();
        assert_eq!(held.len(), self.capabilities.len(), "{self:?}");
        let filter = filter(&self.calls);
        // SAFETY: between fork and exec the closure makes system calls only, and allocates nothing.
        unsafe {
            command.pre_exec(move || become_service(&held, &filter));
        }
        command
    }
}

/// Returns what the generator writes on this kernel.
fn drop_in() -> String {
    let folder = TempDir::new().unwrap();
    let status = Command::new("sh")
        .args(["-c", GENERATOR, "ngx-bpf-generator"])
        .args([folder.path(); 3])
        .status();
    assert!(status.unwrap().success());
    let written = folder.path().join("ngx-bpf.service.d/10-uprobes.conf");
    fs::read_to_string(written).unwrap_or_default()
}

/// Returns every value of a key, in order.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines
        .filter(move |(name, _)| *name == key)
        .map(|(_, value)| value)
}

/// Returns the numbers of a group or of one system call.
fn numbers(name: &str) -> BTreeSet<u32> {
    let mut rows = CALLS.lines().filter(|line| !line.starts_with('#'));
    let heads: Vec<&str> = rows.next().unwrap().split('\t').collect();
    let machine = heads
        .iter()
        .position(|head| *head == std::env::consts::ARCH);
    let machine = machine.unwrap();
    let rows: Vec<Vec<&str>> = rows.map(|row| row.split('\t').collect()).collect();
    let rows = rows.iter().filter(|row| row[0] == name || row[1] == name);
    let numbers: BTreeSet<&str> = rows.map(|row| row[machine]).collect();
    assert!(!numbers.is_empty(), "tests/data/syscalls.tsv lacks {name}");
    numbers
        .into_iter()
        .filter_map(|number| number.parse().ok())
        .collect()
}

/// Returns a filter like systemd's: a system call that is not allowed fails with EPERM.
fn filter(calls: &BTreeSet<u32>) -> Vec<libc::sock_filter> {
    let instruction = |code: u32, k: u32, jf: u8| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt: 0,
        jf,
        k,
    };
    let number = std::mem::offset_of!(libc::seccomp_data, nr);
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let mut filter = vec![instruction(load, u32::try_from(number).unwrap(), 0)];
    for call in calls {
        let equals = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        filter.push(instruction(equals, *call, 1));
        filter.push(instruction(libc::BPF_RET, libc::SECCOMP_RET_ALLOW, 0));
    }
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs();
    filter.push(instruction(libc::BPF_RET, refused, 0));
    filter
}

/// Drops all other capabilities, and forbids all other system calls.
fn become_service(held: &[u32], filter: &[libc::sock_filter]) -> io::Result<()> {
    let done = |result: libc::c_long| {
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    };
    let prctl = |what: i32, value: libc::c_ulong, more: libc::c_ulong| {
        // SAFETY: the call takes numbers, and a pointer to a value that lives until it returns.
        done(unsafe { libc::prctl(what, value, more, 0_u64, 0_u64) }.into())
    };
    let bits = held.iter().fold(0_u64, |bits, number| bits | 1 << number);
    for number in 0..64 {
        if bits & 1 << number == 0 && prctl(libc::PR_CAPBSET_DROP, number, 0).is_err() {
            break; // The kernel knows no more.
        }
    }
    prctl(libc::PR_SET_KEEPCAPS, 1, 0)?;
    // SAFETY: the calls take numbers, and an empty list.
    unsafe {
        done(libc::syscall(
            libc::SYS_setgroups,
            0,
            std::ptr::null::<u32>(),
        ))?;
        done(libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY))?;
        done(libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY))?;
    }
    /* _LINUX_CAPABILITY_VERSION_3, and this process; the effective, permitted and inheritable sets. */
    let header = [0x2008_0522_u32, 0];
    let halves = [bits as u32, (bits >> 32) as u32];
    let data = halves.map(|half| [half; 3]);
    // SAFETY: both arguments have the layout of capset(2), and live until it returns.
    done(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) })?;
    for number in held {
        let raise = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
        prctl(libc::PR_CAP_AMBIENT, raise, u64::from(*number))?;
    }
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap_or(u16::MAX),
        filter: filter.as_ptr().cast_mut(),
    };
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    prctl(libc::PR_SET_SECCOMP, mode, &raw const program as u64)
}
