// SPDX-License-Identifier: MIT OR Apache-2.0
//! The report of `ngx-bpf check`. The names of the members are the JSON keys.

use nginx_binary::build::Build;
use nginx_binary::layout::choose::LayoutOrigin;
use nginx_binary::sites::ProbeSite;
use serde::Serialize;

use crate::attach::requirements::Feature;
use crate::attach::socket_source::SocketSource;
use crate::follow::candidate::Refused;
use crate::follow::processes::NginxProcess;
use crate::follow::processes::Role;
use crate::follow::program::Program;

/// What was found. The names of the members are the JSON keys.
#[derive(Debug, Serialize)]
pub struct CheckReport {
    /// The survey.
    pub kernel: KernelReport,
    /// Every nginx that was asked for.
    pub nginx: Vec<NginxReport>,
    /// Whether all that was asked for would be traced.
    pub works: bool,
    /// Whether some nginx can be traced, although others can't.
    #[serde(skip)]
    pub in_part: bool,
    /// Why it would not, or not all that was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What the machine has.
#[derive(Debug, Serialize)]
pub struct KernelReport {
    /// As `uname -r`.
    pub release: String,
    /// Capabilities that are needed, and held.
    pub capabilities: Vec<&'static str>,
    /// Capabilities that are missing.
    pub missing_capabilities: Vec<&'static str>,
    /// What tracing needs, or does better with.
    pub features: Vec<Feature>,
    /// What tells of the bytes on sockets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sockets: Option<SocketSource>,
}

/// One nginx binary and its processes.
#[derive(Debug, Serialize)]
pub struct NginxReport {
    /// The processes that were asked for, and their workers.
    pub processes: Vec<ProcessReport>,
    /// Its path, if its file could be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Which nginx it is.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityReport>,
    /// How it would be traced, if it can be.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanReport>,
    /// Why it can't.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A process that was asked for.
#[derive(Debug, Serialize)]
pub struct ProcessReport {
    /// The master, or a worker.
    pub pid: u32,
    /// Pids of its workers; none when it is one itself.
    pub workers: Vec<u32>,
    /// Pids of those that serve requests: its workers, or itself.
    #[serde(skip)]
    pub serving: Vec<u32>,
}

/// What a binary says of itself.
#[derive(Debug, Serialize)]
pub struct IdentityReport {
    /// The release.
    pub version: String,
    /// Of the file.
    pub build_id: Option<String>,
    /// `NGX_MODULE_SIGNATURE`
    pub signature: String,
    /// What it calls itself, when that is not nginx.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fork: Option<String>,
}

/// How a binary would be traced.
#[derive(Debug, Serialize)]
pub struct PlanReport {
    /// Where the layout of its structs is from.
    pub layout: LayoutOrigin,
    /// How well it fits.
    pub layout_fit: LayoutFit,
    /// Where probes would go.
    pub probes: Vec<ProbeSite>,
    /// What these could not tell, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lack: Option<String>,
    /// Why the sockets of workers cannot be recognized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<String>,
}

/// Members that are where the binary's own code has them.
#[derive(Debug, Serialize)]
pub struct LayoutFit {
    /// How many are.
    pub agree: usize,
    /// Of how many.
    pub asked: usize,
}

impl ProcessReport {
    /// A process and its workers.
    pub fn new(process: &NginxProcess) -> Self {
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

impl IdentityReport {
    /// Of a build.
    fn new(build: Build, build_id: Option<String>) -> Self {
        Self {
            version: build.version.to_string(),
            build_id,
            signature: build.signature,
            fork: build.fork,
        }
    }
}

impl NginxReport {
    /// One that can be traced.
    pub fn traceable(program: Program) -> Self {
        let fit = &program.layout.fit;
        let plan = PlanReport {
            layout: program.layout.source,
            layout_fit: LayoutFit {
                agree: fit.agree.len(),
                asked: fit.asked(),
            },
            probes: program.hooks.sites,
            lack: program.hooks.http3_unavailable,
            events: None,
        };
        Self {
            processes: program.processes.iter().map(ProcessReport::new).collect(),
            path: Some(program.path.display().to_string()),
            identity: Some(IdentityReport::new(program.build, program.build_id)),
            plan: Some(plan),
            error: None,
        }
    }

    /// One that can't be traced.
    pub fn refused(refused: Refused) -> Self {
        let unknown = || ProcessReport {
            pid: refused.pid,
            workers: Vec::new(),
            serving: Vec::new(),
        };
        let process = refused
            .process
            .as_ref()
            .map_or_else(unknown, ProcessReport::new);
        let (path, identity) = match refused.binary {
            Some(binary) => (Some(binary.path), binary.identity),
            None => (None, None),
        };
        Self {
            processes: vec![process],
            path: path.map(|path| path.display().to_string()),
            identity: identity
                .map(|identity| IdentityReport::new(identity.build, identity.build_id)),
            plan: None,
            error: Some(format!("{:#}", refused.error)),
        }
    }
}
