// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tracing needs of this machine and does not find, said before anything is loaded.

use std::os::fd::AsRawFd as _;
use std::os::fd::FromRawFd as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::ptr;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Enum;
use libbpf_rs::btf::types::Func;
use libbpf_rs::btf::types::Struct;
use libbpf_rs::libbpf_sys;
use rustix::thread::CapabilitySet;
use rustix::thread::capabilities;
use serde::Serialize;

use crate::sockets;
use crate::sockets::Sockets;

/// Where a kernel built with `CONFIG_DEBUG_INFO_BTF` tells its types.
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Tracepoints that the kernel must have: the program (bpf/ngx.bpf.c), and where it is attached.
const TRACEPOINTS: [(&str, &str); 4] = [
    ("sock_state", "inet_sock_set_state"),
    ("process_fork", "sched_process_fork"),
    ("process_exec", "sched_process_exec"),
    ("process_exit", "sched_process_exit"),
];

/// Without these nothing can be loaded, attached, or read.
const NEEDED: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
];

/// The oldest kernel that has all that is needed.
const OLDEST: &str = "Linux 5.15 or newer";

/// A feature that an enumerator of the kernel's stands for.
#[derive(Clone, Copy)]
struct Feature {
    /// What it is.
    name: &'static str,
    /// The enum.
    enumeration: &'static str,
    /// Its enumerator.
    enumerator: &'static str,
    /// The kernel to get it with.
    needs: &'static str,
}

/// What is needed.
const FEATURES: [Feature; 3] = [
    Feature {
        name: "the BPF ring buffer",
        enumeration: "bpf_map_type",
        enumerator: "BPF_MAP_TYPE_RINGBUF",
        needs: OLDEST,
    },
    Feature {
        name: "BPF task storage",
        enumeration: "bpf_map_type",
        enumerator: "BPF_MAP_TYPE_TASK_STORAGE",
        needs: OLDEST,
    },
    Feature {
        name: "BPF attach cookies",
        enumeration: "bpf_func_id",
        enumerator: "BPF_FUNC_get_attach_cookie",
        needs: OLDEST,
    },
];

/// What is used where it is there, and done without where not.
const UPROBE_MULTI: Feature = Feature {
    name: "uprobe_multi",
    enumeration: "bpf_attach_type",
    enumerator: "BPF_TRACE_UPROBE_MULTI",
    needs: "Linux 6.6 or newer",
};

/// What a kernel has whose hash maps allocate memory of their own kind (Linux 6.1). Older ones find
/// fault with a uprobe that uses a map which is not allocated beforehand: a warning in the kernel's
/// log, with a trace of the stack.
const ALLOCATOR: &str = "bpf_mem_alloc";

/// A function that every kernel with TCP has, to see whether `fexit` programs are let in.
const TRACED_FUNCTION: &str = "inet_sendmsg";

/// What this machine has of what tracing needs.
pub struct Machine {
    /// Those of the needed capabilities that are held.
    pub capabilities: Vec<&'static str>,
    /// Capabilities that are missing.
    pub missing_capabilities: Vec<&'static str>,
    /// Features of the kernel, in the order in which they came.
    pub needs: Vec<Need>,
    /// What tells of the bytes on sockets.
    pub sockets: Option<Sockets>,
    /// The kernel's types.
    types: Option<Btf<'static>>,
}

/// A kernel that has all that is needed.
pub struct Kernel {
    /// Its types.
    pub types: Btf<'static>,
    /// What tells of the bytes on sockets.
    pub sockets: Sockets,
}

impl Kernel {
    /// Whether `uprobe_multi` links are worth a try.
    pub fn knows_uprobe_multi(&self) -> bool {
        is_known(&self.types, &UPROBE_MULTI)
    }

    /// The programs to attach to the kernel, and where.
    pub fn programs(&self) -> Vec<(&'static str, &'static str)> {
        let sockets = self.sockets.programs(&self.types);
        TRACEPOINTS.into_iter().chain(sockets).collect()
    }

    /// Whether a uprobe may use maps that grow as they fill.
    pub fn allocates(&self) -> bool {
        self.types.type_by_name::<Struct<'_>>(ALLOCATOR).is_some()
    }
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
        let types = Path::new(KERNEL_BTF)
            .exists()
            .then(|| Btf::from_path(KERNEL_BTF))
            .transpose()
            .with_context(|| format!("failed to read {KERNEL_BTF}"))?;
        let mut needs = vec![Need {
            name: format!("types in {KERNEL_BTF}"),
            found: types.is_some(),
            optional: false,
            needs: "CONFIG_DEBUG_INFO_BTF",
        }];
        let mut sockets = None;
        if let Some(types) = &types {
            let fexit = lets_fexit_in(types);
            needs.extend(features(types, fexit));
            sockets = Sockets::choose(types, fexit);
        }
        let missing_capabilities = missing_capabilities(held.effective);
        let mut capabilities = NEEDED.map(|(_, name)| name).to_vec();
        capabilities.retain(|name| !missing_capabilities.contains(name));
        Ok(Self {
            capabilities,
            missing_capabilities,
            needs,
            sockets,
            types,
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

/// The kernel. `sockets` is what to use, whatever would be chosen. Fails when a capability or a
/// feature of the kernel is missing.
pub fn check(sockets: Option<Sockets>) -> Result<Kernel> {
    let machine = Machine::look()?;
    if let Some(complaint) = machine.complaint() {
        bail!(complaint);
    }
    /* Neither is missing without a complaint. */
    let types = machine.types.context("this kernel tells no types")?;
    let sockets = sockets.or(machine.sockets);
    let sockets = sockets.context("nothing tells of the bytes on sockets")?;
    Ok(Kernel { types, sockets })
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

/// Whether the kernel has this enumerator.
fn is_known(kernel: &Btf<'_>, feature: &Feature) -> bool {
    let enumeration = kernel.type_by_name::<Enum<'_>>(feature.enumeration);
    enumeration.is_some_and(|enumeration| {
        let mut names = enumeration.iter().filter_map(|member| member.name);
        names.any(|name| name == feature.enumerator)
    })
}

/// Which features these types name. `fexit` is whether such programs are let in.
fn features(kernel: &Btf<'_>, fexit: bool) -> Vec<Need> {
    let enumerator = |feature: Feature, optional| Need {
        found: is_known(kernel, &feature),
        name: feature.name.to_owned(),
        optional,
        needs: feature.needs,
    };
    let enumerators = FEATURES.map(|feature| enumerator(feature, false));
    let tracepoints = TRACEPOINTS.map(|(_, tracepoint)| Need {
        found: sockets::has_tracepoint(kernel, tracepoint),
        optional: false,
        name: format!("tracepoint {tracepoint}"),
        needs: OLDEST,
    });
    let sources = [
        Need {
            name: "tracepoints of all bytes on sockets".to_owned(),
            found: sockets::have_tracepoints(kernel),
            optional: true,
            needs: "Linux 6.5 or newer",
        },
        Need {
            name: "fexit".to_owned(),
            found: fexit,
            optional: true,
            needs: "CONFIG_FUNCTION_TRACER, and a kernel that lets it in",
        },
        Need {
            name: "tracepoint of system calls".to_owned(),
            found: sockets::have_system_calls(kernel),
            optional: true,
            needs: "CONFIG_HAVE_SYSCALL_TRACEPOINTS",
        },
        Need {
            name: "a source of all bytes on sockets".to_owned(),
            found: Sockets::choose(kernel, fexit).is_some(),
            optional: false,
            needs: "Linux 6.5 or newer, fexit, or the tracepoint sys_exit",
        },
    ];
    let needs = enumerators.into_iter().chain(tracepoints);
    let better = enumerator(UPROBE_MULTI, true);
    needs.chain(sources).chain([better]).collect()
}

/// Whether a program may be put at the end of a kernel function. Some kernels know the type and
/// refuse to load it. Others load it and refuse to attach it (arm64 before Linux 6.4): that is tried
/// only there, and only where it would be used.
fn lets_fexit_in(kernel: &Btf<'_>) -> bool {
    let Some(function) = kernel.type_by_name::<Func<'_>>(TRACED_FUNCTION) else {
        return false;
    };
    /* r0 = 0; exit */
    let code = [0xb7_u64, 0x95].map(u64::to_le_bytes).concat();
    let options = libbpf_sys::bpf_prog_load_opts {
        sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as libbpf_sys::size_t,
        expected_attach_type: libbpf_sys::BPF_TRACE_FEXIT,
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
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    if cfg!(target_arch = "x86_64") || sockets::have_tracepoints(kernel) {
        return true;
    }
    // SAFETY: a program at a function has no name; the descriptor lives until the call returns.
    let link = unsafe { libbpf_sys::bpf_raw_tracepoint_open(ptr::null(), program.as_raw_fd()) };
    // SAFETY: as above.
    let link = (link >= 0).then(|| unsafe { OwnedFd::from_raw_fd(link) });
    link.is_some()
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
    use super::lets_fexit_in;
    use super::missing_capabilities;

    /// The types of a kernel that has the first `known` features, and no tracepoint.
    fn kernel(known: usize) -> Btf<'static> {
        let c_name = |name: &str| CString::new(name).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        // SAFETY: the BTF is ours, every name ends with a NUL, and the bytes are copied at once.
        let bytes = unsafe {
            let btf = NonNull::new(libbpf_sys::btf__new_empty()).unwrap();
            let mut last = "";
            for feature in FEATURES.iter().take(known) {
                let (enumeration, enumerator) = (feature.enumeration, feature.enumerator);
                if enumeration != last {
                    libbpf_sys::btf__add_enum(btf.as_ptr(), c_name(enumeration).as_ptr(), 4);
                }
                last = enumeration;
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
                needs: features(&kernel(known), false),
                sockets: None,
                types: None,
            };
            machine.complaint().unwrap()
        };
        assert_eq!(
            complaint(0),
            "this kernel lacks the BPF ring buffer: it needs Linux 5.15 or newer"
        );
        assert!(complaint(2).contains("attach cookies"), "{}", complaint(2));
        assert!(complaint(3).contains("tracepoint inet_sock_set_state"));
    }

    /// Check that the kernel that runs here has everything, if it tells its types at all.
    #[test]
    fn this_kernel() {
        if let Ok(kernel) = Btf::from_path(KERNEL_BTF) {
            let features = features(&kernel, lets_fexit_in(&kernel));
            assert!(features.iter().all(|need| need.found || need.optional));
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
