// SPDX-License-Identifier: MIT OR Apache-2.0
//! Labels that several metrics have.

/// The names and values of labels.
pub type Labels = Vec<(&'static str, String)>;

/// The value for upstreams and paths that have no value of their own.
pub const OTHER: &str = "other";

/// The value for a request without an upstream, or without a status.
pub const NONE: &str = "none";
