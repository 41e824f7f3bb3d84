// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which nginx to trace: from pids, or all that run, to processes with their binaries held open.
//! What is in a binary is `elf.rs`'s.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::ensure;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::event::poll;
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::pidfd_open;

use crate::host::foreign;
use crate::output::escape::Quoted;

/// What nginx's processes are called in `/proc/PID/comm`.
const COMM: &str = "nginx";

/// The role of a process is in the first bytes of its title.
const TITLE_BYTES_MAX: u64 = 64;

/// Where `/proc/PID/stat` has the parent, counted from the end of the name.
const PARENT: usize = 1;

/// Where it has when the process was started.
const STARTED: usize = 19;

/// What there is to say when none is found.
pub const NONE_RUNS: &str = "no nginx is running: start it, or name a process with --pid";

/// What a process is among nginx's, by the title that it gives itself (ngx_process_cycle.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Starts the workers.
    Master,
    /// Serves requests.
    Worker,
    /// Cache manager or loader.
    Helper,
    /// `master_process off`: no title.
    Single,
}

/// One process to trace, alive when it was found; `pidfd` tells when it no longer is.
#[derive(Debug)]
pub struct Process {
    /// As the caller's `/proc` counts.
    pub pid: u32,
    /// What it is. `None` when its title was not read.
    pub role: Option<Role>,
    /// The children that it had when its title was read, and what they were. Reading a title may wait
    /// for ever: only the lookout does.
    pub children: Vec<(u32, Role)>,
    /// Keeps the pid from meaning another process.
    pub pidfd: OwnedFd,
}

impl Process {
    /// Reads the titles of a process and of its children. Fails when there is no such process.
    pub fn open(pid: u32) -> Result<Self> {
        let mut process = Self::hold(pid)?;
        process.read_titles()?;
        Ok(process)
    }

    /// Reads the titles that there are by now. Fails when the process has ended.
    pub fn read_titles(&mut self) -> Result<()> {
        let pid = self.pid;
        let title = title(pid).with_context(|| format!("no process with pid {pid}"))?;
        self.role = Some(role(&title));
        let children = match listed_children(pid) {
            Some(children) => children,
            None => children(pid)?,
        };
        let children = children.into_iter();
        self.children = children.map(|child| (child, role_of(child))).collect();
        Ok(())
    }

    /// The same without any title, so that it never waits.
    pub fn hold(pid: u32) -> Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let raw = raw.with_context(|| format!("{pid} is no pid"))?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty())
            .with_context(|| format!("no process with pid {pid}"))?;
        Ok(Self {
            pid,
            role: None,
            children: Vec::new(),
            pidfd,
        })
    }

    /// Whether it has not ended.
    pub fn is_alive(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready == 0)
    }

    /// The children that it has now, without their titles.
    pub fn children(&self) -> Result<Vec<Self>> {
        /* One that has ended since is no loss. */
        let children = children(self.pid)?.into_iter();
        Ok(children.filter_map(|pid| Self::hold(pid).ok()).collect())
    }

    /// Whether a child of it serves requests. One that was started after the titles were read is not
    /// asked for its own: all that a master starts then counts, and what has nginx's name.
    pub fn is_worker(&self, child: u32) -> bool {
        let mut known = self.children.iter();
        match known.find(|(pid, _)| *pid == child) {
            Some((_, role)) => *role == Role::Worker,
            None => self.role == Some(Role::Master) || is_named_nginx(child),
        }
    }
}

/// A process that is passed over. It takes no descriptor: there may be thousands.
#[derive(Debug)]
pub struct Passed {
    /// As the caller's `/proc` counts.
    pub pid: u32,
    /// When it was started, in the kernel's ticks: another process with its pid was started later.
    started: u64,
}

impl Passed {
    /// `None` when it has ended.
    pub fn of(process: &Process) -> Option<Self> {
        let pid = process.pid;
        let started = stat(pid, STARTED)?;
        process.is_alive().then_some(Self { pid, started })
    }

    /// Whether it has not ended.
    pub fn is_alive(&self) -> bool {
        stat(self.pid, STARTED) == Some(self.started)
    }
}

/// Device and inode of a file: what probes are attached to.
pub type Inode = (u64, u64);

/// An nginx to trace: its process, and which file it runs.
#[derive(Debug)]
pub struct Target {
    /// The master, or the one worker that was asked for.
    pub process: Process,
    /// Path of the file that it runs, to show to people.
    pub path: PathBuf,
    /// The file itself.
    pub inode: Inode,
}

impl Target {
    /// A process, and the file that `/proc/PID/exe` leads to, whatever stands at its path by now. Fails when
    /// the process is gone or its binary can't be opened.
    pub fn of(process: Process) -> Result<(Self, File)> {
        let pid = process.pid;
        let context = || format!("failed to open the program of pid {pid}");
        let binary = foreign::program(pid).map_err(|error| explain(pid, error))?;
        let path = fs::read_link(format!("/proc/self/fd/{}", binary.as_raw_fd()));
        let path = path.with_context(context)?;
        let metadata = binary.metadata().with_context(context)?;
        ensure!(process.is_alive(), "no process with pid {pid}");
        let target = Self {
            process,
            path,
            inode: (metadata.dev(), metadata.ino()),
        };
        Ok((target, binary))
    }
}

/// Says what could not be opened, and what to do.
fn explain(pid: u32, error: anyhow::Error) -> anyhow::Error {
    let what = format!("failed to open the program of pid {pid}");
    let Ok(path) = fs::read_link(format!("/proc/{pid}/exe")) else {
        return error.context(what);
    };
    let remedy = match error.downcast_ref() {
        Some(&Errno::ACCESS) => "; run as root, or with CAP_DAC_READ_SEARCH as well",
        Some(&Errno::AGAIN) => "; somebody holds a lease on it",
        _ => "",
    };
    anyhow!("{what} ({}): {error:#}{remedy}", Quoted(&path))
}

/// Every nginx that runs, without those of `skip`. `at` is whose title is being read.
pub fn running(skip: &[u32], at: &AtomicU32) -> Result<Vec<u32>> {
    listed(skip, at, |pid| match role_of(pid) {
        Role::Master => true,
        /* Without a title it is known by its name, and is no one's worker to be. */
        Role::Single => is_named_nginx(pid) && !parent(pid).is_some_and(is_named_nginx),
        Role::Worker | Role::Helper => false,
    })
}

/// The nginx masters that run, likewise. One that is still starting, or only tests its configuration,
/// has no title yet.
pub fn masters(skip: &[u32], at: &AtomicU32) -> Result<Vec<u32>> {
    listed(skip, at, |pid| role_of(pid) == Role::Master)
}

/// The processes that are wanted, root's own first: no one else can make these wait.
fn listed(skip: &[u32], at: &AtomicU32, is_wanted: impl Fn(u32) -> bool) -> Result<Vec<u32>> {
    let mut pids = pids()?;
    pids.retain(|pid| {
        at.store(*pid, Ordering::Relaxed);
        !skip.contains(pid) && is_wanted(*pid)
    });
    at.store(0, Ordering::Relaxed);
    pids.sort_by_key(|pid| (!is_of_root(*pid), *pid));
    Ok(pids)
}

/// Whether a process is root's.
fn is_of_root(pid: u32) -> bool {
    fs::metadata(format!("/proc/{pid}")).is_ok_and(|metadata| metadata.uid() == 0)
}

/// The pid namespace of this process, by its inode: pids are what they are in there.
pub fn pid_namespace() -> Result<u32> {
    let metadata = fs::metadata("/proc/self/ns/pid").context("failed to read the pid namespace")?;
    u32::try_from(metadata.ino()).context("failed to read the pid namespace")
}

/// Fails when `/proc` counts pids in another namespace than this process, so that they would not
/// mean the same to the kernel.
pub fn check_proc() -> Result<()> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    /* One pid for each namespace, from that of /proc down to this process's. */
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    ensure!(
        pids.is_some_and(|pids| pids.split_whitespace().count() == 1),
        "/proc is of another pid namespace: mount this one's, as \"unshare --mount-proc\" does"
    );
    Ok(())
}

/// Whether `/proc/PID/comm` is nginx's.
fn is_named_nginx(pid: u32) -> bool {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
    comm.is_ok_and(|comm| comm.trim_end() == COMM)
}

/// The children of a process, as the kernel lists them for each of its threads: that may miss one while
/// another ends, and does not ask for every process of the machine. `None` when it can't be read, or the
/// kernel has no such lists (`CONFIG_PROC_CHILDREN`).
fn listed_children(pid: u32) -> Option<Vec<u32>> {
    let mut children = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let listed = fs::read_to_string(thread.ok()?.path().join("children")).ok()?;
        for child in listed.split_whitespace() {
            children.push(child.parse().ok()?);
        }
    }
    Some(children)
}

/// The children of a process.
fn children(pid: u32) -> Result<Vec<u32>> {
    let mut pids = pids()?;
    pids.retain(|child| parent(*child) == Some(pid));
    Ok(pids)
}

/// The role of a process, if it is one of nginx's.
fn role_of(pid: u32) -> Role {
    role(&title(pid).unwrap_or_default())
}

/// How a command line begins. A process may say that its own has gigabytes (`PR_SET_MM_MAP`).
fn title(pid: u32) -> io::Result<String> {
    let mut title = Vec::new();
    File::open(format!("/proc/{pid}/cmdline"))?
        .take(TITLE_BYTES_MAX)
        .read_to_end(&mut title)?;
    Ok(String::from_utf8_lossy(&title).into_owned())
}

/// The role that a command line tells of.
fn role(title: &str) -> Role {
    match title.strip_prefix("nginx: ") {
        Some(rest) if rest.starts_with("master process") => Role::Master,
        Some(rest) if rest.starts_with("worker process") => Role::Worker,
        Some(_) => Role::Helper,
        None => Role::Single,
    }
}

/// All processes.
fn pids() -> Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").context("failed to read /proc")? {
        let name = entry.context("failed to read /proc")?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    pids.sort_unstable();
    Ok(pids)
}

/// The parent's pid.
fn parent(pid: u32) -> Option<u32> {
    stat(pid, PARENT)
}

/// A field of `/proc/PID/stat`, counted from the end of the name, which may hold anything.
fn stat<T: FromStr>(pid: u32, field: usize) -> Option<T> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(field)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::Passed;
    use super::Process;
    use super::Role;
    use super::parent;
    use super::role;

    /// Check the titles that nginx gives its processes.
    #[test]
    fn titles() {
        for (title, expected) in [
            ("nginx: master process /usr/sbin/nginx\0", Role::Master),
            ("nginx: worker process\0\0\0", Role::Worker),
            ("nginx: worker process is shutting down\0", Role::Worker),
            ("nginx: cache manager process\0", Role::Helper),
            ("/usr/sbin/nginx\0-g\0daemon off;\0", Role::Single),
            ("", Role::Single),
        ] {
            assert_eq!(role(title), expected, "{title:?}");
        }
    }

    /// Check that the parent of this process is who the kernel says.
    #[test]
    fn own_parent() {
        assert_eq!(
            parent(std::process::id()),
            Some(std::os::unix::process::parent_id())
        );
    }

    /// Check that a child is seen while it lives, and known to be dead when it is.
    #[test]
    fn child() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let me = Process::open(std::process::id()).unwrap();
        let seen = Process::open(child.id()).unwrap();
        assert!(me.children().unwrap().iter().any(|c| c.pid == child.id()));
        assert!(me.children.contains(&(child.id(), Role::Single)));
        assert!(!me.is_worker(child.id()));
        assert!(seen.is_alive());
        let passed = Passed::of(&seen).unwrap();
        assert!(passed.is_alive());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!seen.is_alive() && !passed.is_alive());
        assert!(Passed::of(&seen).is_none());
    }

    /// Check that a pid that no one has is named, and that the others are found, each once.
    #[test]
    fn no_process() {
        let error = Process::open(4_194_305).unwrap_err();
        assert!(format!("{error:#}").contains("4194305"));
        assert!(Process::open(0).is_err());
    }
}
