// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is collected of a worker: how long requests waited for it, and what blocked it.

use ngx_bpf_record::Blocked;
use ngx_bpf_record::Request;
use ngx_bpf_record::statistics::Rows;
use ngx_bpf_record::statistics::Times;
use ngx_bpf_record::values::BlockPart;

/// The most places at which a worker was blocked.
const PLACES_MAX: usize = 32;

/// Functions of the kernel that put a task to sleep, or take its CPU: what called them is what it waited for.
const SCHEDULERS: [&str; 12] = [
    "__schedule",
    "asm_sysvec_apic_timer_interrupt",
    "do_sched_yield",
    "io_schedule",
    "io_schedule_timeout",
    "irqentry_exit",
    "irqentry_exit_to_user_mode",
    "preempt_schedule",
    "preempt_schedule_common",
    "preempt_schedule_irq",
    "schedule",
    "schedule_timeout",
];

/// A worker.
#[derive(Clone, Debug)]
pub struct Worker {
    /// The number of its requests.
    pub requests: u64,
    /// How long bytes lay in the sockets of requests that waited for it.
    pub waits: Times,
    /// How often it was blocked.
    pub blocked: u64,
    /// How long it was blocked.
    pub blocked_ns: u128,
    /// The longest time that it was blocked, and when.
    pub longest: (u64, Option<String>),
    /// The number of requests that waited meanwhile.
    pub waiting: u64,
    /// How long they waited.
    pub waiting_ns: u128,
    /// How long the one waited that waited longest.
    pub waiting_max_ns: u64,
    /// Where it was in the longest parts.
    pub places: Rows<Place>,
}

impl Default for Worker {
    fn default() -> Self {
        Self {
            requests: 0,
            waits: Times::default(),
            blocked: 0,
            blocked_ns: 0,
            longest: (0, None),
            waiting: 0,
            waiting_ns: 0,
            waiting_max_ns: 0,
            places: Rows::new(PLACES_MAX),
        }
    }
}

/// A place at which a worker was blocked.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// What it did there.
    pub part: Option<BlockPart>,
    /// How long it was there.
    pub ns: u128,
    /// How often.
    pub count: u64,
    /// The functions, the innermost first.
    pub functions: Vec<String>,
}

impl Worker {
    /// Adds a request.
    pub fn request(&mut self, request: &Request<'_>) {
        self.requests += 1;
        let waits = [
            request.waits.read_wait_ns,
            request.waits.upstream_read_wait_ns,
        ];
        let known = waits.into_iter().flatten();
        if let Some(ns) = known.reduce(u64::saturating_add) {
            self.waits.add(ns);
        }
    }

    /// Adds a record of it.
    pub fn blocked(&mut self, blocked: &Blocked<'_>) {
        self.blocked += 1;
        self.blocked_ns += u128::from(blocked.duration_ns);
        if blocked.duration_ns > self.longest.0 {
            self.longest = (blocked.duration_ns, blocked.time.clone());
        }
        self.waiting = self.waiting.saturating_add(blocked.waiting_requests);
        self.waiting_ns += u128::from(blocked.waiting_ns.unwrap_or_default());
        let longest = blocked.waiting_max_ns.unwrap_or_default();
        self.waiting_max_ns = self.waiting_max_ns.max(longest);
        let (Some(part), Some(ns)) = (blocked.longest_part, blocked.longest_part_ns) else {
            return;
        };
        let functions = functions(blocked);
        let place = self.places.row(&format!("{part} {}", functions.join(" ")));
        place.part = Some(part);
        place.ns += u128::from(ns);
        place.count += 1;
        place.functions = functions;
    }
}

/// Returns the functions that say what a worker was at: the innermost one of the kernel that is not its scheduler, the
/// innermost one outside of it, and nginx's own.
fn functions(blocked: &Blocked<'_>) -> Vec<String> {
    let in_kernel = blocked.kernel_stack.iter().map(|frame| name(frame));
    let in_kernel = in_kernel
        .map(|(name, _)| name)
        .find(|name| !SCHEDULERS.contains(name));
    let of_user: Vec<_> = blocked.user_stack.iter().map(|frame| name(frame)).collect();
    let innermost = of_user.iter().find(|(name, _)| !name.is_empty());
    let own = of_user.iter().find(|(name, _)| name.starts_with("ngx_"));
    let mut functions: Vec<String> = in_kernel
        .map(|name| format!("{name} (kernel)"))
        .into_iter()
        .collect();
    for (name, file) in [innermost, own].into_iter().flatten() {
        let function = format!("{name} {file}");
        if !functions.contains(&function) {
            functions.push(function);
        }
    }
    functions
}

/// Returns the name and the file of a function in a stack: `write+0x10 (libc.so.6)`.
fn name(frame: &str) -> (&str, &str) {
    let (function, file) = frame.split_once(' ').unwrap_or((frame, ""));
    let name = function.split_once('+').map_or(function, |(name, _)| name);
    (name, file)
}
