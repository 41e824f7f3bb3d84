// SPDX-License-Identifier: MIT OR Apache-2.0
//! The record of a worker that did not come back to its event loop.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::Serialize;

use crate::container::Container;
use crate::limits;
use crate::values::BlockPart;

/// A worker that did not come back to its event loop for long, so that none of its requests got on.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[schemars(deny_unknown_fields)]
pub struct Blocked<'a> {
    /// When it began: when the worker had something to do and could run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "pattern" = crate::schema::TIME_PATTERN,
        "x-unit" = "RFC 3339, UTC, nine decimals",
        "x-otel" = "time",
        "x-source" = "CLOCK_MONOTONIC, plus the distance of the wall clock, which is read ten times a second",
        "x-absent" = "the wall clock is out of range"
    ))]
    pub time: Option<String>,
    /// The pid of the worker, as in `request`.
    #[schemars(extend("x-source" = "the kernel"))]
    pub pid: u32,
    /// How long it took until the worker came back to its event loop.
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "the end of the sleep in `epoll_wait()`, or `ngx_process_events_and_timers()` where the \
                      worker did not sleep; and the next `ngx_process_events_and_timers()`"
    ))]
    pub duration_ns: u64,
    /// How much of that it ran on a CPU. This and the three keys that follow add up to `duration_ns`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "the rest of `duration_ns`",
        "x-absent" = "the three keys that follow add up to more than `duration_ns`"
    ))]
    pub on_cpu_ns: Option<u64>,
    /// How much of that it was in a sleep that nothing can interrupt (state D): it waited for a disk, for a
    /// file system, or for a lock of the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "tracepoint `sched_switch`, and the state of the task",
        "x-absent" = "as for `on_cpu_ns`"
    ))]
    pub io_ns: Option<u64>,
    /// How much of that it could run and waited for a CPU: other tasks had it, or the limit of its cgroup was
    /// reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "`task->sched_info.run_delay`",
        "x-absent" = "as for `on_cpu_ns`"
    ))]
    pub runqueue_ns: Option<u64>,
    /// How much of that it slept otherwise: it waited for a timer, a pipe, a lock or another process, or it
    /// was stopped (SIGSTOP, a debugger).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-unit" = "ns",
        "x-source" = "as for `io_ns`",
        "x-absent" = "as for `on_cpu_ns`"
    ))]
    pub sleep_ns: Option<u64>,
    /// What the worker did, or waited for, in the longest part of that which had no interruption.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-source" = "as for `io_ns`",
        "x-absent" = "no part lasted the 64th part of the TIME of `--blocked`"
    ))]
    pub longest_part: Option<BlockPart>,
    /// How long that part lasted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-unit" = "ns",
        "x-source" = "as for `io_ns`",
        "x-absent" = "`longest_part` is absent"
    ))]
    pub longest_part_ns: Option<u64>,
    /// Where the worker was in the kernel in that part: the functions, the innermost first, each with the
    /// distance of the instruction from its begin. If it slept, or was preempted, it begins with the function
    /// that called the scheduler.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::FRAMES_MAX), inner(length(max = limits::FRAME_MAX)), extend(
        "x-source" = "`bpf_get_stack()` when the worker left its CPU, or in a sample while it ran, and \
                      `/proc/kallsyms`",
        "x-absent" = "it was not in the kernel; it ran, and no sample was taken (below); the kernel does not \
                      show its addresses (`kernel.kptr_restrict`, CAP_SYSLOG)"
    ))]
    pub kernel_stack: Vec<String>,
    /// Where it was in nginx, its modules and libraries, likewise, with the name of the file in brackets.
    /// A function without a symbol has the offset in the file alone. Callers follow only as far as they are
    /// certain (below).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::FRAMES_MAX), inner(length(max = limits::FRAME_MAX)), extend(
        "x-source" = "the registers and the stack at the same moment; the symbols and `.eh_frame` of the files \
                      in `/proc/PID/maps`",
        "x-absent" = "it ran, and no sample was taken (below); its stack could not be read; the worker has \
                      ended meanwhile; more than 64 such records wait for their symbols"
    ))]
    pub user_stack: Vec<String>,
    /// `true`: the outermost functions were left out, so that the line is no longer than `--max-line`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend("x-source" = "ngx-bpf", "x-absent" = "nothing was left out"))]
    pub stacks_cut: bool,
    /// How many requests waited for the worker meanwhile: their bytes lay in the socket of the client, or in
    /// that of the upstream, or their connection waited to be accepted. Of HTTP/2 the requests that one read
    /// brings count as one. A wait of less than three ticks of the kernel's timer does not count (as for
    /// `read_wait_ns`), and neither do HTTP/3 and unix sockets.
    #[schemars(extend(
        "x-unit" = "requests",
        "x-source" = "what `accept_queue_ns`, `read_wait_ns` and `upstream_read_wait_ns` are made of, as far \
                      as it lies within this record's time"
    ))]
    pub waiting_requests: u64,
    /// How long they waited for it, all of them together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-unit" = "ns",
        "x-source" = "as for `waiting_requests`",
        "x-absent" = "no request waited"
    ))]
    pub waiting_ns: Option<u64>,
    /// How long the one waited that waited longest.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1), extend(
        "x-unit" = "ns",
        "x-source" = "as for `waiting_requests`",
        "x-absent" = "no request waited"
    ))]
    pub waiting_max_ns: Option<u64>,
    /// The container that nginx runs in.
    #[serde(flatten)]
    pub container: Container<'a>,
}

impl Blocked<'_> {
    /// Leaves out the outermost function of the longer stack. Returns false when there is none.
    pub(crate) fn leave_out(&mut self) -> bool {
        let (kernel, user) = (&mut self.kernel_stack, &mut self.user_stack);
        let longer = if kernel.len() > user.len() {
            kernel
        } else {
            user
        };
        let has_any = longer.pop().is_some();
        self.stacks_cut |= has_any;
        has_any
    }
}
