// SPDX-License-Identifier: MIT OR Apache-2.0
//! The CPU time of threads, of processes, and of the whole machine.

use std::fs;

use rustix::param::clock_ticks_per_second;

/// Returns the CPU time of a thread, from the scheduler.
pub fn cpu_ns(pid: u32, thread: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

/// Returns the CPU time of all threads of a process.
pub fn process_cpu_ns(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let threads = threads.map(|thread| thread.unwrap().file_name().into_string().unwrap());
    threads
        .map(|thread| cpu_ns(pid, thread.parse().unwrap()))
        .sum()
}

/// Returns the time that all CPUs were busy: for processes, the kernel, interrupts and softirqs. What the hypervisor
/// took is not in it. The kernel counts ticks, so that it takes some seconds to be exact.
pub fn machine_ns() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let total = stat.lines().next().unwrap();
    let ticks: Vec<u64> = total
        .split_whitespace()
        .skip(1)
        .map(|ticks| ticks.parse().unwrap())
        .collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else {
        panic!("{total}");
    };
    (user + nice + system + irq + softirq) * (1_000_000_000 / clock_ticks_per_second())
}

/// What a request took.
#[derive(Clone, Copy)]
pub struct Cost {
    /// CPU time of nginx's worker, in ns.
    pub worker_ns: f64,
    /// CPU time of the whole machine, in ns: nginx, its upstream, the tool, softirqs, the load generator, and
    /// whatever else ran.
    pub machine_ns: f64,
}

impl Cost {
    /// Measures a load on a worker. `load` returns the number of its requests.
    pub fn of(worker: u32, load: impl FnOnce() -> u64) -> Self {
        let clocks = || (cpu_ns(worker, worker), machine_ns());
        let before = clocks();
        let requests = load() as f64;
        let after = clocks();
        Self {
            worker_ns: (after.0 - before.0) as f64 / requests,
            machine_ns: (after.1 - before.1) as f64 / requests,
        }
    }
}
