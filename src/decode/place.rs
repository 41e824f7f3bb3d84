// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decodes the records that are not of a request: the names of places in the configuration of nginx,
//! the ends of workers and of connections, and workers that were blocked.

use anyhow::Result;
use anyhow::ensure;
use plain::Plain;

use crate::bpf::types;
use crate::bpf::types::limit;
use crate::bpf::types::record_kind;
use crate::decode::connection::ConnectionEvent;
use crate::decode::texts::WireText;
use crate::decode::wire;

/// A decoded record that is not of a request.
#[derive(Debug)]
pub enum Notice<'a> {
    /// Requests that follow refer to a place.
    Place(PlaceEvent<'a>),
    /// The worker with this pid has ended.
    WorkerEnded(u32),
    /// A worker was blocked.
    Blocked(Box<types::blocked_record>),
    /// A connection has ended.
    Connection(ConnectionEvent),
}

/// The names of a location and of its server, or of a group of upstream servers.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlaceEvent<'a> {
    pub pid: u32,
    /// The slot that the place has from now on: less than [`SLOTS`].
    pub slot: usize,
    /// The address by which requests refer to it.
    pub address: u64,
    /// The name of the location or of the group.
    pub name: WireText<'a>,
    pub server_name: WireText<'a>,
    /// The file in which the server or the group stands; empty when it was not asked for.
    pub file: WireText<'a>,
    /// The line of that file; 0 when it is not known.
    pub line: u32,
}

/// The number of places of a worker that BPF does not announce again.
pub const SLOTS: usize = limit::PLACE_SLOTS.0 as usize;

// SAFETY: the records of wire.h hold plain integers only, and no implicit padding (-Wpadded).
unsafe impl Plain for types::place_record {}
// SAFETY: as above.
unsafe impl Plain for types::ended_record {}

/// Decodes one record. `None` when it is of a request, or of an unknown kind.
///
/// Fails when its lengths contradict each other.
pub fn decode(bytes: &[u8]) -> Result<Option<Notice<'_>>> {
    Ok(match wire::kind(bytes)? {
        record_kind::RECORD_LOCATION | record_kind::RECORD_UPSTREAM => {
            Some(Notice::Place(place(bytes)?))
        }
        record_kind::RECORD_WORKER_ENDED => {
            let record: types::ended_record = wire::copy(bytes)?;
            Some(Notice::WorkerEnded(record.pid))
        }
        record_kind::RECORD_BLOCKED => Some(Notice::Blocked(Box::new(wire::copy(bytes)?))),
        record_kind::RECORD_CONNECTION => Some(Notice::Connection(ConnectionEvent::decode(bytes)?)),
        _ => None,
    })
}

/// Decodes the record of a place.
fn place(bytes: &[u8]) -> Result<PlaceEvent<'_>> {
    let record: types::place_record = wire::copy(bytes)?;
    let texts = &bytes[size_of::<types::place_record>()..];
    let slot = usize::try_from(record.slot)?;
    ensure!(slot < SLOTS, "a place in slot {slot}");
    Ok(PlaceEvent {
        pid: record.pid,
        slot,
        address: record.address,
        name: WireText::read(texts, record.name)?,
        server_name: WireText::read(texts, record.server_name)?,
        file: WireText::read(texts, record.file)?,
        line: record.line,
    })
}

#[cfg(test)]
mod tests {
    use super::Notice;
    use super::SLOTS;
    use super::decode;
    use crate::bpf::types;
    use crate::bpf::types::record_kind;
    use crate::decode::examples;

    /// Returns the record of a location `/a` in a slot.
    fn location(slot: u32) -> Vec<u8> {
        let record = types::place_record {
            kind: record_kind::RECORD_LOCATION.0,
            pid: 7,
            slot,
            address: 4096,
            name: types::text { at: 0, len: 2 },
            server_name: types::text { at: 2, len: 1 },
            ..Default::default()
        };
        // SAFETY: the record is plain: integers without padding.
        [unsafe { plain::as_bytes(&record) }, b"/as"].concat()
    }

    /// Check every kind of record.
    #[test]
    fn kinds() {
        let record = location(3);
        let Some(Notice::Place(place)) = decode(&record).unwrap() else {
            panic!("{:?}", decode(&record));
        };
        assert_eq!((place.pid, place.slot, place.address), (7, 3, 4096));
        assert_eq!(
            (place.name.bytes, place.server_name.bytes),
            (&b"/a"[..], &b"s"[..])
        );
        let ended = examples::ended(7);
        assert!(matches!(decode(&ended), Ok(Some(Notice::WorkerEnded(7)))));
        for other in [examples::request(7), examples::unknown_record()] {
            assert!(matches!(decode(&other), Ok(None)));
        }
    }

    /// Check that a record that is cut anywhere, or whose slot does not exist, is an error.
    #[test]
    fn broken() {
        let record = location(0);
        for len in 0..record.len() {
            assert!(decode(&record[..len]).is_err(), "{len}");
        }
        assert!(decode(&location(u32::try_from(SLOTS).unwrap())).is_err());
    }
}
