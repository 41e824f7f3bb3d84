// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decodes the bytes of the ring buffer to records.

pub mod abandoned;
mod attempt;
pub mod blocked;
pub mod clock;
pub mod connection;
mod ending;
#[cfg(test)]
pub mod examples;
pub mod facts;
mod failure;
pub mod held;
pub mod place;
pub mod request;
pub mod ring;
#[cfg(test)]
mod round_trip;
mod status;
mod tcp;
pub mod texts;
mod times;
mod trace_context;
mod waits;
pub mod wire;

/// Returns a moment, a status or a port. `None` for 0, by which BPF says that it was not seen.
fn nonzero<T: Default + PartialEq>(number: T) -> Option<T> {
    Some(number).filter(|number| *number != T::default())
}

/// Returns the nanoseconds from one moment to a later one. `None` when one of them was not seen, or when
/// they are not in this order.
fn since(from: Option<u64>, to: Option<u64>) -> Option<u64> {
    to?.checked_sub(from?)
}
