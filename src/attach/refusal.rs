// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations that the kernel refuses to this process, and the capabilities that they need.

use std::io;

use rustix::thread::CapabilitySet;

use crate::attach::uprobe::UprobeMethod;
use crate::host::confinement::Confinement;

/// The capabilities that tracing needs: to load a program, to attach it, and to read processes of
/// other users.
pub const NEEDED: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
];

/// The capability that uprobes by `perf_event_open()` need besides, since Linux 5.15.189, 6.1.146
/// and 6.12.39 (CVE-2025-38466).
const PERF_NEEDED: (CapabilitySet, &str) = (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN");

/// An operation that the kernel refused.
pub struct Refusal {
    /// The operation, as it follows "refuses to" in messages.
    pub what: String,
    /// The kernel's error.
    pub error: io::Error,
    /// The capabilities that the operation needs.
    pub needed: Vec<(CapabilitySet, &'static str)>,
}

impl Refusal {
    /// Returns a function that makes the kernel's error a refusal to do `what`, which needs these
    /// capabilities.
    pub fn to(
        what: impl Into<String>,
        needed: Vec<(CapabilitySet, &'static str)>,
    ) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self {
            what,
            error,
            needed,
        }
    }

    /// Returns the names of the missing capabilities, if the refusal is about permissions.
    pub fn missing(&self, held: CapabilitySet) -> Vec<&'static str> {
        let needed = self.needed.iter();
        needed
            .filter(|(capability, _)| self.is_forbidden() && !holds(held, *capability))
            .map(|(_, name)| *name)
            .collect()
    }

    /// Returns whether the refusal is about permissions.
    fn is_forbidden(&self) -> bool {
        self.error.kind() == io::ErrorKind::PermissionDenied
    }

    /// Returns one line: the missing capabilities, or else the error, and what to do.
    pub fn complaint(&self, missing: &[&str]) -> String {
        let Self { what, error, .. } = self;
        if missing.contains(&PERF_NEEDED.1) {
            return format!(
                "missing {}: this kernel has no uprobe_multi links (Linux 6.6), and asks for it to {what}: \
                 run as root",
                missing.join(", ")
            );
        }
        if !missing.is_empty() {
            return format!("missing {}: run as root", missing.join(", "));
        }
        let confinement = Confinement::read();
        /* Under lockdown the verifier knows no helper that reads the kernel's memory: EINVAL. */
        let hint = if self.is_forbidden() || confinement.is_confidential() {
            format!(": {}", confinement.of_bpf())
        } else {
            String::new()
        };
        format!("the kernel refuses to {what}: {error}{hint}")
    }
}

/// Returns the capabilities that a method needs.
pub fn needed(method: UprobeMethod) -> Vec<(CapabilitySet, &'static str)> {
    let mut needed = NEEDED.to_vec();
    if method == UprobeMethod::Perf {
        needed.push(PERF_NEEDED);
    }
    needed
}

/// Returns whether a capability is held, either itself or by `CAP_SYS_ADMIN`, which includes all
/// capabilities but `CAP_SYS_PTRACE`.
pub fn holds(held: CapabilitySet, capability: CapabilitySet) -> bool {
    let admin = held.contains(CapabilitySet::SYS_ADMIN);
    held.contains(capability) || admin && capability != CapabilitySet::SYS_PTRACE
}

#[cfg(test)]
mod tests {
    use rustix::thread::CapabilitySet;

    use super::Refusal;
    use super::needed;
    use crate::attach::uprobe::UprobeMethod;

    /// Returns the complaint about a refusal to a process that holds these capabilities.
    fn complaint(error: i32, held: CapabilitySet, perf: bool) -> String {
        let needed = needed(if perf {
            UprobeMethod::Perf
        } else {
            UprobeMethod::Multi
        });
        let refusal = Refusal {
            what: "attach a uprobe".to_owned(),
            error: std::io::Error::from_raw_os_error(error),
            needed,
        };
        refusal.complaint(&refusal.missing(held))
    }

    /// Check that each missing capability is named, that `CAP_SYS_ADMIN` includes two of them, and
    /// that it is asked for by its name only where uprobes are perf events.
    #[test]
    fn capabilities() {
        let all = CapabilitySet::BPF | CapabilitySet::PERFMON | CapabilitySet::SYS_PTRACE;
        let complaint = |held, perf| complaint(libc::EACCES, held, perf);
        assert_eq!(
            complaint(CapabilitySet::empty(), false),
            "missing CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE: run as root"
        );
        assert_eq!(
            complaint(CapabilitySet::SYS_ADMIN, false),
            "missing CAP_SYS_PTRACE: run as root"
        );
        assert!(complaint(all, true).starts_with("missing CAP_SYS_ADMIN: this kernel has no"));
        assert!(complaint(all, false).starts_with("the kernel refuses to attach a uprobe: "));
    }

    /// Check that a refusal for another reason than permissions is reported with its own error.
    #[test]
    fn other_refusals() {
        let said = complaint(libc::EINVAL, CapabilitySet::empty(), true);
        assert_eq!(
            said,
            "the kernel refuses to attach a uprobe: Invalid argument (os error 22)"
        );
    }
}
