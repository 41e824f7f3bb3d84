// SPDX-License-Identifier: MIT OR Apache-2.0
//! The processes of nginx as `/proc` shows them: their pids, their children, and the files that they
//! run. A process is held by a pidfd, so that its pid never means another process.

use std::fs;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::ensure;
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::pidfd_open;

use crate::attach::iterator::MappedFiles;
use crate::attach::iterator::RealInode;
use crate::follow::role;
use crate::follow::role::Role;
use crate::host::confinement::Confinement;
use crate::host::container::Container;
use crate::host::descriptors;
use crate::host::escape::Quoted;
use crate::host::foreign;
use crate::host::memory::ForeignMemory;
use crate::host::process_stat::ProcessStat;

/// A process that was alive when it was opened. `pidfd` shows whether it still is.
#[derive(Debug)]
pub struct NginxProcess {
    /// The pid in the pid namespace of this process.
    pub pid: u32,
    /// Its role. `None` when its title was not read.
    pub role: Option<Role>,
    /// The children that it had when its title was read, and their roles. Reading a title may block
    /// for ever: only the lookout thread does it.
    pub children: Vec<(u32, Role)>,
    /// Its container. `None` when it is in none, or when its title was not read.
    pub container: Option<Arc<Container>>,
    /// Its memory, or why it could not be opened. `None` when nginx's own counters are not asked for.
    pub memory: Option<Result<Arc<ForeignMemory>>>,
    /// Ensures that the pid does not mean another process.
    pub pidfd: OwnedFd,
}

impl NginxProcess {
    /// Reads the titles of a process and of its children, and its container. Fails when there is no such
    /// process.
    pub fn open(pid: u32) -> Result<Self> {
        let mut process = Self::hold(pid)?;
        process.read_titles()?;
        process.container = Container::read(pid).map(Arc::new);
        Ok(process)
    }

    /// Reads the current titles. Fails when the process has ended.
    pub fn read_titles(&mut self) -> Result<()> {
        let pid = self.pid;
        let role = Role::read(pid).with_context(|| format!("no process with pid {pid}"))?;
        self.role = Some(role);
        let children = children_of(pid)?.into_iter();
        self.children = children
            .map(|child| (child, Role::current(child)))
            .collect();
        Ok(())
    }

    /// Opens a process without reading any title, so that it never blocks.
    pub fn hold(pid: u32) -> Result<Self> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let raw = raw.with_context(|| format!("invalid pid {pid}"))?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty())
            .with_context(|| format!("no process with pid {pid}"))?;
        Ok(Self {
            pid,
            role: None,
            children: Vec::new(),
            container: None,
            memory: None,
            pidfd,
        })
    }

    /// Returns whether the process has not ended.
    pub fn is_alive(&self) -> bool {
        descriptors::is_process_alive(&self.pidfd)
    }

    /// Returns the pid of the process that started it. `None` when it has ended.
    pub fn parent(&self) -> Option<u32> {
        parent(self.pid)
    }

    /// Opens the current children, without reading their titles.
    pub fn children(&self) -> Result<Vec<Self>> {
        /* A child that has ended since is left out. */
        let children = children(self.pid)?.into_iter();
        Ok(children.filter_map(|pid| Self::hold(pid).ok()).collect())
    }

    /// Returns the pids of the processes that serve requests: its workers, or itself.
    pub fn serving(&self) -> Vec<u32> {
        let workers = self
            .children
            .iter()
            .filter(|(_, role)| *role == Role::Worker);
        match self.role {
            Some(Role::Worker | Role::Single) => vec![self.pid],
            Some(Role::Master | Role::Helper) | None => workers.map(|(pid, _)| *pid).collect(),
        }
    }

    /// Returns whether a child serves requests. The title of a child that was started after the
    /// titles were read is not known: such a child counts if its parent is a master, or if it has
    /// nginx's name.
    pub fn is_worker(&self, child: u32) -> bool {
        let mut known = self.children.iter();
        match known.find(|(pid, _)| *pid == child) {
            Some((_, role)) => *role == Role::Worker,
            None => self.role == Some(Role::Master) || is_named_nginx(child),
        }
    }
}

/// A process that is remembered without a descriptor, since there may be thousands of processes
/// that can't be traced.
#[derive(Debug)]
pub struct KnownProcess {
    /// The pid in the pid namespace of this process.
    pub pid: u32,
    /// The start time in the kernel's ticks. It distinguishes this process from a later one with the same
    /// pid.
    started: u64,
}

impl KnownProcess {
    /// Remembers a process. `None` when it has ended.
    pub fn remember(process: &NginxProcess) -> Option<Self> {
        let pid = process.pid;
        let started = ProcessStat::read(pid)?.started;
        process.is_alive().then_some(Self { pid, started })
    }

    /// Returns whether the process has not ended.
    pub fn is_alive(&self) -> bool {
        ProcessStat::read(self.pid).is_some_and(|stat| stat.started == self.started)
    }
}

/// The inode of a file, which identifies it for as long as a process runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inode {
    /// The one that probes are attached to: of the layer that has the file, if it is on an overlay.
    Real(RealInode),
    /// The device and the number that the mount shows.
    Shown(u64, u64),
}

/// A process and the file that it runs.
#[derive(Debug)]
pub struct OpenedProcess {
    /// The master, or the one worker that the user named.
    pub process: NginxProcess,
    /// The path of the file, for messages.
    pub path: PathBuf,
    /// The inode of the file.
    pub inode: Inode,
}

impl OpenedProcess {
    /// Opens the file that `/proc/PID/exe` refers to, even if its path was changed or removed.
    /// Fails when the process has ended or the file can't be opened.
    pub fn open(process: NginxProcess, mapped: Option<&MappedFiles>) -> Result<(Self, File)> {
        let pid = process.pid;
        let context = || format!("failed to open the program of pid {pid}");
        let binary = foreign::program(pid).map_err(|error| with_remedy(pid, error))?;
        let path = fs::read_link(descriptors::path_of(&binary));
        let path = path.with_context(context)?;
        let inode = match mapped {
            Some(mapped) => Inode::Real(mapped.inode(&binary).with_context(context)?),
            None => {
                let metadata = binary.metadata().with_context(context)?;
                Inode::Shown(metadata.dev(), metadata.ino())
            }
        };
        ensure!(process.is_alive(), "no process with pid {pid}");
        let target = Self {
            process,
            path,
            inode,
        };
        Ok((target, binary))
    }
}

/// Adds to an error which process could not be opened, and what to do.
fn with_remedy(pid: u32, error: anyhow::Error) -> anyhow::Error {
    let what = format!("failed to open the program of pid {pid}");
    let Ok(path) = fs::read_link(format!("/proc/{pid}/exe")) else {
        /* Not even the link may be read: the kernel's ptrace_may_access() refuses it. */
        return match (error.downcast_ref(), Confinement::read().of_processes()) {
            (Some(&Errno::ACCESS | &Errno::PERM), Some(reason)) => {
                anyhow!("{what}: {error:#}; {reason}")
            }
            _ => error.context(what),
        };
    };
    let remedy = match error.downcast_ref() {
        Some(&Errno::ACCESS) => "; run as root, or with CAP_DAC_READ_SEARCH as well",
        Some(&Errno::AGAIN) => "; somebody holds a lease on it",
        _ => "",
    };
    anyhow!("{what} ({}): {error:#}{remedy}", Quoted(&path))
}

/// Returns the pid of every nginx that runs, which is that of its master or of its only process,
/// except those of `skip`. `at` is set to the pid whose title is being read.
pub fn running_nginx(skip: &[u32], at: &AtomicU32) -> Result<Vec<u32>> {
    listed(skip, at, |pid| match Role::current(pid) {
        Role::Master => true,
        /* A process without a title counts if it has nginx's name, unless it is a new child of another nginx. */
        Role::Single => is_named_nginx(pid) && !parent(pid).is_some_and(is_named_nginx),
        Role::Worker | Role::Helper => false,
    })
}

/// Returns the pids of the running nginx masters, in the same way as `running_nginx()`. A master
/// that is still starting, or only tests its configuration, has no title yet.
pub fn running_masters(skip: &[u32], at: &AtomicU32) -> Result<Vec<u32>> {
    listed(skip, at, |pid| Role::current(pid) == Role::Master)
}

/// Returns the wanted processes, root's own first, since no other user can make reading them block.
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

/// Returns whether a process belongs to root.
fn is_of_root(pid: u32) -> bool {
    fs::metadata(format!("/proc/{pid}")).is_ok_and(|metadata| metadata.uid() == 0)
}

/// Returns whether `/proc/PID/comm` has nginx's name, or that of a fork.
fn is_named_nginx(pid: u32) -> bool {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
    comm.is_ok_and(|comm| role::NAMES.contains(&comm.trim_end()))
}

/// Returns the children of a process from the kernel's lists of the children of each thread. A list
/// may miss a child while another one ends, but reading it takes less time than a search in all
/// processes. `None` when it can't be read, or when the kernel has no such lists
/// (`CONFIG_PROC_CHILDREN`).
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

/// Returns the current children of a process.
pub fn children_of(pid: u32) -> Result<Vec<u32>> {
    listed_children(pid).map_or_else(|| children(pid), Ok)
}

/// Returns the children of a process, by a search in all processes.
fn children(pid: u32) -> Result<Vec<u32>> {
    let mut pids = pids()?;
    pids.retain(|child| parent(*child) == Some(pid));
    Ok(pids)
}

/// Returns the pid of the parent. `None` when the process has ended.
fn parent(pid: u32) -> Option<u32> {
    ProcessStat::read(pid).map(|stat| stat.parent)
}

/// Returns the pids of all processes.
fn pids() -> Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").context("failed to read /proc")? {
        let name = entry.context("failed to read /proc")?.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    pids.sort_unstable();
    Ok(pids)
}

#[cfg(test)]
mod tests {
    use super::KnownProcess;
    use super::NginxProcess;
    use super::Role;

    /// Check that a child is found while it lives, and is known to have ended afterwards.
    #[test]
    fn child() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let me = NginxProcess::open(std::process::id()).unwrap();
        let seen = NginxProcess::open(child.id()).unwrap();
        assert!(me.children().unwrap().iter().any(|c| c.pid == child.id()));
        assert!(me.children.contains(&(child.id(), Role::Single)));
        assert!(!me.is_worker(child.id()));
        assert!(seen.is_alive());
        let known = KnownProcess::remember(&seen).unwrap();
        assert!(known.is_alive());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!seen.is_alive() && !known.is_alive());
        assert!(KnownProcess::remember(&seen).is_none());
    }

    /// Check that a pid that no process has is named in the error.
    #[test]
    fn no_process() {
        let error = NginxProcess::open(4_194_305).unwrap_err();
        assert!(format!("{error:#}").contains("4194305"));
        assert!(NginxProcess::open(0).is_err());
    }
}
