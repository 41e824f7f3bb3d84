// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tracing needs of this machine and does not find. It is tried, and said before an nginx is touched.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Enum;
use libbpf_rs::btf::types::Func;
use libbpf_rs::btf::types::Struct;
use rustix::thread::CapabilitySet;
use rustix::thread::capabilities;
use serde::Serialize;

use crate::attach::refusal::NEEDED;
use crate::attach::refusal::Refusal;
use crate::attach::refusal::holds;
use crate::attach::refusal::needed;
use crate::attach::socket_source;
use crate::attach::socket_source::SocketSource;
use crate::attach::trial::Trial;
use crate::attach::trial::UprobeMethod;

/// Where a kernel built with `CONFIG_DEBUG_INFO_BTF` tells its types.
const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Tracepoints that the kernel must have: the program (bpf/ngx.bpf.c), and where it is attached.
const TRACEPOINTS: [(&str, &str); 4] = [
    ("sock_state", "inet_sock_set_state"),
    ("process_fork", "sched_process_fork"),
    ("process_exec", "sched_process_exec"),
    ("process_exit", "sched_process_exit"),
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

/// A process that is not ours, as a rule.
const ANOTHER_PROCESS: &str = "/proc/1/exe";

/// What this machine has of what tracing needs.
pub struct Machine {
    /// Those of the needed capabilities that are held.
    pub capabilities: Vec<&'static str>,
    /// Capabilities that are missing: without them it was refused to do what tracing does.
    pub missing_capabilities: Vec<&'static str>,
    /// What was refused, and why.
    refusal: Option<Refusal>,
    /// How uprobes are attached.
    method: UprobeMethod,
    /// Features of the kernel, in the order in which they came.
    pub needs: Vec<Need>,
    /// What tells of the bytes on sockets.
    pub sockets: Option<SocketSource>,
    /// The kernel's types.
    types: Option<Btf<'static>>,
}

/// A kernel that has all that is needed.
pub struct Kernel {
    /// Its types.
    pub types: Btf<'static>,
    /// What tells of the bytes on sockets.
    pub sockets: SocketSource,
    /// How uprobes are attached.
    pub method: UprobeMethod,
}

impl Kernel {
    /// The kernel once more, with what was tried before: only its types are read anew.
    pub fn read_again(sockets: SocketSource, method: UprobeMethod) -> Result<Self> {
        let types = Btf::from_path(KERNEL_BTF);
        Ok(Self {
            types: types.with_context(|| format!("failed to read {KERNEL_BTF}"))?,
            sockets,
            method,
        })
    }

    /// The programs to attach to the kernel, and where.
    pub fn programs(&self) -> Vec<(&'static str, &'static str)> {
        programs(&self.types, self.sockets)
    }

    /// Whether a uprobe may use maps that grow as they fill.
    pub fn can_allocate(&self) -> bool {
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
    /// Looks at everything, and tries what tracing does. `asked` is the source of the bytes on sockets
    /// that is used, whatever would be chosen. Fails when it can't look.
    pub fn look(asked: Option<SocketSource>) -> Result<Self> {
        let held = capabilities(None).context("failed to read the capabilities")?;
        let held = held.effective;
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
        let mut method = UprobeMethod::Perf;
        let mut refusal = None;
        if let Some(types) = &types {
            let fexit = lets_fexit_in(types);
            needs.extend(features(types, fexit));
            sockets = asked.or(SocketSource::choose(types, fexit));
            if let Some(sockets) = sockets
                && needs.iter().all(|need| need.found || need.optional)
            {
                match rehearse(types, sockets, held) {
                    Ok(tried) => method = tried,
                    Err(error) => refusal = Some(error),
                }
            }
        }
        let needed = match &refusal {
            Some(refusal) => refusal.needed.clone(),
            None => needed(method),
        };
        let missing = refusal.as_ref().map(|refusal| refusal.missing(held));
        let missing_capabilities = missing.unwrap_or_default();
        let capabilities = needed
            .into_iter()
            .filter(|(capability, _)| holds(held, *capability))
            .map(|(_, name)| name)
            .collect();
        Ok(Self {
            capabilities,
            missing_capabilities,
            refusal,
            method,
            needs,
            sockets,
            types,
        })
    }

    /// What is missing first, and what to do.
    pub fn complaint(&self) -> Option<String> {
        let mut needs = self.needs.iter();
        if let Some(missing) = needs.find(|need| !need.found && !need.optional) {
            return Some(format!(
                "this kernel lacks {}: it needs {}",
                missing.name, missing.needs
            ));
        }
        let refusal = self.refusal.as_ref()?;
        Some(refusal.complaint(&self.missing_capabilities))
    }
}

/// The kernel. `sockets` is what to use, whatever would be chosen. Fails when a feature of the kernel is
/// missing, or when it refuses what tracing does.
pub fn check(sockets: Option<SocketSource>) -> Result<Kernel> {
    let machine = Machine::look(sockets)?;
    if let Some(complaint) = machine.complaint() {
        bail!(complaint);
    }
    /* Neither is missing without a complaint. */
    let types = machine.types.context("this kernel tells no types")?;
    let sockets = machine
        .sockets
        .context("this kernel offers no source of the bytes on sockets")?;
    Ok(Kernel {
        types,
        sockets,
        method: machine.method,
    })
}

/// The programs to attach to the kernel, and where.
fn programs(kernel: &Btf<'_>, sockets: SocketSource) -> Vec<(&'static str, &'static str)> {
    let sockets = sockets.programs(kernel);
    TRACEPOINTS.into_iter().chain(sockets).collect()
}

/// Does all that tracing does with the kernel, with programs that do nothing, and undoes each at once.
/// Returns how uprobes are attached.
fn rehearse(
    kernel: &Btf<'_>,
    sockets: SocketSource,
    held: CapabilitySet,
) -> std::result::Result<UprobeMethod, Refusal> {
    let refusal = |what: String| {
        move |error| Refusal {
            what,
            error,
            needed: NEEDED.to_vec(),
        }
    };
    let method = rehearse_uprobe(kernel)?;
    for (_, place) in programs(kernel, sockets) {
        let trial = match socket_source::tracepoint_type(kernel, place) {
            Some(type_id) => Trial::of_tracepoint(type_id),
            None => match kernel.type_by_name::<Func<'_>>(place) {
                Some(function) => Trial::of_fexit(function.type_id().into()),
                None => continue,
            },
        };
        let trial = trial.map_err(refusal(format!("load a program for its {place}")))?;
        trial
            .attach_to_kernel()
            .map_err(refusal(format!("attach to its {place}")))?;
    }
    /* Without it all binaries but our own user's are closed to us. */
    if !holds(held, CapabilitySet::SYS_PTRACE) && fs::read_link(ANOTHER_PROCESS).is_err() {
        let error = io::ErrorKind::PermissionDenied.into();
        return Err(refusal("look at other processes".to_owned())(error));
    }
    Ok(method)
}

/// Attaches a uprobe: by the best way that this kernel knows.
fn rehearse_uprobe(kernel: &Btf<'_>) -> std::result::Result<UprobeMethod, Refusal> {
    let attach = |method| -> std::result::Result<UprobeMethod, Refusal> {
        let refusal = |what: &str, needed| {
            let what = what.to_owned();
            move |error| Refusal {
                what,
                error,
                needed,
            }
        };
        let trial = Trial::of_uprobe(method).map_err(refusal("load a program", NEEDED.to_vec()))?;
        trial
            .attach_to_self(method)
            .map_err(refusal("attach a uprobe", needed(method)))?;
        Ok(method)
    };
    if is_known(kernel, &UPROBE_MULTI) {
        match attach(UprobeMethod::Multi) {
            /* It knows the word only. */
            Err(refusal) if refusal.error.kind() == io::ErrorKind::InvalidInput => {}
            tried => return tried,
        }
    }
    attach(UprobeMethod::Perf)
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
        found: socket_source::has_tracepoint(kernel, tracepoint),
        optional: false,
        name: format!("tracepoint {tracepoint}"),
        needs: OLDEST,
    });
    let sources = [
        Need {
            name: "tracepoints of all bytes on sockets".to_owned(),
            found: socket_source::have_tracepoints(kernel),
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
            found: socket_source::have_system_calls(kernel),
            optional: true,
            needs: "CONFIG_HAVE_SYSCALL_TRACEPOINTS",
        },
        Need {
            name: "a source of all bytes on sockets".to_owned(),
            found: SocketSource::choose(kernel, fexit).is_some(),
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
    let Ok(trial) = Trial::of_fexit(function.type_id().into()) else {
        return false;
    };
    cfg!(target_arch = "x86_64")
        || socket_source::have_tracepoints(kernel)
        || trial.attach_to_kernel().is_ok()
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::ptr::NonNull;

    use libbpf_rs::btf::Btf;
    use libbpf_rs::libbpf_sys;

    use super::FEATURES;
    use super::KERNEL_BTF;
    use super::Machine;
    use super::UprobeMethod;
    use super::features;
    use super::lets_fexit_in;

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
                refusal: None,
                method: UprobeMethod::Perf,
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
}
