// SPDX-License-Identifier: MIT OR Apache-2.0
//! The messages of libbpf and of the kernel's verifier, which state why an operation was refused.

use libbpf_rs::PrintLevel;

use crate::host::escape::Line;
use crate::host::stderr;
use crate::host::stderr::Patience;

/// Prints these messages on stderr from now on if `is_shown`, and drops them otherwise.
pub fn show(is_shown: bool) {
    libbpf_rs::set_print(is_shown.then_some((PrintLevel::Warn, print_lines)));
}

/// Prints a message line by line.
fn print_lines(_: PrintLevel, text: String) {
    text.lines()
        .for_each(|line| stderr::print_line(Line(line), Patience::Long));
}
