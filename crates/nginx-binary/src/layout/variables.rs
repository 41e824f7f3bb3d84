// SPDX-License-Identifier: MIT OR Apache-2.0
//! nginx's own variables, as its binary has them: `ngx_http_variable_t` arrays in its data, which
//! need no symbols to be found. `$uri` and its like state the offset of their member, the others
//! name the function that reads it.

use std::collections::HashMap;

use crate::elf::Elf;

/// Variables that only http has (stream has many of the same names), one an array:
/// `ngx_http_core_variables`, `ngx_http_upstream_vars`.
const ANCHORS: [&str; 2] = ["request_uri", "upstream_status"];

/// `sizeof(ngx_http_variable_t)` and where it has what is read here, in every release since 1.10.0
/// (src/http/ngx_http_variables.h).
const SIZE: u64 = 56;
/// `name.data`; `name.len` is at 0.
const NAME_DATA: u64 = 8;
/// `get_handler`
const GET_HANDLER: u64 = 24;
/// `data`
const DATA: u64 = 32;

/// No variable's name is longer.
const NAME_BYTES_MAX: usize = 64;

/// More than an array has.
const VARIABLES_MAX: u64 = 256;

/// One variable.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// The address of the function that gives its value: of r, v, data.
    pub handler: u64,
    /// What it is called with; `offsetof(ngx_http_request_t, …)` for plain members.
    pub data: u64,
}

/// The variables of http's core and of upstreams, by name.
pub fn find(elf: &Elf<'_>) -> HashMap<String, Variable> {
    let pointers: HashMap<u64, u64> = elf.pointers().collect();
    let mut found = HashMap::new();
    for at in pointers.keys() {
        let first = at.wrapping_sub(NAME_DATA);
        let is_anchor =
            read(elf, &pointers, first).is_some_and(|(name, _)| ANCHORS.contains(&name.as_str()));
        if !is_anchor {
            continue;
        }
        let before = (1..VARIABLES_MAX).map(|n| first.wrapping_sub(n * SIZE));
        let after = (0..VARIABLES_MAX).map(|n| first.wrapping_add(n * SIZE));
        found.extend(before.map_while(|at| read(elf, &pointers, at)));
        found.extend(after.map_while(|at| read(elf, &pointers, at)));
    }
    found
}

/// The variable at an address, if there is one.
fn read(elf: &Elf<'_>, pointers: &HashMap<u64, u64>, at: u64) -> Option<(String, Variable)> {
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
