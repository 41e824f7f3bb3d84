// SPDX-License-Identifier: MIT OR Apache-2.0
//! What all binaries share: the maps, and the programs that are attached to the kernel, each once
//! for the whole host.

use std::os::fd::AsFd as _;
use std::os::fd::AsRawFd as _;
use std::os::fd::BorrowedFd;

use anyhow::Context as _;
use anyhow::Result;
use libbpf_rs::Link;
use libbpf_rs::MapCore as _;
use libbpf_rs::MapHandle;
use libbpf_rs::skel::OpenSkel as _;
use libbpf_rs::skel::Skel as _;

use crate::attach::object::LoadedObject;
use crate::attach::object::ObjectSettings;
use crate::attach::object::Part;
use crate::bpf::OpenNgxSkel;

/// The programs that only write what user space asks for, and that are always loaded.
pub const ITERATORS: [&str; 2] = [TRACED_TASKS, MAPPED_FILES];
/// The iterator of the traced processes.
pub const TRACED_TASKS: &str = "traced_tasks";
/// The iterator of the files that this process has mapped.
pub const MAPPED_FILES: &str = "mapped_files";
/// The iterator of the listening sockets of a process. It is loaded if these are asked for.
pub const LISTENERS: &str = "listeners";

/// The program that takes samples of workers, for which the one for task switches is needed.
pub const SAMPLE: &str = "sample";
const TASK_SWITCH: &str = "task_switch";

/// The end of the name of a map with the programs of all layouts for one event of the kernel.
pub const LAYOUTS: &str = "_layouts";

/// The maps and the programs that all binaries share.
pub struct SharedObject {
    /// The links. They are dropped before the maps that their programs use.
    links: Vec<Link>,
    pub object: LoadedObject,
}

/// The part of the object that is shared.
struct SharedPart<'a> {
    /// The programs to attach to the kernel, each with the tracepoint or function.
    programs: &'a [(&'static str, &'static str)],
    /// True when listening sockets are read.
    with_listeners: bool,
}

impl Part for SharedPart<'_> {
    fn has(&self, program: &str) -> bool {
        let mut programs = self.programs.iter();
        let needed = if program == SAMPLE {
            TASK_SWITCH
        } else {
            program
        };
        programs.any(|(name, _)| *name == needed)
            || ITERATORS.contains(&program)
            || (self.with_listeners && program == LISTENERS)
    }

    fn configure(&self, open: &mut OpenNgxSkel<'_>) -> Result<()> {
        for mut map in open.open_object_mut().maps_mut() {
            let name = map.name().to_string_lossy();
            let Some(program) = name.strip_suffix(LAYOUTS) else {
                continue;
            };
            let is_needed = self.has(program);
            map.set_autocreate(is_needed)
                .context("failed to configure a map")?;
        }
        Ok(())
    }
}

impl SharedObject {
    /// Loads the programs for events of the kernel, and attaches them. Nothing is traced yet.
    pub fn attach(settings: &ObjectSettings) -> Result<Self> {
        let programs = &settings.kernel.programs;
        let part = SharedPart {
            programs,
            with_listeners: settings.extras.listeners,
        };
        let mut shared = Self {
            links: Vec::new(),
            object: settings.load(&part, None)?,
        };
        for (name, place) in programs {
            let mut all = shared.object.skel.object().progs_mut();
            let program = all.find(|program| program.name() == *name);
            let program = program.context("the BPF object has no such program")?;
            let link = program
                .attach_trace()
                .with_context(|| format!("failed to attach to the kernel's {place}"))?;
            shared.links.push(link);
        }
        Ok(shared)
    }

    /// Returns the maps with the programs of all layouts, each with the name of the program that
    /// calls these. Only the maps of programs that are attached were created.
    pub fn layout_programs(&self, settings: &ObjectSettings) -> Result<Vec<(String, MapHandle)>> {
        let is_attached = |name: &str| {
            let mut programs = settings.kernel.programs.iter();
            programs.any(|(program, _)| *program == name)
        };
        let mut layouts = Vec::new();
        for map in self.object.skel.object().maps() {
            let name = map.name().to_string_lossy();
            let caller = name.strip_suffix(LAYOUTS);
            if let Some(caller) = caller.filter(|caller| is_attached(caller)) {
                layouts.push((caller.to_owned(), MapHandle::try_from(&map)?));
            }
        }
        Ok(layouts)
    }

    /// Returns a program that writes what user space asks for.
    pub fn iterator(&self, name: &str) -> Result<BorrowedFd<'_>> {
        let mut programs = self.object.skel.object().progs();
        let program = programs.find(|program| program.name() == name);
        let program = program.context("the BPF object has no such program")?;
        let fd = program.as_fd().as_raw_fd();
        // SAFETY: the program lives as long as the object, which is borrowed.
        Ok(unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// Detaches the programs.
    pub fn detach(&mut self) {
        self.links.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::mem::MaybeUninit;

    use libbpf_rs::skel::OpenSkel as _;
    use libbpf_rs::skel::SkelBuilder as _;

    use super::ITERATORS;
    use super::LAYOUTS;
    use super::LISTENERS;
    use super::Part as _;
    use super::SAMPLE;
    use super::SharedPart;
    use crate::bpf::NgxSkelBuilder;

    /// Check that the map with the programs of layouts is created for the programs that are attached,
    /// and for no others; and that each such map belongs to a program of the object.
    #[test]
    fn layout_maps() {
        let mut storage = MaybeUninit::uninit();
        let mut open = NgxSkelBuilder::default().open(&mut storage).unwrap();
        let names = open.open_object().progs();
        let names = names.map(|program| program.name().to_string_lossy().into_owned());
        let names: BTreeSet<String> = names.collect();
        let programs = [
            ("sock_send", "sock_send_length"),
            ("sock_destroy", "tcp_destroy_sock"),
        ];
        let part = SharedPart {
            programs: &programs,
            with_listeners: false,
        };
        part.configure(&mut open).unwrap();
        let (mut created, mut others) = (Vec::new(), Vec::new());
        for map in open.open_object().maps() {
            let name = map.name().to_string_lossy().into_owned();
            let Some(program) = name.strip_suffix(LAYOUTS) else {
                continue;
            };
            assert!(names.contains(program), "{name}");
            let maps = if map.autocreate() {
                &mut created
            } else {
                &mut others
            };
            maps.push(program.to_owned());
        }
        assert_eq!(created, ["sock_send"]);
        assert!(others.len() > 8, "{others:?}");
        for name in ITERATORS {
            assert!(names.contains(name) && part.has(name), "{name}");
        }
        assert!(part.has("sock_destroy") && !part.has("sock_recv"));
        assert!(names.contains(LISTENERS) && !part.has(LISTENERS));
        assert!(names.contains(SAMPLE) && !part.has(SAMPLE));
    }
}
