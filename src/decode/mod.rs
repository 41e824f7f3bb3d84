// SPDX-License-Identifier: MIT OR Apache-2.0
//! Turns the bytes of the ring buffer into records.

mod attempt;
pub mod clock;
#[cfg(test)]
pub mod examples;
mod facts;
mod failure;
pub mod held;
pub mod request;
pub mod ring;
mod times;
mod trace_context;
pub mod wire;

/// Returns a moment, a status or a port that was seen. 0 is none of them.
fn nonzero<T: Default + PartialEq>(number: T) -> Option<T> {
    Some(number).filter(|number| *number != T::default())
}

/// Returns a moment that was seen, in nanoseconds since another one.
fn since(origin: u64, ns: u64) -> Option<u64> {
    nonzero(ns)?.checked_sub(origin)
}
