// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tracing needs of this machine and does not find, said before anything is loaded.

use std::path::Path;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Enum;
use libbpf_rs::btf::types::Typedef;
use rustix::thread::CapabilitySet;
use rustix::thread::capabilities;

/// Where a kernel built with `CONFIG_DEBUG_INFO_BTF` tells its types.
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// What the kernel must have: its BTF name, and what it is.
const TRACEPOINTS: [&str; 5] = [
    "sock_send_length",
    "sock_recv_length",
    "inet_sock_set_state",
    "sched_process_fork",
    "sched_process_exit",
];

/// Enumerators that stand for a feature: the enum, the name, the feature, and the kernel that
/// brought it.
const FEATURES: [(&str, &str, &str, &str); 3] = [
    (
        "bpf_map_type",
        "BPF_MAP_TYPE_RINGBUF",
        "the BPF ring buffer",
        "5.8",
    ),
    (
        "bpf_map_type",
        "BPF_MAP_TYPE_TASK_STORAGE",
        "BPF task storage",
        "5.11",
    ),
    (
        "bpf_func_id",
        "BPF_FUNC_get_attach_cookie",
        "BPF attach cookies",
        "5.15",
    ),
];

/// The kernel's types. Fails when a capability or a kernel feature is missing.
pub fn check() -> Result<Btf<'static>> {
    let held = capabilities(None).context("failed to read the capabilities")?;
    let missing = missing_capabilities(held.effective);
    if !missing.is_empty() {
        bail!("missing {}: run as root", missing.join(", "));
    }
    ensure!(
        Path::new(KERNEL_BTF).exists(),
        "this kernel tells no types: it needs {KERNEL_BTF} (CONFIG_DEBUG_INFO_BTF)"
    );
    let kernel =
        Btf::from_path(KERNEL_BTF).with_context(|| format!("failed to read {KERNEL_BTF}"))?;
    check_features(&kernel)?;
    Ok(kernel)
}

/// The names of what is not held: `CAP_SYS_ADMIN` stands for the first two.
fn missing_capabilities(held: CapabilitySet) -> Vec<&'static str> {
    let admin = held.contains(CapabilitySet::SYS_ADMIN);
    [
        (CapabilitySet::BPF, admin, "CAP_BPF"),
        (CapabilitySet::PERFMON, admin, "CAP_PERFMON"),
        (CapabilitySet::SYS_PTRACE, false, "CAP_SYS_PTRACE"),
    ]
    .into_iter()
    .filter(|(capability, otherwise, _)| !held.contains(*capability) && !otherwise)
    .map(|(_, _, name)| name)
    .collect()
}

/// Fails at the first feature that these types do not name.
fn check_features(kernel: &Btf<'_>) -> Result<()> {
    for (name, enumerator, feature, since) in FEATURES {
        let known = kernel.type_by_name::<Enum<'_>>(name).is_some_and(|ty| {
            ty.iter()
                .any(|member| member.name.is_some_and(|name| name == enumerator))
        });
        ensure!(
            known,
            "this kernel has not {feature}: it needs Linux {since} or newer"
        );
    }
    for tracepoint in TRACEPOINTS {
        let name = format!("btf_trace_{tracepoint}");
        ensure!(
            kernel.type_by_name::<Typedef<'_>>(&name).is_some(),
            "this kernel has no tracepoint {tracepoint}: it needs Linux 6.3 or newer"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::CapabilitySet;
    use super::missing_capabilities;

    /// Check that each missing capability is named, and that `CAP_SYS_ADMIN` stands for two.
    #[test]
    fn capabilities() {
        let all = CapabilitySet::BPF | CapabilitySet::PERFMON | CapabilitySet::SYS_PTRACE;
        assert!(missing_capabilities(all).is_empty());
        assert_eq!(
            missing_capabilities(CapabilitySet::empty()),
            ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE"]
        );
        assert_eq!(
            missing_capabilities(CapabilitySet::SYS_ADMIN),
            ["CAP_SYS_PTRACE"]
        );
    }
}
