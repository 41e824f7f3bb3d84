// SPDX-License-Identifier: MIT OR Apache-2.0
//! The BPF object before it is attached: the nginx members that it reads, its settings, the sizes
//! of its maps, and how a part of it is loaded.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use libbpf_rs::OpenObject;
use libbpf_rs::ProgramAttachType;
use libbpf_rs::ProgramImpl;
use libbpf_rs::ProgramType;
use libbpf_rs::skel::OpenSkel as _;
use libbpf_rs::skel::Skel as _;
use libbpf_rs::skel::SkelBuilder as _;
use nginx_binary::layout::Layout;
use rustix::time::ClockId;

use crate::attach::btf;
use crate::attach::kernel::EXIT_WITH_MEMORY;
use crate::attach::kernel::Kernel;
use crate::attach::program_types;
use crate::attach::socket_source::SocketSource;
use crate::attach::uprobe::UprobeMethod;
use crate::bpf::NgxSkel;
use crate::bpf::NgxSkelBuilder;
use crate::bpf::OpenNgxMaps;
use crate::bpf::OpenNgxSkel;
use crate::bpf::types;
use crate::bpf::types::limit;
use crate::host::descriptors;
use crate::host::pid_namespace;

/// The filters that run in BPF (bpf/filter.bpf.h): those that numbers decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFilter {
    /// One request in this number passes, counted over all requests that end.
    pub sample: u64,
    /// The shortest duration that passes, in nanoseconds; 0 for any.
    pub min_duration_ns: u64,
    /// A bit for each status: requests with status n pass if bit n of all words together is set.
    /// `None` for any status.
    pub statuses: Option<[u64; STATUS_WORDS]>,
}

/// The size of the ring buffer of an object, in bytes.
pub const RING_BYTES: u64 = limit::RING_BYTES.0 as u64;

/// The number of words in a set of statuses; each has the bits of 64 statuses.
const STATUS_WORDS: usize = limit::STATUS_WORDS.0 as usize;

impl KernelFilter {
    /// Creates the filter of a sample, a duration and ranges of statuses, each of which may be
    /// absent. Statuses must be less than 1000.
    pub fn new(
        sample: Option<u64>,
        min_duration: Option<Duration>,
        statuses: &[RangeInclusive<u32>],
    ) -> Self {
        let min_duration = min_duration.unwrap_or_default();
        let mut words = [0; STATUS_WORDS];
        for status in statuses.iter().cloned().flatten() {
            words[status as usize / 64] |= 1 << (status % 64);
        }
        Self {
            sample: sample.unwrap_or(1),
            min_duration_ns: u64::try_from(min_duration.as_nanos()).unwrap_or(u64::MAX),
            statuses: Some(words).filter(|_| !statuses.is_empty()),
        }
    }
}

/// What BPF reads only because an option asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// Where servers and groups of upstream servers stand in the configuration.
    pub config_lines: bool,
    /// The ends of connections without a request.
    pub connections: bool,
    /// The queues of listening sockets. They are left out where the kernel can't list those of one process.
    pub listeners: bool,
    /// Numbers of the TCP connections of a request.
    pub tcp: bool,
    /// The names of variables, in lower case: at most eight, each of at most 64 bytes.
    pub variables: Vec<String>,
    /// The names of headers, likewise.
    pub headers: Vec<String>,
    /// The shortest time for which a worker that does not come back to its event loop is reported. `None`
    /// when none is.
    pub blocked: Option<Duration>,
}

/// The most variables, and the most headers, that BPF reads.
const ASKED_MAX: usize = limit::ASKED_MAX.0 as usize;

/// Returns names as BPF compares them.
fn asked(names: &[String]) -> ([types::asked_name; ASKED_MAX], u32) {
    let mut asked = [types::asked_name::default(); ASKED_MAX];
    for (asked, name) in asked.iter_mut().zip(names) {
        let bytes = name.as_bytes();
        let words = asked.words.iter_mut().zip(&mut asked.letters);
        for ((word, letters), bytes) in words.zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(whole);
            let lower_case = whole.map(|byte| u8::from(byte.is_ascii_lowercase()) << 5);
            *letters = u64::from_ne_bytes(lower_case);
        }
        asked.len = bytes.len() as u64;
        let add = |hash: u64, byte: &u8| hash.wrapping_mul(31).wrapping_add((*byte).into());
        asked.hash = bytes.iter().fold(0, add);
        /* nginx leaves other bytes of HTTP/1 out, also when `ignore_invalid_headers` is off. */
        let is_plain = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'-';
        let is_word = |byte: &&u8| is_plain(byte) || **byte == b'_';
        /* A header without a hash is one that nginx has removed. */
        let or_whole = |hash| if hash == 0 { asked.hash } else { hash };
        asked.plain_hash = or_whole(bytes.iter().filter(is_plain).fold(0, add));
        asked.word_hash = or_whole(bytes.iter().filter(is_word).fold(0, add));
    }
    (asked, names.len().min(ASKED_MAX) as u32)
}

/// The settings that every object is loaded with.
pub struct ObjectSettings {
    pub extras: Extras,
    /// The filters that run in BPF.
    pub filter: KernelFilter,
    pub kernel: Kernel,
}

/// The part of an object that is loaded.
pub trait Part {
    /// Returns whether a program of this name is part of it.
    fn has(&self, program: &str) -> bool;

    /// Sets the settings of this part, and makes it use existing maps.
    fn configure(&self, open: &mut OpenNgxSkel<'_>) -> Result<()>;
}

/// The memory that libbpf-rs borrows while an object lives.
struct Storage(NonNull<MaybeUninit<OpenObject>>);

impl Storage {
    fn new() -> Self {
        Self(NonNull::from(Box::leak(Box::new(MaybeUninit::uninit()))))
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // SAFETY: it comes from a `Box`, and whoever borrowed it is dropped.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// A loaded object: its programs and maps.
pub struct LoadedObject {
    /// Dropped before the storage that it borrows.
    pub(super) skel: NgxSkel<'static>,
    _storage: Storage,
}

/// The programs of a layout, without the object that had them: libbpf keeps a mebibyte of each.
pub struct LoadedPrograms(BTreeMap<String, OwnedFd>);

impl LoadedObject {
    /// Takes the programs that were loaded, and closes all else. The programs keep the maps that they use.
    pub fn into_programs(self) -> Result<LoadedPrograms> {
        let all = self.skel.object().progs();
        let programs = all.filter(ProgramImpl::autoload).map(|program| {
            let name = program.name().to_string_lossy().into_owned();
            Ok((name, program.as_fd().try_clone_to_owned()?))
        });
        let programs: io::Result<_> = programs.collect();
        Ok(LoadedPrograms(
            programs.context("failed to keep a BPF program")?,
        ))
    }
}

impl LoadedPrograms {
    /// Returns a program by its name.
    pub fn get(&self, name: &str) -> Result<BorrowedFd<'_>> {
        let program = self.0.get(name).map(AsFd::as_fd);
        program.context("the BPF object has no such program")
    }

    /// Returns all programs, with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        let programs = self.0.iter();
        programs.map(|(name, program)| (&**name, program.as_fd()))
    }
}

impl ObjectSettings {
    /// Opens and loads a part of the object, relocated for a layout.
    pub fn load(&self, part: &impl Part, layout: Option<&Layout>) -> Result<LoadedObject> {
        let mut relocations = btf::file()?;
        let mut storage = Storage::new();
        let mut builder = NgxSkelBuilder::default();
        let path = descriptors::path_of(&relocations);
        builder
            .object_builder_mut()
            .btf_custom_path(path)
            .context("failed to use the layout")?;
        // SAFETY: the storage is dropped after the skeleton, which is the only one that uses it.
        let borrowed = unsafe { storage.0.as_mut() };
        let mut open = builder
            .open(borrowed)
            .context("failed to open the BPF object")?;
        /* libbpf reads this file when it loads the object. */
        let (object, kernel) = (open.open_object(), &self.kernel.types);
        program_types::write_relocations(object, kernel, layout, &mut relocations)?;
        self.configure(&mut open)?;
        for mut program in open.open_object_mut().progs_mut() {
            let is_uprobe = program.prog_type() == ProgramType::Kprobe;
            let name = program.name().to_str().unwrap_or_default();
            program.set_autoload(part.has(name));
            if is_uprobe && self.kernel.method == UprobeMethod::Multi {
                program.set_attach_type(ProgramAttachType::TraceUprobeMulti);
            }
        }
        part.configure(&mut open)?;
        let skel = open.load().context("failed to load the BPF object")?;
        Ok(LoadedObject {
            skel,
            _storage: storage,
        })
    }

    /// Sets the settings that all parts have.
    fn configure(&self, open: &mut OpenNgxSkel<'_>) -> Result<()> {
        let settings = open.maps.rodata_data.as_deref_mut();
        let settings = settings.context("the BPF object has no settings")?;
        settings.pid_namespace = pid_namespace::own_inode()?;
        settings.tool_pid = std::process::id();
        settings.tick_ns = tick_ns();
        settings.by_descriptor = self.kernel.sockets == SocketSource::Syscall;
        settings.with_connections = self.extras.connections;
        settings.with_tcp = self.extras.tcp;
        let mut programs = self.kernel.programs.iter();
        settings.memory_at_exit = programs.any(|(program, _)| *program == EXIT_WITH_MEMORY);
        settings.config_lines = self.extras.config_lines;
        settings.blocked_min_ns = self.extras.blocked.map_or(0, nonzero_ns);
        (settings.variables, settings.variables_len) = asked(&self.extras.variables);
        (settings.headers, settings.headers_len) = asked(&self.extras.headers);
        settings.filter_sample = self.filter.sample;
        settings.filter_min_duration_ns = self.filter.min_duration_ns;
        settings.filter_by_status = self.filter.statuses.is_some();
        settings.filter_statuses = self.filter.statuses.unwrap_or_default();
        open.maps
            .descriptors
            .set_autocreate(self.kernel.sockets == SocketSource::Syscall)
            .context("failed to configure a map")?;
        open.maps
            .turns
            .set_autocreate(self.extras.blocked.is_some())
            .context("failed to configure a map")?;
        open.maps
            .accepts
            .set_autocreate(self.extras.connections)
            .context("failed to configure a map")?;
        let cpus = libbpf_rs::num_possible_cpus().context("failed to count the CPUs")?;
        let scratches = limit::SCRATCH_SPARES.0 + u32::try_from(cpus)?;
        open.maps
            .scratches
            .set_max_entries(scratches)
            .context("failed to size a map")?;
        if !self.kernel.can_allocate {
            preallocate(&mut open.maps)?;
        }
        Ok(())
    }
}

/// Returns a time in nanoseconds. 0 would mean that it was not asked for.
fn nonzero_ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// Returns the length of a tick of the kernel's timer, in which its coarse clocks go on. 0: not known.
fn tick_ns() -> u32 {
    let tick = rustix::time::clock_getres(ClockId::MonotonicCoarse);
    u32::try_from(tick.tv_nsec).unwrap_or_default()
}

/// Sets the sizes of the maps that uprobes use so that all their entries are allocated beforehand.
fn preallocate(maps: &mut OpenNgxMaps<'_>) -> Result<()> {
    let all = [
        (&mut maps.connections, limit::PREALLOCATED_CONNECTIONS),
        (&mut maps.multiplexes, limit::PREALLOCATED_MULTIPLEXES),
        (&mut maps.quic_streams, limit::PREALLOCATED_MULTIPLEXES),
        (&mut maps.held_requests, limit::HELD_MAX),
        (&mut maps.accepts, limit::PREALLOCATED_CONNECTIONS),
        (&mut maps.subrequests, limit::PREALLOCATED_SUBREQUESTS),
    ];
    for (map, entries) in all {
        map.set_map_flags(0)
            .and_then(|()| map.set_max_entries(entries.0))
            .context("failed to size a map")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::KernelFilter;

    /// Check the settings that BPF gets for a sample, a duration and statuses, and without any
    /// filter.
    #[test]
    fn kernel_filter() {
        let none = KernelFilter::new(None, None, &[]);
        assert_eq!(
            (none.sample, none.min_duration_ns, none.statuses),
            (1, 0, None)
        );
        let filter = KernelFilter::new(
            Some(100),
            Some(Duration::from_millis(10)),
            &[404..=404, 500..=599],
        );
        assert_eq!((filter.sample, filter.min_duration_ns), (100, 10_000_000));
        let statuses = filter.statuses.unwrap();
        let is_in = |status: usize| statuses[status / 64] >> (status % 64) & 1 == 1;
        let all: Vec<usize> = (0..1000).filter(|status| is_in(*status)).collect();
        let expected: Vec<usize> = [404].into_iter().chain(500..=599).collect();
        assert_eq!(all, expected);
    }
}
