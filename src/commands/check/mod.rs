// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx-bpf check`: what tracing would do on this machine, without doing it.

use std::fs;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use ngx_bpf_record::format::json::write_line;
use serde::Serialize;

use crate::attach::kernel::Machine;
use crate::attach::kernel::Need;
use crate::attach::socket_source::SocketSource;
use crate::cli::CheckArgs;
use crate::commands::trace::layout_options;
use crate::follow::candidate::Candidate;
use crate::follow::candidate::Refused;
use crate::follow::lookout::Lookout;
use crate::follow::lookout::News;
use crate::follow::lookout::Scope;
use crate::follow::processes;
use crate::follow::processes::Inode;
use crate::follow::processes::Role;
use crate::follow::program::Program;
use crate::host::descriptors;
use crate::host::pid_namespace;
use crate::output;
use nginx_binary::build::Build;
use nginx_binary::layout::choose::Source;
use nginx_binary::sites::Hook;
use text::Shown;

mod text;

/// What was found. The names of the members are the JSON keys.
#[derive(Debug, Serialize)]
struct Report {
    /// The machine.
    kernel: Kernel,
    /// Every nginx that was asked for.
    nginx: Vec<Nginx>,
    /// Whether all that was asked for would be traced.
    works: bool,
    /// Whether some nginx can be traced, although others can't.
    #[serde(skip)]
    in_part: bool,
    /// Why it would not, or not all that was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// What the machine has.
#[derive(Debug, Serialize)]
struct Kernel {
    /// As `uname -r`.
    release: String,
    /// Capabilities that are needed, and held.
    capabilities: Vec<&'static str>,
    /// Capabilities that are missing.
    missing_capabilities: Vec<&'static str>,
    /// What tracing needs, or does better with.
    features: Vec<Need>,
    /// What tells of the bytes on sockets.
    #[serde(skip_serializing_if = "Option::is_none")]
    sockets: Option<SocketSource>,
}

/// One nginx binary and its processes.
#[derive(Debug, Serialize)]
struct Nginx {
    /// The processes that were asked for, and their workers.
    processes: Vec<Process>,
    /// Its path, if its file could be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// Which nginx it is.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    identity: Option<Identity>,
    /// How it would be traced, if it can be.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    plan: Option<Plan>,
    /// Why it can't.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A process that was asked for.
#[derive(Debug, Serialize)]
struct Process {
    /// The master, or a worker.
    pid: u32,
    /// Pids of its workers; none when it is one itself.
    workers: Vec<u32>,
    /// Pids of those that serve requests: its workers, or itself.
    #[serde(skip)]
    serving: Vec<u32>,
}

/// What a binary says of itself.
#[derive(Debug, Serialize)]
struct Identity {
    /// The release.
    version: String,
    /// Of the file.
    build_id: Option<String>,
    /// `NGX_MODULE_SIGNATURE`
    signature: String,
    /// What it calls itself, when that is not nginx.
    #[serde(skip_serializing_if = "Option::is_none")]
    fork: Option<String>,
}

/// How a binary would be traced.
#[derive(Debug, Serialize)]
struct Plan {
    /// Where the layout of its structs is from.
    layout: Source,
    /// How well it fits.
    layout_fit: LayoutFit,
    /// Where probes would go.
    probes: Vec<Hook>,
    /// What these could not tell, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    lack: Option<String>,
    /// Why the sockets of workers cannot be recognized.
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<String>,
}

/// Members that are where the binary's own code has them.
#[derive(Debug, Serialize)]
struct LayoutFit {
    /// How many are.
    agree: usize,
    /// Of how many.
    asked: usize,
}

/// Looks, and writes the report to stdout. Whether tracing would work in full.
pub fn check(options: &CheckArgs) -> Result<bool> {
    let machine = Machine::look(None)?;
    let mut reason = machine.complaint();
    let is_machine_fit = reason.is_none();
    descriptors::raise_limit();
    let nginx = match look(options) {
        Ok(nginx) => nginx,
        Err(error) => {
            reason = reason.or_else(|| Some(format!("{error:#}")));
            Vec::new()
        }
    };
    let in_part = is_machine_fit && nginx.iter().any(|nginx| nginx.plan.is_some());
    let errors = nginx.iter().filter_map(|nginx| nginx.error.as_deref());
    let errors: Vec<&str> = errors.collect();
    let reason = reason.or_else(|| (!errors.is_empty()).then(|| errors.join("; ")));
    let report = Report {
        kernel: Kernel {
            release: release()?,
            capabilities: machine.capabilities,
            missing_capabilities: machine.missing_capabilities,
            features: machine.needs,
            sockets: machine.sockets,
        },
        /* No one asked for one that was only found: it can't make the others fail. */
        works: reason.is_none() || (in_part && options.pids.named().is_empty()),
        in_part,
        nginx,
        reason,
    };
    let mut text = Vec::new();
    if options.json {
        write_line(&mut text, &report)?;
    } else {
        let shown = Shown {
            report: &report,
            details: options.verbose,
        };
        text = shown.to_string().into_bytes();
    }
    output::print(&text)?;
    Ok(report.works)
}

/// What is known of every nginx that is asked for. Fails when there is none.
fn look(options: &CheckArgs) -> Result<Vec<Nginx>> {
    pid_namespace::ensure_proc_is_own()?;
    let mut found: Vec<(Option<Inode>, Nginx)> = Vec::new();
    let mut seen = Vec::new();
    let layout = layout_options(&options.layout);
    loop {
        let scope = Scope::of_user(&options.pids.named());
        let known = found.iter().filter_map(|(inode, _)| *inode).collect();
        let mut lookout = Lookout::start(scope, seen.clone(), known, &layout)?;
        while let Some(news) = lookout.wait(None) {
            match news {
                News::Over => break,
                News::Failed(error) => return Err(error),
                News::Candidate(pid, candidate) => {
                    seen.push(pid);
                    add(&mut found, candidate);
                }
            }
        }
        if !lookout.has_given_up() {
            break;
        }
    }
    ensure!(!found.is_empty(), processes::NONE_RUNS);
    let mut found: Vec<Nginx> = found.into_iter().map(|(_, nginx)| nginx).collect();
    for nginx in &mut found {
        if let Some(plan) = &mut nginx.plan {
            plan.events = without_epoll(&nginx.processes);
        }
    }
    Ok(found)
}

/// Adds what a look has found to what was found before.
fn add(found: &mut Vec<(Option<Inode>, Nginx)>, candidate: Candidate) {
    match candidate {
        Candidate::Gone => {}
        Candidate::Known(process, inode) => {
            let mut found = found.iter_mut();
            if let Some((_, nginx)) = found.find(|(known, _)| *known == Some(inode)) {
                nginx.processes.push(Process::of(&process));
            }
        }
        Candidate::New(program) => found.push((Some(program.inode), Nginx::traceable(*program))),
        Candidate::Refused(refused) => {
            let inode = refused.binary.as_ref().map(|binary| binary.inode);
            found.push((inode, Nginx::refused(*refused)));
        }
    }
}

impl Process {
    /// A process and its workers.
    fn of(process: &processes::NginxProcess) -> Self {
        let children = process.children.iter();
        let workers = children.filter(|(_, role)| *role == Role::Worker);
        let workers: Vec<u32> = workers.map(|(pid, _)| *pid).collect();
        let serving = match process.role {
            Some(Role::Worker | Role::Single) => vec![process.pid],
            Some(Role::Master | Role::Helper) | None => workers.clone(),
        };
        Self {
            pid: process.pid,
            workers,
            serving,
        }
    }
}

impl Identity {
    /// Of a build.
    fn of(build: Build, build_id: Option<String>) -> Self {
        Self {
            version: build.version.to_string(),
            build_id,
            signature: build.signature,
            fork: build.fork,
        }
    }
}

impl Nginx {
    /// One that can be traced.
    fn traceable(program: Program) -> Self {
        let fit = &program.layout.fit;
        let plan = Plan {
            layout: program.layout.source,
            layout_fit: LayoutFit {
                agree: fit.agree.len(),
                asked: fit.asked(),
            },
            probes: program.hooks.places,
            lack: program.hooks.lack,
            events: None,
        };
        Self {
            processes: program.processes.iter().map(Process::of).collect(),
            path: Some(program.path.display().to_string()),
            identity: Some(Identity::of(program.build, program.build_id)),
            plan: Some(plan),
            error: None,
        }
    }

    /// One that can't be traced.
    fn refused(refused: Refused) -> Self {
        let unknown = || Process {
            pid: refused.pid,
            workers: Vec::new(),
            serving: Vec::new(),
        };
        let process = refused.process.as_ref().map_or_else(unknown, Process::of);
        let (path, identity) = match refused.binary {
            Some(binary) => (Some(binary.path), binary.identity),
            None => (None, None),
        };
        Self {
            processes: vec![process],
            path: path.map(|path| path.display().to_string()),
            identity: identity.map(|identity| Identity::of(identity.build, identity.build_id)),
            plan: None,
            error: Some(format!("{:#}", refused.error)),
        }
    }
}

/// Whether a process has no epoll instance, which its sockets are recognized by. One that can't be looked
/// into may have one.
fn is_without_epoll(pid: u32) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    !descriptors
        .flatten()
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .any(|target| target.as_os_str() == "anon_inode:[eventpoll]")
}

/// What is to be said of workers that use another method of events.
fn without_epoll(processes: &[Process]) -> Option<String> {
    let serving = processes.iter().flat_map(|process| &process.serving);
    let without: Vec<String> = serving
        .filter(|pid| is_without_epoll(**pid))
        .map(u32::to_string)
        .collect();
    (!without.is_empty()).then(|| {
        format!(
            "no times of workers {}: they do not use epoll; set `use epoll` in `events`",
            without.join(", ")
        )
    })
}

/// The kernel's release.
fn release() -> Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease");
    let release = release.context("failed to read the kernel's release")?;
    Ok(release.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::process::Stdio;

    use super::Process;
    use super::without_epoll;

    /// Check that a process without epoll is named, and one that is gone is not, nor a master that
    /// has no worker yet.
    #[test]
    fn events() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        let process = |serving| Process {
            pid,
            workers: Vec::new(),
            serving,
        };
        let said = without_epoll(&[process(vec![pid])]).unwrap();
        assert!(said.contains(&format!("workers {pid}:")), "{said}");
        assert_eq!(without_epoll(&[process(Vec::new())]), None);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(without_epoll(&[process(vec![pid])]), None);
    }
}
