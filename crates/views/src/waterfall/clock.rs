// SPDX-License-Identifier: MIT OR Apache-2.0
//! One clock for several requests.

use std::time::Duration;

use ngx_bpf_record::Request;

use ngx_bpf_record::clock::since_epoch;

/// Returns when a request began, from 1970. `None` when that is not known.
pub fn begin(request: &Request<'_>) -> Option<Duration> {
    since_epoch(request.time.as_deref()?)
}

/// Returns the nanoseconds from the first of these moments to each of them.
pub fn since_first(begins: &[Option<Duration>]) -> Vec<Option<u64>> {
    let first = begins.iter().flatten().min().copied().unwrap_or_default();
    let since = |begin: Duration| u64::try_from((begin - first).as_nanos()).unwrap_or(u64::MAX);
    begins.iter().map(|begin| begin.map(since)).collect()
}
