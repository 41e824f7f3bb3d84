// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's types that the BPF program names. The whole BTF of a kernel has some 130,000 types and
//! is dropped when these are known.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ffi::OsStr;

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::BtfType;
use libbpf_rs::btf::HasSize as _;
use libbpf_rs::btf::types::Composite;
use libbpf_rs::btf::types::Enum;
use libbpf_rs::btf::types::Int;
use libbpf_rs::btf::types::MemberAttr;
use libbpf_rs::btf::types::Struct;

/// The structs and enums of a kernel that the program names.
#[derive(Debug, Default)]
pub struct KernelTypes {
    structs: BTreeMap<String, KernelStruct>,
    enums: BTreeMap<String, BTreeMap<String, i32>>,
}

/// A struct of a kernel, with the members that the program names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelStruct {
    /// The size of the whole struct.
    pub bytes: u32,
    pub members: BTreeMap<String, KernelMember>,
}

/// A member of such a struct. Members of structs and unions without a name count as its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelMember {
    /// The offset in bytes.
    pub offset: u32,
    /// The size in bytes, if it is a number.
    pub bytes: Option<u32>,
}

impl KernelTypes {
    /// Finds the types of the kernel that `program` names. A struct that the kernel has twice, with
    /// other offsets, is left out, so that a relocation for it fails.
    pub fn read(kernel: &Btf<'_>, program: &Btf<'_>) -> Self {
        let wanted = wanted(program);
        let mut found: BTreeMap<String, Option<KernelStruct>> = BTreeMap::new();
        for ty in kernel.type_by_kind::<Struct<'_>>() {
            let Some(name) = ty.name().and_then(OsStr::to_str) else {
                continue;
            };
            let Some(members) = wanted.get(name) else {
                continue;
            };
            let mut read = KernelStruct {
                bytes: u32::try_from(ty.size()).unwrap_or_default(),
                ..KernelStruct::default()
            };
            read.add_members(kernel, &ty.into(), 0, members);
            found
                .entry(name.to_owned())
                .and_modify(|known| {
                    known.take_if(|known| *known != read);
                })
                .or_insert(Some(read));
        }
        let structs = found.into_iter();
        Self {
            structs: structs.filter_map(|(name, ty)| Some((name, ty?))).collect(),
            enums: enums(kernel, program),
        }
    }

    /// Returns the struct that a struct of the program stands for.
    pub fn get(&self, name: &str) -> Option<&KernelStruct> {
        self.structs.get(without_flavor(name))
    }

    /// Returns the enums, each with its enumerators.
    pub fn enums(&self) -> impl Iterator<Item = (&String, &BTreeMap<String, i32>)> {
        self.enums.iter()
    }
}

impl KernelStruct {
    /// Adds the wanted members of a struct or union that begins at `offset`, in bytes.
    fn add_members(
        &mut self,
        kernel: &Btf<'_>,
        ty: &Composite<'_>,
        offset: u32,
        wanted: &BTreeSet<String>,
    ) {
        for member in ty.iter() {
            /* BPF reads no bitfield of the kernel. */
            let MemberAttr::Normal { offset: bits } = member.attr else {
                continue;
            };
            let offset = offset.saturating_add(bits / 8);
            let Some(ty) = kernel.type_by_id::<BtfType<'_>>(member.ty) else {
                continue;
            };
            let ty = ty.skip_mods_and_typedefs();
            let name = member.name.and_then(OsStr::to_str).unwrap_or_default();
            if wanted.contains(name) {
                let int = Int::try_from(ty).ok();
                let bytes = int.map(|int| u32::from(int.bits) / 8);
                let member = KernelMember { offset, bytes };
                self.members.insert(name.to_owned(), member);
            } else if name.is_empty()
                && let Ok(inner) = Composite::try_from(ty)
            {
                self.add_members(kernel, &inner, offset, wanted);
            }
        }
    }
}

/// Returns the members that the program names, by the kernel's name of their struct.
fn wanted(program: &Btf<'_>) -> BTreeMap<String, BTreeSet<String>> {
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for ty in program.type_by_kind::<Struct<'_>>() {
        let Some(name) = ty.name().and_then(OsStr::to_str) else {
            continue;
        };
        let members = ty.iter().filter_map(|member| member.name?.to_str());
        let members = members.map(str::to_owned);
        let name = without_flavor(name).to_owned();
        wanted.entry(name).or_default().extend(members);
    }
    wanted
}

/// Returns the kernel's values of the enumerators that the program names with a flavor.
fn enums(kernel: &Btf<'_>, program: &Btf<'_>) -> BTreeMap<String, BTreeMap<String, i32>> {
    let mut enums = BTreeMap::new();
    for ty in program.type_by_kind::<Enum<'_>>() {
        let name = ty.name().and_then(OsStr::to_str).unwrap_or_default();
        let base = without_flavor(name);
        let Some(of_kernel) = kernel.type_by_name::<Enum<'_>>(base) else {
            continue;
        };
        if base == name {
            continue;
        }
        let wanted = ty.iter().filter_map(|value| value.name?.to_str());
        let wanted: BTreeSet<&str> = wanted.map(without_flavor).collect();
        let values = of_kernel.iter().filter_map(|value| {
            let name = value.name?.to_str().filter(|name| wanted.contains(name))?;
            Some((name.to_owned(), value.value as i32))
        });
        enums.insert(base.to_owned(), values.collect());
    }
    enums
}

/// Returns a name as the kernel has it. libbpf ignores what follows three underscores.
pub fn without_flavor(name: &str) -> &str {
    name.split("___").next().unwrap_or(name)
}
