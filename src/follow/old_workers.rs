// SPDX-License-Identifier: MIT OR Apache-2.0
//! The workers that are shutting down: nginx replaced them at a reload, and they live on until their last connection
//! ends.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::follow::processes::children_of;
use crate::follow::role;

/// The interval at which their titles are read.
const INTERVAL: Duration = Duration::from_secs(1);

/// The moment at which each of them was first seen to shut down.
type Seen = BTreeMap<u32, Instant>;

/// The old workers of some processes. A thread of its own looks for them, since reading a title may block for ever: then
/// none is seen any more.
pub struct OldWorkers(Arc<Mutex<Seen>>);

impl OldWorkers {
    /// Begins to look at these masters and workers, and at the workers that the masters start, until the value is dropped. Fails when there can be no thread.
    pub fn watch(pids: Vec<u32>) -> io::Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::new()));
        let to = Arc::downgrade(&seen);
        thread::Builder::new()
            .name("old_workers".to_owned())
            .spawn(move || look(&pids, &to))?;
        Ok(Self(seen))
    }

    /// Returns how long at least a worker has been shutting down. `None` when it was not seen to.
    pub fn old_for(&self, pid: u32) -> Option<Duration> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&pid).map(Instant::elapsed)
    }
}

/// Looks for old workers as long as their list is there.
fn look(pids: &[u32], to: &Weak<Mutex<Seen>>) {
    loop {
        let old = old_workers(pids);
        let now = Instant::now();
        let Some(seen) = to.upgrade() else {
            return;
        };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|pid, _| old.contains(pid));
        for pid in old {
            seen.entry(pid).or_insert(now);
        }
        drop(seen);
        thread::sleep(INTERVAL);
    }
}

/// Returns those of the processes and of their children that are shutting down.
fn old_workers(pids: &[u32]) -> Vec<u32> {
    let children = pids.iter().filter_map(|pid| children_of(*pid).ok());
    let all = pids.iter().copied().chain(children.flatten());
    all.filter(|pid| role::is_shutting_down(*pid)).collect()
}
