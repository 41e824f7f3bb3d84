// SPDX-License-Identifier: MIT OR Apache-2.0
//! The members of nginx's structs that the caller reads, and which of them a build may lack.

use std::collections::BTreeMap;

use crate::layout::Layout;

/// The members that the caller reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedMembers {
    /// The names of the members of each struct, by the name of the struct.
    pub structs: BTreeMap<String, Vec<String>>,
}

impl WantedMembers {
    /// Returns the first struct or member that a layout lacks although every build has it. `None` when it has
    /// all of them.
    pub fn lacking(&self, layout: &Layout) -> Option<String> {
        let structs = self.structs.iter();
        let mut needed = structs.filter(|(name, _)| !Self::may_be_left_out(name, layout));
        needed.find_map(|(name, members)| {
            let Some(known) = layout.structs.get(name) else {
                return Some(name.clone());
            };
            let lacks =
                |member: &&String| !known.contains_key(*member) && !Self::is_optional(name, member);
            let member = members.iter().find(lacks)?;
            Some(format!("{name}.{member}"))
        })
    }

    /// Returns whether some builds of nginx lack this member. The BPF program asks whether it exists
    /// (`bpf_core_field_exists`) before it reads it.
    pub fn is_optional(name: &str, member: &str) -> bool {
        OPTIONAL.contains(&(name, member))
    }

    /// Returns whether some builds of nginx lack this struct: those without QUIC.
    pub fn is_optional_struct(name: &str) -> bool {
        name.starts_with(OPTIONAL_STRUCTS)
    }

    /// Returns whether a layout lacks this struct and may lack it: because builds may lack it, or because the
    /// layout file was written before the struct was read.
    pub fn may_be_left_out(name: &str, layout: &Layout) -> bool {
        (Self::is_optional_struct(name) || LATER_STRUCTS.contains(&name))
            && !layout.structs.contains_key(name)
    }
}

/// Members that some builds lack, or layout files from before they were read, with their structs.
const OPTIONAL: [(&str, &str); 20] = [
    ("ngx_buf_s", "file_last"),
    ("ngx_connection_s", "quic"),
    ("ngx_connection_s", "ssl"),
    ("ngx_connection_s", "udp"),
    ("ngx_http_connection_t", "ssl_servername"),
    ("ngx_http_request_s", "loc_conf"),
    ("ngx_http_request_s", "main_conf"),
    ("ngx_http_request_s", "read_event_handler"),
    ("ngx_http_request_s", "request_body"),
    ("ngx_http_request_s", "srv_conf"),
    ("ngx_http_request_s", "stream"),
    ("ngx_http_upstream_s", "cache_status"),
    ("ngx_http_upstream_s", "upstream"),
    ("ngx_http_upstream_state_t", "bytes_received"),
    ("ngx_http_upstream_state_t", "bytes_sent"),
    ("ngx_http_v2_out_frame_s", "stream"),
    ("ngx_http_v2_state_t", "sid"),
    ("ngx_http_v2_state_t", "stream"),
    ("ngx_http_v2_stream_s", "node"),
    ("ngx_quic_socket_s", "quic"),
];

/// The prefix of the structs that only builds with QUIC have.
const OPTIONAL_STRUCTS: &str = "ngx_quic_";

/// Structs that layout files from before they were read lack.
const LATER_STRUCTS: [&str; 4] = [
    "ngx_http_core_loc_conf_s",
    "ngx_http_request_body_t",
    "ngx_http_upstream_srv_conf_s",
    "ngx_http_v2_node_s",
];
