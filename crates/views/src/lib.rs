// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shows records to people. Whatever a request brings is hostile: no text reaches the terminal, or a page, without
//! being escaped and cut to its cell.
//!
//! This crate knows neither BPF nor the process that is traced, and reads no environment: [`look::Look`] says how the
//! terminal is.

#![deny(missing_docs)]

pub mod advise;
pub mod bar;
pub mod cell;
mod clock;
pub mod compare;
#[cfg(test)]
mod hostile;
pub mod inflight;
pub mod look;
pub mod pretty;
pub mod summary;
pub mod top;
pub mod units;
pub mod waterfall;
mod words;
