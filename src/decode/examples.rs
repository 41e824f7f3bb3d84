// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records for unit tests, as BPF writes them, and texts in them.

use crate::bpf::types;
use crate::decode::texts::WireText;

/// Returns the record of a request of this worker, with no other value.
pub fn request(pid: u32) -> Vec<u8> {
    request_in(pid, 0)
}

/// Returns the record of a request of this worker, in the container with this number.
pub fn request_in(pid: u32, container: u32) -> Vec<u8> {
    record(types::record_kind::RECORD_REQUEST, pid, container)
}

/// Returns the record that this worker has ended.
pub fn ended(pid: u32) -> Vec<u8> {
    let record = types::ended_record {
        kind: types::record_kind::RECORD_WORKER_ENDED.0,
        size: u32::try_from(size_of::<types::ended_record>()).unwrap_or_default(),
        pid,
        ..Default::default()
    };
    // SAFETY: the record is plain: integers without padding.
    unsafe { plain::as_bytes(&record) }.to_vec()
}

/// Returns a text that was not cut.
pub fn text(text: &str) -> WireText<'_> {
    WireText {
        bytes: text.as_bytes(),
        is_cut: false,
    }
}

/// Returns a record of a kind that does not exist.
pub fn unknown_record() -> Vec<u8> {
    record(types::record_kind(u32::MAX), 0, 0)
}

/// Returns a record without any text, attempt or subrequest.
fn record(kind: types::record_kind, pid: u32, container: u32) -> Vec<u8> {
    let size = size_of::<types::request_record>();
    let record = types::request_record {
        kind: kind.0,
        size: u32::try_from(size).unwrap_or_default(),
        pid,
        container,
        ..Default::default()
    };
    // SAFETY: the record is plain: integers without padding.
    unsafe { plain::as_bytes(&record) }.to_vec()
}
