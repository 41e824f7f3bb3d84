// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tracing needs of this machine and does not find, said before anything is loaded.

use std::os::fd::FromRawFd as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Enum;
use libbpf_rs::btf::types::Func;
use libbpf_rs::btf::types::Typedef;
use libbpf_rs::libbpf_sys;
use rustix::thread::CapabilitySet;
use rustix::thread::capabilities;
use serde::Serialize;

/// Where a kernel built with `CONFIG_DEBUG_INFO_BTF` tells its types.
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// What the kernel must have: its BTF name, and what it is.
const TRACEPOINTS: [&str; 6] = [
    "sock_send_length",
    "sock_recv_length",
    "inet_sock_set_state",
    "sched_process_fork",
    "sched_process_exec",
    "sched_process_exit",
];

/// Without these nothing can be loaded, attached, or read.
const NEEDED: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
];

/// Enumerators that stand for a feature: the enum, the name, the feature, and the kernel that
/// brought it.
const FEATURES: [(&str, &str, &str, &str); 3] = [
    (
        "bpf_map_type",
        "BPF_MAP_TYPE_RINGBUF",
        "the BPF ring buffer",
        "Linux 5.8 or newer",
    ),
    (
        "bpf_map_type",
        "BPF_MAP_TYPE_TASK_STORAGE",
        "BPF task storage",
        "Linux 5.11 or newer",
    ),
    (
        "bpf_func_id",
        "BPF_FUNC_get_attach_cookie",
        "BPF attach cookies",
        "Linux 5.15 or newer",
    ),
];

/// The same for what is used where it is there, and done without where not.
const BETTER: [(&str, &str, &str, &str); 1] = [(
    "bpf_attach_type",
    "BPF_TRACE_UPROBE_MULTI",
    "uprobe_multi",
    "Linux 6.6 or newer",
)];

/// A function that every kernel with TCP has, to see whether `fentry` programs are let in.
const TRACED_FUNCTION: &str = "tcp_sendmsg";

/// What this machine has of what tracing needs.
pub struct Machine {
    /// Those of the needed capabilities that are held.
    pub capabilities: Vec<&'static str>,
    /// Capabilities that are missing.
    pub missing_capabilities: Vec<&'static str>,
    /// Features of the kernel, in the order in which they came.
    pub needs: Vec<Need>,
    /// The kernel's types.
    kernel: Option<Btf<'static>>,
}

/// One feature of the kernel.
#[derive(Debug, Serialize)]
pub struct Need {
    /// What it is.
    pub name: String,
    /// Whether it is there.
    pub found: bool,
    /// Whether tracing can do without it.
    pub optional: bool,
    /// The kernel to get it with.
    pub needs: &'static str,
}

impl Machine {
    /// Looks at everything. Fails when it can't look.
    pub fn look() -> Result<Self> {
        let held = capabilities(None).context("failed to read the capabilities")?;
        let kernel = Path::new(KERNEL_BTF)
            .exists()
            .then(|| Btf::from_path(KERNEL_BTF))
            .transpose()
            .with_context(|| format!("failed to read {KERNEL_BTF}"))?;
        let mut needs = vec![Need {
            name: format!("types in {KERNEL_BTF}"),
            found: kernel.is_some(),
            optional: false,
            needs: "CONFIG_DEBUG_INFO_BTF",
        }];
        needs.extend(kernel.iter().flat_map(features));
        needs.extend(kernel.as_ref().map(|kernel| Need {
            name: "fentry".to_owned(),
            found: lets_fentry_in(kernel),
            optional: true,
            needs: "CONFIG_FUNCTION_TRACER, and a kernel that lets it in",
        }));
        let missing_capabilities = missing_capabilities(held.effective);
        let mut capabilities = NEEDED.map(|(_, name)| name).to_vec();
        capabilities.retain(|name| !missing_capabilities.contains(name));
        Ok(Self {
            capabilities,
            missing_capabilities,
            needs,
            kernel,
        })
    }

    /// What is missing first, and what to do.
    pub fn complaint(&self) -> Option<String> {
        if !self.missing_capabilities.is_empty() {
            let missing = self.missing_capabilities.join(", ");
            return Some(format!("missing {missing}: run as root"));
        }
        let missing = self
            .needs
            .iter()
            .find(|need| !need.found && !need.optional)?;
        Some(format!(
            "this kernel lacks {}: it needs {}",
            missing.name, missing.needs
        ))
    }
}

/// The kernel's types. Fails when a capability or a kernel feature is missing.
pub fn check() -> Result<Btf<'static>> {
    let machine = Machine::look()?;
    match (machine.complaint(), machine.kernel) {
        (None, Some(kernel)) => Ok(kernel),
        (complaint, _) => bail!(complaint.unwrap_or_default()),
    }
}

/// The names of what is not held: `CAP_SYS_ADMIN` stands for all but the last.
fn missing_capabilities(held: CapabilitySet) -> Vec<&'static str> {
    let admin = held.contains(CapabilitySet::SYS_ADMIN);
    NEEDED
        .into_iter()
        .filter(|(capability, _)| {
            let otherwise = admin && *capability != CapabilitySet::SYS_PTRACE;
            !held.contains(*capability) && !otherwise
        })
        .map(|(_, name)| name)
        .collect()
}

/// Which features these types name.
fn features(kernel: &Btf<'_>) -> Vec<Need> {
    let enumerator = |(name, enumerator, feature, needs): (_, &str, &str, _), optional| Need {
        found: kernel.type_by_name::<Enum<'_>>(name).is_some_and(|ty| {
            ty.iter()
                .any(|member| member.name.is_some_and(|name| name == enumerator))
        }),
        name: feature.to_owned(),
        optional,
        needs,
    };
    let enumerators = FEATURES.map(|feature| enumerator(feature, false));
    let better = BETTER.map(|feature| enumerator(feature, true));
    let tracepoints = TRACEPOINTS.map(|tracepoint| Need {
        found: kernel
            .type_by_name::<Typedef<'_>>(&format!("btf_trace_{tracepoint}"))
            .is_some(),
        optional: false,
        name: format!("tracepoint {tracepoint}"),
        needs: "Linux 6.3 or newer",
    });
    let needs = enumerators.into_iter().chain(tracepoints);
    needs.chain(better).collect()
}

/// Whether a program may be loaded for the entry of a kernel function. It is not attached: some
/// kernels know the type and refuse it.
fn lets_fentry_in(kernel: &Btf<'_>) -> bool {
    let Some(function) = kernel.type_by_name::<Func<'_>>(TRACED_FUNCTION) else {
        return false;
    };
    /* r0 = 0; exit */
    let code = [0xb7_u64, 0x95].map(u64::to_le_bytes).concat();
    let options = libbpf_sys::bpf_prog_load_opts {
        sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as libbpf_sys::size_t,
        expected_attach_type: libbpf_sys::BPF_TRACE_FENTRY,
        attach_btf_id: function.type_id().into(),
        ..Default::default()
    };
    // SAFETY: the code has the two instructions that it is said to have, every pointer outlives the
    // call.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_TRACING,
            c"ngx_bpf_check".as_ptr(),
            c"GPL".as_ptr(),
            code.as_ptr().cast(),
            2,
            &raw const options as *mut _,
        )
    };
    if fd < 0 {
        return false;
    }
    // SAFETY: the descriptor is ours, and nobody else's.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    true
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::ptr::NonNull;

    use libbpf_rs::btf::Btf;
    use libbpf_rs::libbpf_sys;

    use super::CapabilitySet;
    use super::FEATURES;
    use super::KERNEL_BTF;
    use super::Machine;
    use super::features;
    use super::missing_capabilities;

    /// The types of a kernel that has the first `known` features, and no tracepoint.
    fn kernel(known: usize) -> Btf<'static> {
        let c_name = |name: &str| CString::new(name).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        // SAFETY: the BTF is ours, every name ends with a NUL, and the bytes are copied at once.
        let bytes = unsafe {
            let btf = NonNull::new(libbpf_sys::btf__new_empty()).unwrap();
            let mut last = "";
            for (name, enumerator, ..) in FEATURES.iter().take(known) {
                if *name != last {
                    libbpf_sys::btf__add_enum(btf.as_ptr(), c_name(name).as_ptr(), 4);
                }
                last = name;
                libbpf_sys::btf__add_enum_value(btf.as_ptr(), c_name(enumerator).as_ptr(), 1);
            }
            libbpf_sys::btf__add_int(btf.as_ptr(), c"int".as_ptr(), 4, 0);
            let mut size = 0;
            let data = libbpf_sys::btf__raw_data(btf.as_ptr(), &mut size);
            let bytes = std::slice::from_raw_parts(data.cast::<u8>(), size as usize).to_vec();
            libbpf_sys::btf__free(btf.as_ptr());
            bytes
        };
        std::fs::write(file.path(), bytes).unwrap();
        Btf::from_path(file.path()).unwrap()
    }

    /// Check that the first feature that a kernel lacks is named, with the release that has it.
    #[test]
    fn old_kernels() {
        let complaint = |known| {
            let machine = Machine {
                capabilities: Vec::new(),
                missing_capabilities: Vec::new(),
                needs: features(&kernel(known)),
                kernel: None,
            };
            machine.complaint().unwrap()
        };
        assert_eq!(
            complaint(0),
            "this kernel lacks the BPF ring buffer: it needs Linux 5.8 or newer"
        );
        assert!(complaint(2).contains("5.15"), "{}", complaint(2));
        assert!(complaint(3).contains("tracepoint sock_send_length"));
    }

    /// Check that the kernel that runs here has everything, if it tells its types at all.
    #[test]
    fn this_kernel() {
        if let Ok(kernel) = Btf::from_path(KERNEL_BTF) {
            assert!(
                features(&kernel)
                    .iter()
                    .all(|need| need.found || need.optional)
            );
        } else {
            println!("SKIP: no {KERNEL_BTF}");
        }
    }

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
