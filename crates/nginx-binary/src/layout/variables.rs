// SPDX-License-Identifier: MIT OR Apache-2.0
//! nginx's variables: the `ngx_http_variable_t` arrays in its data, which can be found without symbols. An
//! entry like `$uri` states the offset of the member that it reads, the others name the function that
//! reads it.

use std::collections::HashMap;

use crate::elf::Elf;

/// One variable of each array, `ngx_http_core_variables` and `ngx_http_upstream_vars`, that only http has:
/// stream has many variables of the same names.
const ANCHORS: [&str; 2] = ["request_uri", "upstream_status"];

/// `sizeof(ngx_http_variable_t)` and the offsets of the members that are read, in every release since 1.10.0
/// (src/http/ngx_http_variables.h).
const SIZE: u64 = 56;
/// Offset of `name.data`; `name.len` is at 0.
const NAME_DATA: u64 = 8;
const GET_HANDLER: u64 = 24;
const DATA: u64 = 32;

/// The most bytes of a variable's name.
const NAME_BYTES_MAX: usize = 64;

/// An array is read up to this length.
const VARIABLES_MAX: u64 = 256;

/// One variable of nginx.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// The address of the function that computes its value, as linked: `get_handler(r, v, data)`.
    pub handler: u64,
    /// The argument of that function: `offsetof(ngx_http_request_t, …)` for variables that read a member.
    pub data: u64,
}

/// Reads the variables of http's core and of upstreams, by name.
pub fn read_variables(elf: &Elf<'_>) -> HashMap<String, Variable> {
    let pointers: HashMap<u64, u64> = elf.pointers().collect();
    let mut found = HashMap::new();
    for at in pointers.keys() {
        let first = at.wrapping_sub(NAME_DATA);
        let is_anchor = variable_at(elf, &pointers, first)
            .is_some_and(|(name, _)| ANCHORS.contains(&name.as_str()));
        if !is_anchor {
            continue;
        }
        let before = (1..VARIABLES_MAX).map(|n| first.wrapping_sub(n * SIZE));
        let after = (0..VARIABLES_MAX).map(|n| first.wrapping_add(n * SIZE));
        found.extend(before.map_while(|at| variable_at(elf, &pointers, at)));
        found.extend(after.map_while(|at| variable_at(elf, &pointers, at)));
    }
    found
}

/// Reads the variable at an address. `None` when there is none.
fn variable_at(elf: &Elf<'_>, pointers: &HashMap<u64, u64>, at: u64) -> Option<(String, Variable)> {
    let len = usize::try_from(elf.word(at).ok()?).ok()?;
    let name = *pointers.get(&at.wrapping_add(NAME_DATA))?;
    if len == 0 || len > NAME_BYTES_MAX {
        return None;
    }
    let name = elf.bytes(name, len).ok()?;
    let is_name = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_';
    if name.len() < len || !name.iter().all(is_name) {
        return None;
    }
    let handler = *pointers.get(&at.wrapping_add(GET_HANDLER))?;
    elf.code_from(handler)?;
    let variable = Variable {
        handler,
        data: elf.word(at.wrapping_add(DATA)).ok()?,
    };
    Some((String::from_utf8_lossy(name).into_owned(), variable))
}
