// SPDX-License-Identifier: MIT OR Apache-2.0
//! The report of `ngx-bpf check`. The names of the members are the JSON keys.

use nginx_binary::Identity;
use nginx_binary::layout::choose::LayoutOrigin;
use nginx_binary::layout::witness::functions::MemberPath;
use nginx_binary::layout::witness::path_name;
use nginx_binary::sites::ProbeSite;
use serde::Serialize;

use crate::attach::requirements::Feature;
use crate::attach::socket_source::SocketSource;
use crate::follow::candidate::Refused;
use crate::follow::processes::NginxProcess;
use crate::follow::program::Program;
use crate::follow::role::Role;

/// The whole report.
#[derive(Debug, Serialize)]
pub struct CheckReport {
    /// The survey of the kernel.
    pub kernel: KernelReport,
    /// Every nginx that the user asked for.
    pub nginx: Vec<NginxReport>,
    /// True when every nginx that the user asked for would be traced.
    pub works: bool,
    /// True when some nginx can be traced, although others can't.
    #[serde(skip)]
    pub in_part: bool,
    /// The reason why some nginx would not be traced. `None` when all would be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The features of the kernel, and the capabilities.
#[derive(Debug, Serialize)]
pub struct KernelReport {
    /// The release, as `uname -r` prints it.
    pub release: String,
    /// The capabilities that are needed, and held.
    pub capabilities: Vec<&'static str>,
    /// The capabilities that are missing.
    pub missing_capabilities: Vec<&'static str>,
    /// The features that tracing needs or uses.
    pub features: Vec<Feature>,
    /// The socket source. `None` when the kernel has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sockets: Option<SocketSource>,
}

/// One nginx binary and its processes.
#[derive(Debug, Serialize)]
pub struct NginxReport {
    /// The processes that the user asked for, and their workers.
    pub processes: Vec<ProcessReport>,
    /// The path of the binary, if it could be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The build of nginx. `None` when it could not be read.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityReport>,
    /// The plan to trace it. `None` when it can't be traced.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanReport>,
    /// The reason why it can't be traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A process that the user asked for.
#[derive(Debug, Serialize)]
pub struct ProcessReport {
    /// The pid of the master, or of the worker.
    pub pid: u32,
    /// The pids of its workers; empty when it is a worker itself.
    pub workers: Vec<u32>,
    /// The pids of the processes that serve requests: its workers, or itself.
    #[serde(skip)]
    pub serving: Vec<u32>,
}

/// The identity of a binary.
#[derive(Debug, Serialize)]
pub struct IdentityReport {
    /// The release of nginx.
    pub version: String,
    /// The build id of the file.
    pub build_id: Option<String>,
    /// `NGX_MODULE_SIGNATURE`
    pub signature: String,
    /// The name of the fork, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fork: Option<String>,
}

/// The plan to trace a binary.
#[derive(Debug, Serialize)]
pub struct PlanReport {
    /// The source of the layout.
    pub layout: LayoutOrigin,
    /// The file of layouts that it is from, if it is from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout_file: Option<String>,
    /// The result of the check of the layout against the binary's code.
    pub layout_fit: LayoutFit,
    /// The probes, with their sites.
    pub probes: Vec<ProbeSite>,
    /// The reason why some times could not be measured. `None` when all could be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lack: Option<String>,
    /// The reason why it could not be measured how long nginx makes requests wait. `None` when it could be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
    /// The reason why BPF could not recognize the sockets of workers. `None` when it could.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<String>,
}

/// The result of the check of a layout against the code of the binary.
#[derive(Debug, Serialize)]
pub struct LayoutFit {
    /// The number of members whose offset the code confirms.
    pub agree: usize,
    /// The number of members that were checked.
    pub asked: usize,
    /// The members that the code has elsewhere. Only `--trust-layout` accepts any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differ: Vec<String>,
    /// The members whose offset the code does not show.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

impl ProcessReport {
    /// Creates the report on a process and its workers.
    pub fn new(process: &NginxProcess) -> Self {
        let children = process.children.iter();
        let workers = children.filter(|(_, role)| *role == Role::Worker);
        let workers: Vec<u32> = workers.map(|(pid, _)| *pid).collect();
        Self {
            pid: process.pid,
            workers,
            serving: process.serving(),
        }
    }
}

impl IdentityReport {
    /// Creates the report on the identity of a binary.
    fn new(identity: Identity) -> Self {
        let Identity { build, build_id } = identity;
        Self {
            version: build.version.to_string(),
            build_id,
            signature: build.signature,
            fork: build.fork,
        }
    }
}

impl NginxReport {
    /// Creates the report on a binary that can be traced.
    pub fn traceable(program: Program) -> Self {
        let fit = &program.layout.fit;
        let names = |places: &[MemberPath]| places.iter().map(|place| path_name(place)).collect();
        let layout = program.layout.source;
        let plan = PlanReport {
            layout_file: layout.file().map(|file| file.display().to_string()),
            layout,
            layout_fit: LayoutFit {
                agree: fit.agree.len(),
                asked: fit.asked(),
                differ: names(&fit.differ),
                unknown: names(&fit.unknown),
            },
            probes: program.probe_sites.sites,
            lack: program.probe_sites.http3_unavailable,
            waits: program.probe_sites.waits_unavailable,
            events: None,
        };
        Self {
            processes: program.processes.iter().map(ProcessReport::new).collect(),
            path: Some(program.path.display().to_string()),
            identity: Some(IdentityReport::new(program.identity)),
            plan: Some(plan),
            error: None,
        }
    }

    /// Creates the report on a process that can't be traced.
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
            identity: identity.map(IdentityReport::new),
            plan: None,
            error: Some(format!("{:#}", refused.error)),
        }
    }
}
