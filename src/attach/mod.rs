// SPDX-License-Identifier: MIT OR Apache-2.0
//! BPF in the kernel: what all traced binaries share, the programs of each layout, the probes of
//! each binary, and the processes that are traced.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::fd::AsRawFd as _;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use anyhow::Context as _;
use anyhow::Result;
use libbpf_rs::MapCore as _;
use libbpf_rs::MapFlags;
use libbpf_rs::MapHandle;
use libbpf_rs::libbpf_sys;
use libbpf_rs::skel::Skel as _;
use nginx_binary::layout::Layout;
use nginx_binary::sites::ProbeSite;
use nginx_binary::sites::ProbeSites;
use plain::Plain;

use crate::attach::counters::CounterMap;
use crate::attach::departed::Departed;
use crate::attach::iterator::BpfIterator;
use crate::attach::iterator::LISTENERS_MAX;
use crate::attach::iterator::MappedFiles;
use crate::attach::kernel::Kernel;
use crate::attach::layout_object::LayoutKey;
use crate::attach::layout_object::LayoutObject;
use crate::attach::object::Extras;
use crate::attach::object::KernelFilter;
use crate::attach::object::ObjectSettings;
use crate::attach::process_event::ProcessEvent;
use crate::attach::shared::LISTENERS;
use crate::attach::shared::MAPPED_FILES;
use crate::attach::shared::SharedObject;
use crate::attach::shared::TRACED_TASKS;
use crate::attach::slots::Slots;
use crate::attach::turns::Turns;
use crate::bpf::types;
use crate::bpf::types::limit;
use crate::host::descriptors;

pub mod btf;
pub mod counters;
pub mod departed;
pub mod iterator;
pub mod kernel;
pub mod kernel_btf;
mod kernel_types;
mod layout_object;
pub mod libbpf_log;
mod link;
pub mod object;
pub mod process_event;
pub mod program_types;
pub mod refusal;
pub mod requirements;
pub mod run_counting;
mod shared;
mod slots;
pub mod socket_source;
mod storage_trial;
mod task_storage;
pub mod trial;
mod turns;
pub mod uprobe;

// SAFETY: integers and arrays of integers, without implicit padding (-Wpadded).
unsafe impl Plain for types::worker {}

/// The program for the end of a connection, with its tracepoint. It runs before the one that removes the entry
/// of the connection.
const CONNECTION_END: (&str, &str) = ("sock_end", "tcp_destroy_sock");

/// The binary that probes are attached to.
pub struct ProbeTarget<'a> {
    /// The file that was read. Probes are attached through this descriptor.
    pub binary: &'a File,
    pub layout: &'a Layout,
    /// True when the layout was inferred.
    pub is_layout_inferred: bool,
    /// The bits from `r->http_connection` to `r->uri_changes`. `None` when that is not certain.
    pub uri_changes: Option<u32>,
    /// The places of its uprobes, and what they can't show.
    pub probes: &'a ProbeSites,
    /// The place of the one that shows turns of the event loop, if it was asked for.
    pub turn: Option<&'a ProbeSite>,
}

/// The number and time of the runs of a BPF program.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProgramRuns {
    /// The number of runs, including those for processes that are not traced.
    pub hits: u64,
    /// The time of all runs, in nanoseconds.
    pub time_ns: u64,
}

/// The probes in one binary. They stay attached until `Tracer::detach()`, or until this is dropped.
pub struct Probe {
    links: Vec<OwnedFd>,
    layout: Rc<LayoutObject>,
    /// The number by which BPF knows the binary.
    number: u32,
    /// Where the handlers of `limit_req` and `limit_conn` are: `ProbeSites`.
    limiters: [i32; 2],
}

/// Everything that is loaded into the kernel.
pub struct Tracer {
    settings: ObjectSettings,
    /// The layouts of binaries with probes, each at its slot. They are dropped before the maps.
    layouts: Slots<LayoutObject>,
    /// The runs of programs of layouts that are no longer loaded.
    past_runs: BTreeMap<String, ProgramRuns>,
    /// The number of binaries that probes were ever attached to.
    binaries: u32,
    /// Dropped before the programs that its links run.
    turns: Turns,
    shared: SharedObject,
    tasks: BpfIterator,
}

impl Tracer {
    /// Loads and attaches what all binaries share.
    ///
    /// Fails when the kernel refuses an operation; then nothing stays attached.
    pub fn start(mut kernel: Kernel, filter: &KernelFilter, extras: &Extras) -> Result<Self> {
        if extras.connections {
            kernel.programs.insert(0, CONNECTION_END);
        }
        let listeners = extras.listeners && kernel.can_list_listeners;
        let settings = ObjectSettings {
            extras: Extras {
                listeners,
                ..extras.clone()
            },
            filter: *filter,
            kernel,
        };
        let shared = SharedObject::attach(&settings)?;
        let tasks = BpfIterator::link(shared.iterator(TRACED_TASKS)?, None)?;
        let mut tracer = Self {
            settings,
            layouts: Slots::new(),
            past_runs: BTreeMap::new(),
            binaries: 0,
            turns: Turns::default(),
            shared,
            tasks,
        };
        tracer.set_active(true);
        Ok(tracer)
    }

    /// Returns what finds out the inode that probes in a file are attached to.
    pub fn mapped_files(&self) -> Result<MappedFiles> {
        MappedFiles::link(self.shared.iterator(MAPPED_FILES)?)
    }

    /// Attaches probes to the functions of a binary. The programs of its layout are loaded unless
    /// another binary has the same one. None of its processes is traced yet: see `add_process()`.
    ///
    /// Fails when the kernel refuses an operation; then nothing stays attached.
    pub fn attach(&mut self, target: &ProbeTarget<'_>) -> Result<Probe> {
        let key = LayoutKey::new(
            target.layout,
            target.is_layout_inferred,
            target.uri_changes,
            target.probes,
            target.turn,
        );
        let layout = self.layout(key)?;
        self.binaries += 1;
        let mut probe = Probe {
            links: Vec::new(),
            layout,
            number: self.binaries,
            limiters: target.probes.limiters,
        };
        for site in target.probes.sites.iter().chain(target.turn) {
            match probe.layout.attach(target.binary, site) {
                Ok(link) => probe.links.push(link),
                Err(error) => {
                    self.detach(probe);
                    return Err(error);
                }
            }
        }
        Ok(probe)
    }

    /// Returns the programs of a layout. They are loaded if they are not yet.
    fn layout(&mut self, key: LayoutKey) -> Result<Rc<LayoutObject>> {
        if let Some(same) = self.layouts.values().find(|layout| layout.key == key) {
            return Ok(Rc::clone(same));
        }
        let slot = self.layouts.free(limit::LAYOUTS_MAX.0);
        let slot = slot.with_context(|| {
            format!(
                "nginx with {} other layouts is traced: no more fit",
                limit::LAYOUTS_MAX.0
            )
        })?;
        let layout = LayoutObject::load(&self.settings, &self.shared, key, slot)?;
        Ok(self.layouts.put(slot, layout))
    }

    /// Detaches the probes of a binary, and unloads the programs of its layout if no other binary
    /// has it.
    pub fn detach(&mut self, probe: Probe) {
        let slot = probe.layout.slot;
        drop(probe);
        if let Some(layout) = self.layouts.take_unused(slot) {
            for (name, program) in layout.programs().iter() {
                add_runs(&mut self.past_runs, name, program);
            }
        }
    }

    /// Returns the next event of a traced process.
    pub fn next_event(&self) -> Option<ProcessEvent> {
        let events = &self.shared.object.skel.maps.process_events;
        ProcessEvent::parse(&events.lookup_and_delete(&[]).ok()??)
    }

    /// Starts to trace one process that runs the binary of a probe and, with `follow_children`, the
    /// processes that it starts from now on. `is_alone` says that it has no master. Their records have
    /// the number of their container. It is not an error that the process has ended.
    pub fn add_process(
        &self,
        probe: &Probe,
        pid: u32,
        pidfd: BorrowedFd<'_>,
        follow_children: bool,
        is_alone: bool,
        container: u32,
    ) -> Result<()> {
        let mut worker = types::worker {
            pid,
            container,
            layout: probe.layout.slot,
            binary: probe.number,
            limiters: probe.limiters,
            ..Default::default()
        };
        /* An entry that BPF has added for a worker must stay. The entry of a master may lack the flag. */
        let mut flags = MapFlags::NO_EXIST;
        if follow_children {
            worker.flags = types::worker_flag::WORKER_FOLLOW.0;
            flags = MapFlags::ANY;
        }
        if is_alone {
            worker.flags |= types::worker_flag::WORKER_ALONE.0;
        }
        let key = pidfd.as_raw_fd().to_ne_bytes();
        // SAFETY: `worker` is plain.
        let value = unsafe { plain::as_bytes(&worker) };
        let workers = &self.shared.object.skel.maps.workers;
        let update = || workers.update(&key, value, flags);
        task_storage::add(update, || descriptors::is_process_alive(pidfd))
            .with_context(|| format!("failed to trace pid {pid}"))?;
        if self.settings.extras.blocked.is_some() {
            self.turns.watch(&self.shared, pid, pidfd);
        }
        Ok(())
    }

    /// Returns the numbers of the binaries that traced processes run.
    pub fn live_binaries(&self) -> Result<BTreeSet<u32>> {
        let processes = self.live_processes()?;
        Ok(processes.into_iter().map(|(_, binary)| binary).collect())
    }

    /// Returns the pids of the traced processes that live, with the numbers of their binaries.
    pub fn live_processes(&self) -> Result<Vec<(u32, u32)>> {
        let tasks = self.tasks.values::<types::traced_task>()?;
        Ok(tasks
            .into_iter()
            .map(|task| (task.pid, task.binary))
            .collect())
    }

    /// Removes the entries of traced processes that have ended, and returns their requests in flight.
    /// `ended` has what BPF has reported of each.
    pub fn forget_departed(&self, ended: &BTreeMap<u32, types::process_event>) -> Result<Departed> {
        self.turns.forget_departed();
        departed::forget(&self.shared.object.skel.maps, &self.tasks, ended)
    }

    /// Stops to record requests.
    pub fn deactivate(&mut self) {
        self.set_active(false);
    }

    /// Detaches from the kernel's events. Recorded requests are still in the ring buffer.
    pub fn detach_from_kernel(&mut self) {
        self.turns.detach();
        self.shared.detach();
    }

    /// Takes the values of the map `held_requests`. Nothing may be attached any more.
    pub fn take_held(&self) -> Vec<Vec<u8>> {
        let held = &self.shared.object.skel.maps.held_requests;
        let keys = held.keys();
        keys.filter_map(|key| held.lookup_and_delete(&key).ok()?)
            .collect()
    }

    /// Returns a handle to the ring buffer.
    pub fn ring_buffer(&self) -> Result<MapHandle> {
        let events = &self.shared.object.skel.maps.events;
        MapHandle::try_from(events).context("failed to use the ring buffer")
    }

    /// Returns whether BPF reports connections that end without a request.
    pub fn reports_connections(&self) -> bool {
        self.settings.extras.connections
    }

    /// Returns whether the listening sockets of a process can be read, and are asked for.
    pub fn reads_listeners(&self) -> bool {
        self.settings.extras.listeners
    }

    /// Returns the listening TCP sockets among the open files of a process: none when it has ended.
    pub fn listeners(&self, pid: u32) -> Result<Vec<types::listener>> {
        BpfIterator::link(self.shared.iterator(LISTENERS)?, Some(pid))?.at_most(LISTENERS_MAX)
    }

    /// Returns the counters.
    pub fn counters(&self) -> Result<CounterMap> {
        CounterMap::map(self.shared.object.skel.maps.bss.as_fd())
    }

    /// Returns the runs that the kernel has counted, by the name of the program.
    pub fn program_runs(&self) -> BTreeMap<String, ProgramRuns> {
        let mut programs = self.past_runs.clone();
        let layouts = self.layouts.values();
        for (name, program) in layouts.flat_map(|layout| layout.programs().iter()) {
            add_runs(&mut programs, name, program);
        }
        for program in self.shared.object.skel.object().progs() {
            let name = program.name().to_string_lossy();
            add_runs(&mut programs, &name, program.as_fd());
        }
        programs
    }

    /// Sets the switch that every BPF program checks first.
    fn set_active(&mut self, active: bool) {
        if let Some(bss) = self.shared.object.skel.maps.bss_data.as_deref_mut() {
            let switch: *mut bool = &raw mut bss.active;
            // SAFETY: mapped memory that lives as long as the object; BPF only reads it.
            unsafe { switch.write_volatile(active) };
        }
    }
}

impl Probe {
    /// Returns the number by which BPF knows the binary.
    pub fn number(&self) -> u32 {
        self.number
    }
}

/// Adds the runs of a program.
fn add_runs(programs: &mut BTreeMap<String, ProgramRuns>, name: &str, program: BorrowedFd<'_>) {
    let info = program_info(program).filter(|info| info.run_cnt > 0);
    if let Some(info) = info {
        let runs = programs.entry(name.to_owned()).or_default();
        runs.hits += info.run_cnt;
        runs.time_ns += info.run_time_ns;
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
