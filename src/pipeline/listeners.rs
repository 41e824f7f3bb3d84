// SPDX-License-Identifier: MIT OR Apache-2.0
//! The queues of nginx's listening sockets, from the kernel to the metrics.

use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;

use crate::bpf::types;
use crate::decode::facts;
use crate::follow::Follower;
use crate::host::stderr::Messages;
use crate::metrics::listen::ListenMetrics;
use crate::metrics::listen::Listener;
use crate::metrics::listen::Listeners;

/// The shortest interval at which the sockets are read.
const INTERVAL: Duration = Duration::from_secs(1);

/// The sockets are read at most in one part of this number of the time: an nginx may have very many files.
const SHARE: u32 = 100;

/// Reads listening sockets, and updates their metrics.
pub struct ListenerExport {
    metrics: ListenMetrics,
    /// The time at which they are read next. `None` before the first time.
    next: Option<Instant>,
    /// The processes whose sockets could not be read the last time, which was reported.
    failed: Vec<u32>,
}

impl ListenerExport {
    /// Exports sockets as these metrics.
    pub fn new(metrics: ListenMetrics) -> Self {
        Self {
            metrics,
            next: None,
            failed: Vec::new(),
        }
    }

    /// Reads the sockets of each nginx when that is due: those of its master, which has them all, or of the
    /// worker that the user named. It does not block: the kernel lists open files without waiting.
    pub fn tick(&mut self, follower: &Follower, messages: Messages) {
        let begun = Instant::now();
        let is_early = self.next.is_some_and(|next| begun < next);
        if is_early || !follower.tracer().reads_listeners() {
            return;
        }
        let reported = std::mem::take(&mut self.failed);
        let mut listeners = Listeners::new();
        let programs = follower.programs();
        for process in programs.flat_map(|program| &program.processes) {
            match read(follower, process.pid) {
                /* The pid meant this process all the time if it still lives. */
                Ok(sockets) if process.is_alive() => {
                    listeners.insert(process.pid, sockets);
                }
                Err(error) if process.is_alive() => {
                    self.failed.push(process.pid);
                    if !reported.contains(&process.pid) {
                        messages.warn(&error);
                    }
                }
                Ok(_) | Err(_) => {}
            }
        }
        self.metrics.update(&listeners);
        self.next = Some(begun + INTERVAL.max(begun.elapsed() * SHARE));
    }
}

/// Reads the listening sockets of a process.
fn read(follower: &Follower, pid: u32) -> Result<Vec<Listener>> {
    let sockets = follower.tracer().listeners(pid);
    let sockets = sockets.with_context(|| {
        format!("failed to read the listening sockets of pid {pid} for metrics")
    })?;
    Ok(sockets.iter().filter_map(listener).collect())
}

/// Returns a socket, if its address is known.
fn listener(socket: &types::listener) -> Option<Listener> {
    let address: SocketAddr = facts::address(&socket.address)?.into();
    Some(Listener {
        inode: socket.inode,
        address,
        waiting: socket.waiting,
        waiting_max: socket.waiting_max,
        drops: socket.drops,
    })
}
