// SPDX-License-Identifier: MIT OR Apache-2.0
//! The socket sources. Each of them calls the same two functions of bpf/socket.bpf.h with the same
//! values. They differ only in where the state of a socket is kept.

use libbpf_rs::btf::types::Func;
use libbpf_rs::btf::types::Typedef;
use serde::Serialize;

use crate::attach::kernel_btf::KernelBtf;

/// The programs (bpf/ngx.bpf.c) for the kernel's tracepoints of Linux 6.3, each with its
/// tracepoint.
const TRACEPOINTS: [(&str, &str); 2] = [
    ("sock_send", "sock_send_length"),
    ("sock_recv", "sock_recv_length"),
];

/// The programs for kernel functions that transfer the same bytes, each with its function. Every
/// kernel with TCP has the first two functions.
const FUNCTIONS: [(&str, &str); 8] = [
    ("inet_sendmsg", "inet_sendmsg"),
    ("inet_recvmsg", "inet_recvmsg"),
    ("inet6_sendmsg", "inet6_sendmsg"),
    ("inet6_recvmsg", "inet6_recvmsg"),
    ("unix_sendmsg", "unix_stream_sendmsg"),
    ("unix_recvmsg", "unix_stream_recvmsg"),
    ("inet_sendpage", INET_SENDPAGE),
    ("unix_sendpage", "unix_stream_sendpage"),
];

/// A function that `sendfile()` calls before Linux 6.5. The tracepoints do not report its bytes.
const INET_SENDPAGE: &str = "inet_sendpage";

/// The tracepoint at the return of every system call of every process.
const SYSTEM_CALLS: (&str, &str) = ("syscall_exit", "sys_exit");

/// The program for the end of a socket, with its tracepoint. It needs state that is kept by socket.
const SOCKET_END: (&str, &str) = ("sock_destroy", "tcp_destroy_sock");

/// A source of the bytes on sockets: what reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SocketSource {
    /// The kernel's tracepoints.
    Tracepoint,
    /// Programs at the end of kernel functions.
    Fexit,
    /// A program at the end of system calls, including those of other processes.
    Syscall,
}

impl SocketSource {
    /// Returns the cheapest source that reports all bytes. `fexit` says whether the kernel supports
    /// fexit.
    pub fn choose(kernel: &KernelBtf, fexit: bool) -> Option<Self> {
        if have_tracepoints(kernel) {
            return Some(Self::Tracepoint);
        }
        let has_functions = FUNCTIONS[..2]
            .iter()
            .all(|(_, name)| has_function(kernel, name));
        if fexit && has_functions {
            return Some(Self::Fexit);
        }
        have_system_calls(kernel).then_some(Self::Syscall)
    }

    /// Returns the programs for which this kernel has a tracepoint or function, each with its name.
    pub fn programs(self, kernel: &KernelBtf) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Tracepoint => TRACEPOINTS.into_iter().chain([SOCKET_END]).collect(),
            Self::Fexit => FUNCTIONS
                .into_iter()
                .filter(|(_, name)| has_function(kernel, name))
                .chain([SOCKET_END])
                .collect(),
            Self::Syscall => vec![SYSTEM_CALLS],
        }
    }
}

/// Returns whether the kernel has a tracepoint of this name.
pub fn has_tracepoint(kernel: &KernelBtf, name: &str) -> bool {
    tracepoint_type(kernel, name).is_some()
}

/// Returns the BTF type of a tracepoint.
pub fn tracepoint_type(kernel: &KernelBtf, name: &str) -> Option<u32> {
    let name = format!("btf_trace_{name}");
    let tracepoint = kernel.find::<Typedef<'_>>(&name)?;
    Some(tracepoint.type_id().into())
}

/// Returns whether tracepoints report all bytes on sockets.
pub fn have_tracepoints(kernel: &KernelBtf) -> bool {
    let mut all = TRACEPOINTS.iter();
    all.all(|(_, name)| has_tracepoint(kernel, name)) && !has_function(kernel, INET_SENDPAGE)
}

/// Returns whether a tracepoint reports system calls.
pub fn have_system_calls(kernel: &KernelBtf) -> bool {
    has_tracepoint(kernel, SYSTEM_CALLS.1)
}

/// Returns whether the kernel has a function of this name.
fn has_function(kernel: &KernelBtf, name: &str) -> bool {
    kernel.find::<Func<'_>>(name).is_some()
}

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;

    use libbpf_rs::skel::OpenSkel as _;
    use libbpf_rs::skel::SkelBuilder as _;

    use super::FUNCTIONS;
    use super::SOCKET_END;
    use super::SYSTEM_CALLS;
    use super::TRACEPOINTS;
    use crate::bpf::NgxSkelBuilder;

    /// Check that the BPF object has each program, for the tracepoint or function that its row names.
    #[test]
    fn programs_of_the_object() {
        let mut storage = MaybeUninit::uninit();
        let open = NgxSkelBuilder::default().open(&mut storage).unwrap();
        let rows = TRACEPOINTS.iter().chain(&FUNCTIONS);
        for (name, place) in rows.chain([&SYSTEM_CALLS, &SOCKET_END]) {
            let mut programs = open.open_object().progs();
            let program = programs.find(|program| program.name() == *name);
            let program = program.unwrap_or_else(|| panic!("there is no program {name}"));
            let section = program.section().to_string_lossy();
            assert!(section.ends_with(&format!("/{place}")), "{name}: {section}");
        }
    }
}
