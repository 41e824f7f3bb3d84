// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program as a library, of which `main.rs` uses the command line and the commands.
//! tests/suite/layers.rs has the order of the modules; docs/design.md describes how they work.

mod attach;
mod bpf;
pub mod cli;
pub mod commands;
mod counts;
mod decode;
mod follow;
pub mod host;
mod metrics;
mod otlp;
mod output;
mod pipeline;
