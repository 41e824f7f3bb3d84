// SPDX-License-Identifier: MIT OR Apache-2.0
//! The features of the kernel that tracing uses, in one table.

use libbpf_rs::btf::types::Enum;
use libbpf_rs::btf::types::Func;
use serde::Serialize;

use crate::attach::kernel_btf::KernelBtf;
use crate::attach::socket_source;
use crate::attach::socket_source::SocketSource;
use crate::attach::trial::Trial;

/// The oldest kernel that has all features that tracing needs.
const OLDEST: &str = "Linux 5.15 or newer";

/// The sign of a feature in the kernel's types.
#[derive(Clone, Copy)]
pub enum Marker {
    /// An enum, and an enumerator of it.
    Enumerator(&'static str, &'static str),
    /// The kernel's tracepoints report all bytes on sockets.
    SocketTracepoints,
    /// The kernel loads and attaches fexit programs.
    Fexit,
    /// A tracepoint that reports system calls.
    SystemCalls,
    /// The kernel has any socket source.
    AnySocketSource,
}

/// A feature of the kernel that tracing uses.
pub struct Requirement {
    /// The name in reports.
    pub name: &'static str,
    /// The sign that the kernel has the feature.
    pub evidence: Marker,
    /// True when tracing works without the feature.
    pub is_optional: bool,
    /// The kernel that has the feature, or the option that it is built with.
    pub needs: &'static str,
}

/// The programs (bpf/ngx.bpf.c) for tracepoints that every kernel must have, each with its
/// tracepoint.
pub const TRACEPOINTS: [(&str, &str); 4] = [
    ("sock_state", "inet_sock_set_state"),
    ("process_fork", "sched_process_fork"),
    ("process_exec", "sched_process_exec"),
    ("process_exit", "sched_process_exit"),
];

/// The features of BPF without which nothing is traced, in the order in which the kernel got them.
pub const BPF_REQUIREMENTS: [Requirement; 3] = [
    Requirement {
        name: "the BPF ring buffer",
        evidence: Marker::Enumerator("bpf_map_type", "BPF_MAP_TYPE_RINGBUF"),
        is_optional: false,
        needs: OLDEST,
    },
    Requirement {
        name: "BPF task storage",
        evidence: Marker::Enumerator("bpf_map_type", "BPF_MAP_TYPE_TASK_STORAGE"),
        is_optional: false,
        needs: OLDEST,
    },
    Requirement {
        name: "BPF attach cookies",
        evidence: Marker::Enumerator("bpf_func_id", "BPF_FUNC_get_attach_cookie"),
        is_optional: false,
        needs: OLDEST,
    },
];

/// Further features.
const REQUIREMENTS: [Requirement; 5] = [
    Requirement {
        name: "tracepoints of all bytes on sockets",
        evidence: Marker::SocketTracepoints,
        is_optional: true,
        needs: "Linux 6.5 or newer",
    },
    Requirement {
        name: "fexit",
        evidence: Marker::Fexit,
        is_optional: true,
        needs: "CONFIG_FUNCTION_TRACER, and a kernel that lets it in",
    },
    Requirement {
        name: "tracepoint of system calls",
        evidence: Marker::SystemCalls,
        is_optional: true,
        needs: "CONFIG_HAVE_SYSCALL_TRACEPOINTS",
    },
    Requirement {
        name: "a source of all bytes on sockets",
        evidence: Marker::AnySocketSource,
        is_optional: false,
        needs: "Linux 6.5 or newer, fexit, or the tracepoint sys_exit",
    },
    Requirement {
        name: "uprobe_multi",
        evidence: UPROBE_MULTI,
        is_optional: true,
        needs: "Linux 6.6 or newer",
    },
];

/// The sign of `uprobe_multi`: links of several uprobes at once.
pub const UPROBE_MULTI: Marker = Marker::Enumerator("bpf_attach_type", "BPF_TRACE_UPROBE_MULTI");

impl Marker {
    /// Returns whether the kernel has the feature. `has_fexit` is the result of `supports_fexit()`,
    /// which takes a moment to find out.
    pub fn is_in(self, kernel: &KernelBtf, has_fexit: bool) -> bool {
        match self {
            Self::Enumerator(enumeration, enumerator) => {
                let enumeration = kernel.find::<Enum<'_>>(enumeration);
                enumeration.is_some_and(|enumeration| {
                    let mut names = enumeration.iter().filter_map(|member| member.name);
                    names.any(|name| name == enumerator)
                })
            }
            Self::SocketTracepoints => socket_source::have_tracepoints(kernel),
            Self::Fexit => has_fexit,
            Self::SystemCalls => socket_source::have_system_calls(kernel),
            Self::AnySocketSource => SocketSource::choose(kernel, has_fexit).is_some(),
        }
    }
}

/// A function of every kernel with TCP, on which `fexit` programs are tried.
const TRACED_FUNCTION: &str = "inet_sendmsg";

/// The state of a feature. The names of the members are JSON keys.
#[derive(Debug, Serialize)]
pub struct Feature {
    /// The name in reports.
    pub name: String,
    /// True when the kernel has the feature.
    pub found: bool,
    /// True when tracing works without the feature.
    pub optional: bool,
    /// The kernel that has the feature, or the option that it is built with.
    pub needs: &'static str,
}

impl Requirement {
    /// Returns the state of the feature. `has_fexit` is as in `Marker::is_in()`.
    fn state(&self, kernel: &KernelBtf, has_fexit: bool) -> Feature {
        Feature {
            name: self.name.to_owned(),
            found: self.evidence.is_in(kernel, has_fexit),
            optional: self.is_optional,
            needs: self.needs,
        }
    }
}

/// Returns the state of all features: those of BPF, the tracepoints, and the others.
pub fn features(kernel: &KernelBtf, has_fexit: bool) -> impl Iterator<Item = Feature> {
    let tracepoints = TRACEPOINTS.iter().map(|(_, tracepoint)| Feature {
        name: format!("tracepoint {tracepoint}"),
        found: socket_source::has_tracepoint(kernel, tracepoint),
        optional: false,
        needs: OLDEST,
    });
    let state = move |requirement: &Requirement| requirement.state(kernel, has_fexit);
    let of_bpf = BPF_REQUIREMENTS.iter().map(state);
    of_bpf
        .chain(tracepoints)
        .chain(REQUIREMENTS.iter().map(state))
}

/// Returns whether the kernel loads and attaches programs at the end of its functions. Some kernels
/// refuse to load them. Others load them and refuse to attach them (arm64 before Linux 6.4). Attaching
/// is therefore tried on arm64, but only if such programs would be used.
pub fn supports_fexit(kernel: &KernelBtf) -> bool {
    let Some(function) = kernel.find::<Func<'_>>(TRACED_FUNCTION) else {
        return false;
    };
    let Ok(trial) = Trial::of_fexit(function.type_id().into()) else {
        return false;
    };
    cfg!(target_arch = "x86_64")
        || socket_source::have_tracepoints(kernel)
        || trial.attach_to_kernel().is_ok()
}
