// SPDX-License-Identifier: MIT OR Apache-2.0
//! The programs that read nginx's memory, loaded for one layout. All binaries with that layout use
//! them.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::fd::AsRawFd as _;
use std::os::fd::OwnedFd;

use anyhow::Context as _;
use anyhow::Result;
use libbpf_rs::MapCore as _;
use libbpf_rs::MapFlags;
use libbpf_rs::MapHandle;
use libbpf_rs::skel::OpenSkel as _;
use libbpf_rs::skel::Skel as _;
use nginx_binary::layout::Layout;
use nginx_binary::sites;
use nginx_binary::sites::ProbeSite;
use nginx_binary::sites::ProbeSites;

use crate::attach::object::LoadedPrograms;
use crate::attach::object::ObjectSettings;
use crate::attach::object::Part;
use crate::attach::shared::LAYOUTS;
use crate::attach::shared::SharedObject;
use crate::attach::uprobe;
use crate::attach::uprobe::UprobeMethod;
use crate::bpf::OpenNgxSkel;
use crate::host::descriptors;

/// The end of the name of the program of a layout for an event of the kernel.
const TRACED: &str = "_traced";

/// Whatever of a binary the programs are loaded for. Binaries for which it is equal share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutKey {
    pub layout: Layout,
    /// True when the layout was inferred, which each record states.
    pub is_inferred: bool,
    /// The bits from `r->http_connection` to `r->uri_changes`. `None` when that is not certain.
    pub uri_changes: Option<u32>,
    /// The programs that are attached to nginx's functions, some of them to several.
    pub programs: BTreeSet<&'static str>,
    /// True when these show the sends of HTTP/3.
    pub cover_quic: bool,
    /// True when they show all that nginx itself makes requests wait for.
    pub cover_waits: bool,
    /// True when modules are built in that are not nginx's own.
    pub has_foreign_modules: bool,
}

impl LayoutKey {
    /// Returns the key of a binary.
    pub fn new(
        layout: &Layout,
        is_inferred: bool,
        uri_changes: Option<u32>,
        probes: &ProbeSites,
        turn: Option<&ProbeSite>,
    ) -> Self {
        let all = probes.sites.iter().chain(turn);
        Self {
            layout: layout.clone(),
            is_inferred,
            uri_changes,
            programs: all.map(|site| site.program).collect(),
            cover_quic: sites::cover_quic(&probes.sites),
            cover_waits: probes.waits_unavailable.is_none(),
            has_foreign_modules: probes.has_foreign_modules,
        }
    }
}

/// The programs that are loaded for one layout.
pub struct LayoutObject {
    pub key: LayoutKey,
    programs: LoadedPrograms,
    /// The index of its programs in the maps of programs.
    pub slot: u32,
    /// The maps that have one of its programs.
    maps: Vec<MapHandle>,
    /// The method by which uprobes are attached.
    method: UprobeMethod,
}

/// The part of the object that is loaded for a layout.
struct LayoutPart<'a> {
    key: &'a LayoutKey,
    shared: &'a SharedObject,
    /// The names of the programs that call those of a layout.
    callers: Vec<&'a str>,
}

impl Part for LayoutPart<'_> {
    fn has(&self, program: &str) -> bool {
        let called = program.strip_suffix(TRACED);
        self.key.programs.contains(&program)
            || called.is_some_and(|caller| self.callers.contains(&caller))
    }

    fn configure(&self, open: &mut OpenNgxSkel<'_>) -> Result<()> {
        let settings = open.maps.rodata_data.as_deref_mut();
        let settings = settings.context("the BPF object has no settings")?;
        settings.layout_inferred = self.key.is_inferred;
        settings.uri_changes_at = self.key.uri_changes.unwrap_or_default();
        settings.quic_is_probed = self.key.cover_quic;
        settings.waits_are_known = self.key.cover_waits;
        settings.modules_foreign = self.key.has_foreign_modules;
        let shared = self.shared.object.skel.object();
        for mut map in open.open_object_mut().maps_mut() {
            let name = map.name().to_owned();
            let text = name.to_string_lossy();
            let result = if text.ends_with(LAYOUTS) {
                map.set_autocreate(false)
            } else if text.ends_with(".rodata") || !map.autocreate() {
                Ok(())
            } else if let Some(same) = shared.maps().find(|map| map.name() == name) {
                map.reuse_fd(same.as_fd())
            } else {
                Ok(())
            };
            result.context("failed to configure a map")?;
        }
        Ok(())
    }
}

impl LayoutObject {
    /// Loads the programs, and puts them into the maps of programs at `slot`, which must be free.
    pub fn load(
        settings: &ObjectSettings,
        shared: &SharedObject,
        key: LayoutKey,
        slot: u32,
    ) -> Result<Self> {
        let events = shared.layout_programs(settings)?;
        let part = LayoutPart {
            key: &key,
            shared,
            callers: events.iter().map(|(caller, _)| &**caller).collect(),
        };
        let object = settings.load(&part, Some(&key.layout))?;
        let mut loaded = Self {
            key,
            programs: object.into_programs()?,
            slot,
            maps: Vec::new(),
            method: settings.kernel.method,
        };
        for (caller, map) in events {
            loaded.add_to(&caller, map)?;
        }
        Ok(loaded)
    }

    /// Puts the program for an event into the map that its caller uses.
    fn add_to(&mut self, caller: &str, map: MapHandle) -> Result<()> {
        let name = format!("{caller}{TRACED}");
        let fd = self.programs.get(&name)?.as_raw_fd();
        map.update(&self.slot.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY)
            .with_context(|| format!("failed to add the program {name} of a layout"))?;
        self.maps.push(map);
        Ok(())
    }

    /// Attaches a program to one site of a binary, until the link is closed.
    pub fn attach(&self, binary: &File, site: &ProbeSite) -> Result<OwnedFd> {
        let program = self.programs.get(site.program)?;
        let path = CString::new(descriptors::path_of(binary))?;
        let link = uprobe::attach(program, self.method, &path, site.file_offset, site.cookie);
        link.with_context(|| format!("failed to attach to {}", site.function))
    }

    /// Returns the programs.
    pub fn programs(&self) -> &LoadedPrograms {
        &self.programs
    }
}

impl Drop for LayoutObject {
    fn drop(&mut self) {
        for map in &self.maps {
            /* If it fails, the slot is overwritten when it is used again. */
            let _ = map.delete(&self.slot.to_ne_bytes());
        }
    }
}
