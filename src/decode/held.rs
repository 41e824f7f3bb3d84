// SPDX-License-Identifier: MIT OR Apache-2.0
//! The held records: those of responses that had not ended when tracing ended.

use std::mem::offset_of;

use crate::bpf::types;
use crate::decode::wire;

/// Takes the record out of a value of the map `held_requests`. The request has no duration, since
/// the end of its response is not known. `None` when the value holds no record.
pub fn unfinished_record(mut value: Vec<u8>) -> Option<Vec<u8>> {
    const LAST: usize = offset_of!(types::request_record, response_last_ns);
    let record = value.get_mut(offset_of!(types::held, draft)..)?;
    record.get_mut(LAST..)?.first_chunk_mut::<8>()?.fill(0);
    Some(wire::split(record).ok()?.0.to_vec())
}
