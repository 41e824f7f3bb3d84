// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which CPUs processes may use.

use rustix::thread::CpuSet;
use rustix::thread::Pid;
use rustix::thread::sched_getaffinity;
use rustix::thread::sched_setaffinity;

/// Processes that keep to a CPU until it is dropped.
pub struct Pinned(Vec<(Option<Pid>, CpuSet)>);

impl Pinned {
    /// Pins a worker to the first CPU, and these other processes, this thread and all that it starts from now on to
    /// the second one: the load generator and the tool. `None` when this process has only one CPU.
    pub fn apart(worker: u32, others: &[u32]) -> Option<Self> {
        let all = sched_getaffinity(None).unwrap();
        let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu));
        let (first, second) = (cpus.next()?, cpus.next()?);
        let id = |pid: &u32| Some(Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap());
        let others = others.iter().map(id).chain([None]);
        let wanted = others
            .map(|pid| (pid, second))
            .chain([(id(&worker), first)]);
        Some(Self(Vec::from_iter(wanted.map(|(pid, cpu)| {
            let before = sched_getaffinity(pid).unwrap();
            let mut only = CpuSet::new();
            only.set(cpu);
            sched_setaffinity(pid, &only).unwrap();
            (pid, before)
        }))))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        for (pid, before) in &self.0 {
            /* A process may have ended. */
            let _ = sched_setaffinity(*pid, before);
        }
    }
}
