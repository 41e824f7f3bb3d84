// SPDX-License-Identifier: MIT OR Apache-2.0
//! The types of the BPF program itself: which members of nginx and of the kernel it reads.

use std::fs::File;
use std::mem::MaybeUninit;

use anyhow::Context as _;
use anyhow::Result;
use libbpf_rs::AsRawLibbpf as _;
use libbpf_rs::OpenObject;
use libbpf_rs::btf::Btf;
use libbpf_rs::skel::OpenSkel as _;
use libbpf_rs::skel::SkelBuilder as _;
use nginx_binary::layout::Layout;
use nginx_binary::layout::wanted::WantedMembers;

use crate::attach::btf;
use crate::attach::kernel_types::KernelTypes;
use crate::bpf::NgxSkelBuilder;

/// Returns the nginx members that the program reads, by struct.
pub fn wanted() -> Result<WantedMembers> {
    with_program(|program| Ok(btf::wanted(program)))
}

/// Finds the types of the kernel that the program names.
pub fn kernel_types(kernel: &Btf<'_>) -> Result<KernelTypes> {
    with_program(|program| Ok(KernelTypes::read(kernel, program)))
}

/// Writes the BTF that relocates an object to a kernel and, if given, to a layout.
pub fn write_relocations(
    object: &OpenObject,
    kernel: &KernelTypes,
    layout: Option<&Layout>,
    to: &mut File,
) -> Result<()> {
    btf::encode(&of_object(object)?, layout, kernel, to)
}

/// Calls a function with the program's own types. The object is opened for this, but not loaded.
fn with_program<T>(use_it: impl FnOnce(&Btf<'_>) -> Result<T>) -> Result<T> {
    let mut storage = MaybeUninit::uninit();
    let open = NgxSkelBuilder::default()
        .open(&mut storage)
        .context("failed to open the BPF object")?;
    use_it(&of_object(open.open_object())?)
}

/// Returns the types of an object.
fn of_object(object: &OpenObject) -> Result<Btf<'_>> {
    let object = object.as_libbpf_object();
    // SAFETY: the object lives as long as it is borrowed, and no one changes it.
    let types = Btf::from_bpf_object(unsafe { object.as_ref() })?;
    types.context("the BPF object has no BTF")
}

#[cfg(test)]
mod binaries;
#[cfg(test)]
mod relocated;

#[cfg(test)]
mod tests {
    use libbpf_rs::btf::Btf;

    use super::kernel_types;

    /// Check that the structs of this kernel are found with every member that is named for it, at the
    /// kernel's offsets, also members of structs without a name.
    #[test]
    fn this_kernel() {
        let Ok(kernel) = Btf::from_vmlinux() else {
            println!("SKIP: this kernel has no BTF");
            return;
        };
        let types = kernel_types(&kernel).unwrap();
        for (name, members) in [
            ("task_struct", 9),
            ("sock_common", 8),
            ("sock", 7),
            ("tcp_sock", 7),
            ("epitem", 2),
            ("pid", 2),
            ("bpf_iter__task_vma", 3),
        ] {
            let found = types.get(name).unwrap();
            assert_eq!(found.members.len(), members, "{name}: {found:?}");
            let mut offsets = found.members.values().map(|member| member.offset);
            assert!(offsets.all(|offset| offset <= found.bytes), "{found:?}");
        }
        /* include/net/sock.h: the addresses come first. */
        assert_eq!(
            types.get("sock_common").unwrap().members["skc_daddr"].offset,
            0
        );
        let tcp_sock = types.get("tcp_sock").unwrap();
        let time = tcp_sock.embedded["rcvq_space"].members["time"];
        assert_eq!((time.offset, time.bytes), (8, Some(8)));
        assert!(types.get("ngx_connection_s").is_none());
    }
}
