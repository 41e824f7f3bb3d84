// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decodes the bytes of the ring buffer to records.

mod attempt;
pub mod clock;
#[cfg(test)]
pub mod examples;
mod facts;
mod failure;
pub mod held;
pub mod request;
pub mod ring;
#[cfg(test)]
mod round_trip;
mod times;
mod trace_context;
pub mod wire;

/// Returns a moment, a status or a port. `None` for 0, by which BPF says that it was not seen.
fn nonzero<T: Default + PartialEq>(number: T) -> Option<T> {
    Some(number).filter(|number| *number != T::default())
}

/// Returns the nanoseconds from `origin` to a moment. `None` when the moment was not seen, or is
/// before `origin`.
fn since(origin: u64, ns: u64) -> Option<u64> {
    nonzero(ns)?.checked_sub(origin)
}
