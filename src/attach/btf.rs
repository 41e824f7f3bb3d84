// SPDX-License-Identifier: MIT OR Apache-2.0
//! Encodes a `Layout` as BTF, so that libbpf relocates the program to one build of nginx in the
//! same way as to a kernel. It has the members that the program itself names
//! (nginx_headers/nginx.h), and those of the kernel's types that it names (vmlinux/vmlinux.h), since
//! libbpf uses one BTF for all relocations.

use std::collections::HashMap;
use std::ffi::CString;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::ptr::NonNull;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::BtfKind;
use libbpf_rs::btf::BtfType;
use libbpf_rs::btf::types::Array;
use libbpf_rs::btf::types::Struct;
use libbpf_rs::btf::types::StructMember;
use libbpf_rs::libbpf_sys;
use nginx_binary::layout::Layout;
use nginx_binary::layout::wanted::WantedMembers;
use rustix::fs::MemfdFlags;

use crate::attach::kernel_types::KernelStruct;
use crate::attach::kernel_types::KernelTypes;
use crate::attach::kernel_types::without_flavor;
use crate::bpf::types::limit;

/// The prefix of nginx's structs.
const PREFIX: &str = "ngx_";

/// Returns an anonymous file for BTF.
pub fn file() -> Result<File> {
    let fd = rustix::fs::memfd_create("ngx-bpf-btf", MemfdFlags::CLOEXEC);
    Ok(File::from(fd.context("failed to create a file in memory")?))
}

/// Writes BTF to a file: the kernel's members that `program` names, and with a layout the nginx
/// members that it names.
///
/// Fails when the layout lacks a member that every nginx has.
pub fn encode(
    program: &Btf<'_>,
    layout: Option<&Layout>,
    kernel: &KernelTypes,
    file: &mut File,
) -> Result<()> {
    let mut writer = Writer::new(program, layout, kernel)?;
    for ty in program.type_by_kind::<Struct<'_>>() {
        let Ok(name) = name_of(&ty) else {
            continue;
        };
        let is_needed = match layout {
            Some(layout) if is_nginx(&ty) => !WantedMembers::may_be_left_out(&name, layout),
            None if is_nginx(&ty) => false,
            _ => kernel.get(&name).is_some(),
        };
        if is_needed {
            writer.add_struct(&ty)?;
        }
    }
    writer.add_enums()?;
    file.write_all(writer.bytes()?)
        .context("failed to write BTF")
}

/// Returns the nginx members that `program` names, by struct.
pub fn wanted(program: &Btf<'_>) -> WantedMembers {
    let text = |name: &OsStr| name.to_str().map(str::to_owned);
    let structs = program.type_by_kind::<Struct<'_>>().filter(is_nginx);
    let structs = structs.filter_map(|ty| {
        let members = ty.iter().filter_map(|member| member.name.and_then(text));
        Some((ty.name().and_then(text)?, members.collect()))
    });
    WantedMembers {
        structs: structs.collect(),
    }
}

/// A builder of BTF.
struct Writer<'a> {
    /// The types of the program, which name the members.
    program: &'a Btf<'a>,
    layout: Option<&'a Layout>,
    kernel: &'a KernelTypes,
    /// The new BTF, from `btf__new_empty()`.
    btf: NonNull<libbpf_sys::btf>,
    /// The type ids of the pointers and numbers that were added.
    ids: HashMap<String, i32>,
    /// The type ids of the structs that were added, and their sizes in bytes.
    structs: HashMap<String, (i32, u32)>,
}

impl<'a> Writer<'a> {
    /// Creates a writer without any type.
    fn new(
        program: &'a Btf<'a>,
        layout: Option<&'a Layout>,
        kernel: &'a KernelTypes,
    ) -> Result<Self> {
        // SAFETY: takes no argument.
        let btf = NonNull::new(unsafe { libbpf_sys::btf__new_empty() })
            .context("failed to create BTF")?;
        Ok(Self {
            program,
            layout,
            kernel,
            btf,
            ids: HashMap::new(),
            structs: HashMap::new(),
        })
    }

    /// Adds one struct, and before it the structs that it embeds. Its size covers the members that
    /// are read. Returns its id and its size in bytes.
    fn add_struct(&mut self, ty: &Struct<'_>) -> Result<(i32, u32)> {
        let name = name_of(ty)?;
        if let Some(added) = self.structs.get(&name) {
            return Ok(*added);
        }
        if !is_nginx(ty) {
            return self.add_kernel_struct(ty, name);
        }
        let known = self
            .layout
            .and_then(|layout| layout.structs.get(&name))
            .with_context(|| format!("the layout has no {name}"))?;
        let mut members = Vec::new();
        let mut size = 0;
        for member in ty.iter() {
            let member_name = member
                .name
                .and_then(|name| name.to_str())
                .with_context(|| format!("a member of {name} has no name"))?;
            let offset = match known.get(member_name) {
                Some(offset) => *offset,
                None if WantedMembers::is_optional(&name, member_name) => continue,
                None => bail!("the layout has no {name}.{member_name}"),
            };
            let (id, bytes) = self.add_type(&self.type_of(&member)?)?;
            size = size.max(offset.saturating_add(bytes));
            members.push((CString::new(member_name)?, id, offset));
        }
        ensure!(
            size <= bytes_max(&name),
            "the layout has {name} with members up to byte {size}: no nginx has"
        );
        let id = self.define(&name, size, &members)?;
        self.structs.insert(name, (id, size));
        Ok((id, size))
    }

    /// Adds one struct of the kernel. Members that it lacks, and unions, are left out.
    fn add_kernel_struct(&mut self, ty: &Struct<'_>, name: String) -> Result<(i32, u32)> {
        let known = self.kernel.get(&name);
        let known = known.with_context(|| format!("the kernel has no {name}"))?;
        let id = self.add_members(ty, known, without_flavor(&name))?;
        self.structs.insert(name, (id, known.bytes));
        Ok((id, known.bytes))
    }

    /// Adds the members of a struct of the kernel that it has. Returns the id of the struct.
    fn add_members(&mut self, ty: &Struct<'_>, known: &KernelStruct, name: &str) -> Result<i32> {
        let mut members = Vec::new();
        for member in ty.iter() {
            let member_name = member.name.and_then(OsStr::to_str).unwrap_or_default();
            let Some(found) = known.members.get(member_name) else {
                continue;
            };
            let member_type = self.type_of(&member)?;
            let id = match (member_type.kind(), found.bytes) {
                (BtfKind::Union, _) => continue,
                (BtfKind::Int, Some(bytes)) => self.add_int(bytes)?,
                (BtfKind::Array, _) => self.add_array(&member_type)?,
                _ if known.embedded.contains_key(member_name) => {
                    let inner = Struct::try_from(member_type)
                        .map_err(|_| anyhow::anyhow!("{name}.{member_name} is not a struct"))?;
                    self.add_members(&inner, &known.embedded[member_name], "")?
                }
                _ => self.add_type(&member_type)?.0,
            };
            members.push((CString::new(member_name)?, id, found.offset));
        }
        self.define(name, known.bytes, &members)
    }

    /// Returns the type of a member of the program's structs.
    fn type_of(&self, member: &StructMember<'_>) -> Result<BtfType<'a>> {
        let ty = self.program.type_by_id::<BtfType<'_>>(member.ty);
        Ok(ty.context("a type is missing")?.skip_mods_and_typedefs())
    }

    /// Adds an array. Returns its id.
    fn add_array(&mut self, ty: &BtfType<'_>) -> Result<i32> {
        let array = Array::try_from(*ty).map_err(|_| anyhow::anyhow!("an array is invalid"))?;
        let element = array.contained_type().skip_mods_and_typedefs();
        let (element, _) = self.add_type(&element)?;
        let index = self.add_int(4)?;
        let length = u32::try_from(array.capacity())?;
        // SAFETY: the BTF is ours, and has both types.
        let id = unsafe { libbpf_sys::btf__add_array(self.btf.as_ptr(), index, element, length) };
        ensure!(id > 0, "failed to add an array to BTF");
        Ok(id)
    }

    /// Adds the enums of the kernel.
    fn add_enums(&mut self) -> Result<()> {
        for (name, values) in self.kernel.enums() {
            let c_name = CString::new(&**name)?;
            // SAFETY: the BTF is ours, every name ends with a NUL.
            let id = unsafe { libbpf_sys::btf__add_enum(self.btf.as_ptr(), c_name.as_ptr(), 4) };
            ensure!(id > 0, "failed to add {name} to BTF");
            for (value_name, value) in values {
                let c_name = CString::new(&**value_name)?;
                // SAFETY: as above; the enum is the type that was added last.
                let result = unsafe {
                    libbpf_sys::btf__add_enum_value(
                        self.btf.as_ptr(),
                        c_name.as_ptr(),
                        (*value).into(),
                    )
                };
                ensure!(result == 0, "failed to add a value of {name} to BTF");
            }
        }
        Ok(())
    }

    /// Defines a struct with these members: the name, the type id and the offset of each.
    fn define(&mut self, name: &str, size: u32, members: &[(CString, i32, u32)]) -> Result<i32> {
        let c_name = CString::new(name)?;
        // SAFETY: the BTF is ours, the name ends with a NUL.
        let id = unsafe { libbpf_sys::btf__add_struct(self.btf.as_ptr(), c_name.as_ptr(), size) };
        ensure!(id > 0, "failed to add {name} to BTF");
        for (member, ty, offset) in members {
            let bits = offset
                .checked_mul(8)
                .with_context(|| format!("offset {offset} in {name} is too large"))?;
            // SAFETY: as above; the struct is the type that was added last.
            let result = unsafe {
                libbpf_sys::btf__add_field(self.btf.as_ptr(), member.as_ptr(), *ty, bits, 0)
            };
            ensure!(result == 0, "failed to add a member of {name} to BTF");
        }
        Ok(id)
    }

    /// Adds the type of a member. Returns its id and its size in bytes.
    fn add_type(&mut self, ty: &BtfType<'_>) -> Result<(i32, u32)> {
        match ty.kind() {
            BtfKind::Ptr => Ok((self.add_pointer()?, 8)),
            BtfKind::Int => {
                let int = libbpf_rs::btf::types::Int::try_from(*ty)
                    .map_err(|_| anyhow::anyhow!("an int in nginx.h is invalid"))?;
                let bytes = u32::from(int.bits) / 8;
                Ok((self.add_int(bytes)?, bytes))
            }
            BtfKind::Struct => {
                let embedded = Struct::try_from(*ty)
                    .map_err(|_| anyhow::anyhow!("a struct in nginx.h is invalid"))?;
                self.add_struct(&embedded)
            }
            kind => bail!("nginx.h has a member of kind {kind:?}"),
        }
    }

    /// Adds an unsigned integer, since relocations compare only the kind of a type.
    fn add_int(&mut self, bytes: u32) -> Result<i32> {
        let name = format!("u{}", bytes * 8);
        self.add_once(&name, |btf, name| {
            // SAFETY: the BTF is ours, the name ends with a NUL.
            unsafe { libbpf_sys::btf__add_int(btf, name, bytes.into(), 0) }
        })
    }

    /// Adds `void *`.
    fn add_pointer(&mut self) -> Result<i32> {
        self.add_once("void *", |btf, _| {
            // SAFETY: the BTF is ours; 0 is void.
            unsafe { libbpf_sys::btf__add_ptr(btf, 0) }
        })
    }

    /// Returns the id of a type by our own name for it, and adds the type at first use.
    fn add_once(
        &mut self,
        name: &str,
        add: impl FnOnce(*mut libbpf_sys::btf, *const libc::c_char) -> i32,
    ) -> Result<i32> {
        if let Some(id) = self.ids.get(name) {
            return Ok(*id);
        }
        let c_name = CString::new(name)?;
        let id = add(self.btf.as_ptr(), c_name.as_ptr());
        ensure!(id > 0, "failed to add {name} to BTF");
        self.ids.insert(name.to_owned(), id);
        Ok(id)
    }

    /// Returns the encoded BTF.
    fn bytes(&self) -> Result<&[u8]> {
        let mut size = 0;
        // SAFETY: the BTF is ours; what comes back lives as long as it is not changed.
        let data = unsafe { libbpf_sys::btf__raw_data(self.btf.as_ptr(), &mut size) };
        ensure!(!data.is_null(), "failed to encode BTF");
        // SAFETY: libbpf says that `size` bytes are there; `self` is borrowed meanwhile.
        Ok(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size as usize) })
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        // SAFETY: ours, and used by no one else.
        unsafe { libbpf_sys::btf__free(self.btf.as_ptr()) }
    }
}

/// Returns whether a struct of the program is one of nginx.
fn is_nginx(ty: &Struct<'_>) -> bool {
    let name = ty.name().and_then(OsStr::to_str);
    name.is_some_and(|name| name.starts_with(PREFIX))
}

/// Returns the most bytes up to which members of a struct are read.
fn bytes_max(name: &str) -> u32 {
    match name {
        "ngx_http_request_s" => limit::REQUEST_BYTES_MAX.0,
        "ngx_connection_s" => limit::CONNECTION_BYTES_MAX.0,
        "ngx_http_upstream_s" => limit::UPSTREAM_BYTES_MAX.0,
        "ngx_http_upstream_state_t" | "ngx_http_request_body_t" => limit::STATE_BYTES_MAX.0,
        _ => limit::STRUCT_BYTES_MAX.0,
    }
}

/// Returns the name of a struct of the program.
fn name_of(ty: &Struct<'_>) -> Result<String> {
    let name = ty.name().and_then(|name| name.to_str());
    Ok(name.context("a struct has no name")?.to_owned())
}
