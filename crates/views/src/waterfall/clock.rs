// SPDX-License-Identifier: MIT OR Apache-2.0
//! One clock for several requests.

use jiff::Timestamp;
use ngx_bpf_record::Request;

/// Returns when a request began, in nanoseconds since 1970. `None` when that is not known.
pub fn begin(request: &Request<'_>) -> Option<i128> {
    let time = request.time.as_deref()?;
    time.parse::<Timestamp>().ok().map(Timestamp::as_nanosecond)
}

/// Returns the nanoseconds from the first of these moments to each of them.
pub fn since_first(begins: &[Option<i128>]) -> Vec<Option<u64>> {
    let first = begins.iter().flatten().min().copied().unwrap_or_default();
    let since = |begin: &Option<i128>| Some(u64::try_from((*begin)? - first).unwrap_or(u64::MAX));
    begins.iter().map(since).collect()
}
