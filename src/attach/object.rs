// SPDX-License-Identifier: MIT OR Apache-2.0
//! The BPF object before it is attached: the nginx members that it reads, its settings, the sizes
//! of its maps, and how it is loaded for one binary.

use std::ffi::OsStr;
use std::fs::File;
use std::mem::MaybeUninit;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use libbpf_rs::AsRawLibbpf as _;
use libbpf_rs::ProgramAttachType;
use libbpf_rs::ProgramType;
use libbpf_rs::btf::Btf;
use libbpf_rs::skel::OpenSkel as _;
use libbpf_rs::skel::SkelBuilder as _;
use nginx_binary::layout::Layout;
use nginx_binary::layout::wanted::WantedMembers;
use nginx_binary::sites;
use nginx_binary::sites::ProbeSite;

use crate::attach::btf;
use crate::attach::socket_source::SocketSource;
use crate::attach::trial::UprobeMethod;
use crate::bpf::NgxSkel;
use crate::bpf::NgxSkelBuilder;
use crate::bpf::OpenNgxMaps;
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

/// The settings that an object is loaded with.
pub struct ObjectSettings<'a> {
    /// True when the layout of nginx's structs was inferred, which each record states.
    pub is_layout_inferred: bool,
    /// The places of its uprobes.
    pub sites: &'a [ProbeSite],
    /// The filters that run in BPF.
    pub filter: &'a KernelFilter,
    /// The method by which uprobes are attached.
    pub method: UprobeMethod,
    pub sockets: SocketSource,
    /// The programs to attach to the kernel, each with the tracepoint or function.
    pub kernel_programs: Vec<(&'static str, &'static str)>,
    /// True when uprobes may use maps whose entries are allocated when they are added.
    pub can_allocate: bool,
}

impl ObjectSettings<'_> {
    /// Opens and loads the object.
    pub fn load(&self, relocations: &File) -> Result<NgxSkel<'static>> {
        /* libbpf-rs borrows this storage while the object lives, which is not known here. It is leaked,
         * once for each binary that is ever traced. */
        let storage = Box::leak(Box::new(MaybeUninit::uninit()));
        let mut builder = NgxSkelBuilder::default();
        let path = descriptors::path_of(relocations);
        builder
            .object_builder_mut()
            .btf_custom_path(path)
            .context("failed to use the layout")?;
        let mut open = builder
            .open(storage)
            .context("failed to open the BPF object")?;
        let settings = open.maps.rodata_data.as_deref_mut();
        let settings = settings.context("the BPF object has no settings")?;
        settings.layout_inferred = self.is_layout_inferred;
        settings.pid_namespace = pid_namespace::own_inode()?;
        settings.quic_is_probed = sites::cover_quic(self.sites);
        settings.by_descriptor = self.sockets == SocketSource::Syscall;
        settings.filter_sample = self.filter.sample;
        settings.filter_min_duration_ns = self.filter.min_duration_ns;
        settings.filter_by_status = self.filter.statuses.is_some();
        settings.filter_statuses = self.filter.statuses.unwrap_or_default();
        for mut program in open.open_object_mut().progs_mut() {
            let is_uprobe = program.prog_type() == ProgramType::Kprobe;
            program.set_autoload(self.needs(program.name()));
            if is_uprobe && self.method == UprobeMethod::Multi {
                program.set_attach_type(ProgramAttachType::TraceUprobeMulti);
            }
        }
        open.maps
            .descriptors
            .set_autocreate(self.sockets == SocketSource::Syscall)
            .context("failed to configure a map")?;
        if !self.can_allocate {
            preallocate(&mut open.maps)?;
        }
        open.load().context("failed to load the BPF object")
    }

    /// Returns whether a program is attached with these settings.
    fn needs(&self, program: &OsStr) -> bool {
        self.sites.iter().any(|site| program == site.program)
            || self
                .kernel_programs
                .iter()
                .any(|(name, _)| program == *name)
    }
}

/// Sets the sizes of the maps that uprobes use so that all their entries are allocated beforehand.
fn preallocate(maps: &mut OpenNgxMaps<'_>) -> Result<()> {
    let all = [
        (&mut maps.connections, limit::PREALLOCATED_CONNECTIONS),
        (&mut maps.multiplexes, limit::PREALLOCATED_MULTIPLEXES),
        (&mut maps.quic_streams, limit::PREALLOCATED_MULTIPLEXES),
        (&mut maps.held_requests, limit::HELD_MAX),
        (&mut maps.subrequests, limit::PREALLOCATED_SUBREQUESTS),
    ];
    for (map, entries) in all {
        map.set_map_flags(0)
            .and_then(|()| map.set_max_entries(entries.0))
            .context("failed to size a map")?;
    }
    Ok(())
}

/// Returns the nginx members that the program reads, by struct.
pub fn wanted() -> Result<WantedMembers> {
    with_program(|program| Ok(btf::wanted(program)))
}

/// Creates the BTF that relocates the program to a layout.
pub fn relocations(kernel: &Btf<'_>, layout: &Layout) -> Result<File> {
    with_program(|program| btf::encode(program, layout, kernel))
}

/// Calls a function with the program's own types. The object is opened for this, but not loaded.
fn with_program<T>(use_it: impl FnOnce(&Btf<'_>) -> Result<T>) -> Result<T> {
    let mut storage = MaybeUninit::uninit();
    let open = NgxSkelBuilder::default()
        .open(&mut storage)
        .context("failed to open the BPF object")?;
    let object = open.open_object().as_libbpf_object();
    // SAFETY: the object lives as long as `open`, and no one changes it.
    let program =
        Btf::from_bpf_object(unsafe { object.as_ref() })?.context("the BPF object has no BTF")?;
    use_it(&program)
}

#[cfg(test)]
mod binaries;

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
