// SPDX-License-Identifier: MIT OR Apache-2.0
//! nginx's directives as they are in its binary: each module has an array of `ngx_command_t` that names
//! the function nginx calls when the configuration has the directive.

use crate::elf::Elf;

/// Offset of `commands` in `ngx_module_t`, in every release since 1.9.11 (src/core/ngx_module.h).
const COMMANDS: u64 = 64;

/// `sizeof(ngx_command_t)` and the offsets of the members that are read (src/core/ngx_conf_file.h).
const SIZE: u64 = 56;
/// Offset of `name.data`; `name.len` is at 0.
const NAME_DATA: u64 = 8;
const SET: u64 = 24;

/// The array of a module is read up to this length. nginx's longest has fewer than 100 directives.
const DIRECTIVES_MAX: u64 = 256;

/// Returns the address of the function that parses a directive: `set(cf, cmd, conf)`. `None` when the
/// module is not built in, or has no such directive.
pub fn find_setter(elf: &Elf<'_>, module: &str, directive: &str) -> Option<u64> {
    let module = elf.symbol(module)?.address;
    let first = elf.pointer(module.checked_add(COMMANDS)?).ok()?;
    for n in 0..DIRECTIVES_MAX {
        let at = first.checked_add(n * SIZE)?;
        let len = usize::try_from(elf.word(at).ok()?).ok()?;
        if len == 0 {
            return None;
        }
        if len != directive.len() {
            continue;
        }
        let name = elf.pointer(at.checked_add(NAME_DATA)?).ok()?;
        if elf.bytes(name, len).ok()? == directive.as_bytes() {
            let set = elf.pointer(at.checked_add(SET)?).ok()?;
            return elf.code_from(set).map(|_| set);
        }
    }
    None
}
