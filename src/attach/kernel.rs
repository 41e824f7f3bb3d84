// SPDX-License-Identifier: MIT OR Apache-2.0
//! The survey of the kernel: the features that tracing needs, and whether the kernel allows their
//! use. Every operation of tracing is tried before an nginx is touched.

use std::fs;
use std::io;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use libbpf_rs::btf::types::Enum;
use libbpf_rs::btf::types::Func;
use libbpf_rs::btf::types::FuncProto;
use libbpf_rs::btf::types::Struct;
use libbpf_rs::btf::types::Typedef;
use rustix::thread::CapabilitySet;
use rustix::thread::capabilities;

use crate::attach::kernel_btf::KERNEL_BTF;
use crate::attach::kernel_btf::KernelBtf;
use crate::attach::kernel_types::KernelTypes;
use crate::attach::program_types;
use crate::attach::refusal::NEEDED;
use crate::attach::refusal::Refusal;
use crate::attach::refusal::holds;
use crate::attach::refusal::needed;
use crate::attach::requirements::Feature;
use crate::attach::requirements::TRACEPOINTS;
use crate::attach::requirements::UPROBE_MULTI;
use crate::attach::requirements::features;
use crate::attach::requirements::supports_fexit;
use crate::attach::socket_source;
use crate::attach::socket_source::SocketSource;
use crate::attach::storage_trial;
use crate::attach::trial::Trial;
use crate::attach::uprobe::UprobeMethod;
use crate::bpf::types;

/// The program for the end of a process that still has its memory.
pub const EXIT_WITH_MEMORY: &str = "process_exit_read";

/// The struct that only kernels have whose hash maps may allocate while a uprobe runs (Linux 6.1).
/// Older kernels print a warning with a stack trace when a uprobe uses a map whose entries are not
/// allocated beforehand.
const ALLOCATOR: &str = "bpf_mem_alloc";

/// The enum that only kernels have whose iterators can be limited to the files of one process (Linux 6.1).
const CHOSEN_TASKS: &str = "bpf_iter_task_type";

/// The members of a listening socket that the metrics show.
const QUEUE: [&str; 3] = ["sk_ack_backlog", "sk_max_ack_backlog", "sk_drops"];

/// The member in which the kernel counts how long a task has waited for a CPU, with its struct.
const RUN_DELAY: (&str, &str) = ("sched_info", "run_delay");

/// The program that shows when tasks leave and get a CPU, with its tracepoint.
const TASK_SWITCH: (&str, &str) = ("task_switch", "sched_switch");

/// The bytes that the kernel keeps with each traced process.
const STORAGE_BYTES: u32 = size_of::<types::worker>() as u32;

/// A file that a process of another user runs, as a rule.
const ANOTHER_PROCESS: &str = "/proc/1/exe";

/// The features of this kernel that tracing needs, and whether the kernel allows their use.
pub struct KernelSurvey {
    /// The capabilities that are needed, and held.
    pub capabilities: Vec<&'static str>,
    /// The capabilities that are missing: without them the kernel refused what tracing does.
    pub missing_capabilities: Vec<&'static str>,
    /// The first operation that the kernel refused. `None` when it refused none.
    refusal: Option<Refusal>,
    /// The method by which uprobes are attached. `None` when it was not found out: a feature is missing,
    /// or the kernel refused an operation.
    method: Option<UprobeMethod>,
    /// The features of the kernel.
    pub features: Vec<Feature>,
    /// The socket source. `None` when the kernel has none.
    pub sockets: Option<SocketSource>,
    /// The kernel's types. `None` when it has no BTF.
    types: Option<KernelBtf>,
}

/// A kernel that has everything that tracing needs.
pub struct Kernel {
    /// The types that the BPF program names.
    pub types: KernelTypes,
    pub sockets: SocketSource,
    /// The method by which uprobes are attached.
    pub method: UprobeMethod,
    /// The programs to attach to it, each with the tracepoint or function.
    pub programs: Vec<(&'static str, &'static str)>,
    /// True when uprobes may use maps whose entries are allocated when they are added.
    pub can_allocate: bool,
    /// True when the listening sockets of one process can be listed.
    pub can_list_listeners: bool,
}

impl KernelSurvey {
    /// Looks for all features, and tries the operations of tracing. `asked` is the socket source to
    /// use instead of the best one. Fails when the state of the kernel can't be read.
    pub fn read(asked: Option<SocketSource>) -> Result<Self> {
        let held = capabilities(None).context("failed to read the capabilities")?;
        let held = held.effective;
        let types = KernelBtf::read()?;
        let mut survey = Self {
            capabilities: Vec::new(),
            missing_capabilities: Vec::new(),
            refusal: None,
            method: None,
            features: vec![Feature {
                name: format!("types in {KERNEL_BTF}"),
                found: types.is_some(),
                optional: false,
                needs: "CONFIG_DEBUG_INFO_BTF",
            }],
            sockets: None,
            types: None,
        };
        if let Some(types) = &types {
            let has_fexit = supports_fexit(types);
            survey.features.extend(features(types, has_fexit));
            survey.sockets = asked.or(SocketSource::choose(types, has_fexit));
            survey.try_all(types, held);
        }
        survey.types = types;
        survey.sort_capabilities(held);
        Ok(survey)
    }

    /// Tries the operations of tracing, if no feature is missing.
    fn try_all(&mut self, types: &KernelBtf, held: CapabilitySet) {
        let Some(sockets) = self.sockets.filter(|_| self.missing_feature().is_none()) else {
            return;
        };
        match rehearse(types, sockets, held) {
            Ok(method) => self.method = Some(method),
            Err(refusal) => self.refusal = Some(refusal),
        }
    }

    /// Sorts the capabilities that are needed into those that are held and those that are missing.
    fn sort_capabilities(&mut self, held: CapabilitySet) {
        let needed = match &self.refusal {
            Some(refusal) => {
                self.missing_capabilities = refusal.missing(held);
                refusal.needed.clone()
            }
            None => self.method.map_or_else(|| NEEDED.to_vec(), needed),
        };
        let needed = needed.into_iter();
        self.capabilities = needed
            .filter(|(capability, _)| holds(held, *capability))
            .map(|(_, name)| name)
            .collect();
    }

    /// Returns the first missing feature without which tracing does not work.
    fn missing_feature(&self) -> Option<&Feature> {
        let mut features = self.features.iter();
        features.find(|feature| !feature.found && !feature.optional)
    }

    /// Returns the reason why tracing does not work, and what to do. `None` when it works.
    pub fn complaint(&self) -> Option<String> {
        if let Some(missing) = self.missing_feature() {
            return Some(format!(
                "this kernel lacks {}: it needs {}",
                missing.name, missing.needs
            ));
        }
        let refusal = self.refusal.as_ref()?;
        Some(refusal.complaint(&self.missing_capabilities))
    }
}

/// Returns the kernel, if it has everything that tracing needs. `sockets` is the socket source to
/// use instead of the best one. Fails when a feature is missing, or when the kernel refuses an
/// operation. `with_turns` says that turns of the event loop are traced.
pub fn check(sockets: Option<SocketSource>, with_turns: bool) -> Result<Kernel> {
    let survey = KernelSurvey::read(sockets)?;
    if let Some(complaint) = survey.complaint() {
        bail!(complaint);
    }
    /* There is a complaint when one of them is missing. */
    let types = survey.types.context("no kernel BTF")?;
    let sockets = survey
        .sockets
        .context("this kernel has no source of the bytes on sockets")?;
    let method = survey.method.context("no uprobe was tried")?;
    let named = program_types::kernel_types(types.all())?;
    let mut programs = programs(&types, sockets);
    if with_turns {
        let is_known = named.has(RUN_DELAY.0, RUN_DELAY.1);
        ensure!(
            is_known && socket_source::has_tracepoint(&types, TASK_SWITCH.1),
            "this kernel does not say how long a task waits for a CPU: --blocked needs CONFIG_SCHEDSTATS \
             or CONFIG_TASK_DELAY_ACCT; trace without it"
        );
        programs.push(TASK_SWITCH);
    }
    Ok(Kernel {
        programs,
        can_allocate: types.find::<Struct<'_>>(ALLOCATOR).is_some(),
        can_list_listeners: types.find::<Enum<'_>>(CHOSEN_TASKS).is_some()
            && QUEUE.iter().all(|member| named.has("sock", member)),
        types: named,
        sockets,
        method,
    })
}

/// Returns the programs to attach to the kernel, each with the tracepoint or function.
fn programs(kernel: &KernelBtf, sockets: SocketSource) -> Vec<(&'static str, &'static str)> {
    let sockets = sockets.programs(kernel);
    let tracepoints = TRACEPOINTS
        .into_iter()
        .map(|(program, place)| match program {
            "process_exit" if has_memory_at_exit(kernel) => (EXIT_WITH_MEMORY, place),
            program => (program, place),
        });
    tracepoints.chain(sockets).collect()
}

/// Returns whether a process still has its memory when the kernel says that it ends: Linux 6.16 has moved the
/// tracepoint, and given it another argument.
fn has_memory_at_exit(kernel: &KernelBtf) -> bool {
    let tracepoint = kernel.find::<Typedef<'_>>("btf_trace_sched_process_exit");
    let prototype = tracepoint.and_then(|tracepoint| tracepoint.next_type()?.next_type());
    let prototype = prototype.and_then(|prototype| FuncProto::try_from(prototype).ok());
    prototype.is_some_and(|prototype| prototype.len() == 3)
}

/// Tries the operations of tracing, with programs that do nothing, and undoes each at once. Returns
/// the method by which uprobes are attached.
fn rehearse(
    kernel: &KernelBtf,
    sockets: SocketSource,
    held: CapabilitySet,
) -> std::result::Result<UprobeMethod, Refusal> {
    let refusal = |what: String| Refusal::to(what, NEEDED.to_vec());
    let method = rehearse_uprobe(kernel)?;
    for (_, place) in programs(kernel, sockets) {
        let trial = match socket_source::tracepoint_type(kernel, place) {
            Some(type_id) => Trial::of_tracepoint(type_id),
            None => match kernel.find::<Func<'_>>(place) {
                Some(function) => Trial::of_fexit(function.type_id().into()),
                None => continue,
            },
        };
        let trial = trial.map_err(refusal(format!("load a program for its {place}")))?;
        trial
            .attach_to_kernel()
            .map_err(refusal(format!("attach to its {place}")))?;
    }
    storage_trial::keep(STORAGE_BYTES).map_err(refusal(format!(
        "keep {STORAGE_BYTES} bytes with a process"
    )))?;
    /* Without CAP_SYS_PTRACE only binaries of processes of our own user can be opened. */
    if !holds(held, CapabilitySet::SYS_PTRACE) && fs::read_link(ANOTHER_PROCESS).is_err() {
        let error = io::ErrorKind::PermissionDenied.into();
        return Err(refusal("look at other processes".to_owned())(error));
    }
    Ok(method)
}

/// Attaches a uprobe by the best method that this kernel has.
fn rehearse_uprobe(kernel: &KernelBtf) -> std::result::Result<UprobeMethod, Refusal> {
    let attach = |method| -> std::result::Result<UprobeMethod, Refusal> {
        let trial = Trial::of_uprobe(method);
        trial
            .map_err(Refusal::to("load a program", NEEDED.to_vec()))?
            .attach_to_self(method)
            .map_err(Refusal::to("attach a uprobe", needed(method)))?;
        Ok(method)
    };
    if UPROBE_MULTI.is_in(kernel, false) {
        match attach(UprobeMethod::Multi) {
            /* Some kernels have the enumerator, but not the feature. */
            Err(refusal) if refusal.error.kind() == io::ErrorKind::InvalidInput => {}
            tried => return tried,
        }
    }
    attach(UprobeMethod::Perf)
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::ptr::NonNull;

    use libbpf_rs::btf::Btf;
    use libbpf_rs::libbpf_sys;

    use super::KERNEL_BTF;
    use super::KernelBtf;
    use super::KernelSurvey;
    use super::features;
    use super::supports_fexit;
    use crate::attach::requirements::BPF_REQUIREMENTS;
    use crate::attach::requirements::Marker;

    /// Returns the types of a kernel that has the first `known` features, and no tracepoint.
    fn kernel(known: usize) -> KernelBtf {
        let c_name = |name: &str| CString::new(name).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        // SAFETY: the BTF is ours, every name ends with a NUL, and the bytes are copied at once.
        let bytes = unsafe {
            let btf = NonNull::new(libbpf_sys::btf__new_empty()).unwrap();
            let mut last = "";
            for requirement in BPF_REQUIREMENTS.iter().take(known) {
                let Marker::Enumerator(enumeration, enumerator) = requirement.evidence else {
                    panic!("{} has no enumerator", requirement.name);
                };
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
        KernelBtf::new(Btf::from_path(file.path()).unwrap())
    }

    /// Check that the first feature that a kernel lacks is named, with the release that has it.
    #[test]
    fn old_kernels() {
        let complaint = |known| {
            let survey = KernelSurvey {
                capabilities: Vec::new(),
                missing_capabilities: Vec::new(),
                refusal: None,
                method: None,
                features: features(&kernel(known), false).collect(),
                sockets: None,
                types: None,
            };
            survey.complaint().unwrap()
        };
        assert_eq!(
            complaint(0),
            "this kernel lacks the BPF ring buffer: it needs Linux 5.15 or newer"
        );
        assert!(complaint(2).contains("attach cookies"), "{}", complaint(2));
        assert!(complaint(3).contains("tracepoint inet_sock_set_state"));
    }

    /// Check that the kernel that runs here has everything, if it has BTF at all.
    #[test]
    fn this_kernel() {
        if let Some(kernel) = KernelBtf::read().unwrap() {
            let mut features = features(&kernel, supports_fexit(&kernel));
            assert!(features.all(|feature| feature.found || feature.optional));
        } else {
            println!("SKIP: no {KERNEL_BTF}");
        }
    }
}
