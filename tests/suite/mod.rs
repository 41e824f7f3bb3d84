// SPDX-License-Identifier: MIT OR Apache-2.0
//! The suites.

/// The command line and its complaints; the documentation against the code.
mod cli;
/// What the tests share.
mod common;
/// Layouts from debug information.
mod layout;
/// What reads records: log daemons and the like.
mod pipelines;
/// Questions that records answer.
mod recipes;
/// Real nginx, real requests, nginx's own access log as the truth.
mod root;
/// The schema of the records, against their documentation.
mod schema;
