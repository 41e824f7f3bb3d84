// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this process has from the machine that it runs on: stderr, signals, limits, files that
//! others name. The lowest layer: every other one may use it, and it uses none of them.

pub mod descriptors;
pub mod escape;
pub mod foreign;
pub mod pid_namespace;
pub mod signals;
pub mod stderr;
pub mod usage;
