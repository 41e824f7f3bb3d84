// SPDX-License-Identifier: MIT OR Apache-2.0
//! One nginx binary that is traced, with its processes.

use std::os::fd::AsFd as _;

use anyhow::Result;

use crate::attach::Probe;
use crate::attach::Tracer;
use crate::follow::containers::ContainerNumbers;
use crate::follow::messages;
use crate::follow::processes::NginxProcess;
use crate::follow::program::Program;
use crate::follow::role::Role;
use crate::host::stderr::Messages;

/// One binary and its probes.
pub struct TracedBinary {
    /// The binary, and its processes that are traced.
    pub program: Program,
    /// The probes in it.
    pub probe: Probe,
}

impl TracedBinary {
    /// Starts to trace the processes of the binary. Processes that can't be traced are removed from
    /// it, and returned with the reason.
    pub fn activate(
        &mut self,
        tracer: &Tracer,
        containers: &mut ContainerNumbers,
        messages: Messages,
    ) -> Vec<(NginxProcess, anyhow::Error)> {
        let mut failed = Vec::new();
        for process in std::mem::take(&mut self.program.processes) {
            match self.add(tracer, &process, containers, messages) {
                Ok(()) => self.program.processes.push(process),
                Err(error) => failed.push((process, error)),
            }
        }
        failed
    }

    /// Starts to trace one process and its workers, and reports that.
    pub fn add(
        &self,
        tracer: &Tracer,
        process: &NginxProcess,
        containers: &mut ContainerNumbers,
        messages: Messages,
    ) -> Result<()> {
        let container = containers.number(process.container.as_ref());
        let workers = self.add_with_workers(tracer, process, container)?;
        messages::started(messages, &self.program.identity.build, process.pid, workers);
        messages::uncounted(messages, &self.program, process);
        Ok(())
    }

    /// Starts to trace a process and, unless it is a worker, all its children, including those that
    /// it starts later, since a master that is still starting has no title that shows its role.
    /// Returns the number of its workers.
    fn add_with_workers(
        &self,
        tracer: &Tracer,
        process: &NginxProcess,
        container: u32,
    ) -> Result<usize> {
        let has_children = !matches!(process.role, Some(Role::Worker | Role::Helper));
        self.add_process(tracer, process, has_children, container)?;
        if !has_children {
            return Ok(1);
        }
        /* BPF adds the children that are started from now on. */
        let children = process.children()?;
        for child in &children {
            self.add_process(tracer, child, false, container)?;
        }
        let workers = children
            .iter()
            .filter(|child| process.is_worker(child.pid))
            .count();
        let serves_itself = process.role == Some(Role::Single) && workers == 0;
        Ok(if serves_itself { 1 } else { workers })
    }

    /// Starts to trace one process, and the processes that it starts later with `follow_children`.
    pub fn add_process(
        &self,
        tracer: &Tracer,
        process: &NginxProcess,
        follow_children: bool,
        container: u32,
    ) -> Result<()> {
        let pidfd = process.pidfd.as_fd();
        let pid = process.pid;
        /* So is a master that is still starting, which serves no requests. */
        let is_alone = process.role == Some(Role::Single);
        tracer.add_process(
            &self.probe,
            pid,
            pidfd,
            follow_children,
            is_alone,
            container,
        )
    }
}
