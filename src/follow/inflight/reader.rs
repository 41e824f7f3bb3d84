// SPDX-License-Identifier: MIT OR Apache-2.0
//! Members of nginx's structs in the memory of a worker, by the layout of its binary.

use std::borrow::Cow;

use nginx_binary::layout::Layout;

use crate::host::memory::ForeignMemory;

pub const CONNECTION: &str = "ngx_connection_s";
pub const REQUEST: &str = "ngx_http_request_s";

/// The memory of a worker. What can't be read, since the worker changes it meanwhile or has ended, is `None`.
#[derive(Clone, Copy)]
pub struct StructReader<'a> {
    pub memory: &'a ForeignMemory,
    pub layout: &'a Layout,
}

impl StructReader<'_> {
    /// Returns the address of a member. `None` for a null pointer, and for a member that this build lacks.
    pub fn place(&self, address: u64, member: (&str, &str)) -> Option<u64> {
        let offset = self.layout.offset(member.0, member.1)?;
        let address = Some(address).filter(|address| *address != 0)?;
        address.checked_add(offset.into())
    }

    /// Reads a member of eight bytes.
    pub fn word(&self, address: u64, member: (&str, &str)) -> Option<u64> {
        self.memory.word(self.place(address, member)?)
    }

    /// Reads a member of four bytes.
    pub fn half(&self, address: u64, member: (&str, &str)) -> Option<u32> {
        let mut bytes = [0; 4];
        self.memory.read(self.place(address, member)?, &mut bytes)?;
        Some(u32::from_ne_bytes(bytes))
    }

    /// Reads a pointer. `None` when it is null.
    pub fn pointer(&self, address: u64, member: (&str, &str)) -> Option<u64> {
        self.word(address, member).filter(|pointer| *pointer != 0)
    }

    /// Reads the text of an `ngx_str_t`, or its first bytes, with U+FFFD in place of bytes that are not UTF-8.
    /// `None` when it is empty.
    pub fn text(&self, string: u64, max: usize) -> Option<Cow<'static, str>> {
        let len = self.word(string, ("ngx_str_t", "len"))?;
        let data = self.pointer(string, ("ngx_str_t", "data"))?;
        let len = usize::try_from(len).ok()?.min(max);
        let mut bytes = vec![0; len];
        self.memory.read(data, &mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Some(text).filter(|text| !text.is_empty()).map(Cow::Owned)
    }
}
