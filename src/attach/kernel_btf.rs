// SPDX-License-Identifier: MIT OR Apache-2.0
//! The types of the running kernel. Several parts of the set-up look for the same ones.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;

use anyhow::Context as _;
use anyhow::Result;
use libbpf_rs::btf::Btf;
use libbpf_rs::btf::BtfType;
use libbpf_rs::btf::TypeId;

/// The BTF of a kernel that was built with `CONFIG_DEBUG_INFO_BTF`.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// The types of a kernel.
pub struct KernelBtf {
    types: Btf<'static>,
    /// The types that were looked for, by name. `None`: there is none. libbpf compares a name with those of
    /// some 130,000 types, one after the other.
    found: RefCell<HashMap<String, Option<TypeId>>>,
}

impl KernelBtf {
    /// Reads the types of the kernel that runs. `None` when it has none.
    pub fn read() -> Result<Option<Self>> {
        /* libbpf maps this file where the kernel allows it (Linux 6.16), and otherwise reads it. */
        let types = Path::new(KERNEL_BTF).exists().then(Btf::from_vmlinux);
        let types = types.transpose();
        let types = types.with_context(|| format!("failed to read {KERNEL_BTF}"))?;
        Ok(types.map(Self::new))
    }

    /// Takes the types of a kernel.
    pub fn new(types: Btf<'static>) -> Self {
        Self {
            types,
            found: RefCell::default(),
        }
    }

    /// Returns all types.
    pub fn all(&self) -> &Btf<'static> {
        &self.types
    }

    /// Returns the type of this name. `None` when there is none, or it is of another kind.
    pub fn find<'a, K: TryFrom<BtfType<'a>>>(&'a self, name: &str) -> Option<K> {
        let known = self.found.borrow().get(name).copied();
        let id = known.unwrap_or_else(|| {
            let found = self.types.type_by_name::<BtfType<'_>>(name);
            let id = found.map(|found| found.type_id());
            self.found.borrow_mut().insert(name.to_owned(), id);
            id
        });
        self.types.type_by_id(id?)
    }
}

#[cfg(test)]
mod tests {
    use libbpf_rs::btf::types::Func;
    use libbpf_rs::btf::types::Struct;

    use super::KernelBtf;

    /// Check that a type is found again, also as another kind, and that none is found where there is none.
    #[test]
    fn find() {
        let Some(kernel) = KernelBtf::read().unwrap() else {
            println!("SKIP this kernel: it has no BTF");
            return;
        };
        for _ in 0..2 {
            let found = kernel.find::<Struct<'_>>("task_struct").unwrap();
            assert_eq!(found.name().unwrap(), "task_struct");
            assert!(kernel.find::<Func<'_>>("task_struct").is_none());
            assert!(kernel.find::<Struct<'_>>("no_struct_of_linux").is_none());
        }
    }
}
