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
    /// The members of those members that are structs without a name.
    pub embedded: BTreeMap<String, KernelStruct>,
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
        let wanted = Wanted::read(program);
        let mut found: BTreeMap<String, Option<KernelStruct>> = BTreeMap::new();
        for ty in kernel.type_by_kind::<Struct<'_>>() {
            let Some(name) = ty.name().and_then(OsStr::to_str) else {
                continue;
            };
            if !wanted.structs.contains_key(name) {
                continue;
            }
            let mut read = KernelStruct {
                bytes: u32::try_from(ty.size()).unwrap_or_default(),
                ..KernelStruct::default()
            };
            read.add_members(kernel, &ty.into(), 0, (&wanted, name));
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

    /// Returns whether a struct has a member that the program names.
    pub fn has(&self, name: &str, member: &str) -> bool {
        self.get(name)
            .is_some_and(|found| found.members.contains_key(member))
    }

    /// Returns the enums, each with its enumerators.
    pub fn enums(&self) -> impl Iterator<Item = (&String, &BTreeMap<String, i32>)> {
        self.enums.iter()
    }
}

impl KernelStruct {
    /// Adds the members of a struct or union that begins at `offset`, in bytes: those that are wanted of the
    /// struct with this name.
    fn add_members(
        &mut self,
        kernel: &Btf<'_>,
        ty: &Composite<'_>,
        offset: u32,
        (wanted, of): (&Wanted, &str),
    ) {
        for member in ty.iter() {
            /* Of a bitfield BPF reads the byte that it begins, and uses the first bits of that. */
            let bits = match member.attr {
                MemberAttr::Normal { offset } => offset,
                MemberAttr::BitField { offset, .. } if offset % 8 == 0 => offset,
                MemberAttr::BitField { .. } => continue,
            };
            let offset = offset.saturating_add(bits / 8);
            let Some(ty) = kernel.type_by_id::<BtfType<'_>>(member.ty) else {
                continue;
            };
            let ty = ty.skip_mods_and_typedefs();
            let name = member.name.and_then(OsStr::to_str).unwrap_or_default();
            let inner = Composite::try_from(ty).ok();
            if wanted.has(of, name) {
                let int = Int::try_from(ty).ok();
                let bytes = int.map(|int| u32::from(int.bits) / 8);
                let member = KernelMember { offset, bytes };
                self.members.insert(name.to_owned(), member);
                if let (None, Some(inner)) = (ty.name(), inner) {
                    let mut read = Self::default();
                    read.add_members(kernel, &inner, 0, (wanted, &embedded(of, name)));
                    self.embedded.insert(name.to_owned(), read);
                }
            } else if let (true, Some(inner)) = (name.is_empty(), inner) {
                self.add_members(kernel, &inner, offset, (wanted, of));
            }
        }
    }
}

/// The members that the program names.
#[derive(Default)]
struct Wanted {
    /// Their names, by the kernel's name of their struct. `embedded()` names a struct without a name.
    structs: BTreeMap<String, BTreeSet<String>>,
}

impl Wanted {
    /// Reads them from the types of the program.
    fn read(program: &Btf<'_>) -> Self {
        let mut wanted = Self::default();
        for ty in program.type_by_kind::<Struct<'_>>() {
            if let Some(name) = ty.name().and_then(OsStr::to_str) {
                wanted.add(program, &ty, without_flavor(name));
            }
        }
        wanted
    }

    /// Adds the members of a struct.
    fn add(&mut self, program: &Btf<'_>, ty: &Struct<'_>, name: &str) {
        for member in ty.iter() {
            let Some(member_name) = member.name.and_then(OsStr::to_str) else {
                continue;
            };
            let members = self.structs.entry(name.to_owned()).or_default();
            members.insert(member_name.to_owned());
            let inner = program.type_by_id::<BtfType<'_>>(member.ty);
            let inner = inner.and_then(|ty| Struct::try_from(ty.skip_mods_and_typedefs()).ok());
            if let Some(inner) = inner.filter(|inner| inner.name().is_none()) {
                self.add(program, &inner, &embedded(name, member_name));
            }
        }
    }

    /// Returns whether a member of a struct is wanted.
    fn has(&self, name: &str, member: &str) -> bool {
        self.structs
            .get(name)
            .is_some_and(|members| members.contains(member))
    }
}

/// Returns the name by which a struct without a name is known: it is a member of another one.
fn embedded(name: &str, member: &str) -> String {
    format!("{name}.{member}")
}

/// Returns the kernel's values of the enumerators that the program names with a flavor.
fn enums(kernel: &Btf<'_>, program: &Btf<'_>) -> BTreeMap<String, BTreeMap<String, i32>> {
    let mut enums = BTreeMap::new();
    for ty in program.type_by_kind::<Enum<'_>>() {
        let name = ty.name().and_then(OsStr::to_str).unwrap_or_default();
        let base = without_flavor(name);
        if base == name {
            continue;
        }
        let Some(of_kernel) = kernel.type_by_name::<Enum<'_>>(base) else {
            continue;
        };
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
