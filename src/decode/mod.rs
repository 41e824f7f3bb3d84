// SPDX-License-Identifier: MIT OR Apache-2.0
//! Turns the bytes of the ring buffer into records.

pub mod clock;
pub mod collect;
pub mod event;
pub mod facts;
pub mod trace_context;
