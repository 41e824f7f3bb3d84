// SPDX-License-Identifier: MIT OR Apache-2.0
//! The probes of one nginx binary: its BPF object, attached to its functions and to the kernel's
//! tracepoints, and the processes that it traces.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::fd::AsRawFd as _;
use std::os::fd::BorrowedFd;

use anyhow::Context as _;
use anyhow::Result;
use libbpf_rs::ErrorKind;
use libbpf_rs::Link;
use libbpf_rs::MapCore as _;
use libbpf_rs::MapFlags;
use libbpf_rs::MapHandle;
use libbpf_rs::ProgramMut;
use libbpf_rs::UprobeMultiOpts;
use libbpf_rs::UprobeOpts;
use libbpf_rs::libbpf_sys;
use libbpf_rs::skel::Skel as _;
use nginx_binary::layout::Layout;
use nginx_binary::sites::ProbeSite;
use plain::Plain;

use crate::attach::counters::CounterMap;
use crate::attach::kernel::Kernel;
use crate::attach::object::KernelFilter;
use crate::attach::object::ObjectSettings;
use crate::attach::trial::UprobeMethod;
use crate::bpf::NgxSkel;
use crate::bpf::types;
use crate::host::descriptors;

pub mod btf;
pub mod counters;
pub mod kernel;
pub mod libbpf_log;
pub mod object;
pub mod refusal;
pub mod requirements;
pub mod run_counting;
pub mod socket_source;
pub mod trial;

/// The number of tries to add a process to task storage. The kernel returns EAGAIN to one of two
/// tools that create the first storage of a process at the same time (`bpf_local_storage_alloc()`);
/// the process has a storage then.
const STORAGE_TRIES: usize = 8;

/// The pid that stands for any process. BPF itself decides which processes are traced, since the
/// workers of a master have other pids.
const ANY_PROCESS: i32 = -1;

// SAFETY: integers and arrays of integers, without implicit padding (-Wpadded).
unsafe impl Plain for types::worker {}

/// The binary that probes are attached to.
pub struct ProbeTarget<'a> {
    /// The file that was read. Probes are attached through this descriptor.
    pub binary: &'a File,
    pub layout: &'a Layout,
    /// True when the layout was inferred.
    pub is_layout_inferred: bool,
    /// The places of its uprobes.
    pub sites: &'a [ProbeSite],
}

/// The number and time of the runs of a BPF program.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProgramRuns {
    /// The number of runs, including those for processes that are not traced.
    pub hits: u64,
    /// The time of all runs, in nanoseconds.
    pub time_ns: u64,
}

/// A loaded BPF object and its links. Dropping it detaches all its programs.
pub struct Probe {
    /// The links. They are dropped before `skel`, so that the programs are detached before their
    /// maps are closed.
    links: Vec<Link>,
    /// The programs and maps.
    skel: NgxSkel<'static>,
}

impl Probe {
    /// Loads the object for the layout of a binary, and attaches its programs to the functions of
    /// the binary and to the kernel. Nothing is traced yet: see `add_process()` and `activate()`.
    ///
    /// Fails when the kernel refuses an operation; then nothing stays attached.
    pub fn attach(
        kernel: &Kernel,
        target: &ProbeTarget<'_>,
        filter: &KernelFilter,
    ) -> Result<Self> {
        let relocations = object::relocations(&kernel.types, target.layout)?;
        let settings = ObjectSettings {
            is_layout_inferred: target.is_layout_inferred,
            sites: target.sites,
            filter,
            method: kernel.method,
            sockets: kernel.sockets,
            kernel_programs: kernel.programs(),
            can_allocate: kernel.can_allocate(),
        };
        let mut probe = Self {
            links: Vec::new(),
            skel: settings.load(&relocations)?,
        };
        probe.attach_uprobes(target.binary, &settings)?;
        probe.attach_to_kernel(&settings)?;
        Ok(probe)
    }

    /// Attaches the uprobes to the functions of the file that was read.
    fn attach_uprobes(&mut self, binary: &File, settings: &ObjectSettings<'_>) -> Result<()> {
        for site in settings.sites {
            self.attach_program(site.program, |program| {
                attach_uprobe(program, binary, site, settings.method)
            })
            .with_context(|| format!("failed to attach to {}", site.function))?;
        }
        Ok(())
    }

    /// Attaches to the kernel's tracepoints and functions.
    fn attach_to_kernel(&mut self, settings: &ObjectSettings<'_>) -> Result<()> {
        for (name, place) in &settings.kernel_programs {
            self.attach_program(name, |program| Ok(program.attach_trace()?))
                .with_context(|| format!("failed to attach to the kernel's {place}"))?;
        }
        Ok(())
    }

    /// Attaches one of the programs while this probe lives.
    fn attach_program(
        &mut self,
        name: &str,
        attach: impl FnOnce(&ProgramMut<'_>) -> Result<Link>,
    ) -> Result<()> {
        let mut programs = self.skel.object().progs_mut();
        let program = programs.find(|program| program.name() == name);
        let link = attach(&program.context("the BPF object has no such program")?)?;
        self.links.push(link);
        Ok(())
    }

    /// Returns the pid of a traced process that has executed a new program: the master of an
    /// upgrade. Each is returned once, and may have ended.
    pub fn next_upgraded(&self) -> Option<u32> {
        let pid = self.skel.maps.upgrades.lookup_and_delete(&[]).ok()??;
        Some(u32::from_ne_bytes(pid.try_into().ok()?))
    }

    /// Starts to trace one process and, with `follow_children`, the processes that it starts from
    /// now on. It is not an error that the process has ended.
    pub fn add_process(
        &self,
        pid: u32,
        pidfd: BorrowedFd<'_>,
        follow_children: bool,
    ) -> Result<()> {
        let mut worker = types::worker {
            pid,
            ..Default::default()
        };
        /* An entry that BPF has added for a worker must stay. The entry of a master may lack the flag. */
        let mut flags = MapFlags::NO_EXIST;
        if follow_children {
            worker.flags = types::worker_flag::WORKER_FOLLOW.0;
            flags = MapFlags::ANY;
        }
        let key = pidfd.as_raw_fd().to_ne_bytes();
        // SAFETY: `worker` is plain.
        let value = unsafe { plain::as_bytes(&worker) };
        for tries_left in (0..STORAGE_TRIES).rev() {
            match self.skel.maps.workers.update(&key, value, flags) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && tries_left > 0 => {}
                Err(error)
                    if error.kind() != ErrorKind::AlreadyExists
                        && descriptors::is_process_alive(pidfd) =>
                {
                    return Err(error).with_context(|| format!("failed to trace pid {pid}"));
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// Starts to record requests.
    pub fn activate(&mut self) {
        self.set_active(true);
    }

    /// Detaches all programs. Recorded requests are still in the ring buffer.
    pub fn detach(&mut self) {
        self.set_active(false);
        self.links.clear();
    }

    /// Takes the values of the map `held_requests`. Nothing may be attached any more.
    pub fn take_held(&self) -> Vec<Vec<u8>> {
        let held = &self.skel.maps.held_requests;
        let keys = held.keys();
        keys.filter_map(|key| held.lookup_and_delete(&key).ok()?)
            .collect()
    }

    /// Returns a handle to the ring buffer.
    pub fn ring_buffer(&self) -> Result<MapHandle> {
        MapHandle::try_from(&self.skel.maps.events).context("failed to use the ring buffer")
    }

    /// Returns a handle to the counters.
    pub fn counters(&self) -> Result<CounterMap> {
        let map = MapHandle::try_from(&self.skel.maps.bss);
        Ok(CounterMap(map.context("failed to use the counters")?))
    }

    /// Adds the runs that the kernel has counted, by the name of the program.
    pub fn add_runs(&self, programs: &mut BTreeMap<String, ProgramRuns>) {
        for program in self.skel.object().progs() {
            let Some(info) = program_info(program.as_fd()).filter(|info| info.run_cnt > 0) else {
                continue;
            };
            let name = program.name().to_string_lossy().into_owned();
            let runs = programs.entry(name).or_default();
            runs.hits += info.run_cnt;
            runs.time_ns += info.run_time_ns;
        }
    }

    /// Sets the switch that every BPF program checks first.
    fn set_active(&mut self, active: bool) {
        if let Some(bss) = self.skel.maps.bss_data.as_deref_mut() {
            let switch: *mut bool = &raw mut bss.active;
            // SAFETY: mapped memory that lives as long as the object; BPF only reads it.
            unsafe { switch.write_volatile(active) };
        }
    }
}

/// Returns the kernel's information about a program. `None` when it was not loaded.
fn program_info(program: BorrowedFd<'_>) -> Option<libbpf_sys::bpf_prog_info> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut size = u32::try_from(size_of_val(&info)).ok()?;
    // SAFETY: the kernel writes at most `size` bytes, which are ours.
    let result = unsafe {
        libbpf_sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &raw mut info, &raw mut size)
    };
    (result == 0).then_some(info)
}

/// Attaches a program to one site.
fn attach_uprobe(
    program: &ProgramMut<'_>,
    binary: &File,
    site: &ProbeSite,
    method: UprobeMethod,
) -> Result<Link> {
    let path = descriptors::path_of(binary);
    let link = match method {
        UprobeMethod::Multi => {
            let opts = UprobeMultiOpts {
                offsets: vec![usize::try_from(site.file_offset)?],
                cookies: vec![site.cookie],
                ..Default::default()
            };
            program.attach_uprobe_multi_with_opts(ANY_PROCESS, path, "", opts)
        }
        UprobeMethod::Perf => {
            let opts = UprobeOpts {
                cookie: site.cookie,
                ..Default::default()
            };
            let offset = usize::try_from(site.file_offset)?;
            program.attach_uprobe_with_opts(ANY_PROCESS, path, offset, opts)
        }
    };
    Ok(link?)
}
