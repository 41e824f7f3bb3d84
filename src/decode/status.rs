// SPDX-License-Identifier: MIT OR Apache-2.0
//! Statuses that show what became of a request.

/// A connection becomes a tunnel.
pub const SWITCHING_PROTOCOLS: u32 = 101;

/// nginx can't read the request.
pub const BAD_REQUEST: u32 = 400;

pub const REQUEST_TIME_OUT: u32 = 408;
pub const TOO_MANY_REQUESTS: u32 = 429;

/// nginx closes the connection without an answer.
pub const CLOSE: u32 = 444;

pub const CLIENT_CLOSED_REQUEST: u32 = 499;
pub const INTERNAL_SERVER_ERROR: u32 = 500;
pub const BAD_GATEWAY: u32 = 502;
pub const SERVICE_UNAVAILABLE: u32 = 503;
pub const GATEWAY_TIME_OUT: u32 = 504;
