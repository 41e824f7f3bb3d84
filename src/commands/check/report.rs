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

/// The whole report. The names of the members are the JSON keys.
#[derive(Debug, Serialize)]
pub struct CheckReport {
    /// The survey.
    pub kernel: KernelReport,
    /// Every nginx that the user asked for.
    pub nginx: Vec<NginxReport>,
    /// Whether everything that the user asked for would be traced.
    pub works: bool,
    /// Whether some nginx can be traced, although others can't.
    #[serde(skip)]
    pub in_part: bool,
    /// Why some of it would not be traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The kernel and what it allows.
#[derive(Debug, Serialize)]
pub struct KernelReport {
    /// The release, as `uname -r` prints it.
    pub release: String,
    /// Capabilities that are needed, and held.
    pub capabilities: Vec<&'static str>,
    /// Capabilities that are missing.
    pub missing_capabilities: Vec<&'static str>,
    /// The features that tracing needs or uses.
    pub features: Vec<Feature>,
    /// The source of the bytes on sockets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sockets: Option<SocketSource>,
}

/// One nginx binary and its processes.
#[derive(Debug, Serialize)]
pub struct NginxReport {
    /// The processes that were asked for, and their workers.
    pub processes: Vec<ProcessReport>,
    /// The path of its file, if that could be opened.
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

/// The identity of a binary.
#[derive(Debug, Serialize)]
pub struct IdentityReport {
    /// The release.
    pub version: String,
    /// The build id of the file.
    pub build_id: Option<String>,
    /// `NGX_MODULE_SIGNATURE`
    pub signature: String,
    /// The name of the fork, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fork: Option<String>,
}

/// How a binary would be traced.
#[derive(Debug, Serialize)]
pub struct PlanReport {
    /// The source of the layout of its structs.
    pub layout: LayoutOrigin,
    /// The check of the layout against its code.
    pub layout_fit: LayoutFit,
    /// Where probes would go.
    pub probes: Vec<ProbeSite>,
    /// What the probes could not measure, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lack: Option<String>,
    /// Why the sockets of workers cannot be recognized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<String>,
}

/// Members that are where the binary's own code has them.
#[derive(Debug, Serialize)]
pub struct LayoutFit {
    /// Members that are.
    pub agree: usize,
    /// Members that were checked.
    pub asked: usize,
}

impl ProcessReport {
    /// Makes the report on a process and its workers.
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
    /// Makes the identity of a build.
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
    /// Makes the report on a binary that can be traced.
    pub fn traceable(program: Program) -> Self {
        let fit = &program.layout.fit;
        let plan = PlanReport {
            layout: program.layout.source,
            layout_fit: LayoutFit {
                agree: fit.agree.len(),
                asked: fit.asked(),
            },
            probes: program.probe_sites.sites,
            lack: program.probe_sites.http3_unavailable,
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

    /// Makes the report on a process that can't be traced.
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
