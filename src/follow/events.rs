// SPDX-License-Identifier: MIT OR Apache-2.0
//! What becomes of traced processes: masters of upgrades, workers that could not be traced, and
//! binaries that no process runs any more.

use std::time::Duration;
use std::time::Instant;

use anyhow::Result;

use crate::attach::departed::Departed;
use crate::attach::process_event::ProcessEvent;
use crate::follow::Follower;
use crate::follow::processes::NginxProcess;
use crate::follow::traced::TracedBinary;
use crate::host::usage::release_free_memory;

/// The interval at which binaries that no process runs any more are looked for.
const RETIREMENT: Duration = Duration::from_secs(1);

impl Follower {
    /// Handles what BPF reports of traced processes: masters of upgrades, since nginx replaces its
    /// binary by starting the new one from the old master, and workers without storage.
    pub(super) fn handle_events(&mut self) {
        while let Some(event) = self.tracer.next_event() {
            match event {
                ProcessEvent::Executed(pid) => {
                    self.upgrades.insert(pid);
                }
                ProcessEvent::Untraced(pid) => self.add_worker(pid),
                ProcessEvent::Ended(process) => {
                    self.ended.insert(process.pid, process);
                }
            }
        }
    }

    /// Removes what was kept of processes that have ended, and returns their requests in flight.
    pub fn forget_departed(&mut self) -> Result<Departed> {
        self.handle_events();
        let departed = self.tracer.forget_departed(&self.ended)?;
        self.ended.clear();
        self.containers.retain(&departed.containers);
        Ok(departed)
    }

    /// Traces a worker for which BPF had no memory. It has ended if it can't be opened.
    fn add_worker(&mut self, pid: u32) {
        let Ok(process) = NginxProcess::hold(pid) else {
            return;
        };
        let master = process.parent();
        let mut traced = self.traced.iter();
        let traced = traced.find_map(|traced| {
            let mut masters = traced.program.processes.iter();
            let master = masters.find(|process| Some(process.pid) == master)?;
            Some((traced, master.container.as_ref()))
        });
        let result = traced.map(|(traced, container)| {
            let container = self.containers.number(container);
            traced.add_process(&self.tracer, &process, false, container)
        });
        if !matches!(result, Some(Ok(()))) && process.is_alive() {
            self.untraced_processes += 1;
        }
    }

    /// Detaches the probes of binaries that no process runs any more. The workers of a master that
    /// has ended may go on. When the last master ends, this is done at once, since tracing may end then.
    pub(super) fn retire(&mut self) {
        let has_master = self.live_binaries() > 0;
        let is_last = std::mem::replace(&mut self.has_master, has_master) && !has_master;
        if !is_last && self.retired.elapsed() < RETIREMENT {
            return;
        }
        self.retired = Instant::now();
        for traced in &mut self.traced {
            traced.program.processes.retain(NginxProcess::is_alive);
        }
        if self.live_binaries() == self.traced.len() {
            return;
        }
        let live = match self.tracer.live_binaries() {
            Ok(live) => live,
            Err(error) => return self.messages.warn(&error),
        };
        let is_over = |traced: &mut TracedBinary| {
            !traced.program.is_alive() && !live.contains(&traced.probe.number())
        };
        let ended: Vec<_> = self.traced.extract_if(.., is_over).collect();
        if ended.is_empty() {
            return;
        }
        for ended in ended {
            self.tracer.detach(ended.probe);
        }
        release_free_memory();
    }
}
