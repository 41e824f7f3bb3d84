// SPDX-License-Identifier: MIT OR Apache-2.0
//! The BPF object, as far as nothing of it is attached: asked for what it reads of nginx, and loaded
//! for one binary.

use std::ffi::OsStr;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd as _;

use anyhow::Context as _;
use anyhow::Result;
use libbpf_rs::AsRawLibbpf as _;
use libbpf_rs::ProgramAttachType;
use libbpf_rs::ProgramType;
use libbpf_rs::btf::Btf;
use libbpf_rs::skel::OpenSkel as _;
use libbpf_rs::skel::SkelBuilder as _;

use crate::attach::btf;
use crate::attach::socket_source::SocketSource;
use crate::attach::trial::Method;
use crate::bpf::NgxSkel;
use crate::bpf::NgxSkelBuilder;
use crate::bpf::OpenNgxMaps;
use crate::bpf::types::limit;
use crate::follow::processes;
use crate::pipeline::filter::Early;
use nginx_binary::layout::Layout;
use nginx_binary::layout::choose::Source;
use nginx_binary::layout::wanted::WantedMembers;
use nginx_binary::sites;
use nginx_binary::sites::Hook;

/// What an object is loaded for.
pub struct Plan<'a> {
    /// Of the layout.
    pub source: Source,
    /// Places in the binary.
    pub hooks: &'a [Hook],
    /// What is left out in BPF.
    pub filter: &'a Early,
    /// How uprobes are attached there.
    pub method: Method,
    /// What tells of the bytes on sockets.
    pub sockets: SocketSource,
    /// Programs on places in the kernel, and these places.
    pub tracing: Vec<(&'static str, &'static str)>,
    /// Whether maps may grow as they fill.
    pub allocates: bool,
}

impl Plan<'_> {
    /// Opens and loads the object.
    pub fn load(&self, relocations: &File) -> Result<NgxSkel<'static>> {
        /* libbpf-rs borrows the place of a pointer for as long as the object lives: that is not
         * known here, and there is one for each binary that is ever traced. */
        let storage = Box::leak(Box::new(MaybeUninit::uninit()));
        let mut builder = NgxSkelBuilder::default();
        let path = descriptor_path(relocations);
        builder
            .object_builder_mut()
            .btf_custom_path(path)
            .context("failed to use the layout")?;
        let mut open = builder
            .open(storage)
            .context("failed to open the BPF object")?;
        let settings = open.maps.rodata_data.as_deref_mut();
        let settings = settings.context("the BPF object has no settings")?;
        settings.layout_inferred = self.source == Source::Inferred;
        settings.pid_namespace = processes::pid_namespace()?;
        settings.quic_is_probed = sites::see_quic(self.hooks);
        settings.by_descriptor = self.sockets == SocketSource::Syscall;
        settings.filter_sample = self.filter.sample;
        settings.filter_min_duration_ns = self.filter.min_duration_ns;
        settings.filter_by_status = self.filter.statuses.is_some();
        settings.filter_statuses = self.filter.statuses.unwrap_or_default();
        for mut program in open.open_object_mut().progs_mut() {
            let is_uprobe = program.prog_type() == ProgramType::Kprobe;
            program.set_autoload(self.uses(program.name()));
            if is_uprobe && self.method == Method::Multi {
                program.set_attach_type(ProgramAttachType::TraceUprobeMulti);
            }
        }
        open.maps
            .descriptors
            .set_autocreate(self.sockets == SocketSource::Syscall)
            .context("failed to leave out a map")?;
        if !self.allocates {
            preallocate(&mut open.maps)?;
        }
        open.load().context("failed to load the BPF object")
    }

    /// Whether a program is needed.
    fn uses(&self, program: &OsStr) -> bool {
        self.hooks.iter().any(|hook| program == hook.program)
            || self.tracing.iter().any(|(name, _)| program == *name)
    }
}

/// Has all entries of the maps that uprobes use allocated beforehand.
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

/// The nginx members that the program reads, by struct.
pub fn wanted() -> Result<WantedMembers> {
    with_program(|program| Ok(btf::wanted(program)))
}

/// The BTF that relocates the program.
pub fn relocations(kernel: &Btf<'_>, layout: &Layout) -> Result<File> {
    with_program(|program| btf::encode(program, layout, kernel))
}

/// The program's own types: it is opened, not loaded, to learn which members it asks for.
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

/// A path that leads to the open file itself, whatever happened to its own.
pub fn descriptor_path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::File;
    use std::path::Path;

    use nginx_binary::build;
    use nginx_binary::code::Machine;
    use nginx_binary::elf::Elf;
    use nginx_binary::elf::debug_file::DebugFiles;
    use nginx_binary::elf::image::Image;
    use nginx_binary::files::Files;
    use nginx_binary::layout::built_in;
    use nginx_binary::layout::choose;
    use nginx_binary::layout::witness::CONSTANT;
    use nginx_binary::layout::witness::WITHOUT_WITNESS;
    use nginx_binary::layout::witness::Witnesses;
    use nginx_binary::layout::witness::functions::WITNESSES;
    use nginx_binary::sites;
    use nginx_binary::sites::placement::register_name;

    use super::wanted;
    use crate::bpf::types::reg;

    /// Finds no further file: the builds have their debug information, or none.
    struct NoFiles;

    impl Files for NoFiles {
        fn stated(&self, path: &Path) -> anyhow::Result<File> {
            Ok(File::open(path)?)
        }

        fn beside(&self, _: &Path) -> Option<File> {
            None
        }

        fn beneath(&self, _: &Path, _: &Path) -> Option<File> {
            None
        }
    }

    /// Check that both sides number registers alike.
    #[test]
    fn register_numbers() {
        for (register, number) in [
            ("rax", reg::REG_AX),
            ("rbx", reg::REG_BX),
            ("rbp", reg::REG_BP),
            ("rsi", reg::REG_SI),
            ("rdi", reg::REG_DI),
            ("r8", reg::REG_R8),
            ("r15", reg::REG_R15),
        ] {
            assert_eq!(register, register_name(Machine::X86_64, number.0 as u8));
        }
    }

    /// Check that every member that is read, and is not known to be constant, has a witness.
    #[test]
    fn complete() {
        let wanted = wanted().unwrap();
        let wanted: BTreeSet<String> = wanted
            .structs
            .iter()
            .flat_map(|(name, members)| members.iter().map(move |m| format!("{name}.{m}")))
            .collect();
        let places = WITNESSES.iter().flat_map(|(_, place)| place.iter());
        let mut covered: BTreeSet<String> = places
            .map(|(name, member)| format!("{name}.{member}"))
            .collect();
        covered.extend(CONSTANT.map(str::to_owned));
        covered.extend(WITHOUT_WITNESS.map(str::to_owned));
        assert_eq!(wanted, covered);
    }

    /// Check that in builds for arm64 the members are where the table has them: by the compiler's own
    /// word, and by the code, which has places for probes, too.
    #[test]
    #[ignore = "reads builds of nginx that make test-nginx makes"]
    fn arm64() {
        let files = [
            "source-arm64/objs/nginx",
            "source-arm64-compat/objs/nginx",
            "source-arm64-bare/objs/nginx",
            "arm64/usr/sbin/nginx",
            "arm64/srv/trixie/usr/sbin/nginx",
        ];
        let wanted = wanted().unwrap();
        let home = std::env::var("HOME").unwrap();
        let cache = Path::new(&home).join(".cache/ngx-bpf");
        for path in files.map(|file| cache.join(file)) {
            let image = Image::read(&File::open(&path).unwrap()).unwrap();
            let elf = Elf::parse(&image).unwrap();
            assert_eq!(elf.machine(), Machine::Arm64);
            let build = build::build(&elf).unwrap();
            let table = built_in(&build).unwrap().unwrap();
            let debug_info = {
                let files = DebugFiles::new(&path, &elf, None, &NoFiles);
                choose::from_debug_info(&path, &elf, &files, &wanted).unwrap()
            };
            let is_stripped = path.ends_with("sbin/nginx");
            assert_eq!(debug_info.is_none(), is_stripped, "{}", path.display());
            /* The table tells of what this build may not have, and leaves out what is not read. */
            let mut compared = 0;
            for (name, members) in debug_info.iter().flat_map(|layout| &layout.structs) {
                for (member, offset) in members {
                    let known = table.structs.get(name).and_then(|known| known.get(member));
                    assert!(known.is_none_or(|known| known == offset), "{name}.{member}");
                    compared += usize::from(known.is_some());
                }
            }
            assert!(is_stripped || compared > 70, "{compared}");
            let fit = Witnesses::of(&elf).ask(&table);
            assert!(fit.is_full(), "{}: {fit:?}", path.display());
            let hooks = sites::find(&elf).unwrap();
            assert!(hooks.places.iter().all(|hook| hook.emulated), "{hooks:?}");
        }
    }
}
