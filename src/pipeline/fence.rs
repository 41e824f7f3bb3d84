// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rights that tracing needs: those with which it starts, and the fewer ones with which each
//! thread goes on.

use anyhow::Result;
use rustix::thread::CapabilitySet;

use crate::attach::kernel::Kernel;
use crate::attach::refusal;
use crate::host::privileges;
use crate::host::stderr::Messages;
use crate::host::stderr::Verbosity;
use crate::host::system_calls;
use crate::host::system_calls::Network;
use crate::host::system_calls::Threads;

/// The capabilities that the start may need. Those that nothing needs later are dropped then.
const AT_START: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::DAC_READ_SEARCH)
    /* --metrics may have a port below 1024. */
    .union(CapabilitySet::NET_BIND_SERVICE)
    /* Without it the bounding set can't be reduced. */
    .union(CapabilitySet::SETPCAP);

/// The capabilities of each thread while it traces. Only those that were held are kept. The
/// other threads (the ring reader, the server of metrics, the handler of signals) have none.
pub struct Rights {
    /// Those of the main thread, which attaches to binaries.
    following: CapabilitySet,
    /// Those of the threads that read these binaries.
    pub reading: CapabilitySet,
    /// Those of the thread that writes records.
    pub writing: CapabilitySet,
    /// What is done with the network.
    network: Network,
}

impl Rights {
    /// Returns the rights that are needed on this kernel. `has_output` says that records are written
    /// to a file of `-o`, and `has_receiver` that they are sent to a receiver.
    pub fn new(kernel: &Kernel, has_output: bool, has_receiver: bool) -> Result<Self> {
        let needed = refusal::needed(kernel.method).into_iter();
        let needed = needed.fold(CapabilitySet::DAC_READ_SEARCH, |all, (one, _)| all | one);
        let rights = Self::from_held(privileges::held()?, needed);
        Ok(Self {
            writing: match has_output {
                /* SIGUSR1 opens it again, in a folder or with an owner that may not be root. */
                true => CapabilitySet::DAC_OVERRIDE,
                false => CapabilitySet::empty(),
            },
            network: match has_receiver {
                true => Network::Connects,
                false => Network::Closed,
            },
            ..rights
        })
    }

    /// Returns the rights for needed capabilities. `CAP_SYS_ADMIN` stands in for those that were split
    /// off from it and are not held themselves.
    fn from_held(held: CapabilitySet, needed: CapabilitySet) -> Self {
        let with_admin = |needed: CapabilitySet| {
            let split_off = needed & (CapabilitySet::BPF | CapabilitySet::PERFMON);
            match held.contains(split_off) {
                true => needed,
                false => needed | CapabilitySet::SYS_ADMIN,
            }
        };
        /* Before Linux 5.19 reading a map or an iterator may need CAP_BPF. */
        let reading =
            CapabilitySet::BPF | CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH;
        Self {
            following: with_admin(needed),
            reading: with_admin(reading),
            writing: CapabilitySet::empty(),
            network: Network::Closed,
        }
    }

    /// Gives up what is not needed to attach to binaries and to trace. All threads must have been started
    /// that need more than the main thread keeps. What a sandbox or the kernel does not allow is
    /// reported, and tracing goes on.
    pub fn close(&self, messages: Messages) {
        match privileges::keep_only(self.following) {
            Ok(()) => messages.print(
                Verbosity::Verbose,
                format_args!("kept {}", names(self.following)),
            ),
            Err(error) => messages.print(
                Verbosity::Verbose,
                format_args!("failed to drop capabilities: {error}"),
            ),
        }
        match system_calls::give_up(Threads::All, self.network) {
            Ok(()) => messages.print(Verbosity::Verbose, "gave up system calls by a filter"),
            Err(error) => messages.print(
                Verbosity::Verbose,
                format_args!("failed to give up system calls by a seccomp filter: {error}"),
            ),
        }
    }
}

/// Becomes the user of `--user`, before any thread is started.
pub fn become_user(name: Option<&str>) -> Result<()> {
    name.map_or(Ok(()), |name| privileges::become_user(name, AT_START))
}

/// Returns the names of those of the capabilities that this thread holds.
fn names(capabilities: CapabilitySet) -> String {
    let held = privileges::held().unwrap_or(CapabilitySet::empty()) & capabilities;
    let names: Vec<_> = held
        .iter_names()
        .map(|(name, _)| format!("CAP_{name}"))
        .collect();
    match names.is_empty() {
        true => "no capability".to_owned(),
        false => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use rustix::thread::CapabilitySet;

    use super::Rights;

    /// Check that `CAP_SYS_ADMIN` is kept only where it stands in for others, and that threads that
    /// read binaries do not attach.
    #[test]
    fn stands_in() {
        let needed = CapabilitySet::BPF | CapabilitySet::PERFMON | CapabilitySet::SYS_PTRACE;
        let rights = Rights::from_held(CapabilitySet::all(), needed);
        assert_eq!(rights.following, needed);
        assert!(!rights.reading.contains(CapabilitySet::PERFMON));
        let admin = CapabilitySet::SYS_ADMIN;
        let rights = Rights::from_held(admin | CapabilitySet::BPF, needed);
        assert_eq!(rights.following, needed | admin);
        assert!(!rights.reading.contains(admin));
        let rights = Rights::from_held(admin, needed);
        assert!(rights.reading.contains(admin));
    }
}
