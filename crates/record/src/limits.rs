// SPDX-License-Identifier: MIT OR Apache-2.0
//! The limits of a record. Longer values are cut, and their keys are listed in `truncated`.

/// The most bytes of `request_method`.
pub const METHOD_MAX: usize = 64;

/// The most bytes of `request_uri`, and of `uri`.
pub const URI_MAX: usize = 4096;

/// The most bytes of `http_host`, and of `ssl_server_name`.
pub const HOST_MAX: usize = 512;

/// The most bytes of `server_protocol`.
pub const PROTOCOL_MAX: usize = 16;

/// The most bytes of an address as nginx prints it, or of the path of a unix socket.
pub const ADDR_MAX: usize = 128;

/// The most bytes of `unix:` and the path of a listener.
pub const SERVER_ADDR_MAX: usize = "unix:".len() + ADDR_MAX;

/// The most bytes of an address from the kernel, as text.
pub const PEER_ADDR_MAX: usize = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".len();

/// The most bytes of a name in nginx's configuration.
pub const PLACE_MAX: usize = 512;

/// The most bytes of a place in a file: the path, a colon and the line.
pub const CONFIG_MAX: usize = 510 + ":4294967295".len();

/// The most redirects of a request: NGX_HTTP_MAX_URI_CHANGES, and the one that nginx refuses.
pub const REDIRECTS_MAX: u8 = 11;

/// The most keys of `variables`, and of `headers`.
pub const ASKED_MAX: usize = 8;

/// The most bytes of such a key.
pub const ASKED_NAME_MAX: usize = 64;

/// The most bytes of the value of such a key.
pub const ASKED_VALUE_MAX: usize = 512;

/// The most bytes of the `uri` of a subrequest.
pub const SUBREQUEST_URI_MAX: usize = 512;

/// The most attempts of a request: the first seven and the last.
pub const UPSTREAMS_MAX: usize = 8;

/// The most subrequests of a request: the first ones.
pub const SUBREQUESTS_MAX: usize = 8;

/// The most attempts of a subrequest: the first three and the last.
pub const SUBREQUEST_UPSTREAMS_MAX: usize = 4;

/// The most functions of a stack: the innermost ones.
pub const FRAMES_MAX: usize = 32;

/// The most bytes of a function of a stack.
pub const FRAME_MAX: usize = 416;

/// The digits of `container_id`.
pub const CONTAINER_ID_MAX: usize = 64;

/// The most bytes of `pod_uid`.
pub const POD_UID_MAX: usize = 36;

/// The most bytes of `pod`, and of `namespace`.
pub const POD_NAME_MAX: usize = 63;
