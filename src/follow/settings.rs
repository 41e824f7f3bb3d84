// SPDX-License-Identifier: MIT OR Apache-2.0
//! The settings of what is traced.

use crate::attach::object::KernelFilter;
use crate::attach::socket_source::SocketSource;
use nginx_binary::Options;

/// What to trace.
#[derive(Clone, Debug)]
pub struct FollowSettings {
    /// The pids that the user named; empty for every nginx.
    pub pids: Vec<u32>,
    /// Whether masters that start later are traced as well, so that tracing does not end with the last
    /// process.
    pub wait: bool,
    /// Files that the user named for layouts.
    pub layout: Options,
    /// The source of the bytes on sockets. `None`: the best that the kernel has.
    pub sockets: Option<SocketSource>,
    /// The filters that run in BPF.
    pub filter: KernelFilter,
}
