// SPDX-License-Identifier: MIT OR Apache-2.0
//! The public record: its keys and their meaning.

pub mod attempt;
pub mod failure;
pub mod lost;
pub mod phases;
pub mod redaction;
pub mod request;
pub mod subrequest;
