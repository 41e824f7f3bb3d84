// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the time of single requests went: at a terminal, as a page, and in the formats of other viewers.

use ngx_bpf_record::Request;

pub use har::har;
pub use html::html;
pub use terminal::terminal;
pub use trace::trace;

mod axis;
mod clock;
mod facts;
mod har;
mod html;
mod line;
mod rows;
mod section;
mod terminal;
#[cfg(test)]
mod tests;
mod timings;
mod trace;
mod url;
mod why;

/// Returns the id of a request, `PID/CONNECTION/NUMBER`; `-` stands for a number that is not known.
pub fn id(request: &Request<'_>) -> String {
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let connection = number(request.connection);
    let requests = number(request.connection_requests);
    format!("{}/{connection}/{requests}", request.pid)
}

/// Returns how long a request lasted, from its first byte to its end or to the last byte of its response, whichever is
/// later. `None` when neither is known.
fn total(request: &Request<'_>) -> Option<u64> {
    request.elapsed_ns.max(request.duration_ns)
}
