// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much of a request a record keeps. What is longer is cut, and named in `truncated`.

/// Bytes of `request_method`.
pub const METHOD_MAX: usize = 64;

/// Bytes of `request_uri`, and of `uri`.
pub const URI_MAX: usize = 4096;

/// Bytes of `http_host`, and of `ssl_server_name`.
pub const HOST_MAX: usize = 512;

/// Bytes of `server_protocol`.
pub const PROTOCOL_MAX: usize = 16;

/// Bytes of an address as nginx prints it, or of the path of a unix socket.
pub const ADDR_MAX: usize = 128;

/// Bytes of `unix:` and the path of a listener.
pub const SERVER_ADDR_MAX: usize = "unix:".len() + ADDR_MAX;

/// Bytes of the longest address that the kernel has, as text.
pub const PEER_ADDR_MAX: usize = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".len();

/// Bytes of the `uri` of a subrequest.
pub const SUBREQUEST_URI_MAX: usize = 512;

/// Attempts of a request: the first seven and the last.
pub const UPSTREAMS_MAX: usize = 8;

/// Subrequests of a request: the first ones.
pub const SUBREQUESTS_MAX: usize = 8;

/// Attempts of a subrequest: the first three and the last.
pub const SUBREQUEST_UPSTREAMS_MAX: usize = 4;
