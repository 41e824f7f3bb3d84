// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands besides tracing.

pub mod check;
pub mod manual;
pub mod print;
