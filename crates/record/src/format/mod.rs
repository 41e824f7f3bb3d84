// SPDX-License-Identifier: MIT OR Apache-2.0
//! The formats of a line of output.

use std::io;

use crate::blocked::Blocked;
use crate::connection::Connection;
use crate::lost::Lost;
use crate::request::Request;
use crate::values::Cut;

pub mod conventions;
pub mod escape;
mod flat;
pub mod json;
mod names;
pub mod otel;
pub mod otlp;
mod refused;
pub mod text;

/// A format, which encodes records as lines.
pub trait Format {
    /// Appends the line of a request. Fails when the request can't be encoded; then nothing is
    /// appended.
    fn request(&mut self, line: &mut Vec<u8>, request: &Request<'_>) -> io::Result<()>;

    /// Appends the line of a connection. Fails when it can't be encoded; then nothing is appended.
    fn connection(&mut self, line: &mut Vec<u8>, connection: &Connection<'_>) -> io::Result<()>;

    /// Appends the line of a loss. Fails when it can't be encoded; then nothing is appended.
    fn lost(&mut self, line: &mut Vec<u8>, lost: &Lost) -> io::Result<()>;

    /// Appends the line of a blocked worker. Fails when it can't be encoded; then nothing is appended.
    fn blocked(&mut self, line: &mut Vec<u8>, blocked: &Blocked<'_>) -> io::Result<()>;

    /// Returns whether the format writes the text of this key: most write all.
    fn writes(&self, _cut: Cut) -> bool {
        true
    }

    /// Returns the number of bytes that a character of a text takes in the line.
    fn width(&self, c: char) -> usize;
}
