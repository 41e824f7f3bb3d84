// SPDX-License-Identifier: MIT OR Apache-2.0
//! The probes of one nginx binary: its BPF object, attached to its functions and to the kernel's
//! tracepoints, and told which processes are traced. All of it ends with this value.

use std::collections::BTreeMap;
use std::fs::File;
use std::mem::offset_of;
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
use plain::Plain;

use crate::attach::kernel::Kernel;
use crate::attach::object::Plan;
use crate::attach::trial::Method;
use crate::bpf::NgxSkel;
use crate::bpf::types;
use crate::decode::wire;
use crate::follow::processes::Process;
use crate::follow::processes::Role;
use crate::follow::program::Program;
use crate::pipeline::counts::Counts;
use crate::pipeline::filter::Early;
use crate::pipeline::overhead::Runs;
use nginx_binary::sites::Hook;

pub mod btf;
pub mod kernel;
pub mod object;
pub mod refusal;
pub mod socket_source;
pub mod trial;

/// The kernel says EAGAIN to one of two tools that give a process its first storage at once
/// (`bpf_local_storage_alloc()`); it has one then.
const STORAGE_TRIES: usize = 8;

/// Any process: which are traced is decided in BPF, since a master's pid is not its workers'.
const ANY_PROCESS: i32 = -1;

// SAFETY: integers and arrays of integers, without implicit padding (-Wpadded).
unsafe impl Plain for types::worker {}

/// A loaded object and its links.
pub struct Probe {
    /// Gone first: nothing runs in a map that is no more.
    links: Vec<Link>,
    /// Programs and maps.
    skel: NgxSkel<'static>,
}

impl Probe {
    /// Loads the object for the layout of a binary, and attaches it to its functions, to processes
    /// and to sockets. Nothing is traced yet: see `follow()` and `activate()`.
    ///
    /// Fails when the kernel refuses any of it; then nothing is left attached.
    pub fn new(kernel: &Kernel, program: &Program, filter: &Early) -> Result<Self> {
        let relocations = object::relocations(&kernel.types, &program.layout.layout)?;
        let plan = Plan {
            source: program.layout.source,
            hooks: &program.hooks.places,
            filter,
            method: kernel.method,
            sockets: kernel.sockets,
            tracing: kernel.programs(),
            allocates: kernel.allocates(),
        };
        let mut probe = Self::load(&relocations, &plan)?;
        probe.attach_uprobes(&program.binary, &plan)?;
        probe.attach_kernel(&plan)?;
        Ok(probe)
    }

    /// Nothing is attached yet.
    fn load(relocations: &File, plan: &Plan<'_>) -> Result<Self> {
        Ok(Self {
            links: Vec::new(),
            skel: plan.load(relocations)?,
        })
    }

    /// Attaches to the functions of the very file that was read.
    fn attach_uprobes(&mut self, binary: &File, plan: &Plan<'_>) -> Result<()> {
        for hook in plan.hooks {
            self.attach(hook.program, |program| {
                attach_uprobe(program, binary, hook, plan.method)
            })
            .with_context(|| format!("failed to attach to {}", hook.function))?;
        }
        Ok(())
    }

    /// Attaches to the kernel's tracepoints and functions.
    fn attach_kernel(&mut self, plan: &Plan<'_>) -> Result<()> {
        for (name, place) in &plan.tracing {
            self.attach(name, |program| Ok(program.attach_trace()?))
                .with_context(|| format!("failed to attach to the kernel's {place}"))?;
        }
        Ok(())
    }

    /// Attaches one of the programs, for as long as this lives.
    fn attach(
        &mut self,
        name: &str,
        attach: impl FnOnce(&ProgramMut<'_>) -> Result<Link>,
    ) -> Result<()> {
        let mut programs = self.skel.object().progs_mut();
        let program = programs.find(|program| program.name() == name);
        let link = attach(&program.context("there is no such program")?)?;
        self.links.push(link);
        Ok(())
    }

    /// Traces a process and, unless it is a worker, all its children, those to come included: a
    /// master that is still starting has no title to be known by. Returns how many workers there
    /// are now.
    pub fn follow(&self, process: &Process) -> Result<usize> {
        let follow = !matches!(process.role, Some(Role::Worker | Role::Helper));
        self.add(process, follow)?;
        if !follow {
            return Ok(1);
        }
        /* Children that are born from here on are added by BPF. */
        let children = process.children()?;
        for child in &children {
            self.add(child, false)?;
        }
        let workers = children
            .iter()
            .filter(|child| process.is_worker(child.pid))
            .count();
        let serves_itself = process.role == Some(Role::Single) && workers == 0;
        Ok(if serves_itself { 1 } else { workers })
    }

    /// The pid of a traced process that has executed a program since, each once: the master of an
    /// upgrade. It may have ended.
    pub fn upgraded(&self) -> Option<u32> {
        let pid = self.skel.maps.upgrades.lookup_and_delete(&[]).ok()??;
        Some(u32::from_ne_bytes(pid.try_into().ok()?))
    }

    /// Adds one process. One that has ended since is no failure.
    fn add(&self, process: &Process, follow: bool) -> Result<()> {
        let mut worker = types::worker {
            pid: process.pid,
            ..Default::default()
        };
        /* What BPF knows of a worker is not to be lost; of a master it may not know all. */
        let mut how = MapFlags::NO_EXIST;
        if follow {
            worker.flags = types::worker_flag::WORKER_FOLLOW.0;
            how = MapFlags::ANY;
        }
        let key = process.pidfd.as_raw_fd().to_ne_bytes();
        // SAFETY: `worker` is plain.
        let value = unsafe { plain::as_bytes(&worker) };
        for tries_left in (0..STORAGE_TRIES).rev() {
            match self.skel.maps.workers.update(&key, value, how) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && tries_left > 0 => {}
                Err(error) if error.kind() != ErrorKind::AlreadyExists && process.is_alive() => {
                    return Err(error)
                        .with_context(|| format!("failed to trace pid {}", process.pid));
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// From here on requests are recorded.
    pub fn activate(&mut self) {
        self.set_active(true);
    }

    /// Ends all probes. What was recorded is still in the ring buffer.
    pub fn detach(&mut self) {
        self.set_active(false);
        self.links.clear();
    }

    /// Takes the records that wait for the end of their responses, once nothing is attached any more.
    /// Without that end they have no duration.
    pub fn take_held(&self) -> Vec<Vec<u8>> {
        const LAST: usize = offset_of!(types::request_record, response_last_ns);
        let held = &self.skel.maps.held_requests;
        let values = held
            .keys()
            .filter_map(|key| held.lookup_and_delete(&key).ok()?);
        let records = values.filter_map(|mut value| {
            let record = value.get_mut(offset_of!(types::held, draft)..)?;
            record.get_mut(LAST..)?.first_chunk_mut::<8>()?.fill(0);
            Some(wire::split(record).ok()?.0.to_vec())
        });
        records.collect()
    }

    /// A handle to the ring buffer.
    pub fn events(&self) -> Result<MapHandle> {
        MapHandle::try_from(&self.skel.maps.events).context("failed to use the ring buffer")
    }

    /// Adds what this object has counted.
    pub fn count(&self, counts: &mut Counts) {
        if let Some(bss) = self.skel.maps.bss_data.as_deref() {
            let counters: *const types::counters = &raw const bss.counters;
            // SAFETY: mapped memory that lives as long as the object; BPF changes it meanwhile.
            counts.add(&unsafe { counters.read_volatile() });
        }
    }

    /// Adds what the kernel has counted of each program that runs.
    pub fn runs(&self, programs: &mut BTreeMap<String, Runs>) {
        for program in self.skel.object().progs() {
            let Some(info) = info(program.as_fd()).filter(|info| info.run_cnt > 0) else {
                continue;
            };
            let name = program.name().to_string_lossy().into_owned();
            let runs = programs.entry(name).or_default();
            runs.hits += info.run_cnt;
            runs.time_ns += info.run_time_ns;
        }
    }

    /// Sets the switch that every program looks at first.
    fn set_active(&mut self, active: bool) {
        if let Some(bss) = self.skel.maps.bss_data.as_deref_mut() {
            let switch: *mut bool = &raw mut bss.active;
            // SAFETY: as above; BPF only reads it.
            unsafe { switch.write_volatile(active) };
        }
    }
}

/// What the kernel tells of a program. `None` when it was not loaded.
fn info(program: BorrowedFd<'_>) -> Option<libbpf_sys::bpf_prog_info> {
    let mut info = libbpf_sys::bpf_prog_info::default();
    let mut size = u32::try_from(size_of_val(&info)).ok()?;
    // SAFETY: the kernel writes at most `size` bytes, which are ours.
    let result = unsafe {
        libbpf_sys::bpf_prog_get_info_by_fd(program.as_raw_fd(), &raw mut info, &raw mut size)
    };
    (result == 0).then_some(info)
}

/// One uprobe at one place.
fn attach_uprobe(
    program: &ProgramMut<'_>,
    binary: &File,
    hook: &Hook,
    method: Method,
) -> Result<Link> {
    let path = object::descriptor_path(binary);
    let link = match method {
        Method::Multi => {
            let opts = UprobeMultiOpts {
                offsets: vec![usize::try_from(hook.file_offset)?],
                cookies: vec![hook.cookie],
                ..Default::default()
            };
            program.attach_uprobe_multi_with_opts(ANY_PROCESS, path, "", opts)
        }
        Method::Perf => {
            let opts = UprobeOpts {
                cookie: hook.cookie,
                ..Default::default()
            };
            let offset = usize::try_from(hook.file_offset)?;
            program.attach_uprobe_with_opts(ANY_PROCESS, path, offset, opts)
        }
    };
    Ok(link?)
}
