// SPDX-License-Identifier: MIT OR Apache-2.0
//! The entries of traced processes that have ended. BPF could find all of them only by walking whole
//! maps, which takes milliseconds: user space does it instead. Where BPF could still read nginx's memory
//! (bpf/abandoned.bpf.h), the requests that it has reported have no entry any more.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;
use libbpf_rs::MapCore;
use libbpf_rs::MapFlags;
use plain::Plain;

use crate::attach::iterator::BpfIterator;
use crate::bpf::NgxMaps;
use crate::bpf::types;

// SAFETY: integers and arrays of integers, without implicit padding (-Wpadded).
unsafe impl Plain for types::connection {}

/// The most steps of a walk through a map. A walk begins again when another program removes the
/// entry that it has reached.
const STEPS_MAX: usize = 1 << 20;

/// The most requests that one walk returns: 7 MB. One has some 1,700 bytes.
const ABANDONED_MAX: usize = 4096;

/// A request that was in flight in a process that has ended.
pub struct Abandoned {
    /// The process, as BPF has reported its end; `ended_ns` is 0 when that was not seen.
    pub process: types::process_event,
    /// What BPF has kept of its connection, or of its stream.
    pub entry: types::connection,
}

/// The result of removing the entries of processes that have ended.
pub struct Departed {
    /// The requests that were in flight in these.
    pub abandoned: Vec<Abandoned>,
    /// The number of those that were too many.
    pub lost: u64,
    /// The containers of the processes that go on, by their numbers.
    pub containers: BTreeSet<u32>,
}

/// Removes the entries of all processes that `tasks` does not list. `ended` has what BPF has reported of each.
pub fn forget(
    maps: &NgxMaps<'_>,
    tasks: &BpfIterator,
    ended: &BTreeMap<u32, types::process_event>,
) -> Result<Departed> {
    let all: [&dyn MapCore; 5] = [
        &maps.connections,
        &maps.multiplexes,
        &maps.subrequests,
        &maps.quic_streams,
        &maps.accepts,
    ];
    /* Before the processes are listed: a process that starts later has no entry here. */
    let mut keys: Vec<BTreeSet<Vec<u8>>> = all.iter().map(|map| keys_of(*map)).collect();
    let by_descriptor: &dyn MapCore = &maps.descriptors;
    keys.push(keys_of(by_descriptor));
    let live = tasks.values::<types::traced_task>()?;
    let containers = live.iter().map(|task| task.container).collect();
    let live: BTreeSet<u32> = live.iter().map(|task| task.pid).collect();
    let pids: BTreeSet<u32> = keys
        .iter()
        .flatten()
        .filter_map(|key| pid_of(key))
        .collect();
    let gone: BTreeSet<u32> = pids
        .into_iter()
        .filter(|pid| !live.contains(pid) && (ended.contains_key(pid) || !exists(*pid)))
        .collect();
    let departed = |key: &Vec<u8>| pid_of(key).is_some_and(|pid| gone.contains(&pid));
    keys.iter_mut().for_each(|keys| keys.retain(departed));
    let connections = keys[0].iter().filter_map(|key| {
        let value = maps.connections.lookup(key, MapFlags::ANY).ok()??;
        Some((key.clone(), connection(&value)?))
    });
    let entries: HashMap<_, _> = connections.collect();
    let mut in_flight = in_flight(&entries);
    let first = in_flight.by_ref().take(ABANDONED_MAX);
    let abandoned = first.filter_map(|(key, entry)| {
        Some(Abandoned {
            process: process(pid_of(key)?, ended),
            entry: *entry,
        })
    });
    let abandoned = abandoned.collect();
    let lost = in_flight.count() as u64;
    for (map, keys) in all.into_iter().chain([by_descriptor]).zip(&keys) {
        for key in keys {
            /* The kernel may have destroyed the socket meanwhile. */
            let _ = map.delete(key);
        }
    }
    Ok(Departed {
        abandoned,
        lost,
        containers,
    })
}

/// Returns what BPF has reported of a process that has ended.
fn process(pid: u32, ended: &BTreeMap<u32, types::process_event>) -> types::process_event {
    let unseen = types::process_event {
        pid,
        ..Default::default()
    };
    ended.get(&pid).copied().unwrap_or(unseen)
}

/// Returns whether there is a process with this pid. Until it has gone, BPF may be reading its requests in flight
/// itself. The event of its end is lost when thousands of processes end at once.
fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Returns the keys of a map. A map that was not created has none.
fn keys_of(map: &dyn MapCore) -> BTreeSet<Vec<u8>> {
    map.keys().take(STEPS_MAX).collect()
}

/// Returns the pid that every key begins with.
fn pid_of(key: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*key.first_chunk()?))
}

fn connection(value: &[u8]) -> Option<types::connection> {
    let mut connection = types::connection::default();
    plain::copy_from_bytes(&mut connection, value).ok()?;
    Some(connection)
}

/// The entries of connections and streams, by their keys.
type Entries = HashMap<Vec<u8>, types::connection>;

/// Returns the entries with a request in flight. The members that show one are those of `is_in_flight()` in
/// bpf/connection.bpf.h.
fn in_flight(entries: &Entries) -> impl Iterator<Item = (&Vec<u8>, &types::connection)> {
    entries.iter().filter(|(_, entry)| {
        let has_begun = [
            entry.request_first_ns,
            entry.request,
            entry.header_ns,
            entry.response_first_ns,
        ];
        /* Each stream of HTTP/2 has an entry. A stream of HTTP/3 ends with its connection. */
        let is_over = entry.is_multiplexed != 0 || entry.is_over != 0;
        let is_stream = entry.stream.connection != 0;
        has_begun.iter().any(|moment| *moment != 0)
            && !is_over
            && (!is_stream || entries.contains_key(&key(entry.stream.pid, entry.stream.connection)))
    })
}

/// Returns the key of the connection that a stream is on.
fn key(pid: u32, connection: u64) -> Vec<u8> {
    let key = types::connection_key {
        pid,
        pad: 0,
        connection,
    };
    // SAFETY: integers, without implicit padding.
    unsafe { plain::as_bytes(&key) }.to_vec()
}

// SAFETY: integers, without implicit padding (-Wpadded).
unsafe impl Plain for types::connection_key {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::collections::HashMap;

    use super::connection;
    use super::in_flight;
    use super::key;
    use super::pid_of;
    use super::types;

    /// The functions of BPF that go by the same members.
    const BPF: &str = include_str!("../../bpf/connection.bpf.h");

    /// Returns the members of a connection that a function of BPF names.
    fn members(function: &str) -> BTreeSet<&'static str> {
        let (_, rest) = BPF.split_once(&format!(" {function}(")).unwrap();
        let (body, _) = rest.split_once("\n}").unwrap();
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let names = body.split("conn->").skip(1);
        names
            .map(|rest| &rest[..rest.find(|c: char| !is_name(c)).unwrap()])
            .collect()
    }

    /// Sets a member that shows a request in flight.
    fn set(conn: &mut types::connection, member: &str, value: u64) {
        *match member {
            "request_first_ns" => &mut conn.request_first_ns,
            "request" => &mut conn.request,
            "header_ns" => &mut conn.header_ns,
            "response_first_ns" => &mut conn.response_first_ns,
            _ => panic!("in_flight() does not go by {member}, and is_in_flight() does"),
        } = value;
    }

    /// Counts the requests in flight on one connection.
    fn count(conn: types::connection) -> usize {
        in_flight(&HashMap::from([(vec![0], conn)])).count()
    }

    /// Check that a request is in flight for the same reasons as in BPF: because of each member that
    /// `is_in_flight()` goes by, and of no other one.
    #[test]
    fn same_rule_as_in_bpf() {
        let members_of_bpf = members("is_in_flight");
        assert_eq!(members_of_bpf.len(), 4, "{members_of_bpf:?}");
        assert_eq!(members("request_clear"), members_of_bpf);
        assert_eq!(count(types::connection::default()), 0);
        let mut others = connection(&[1; size_of::<types::connection>()]).unwrap();
        (others.is_multiplexed, others.is_over) = (0, 0);
        others.stream.connection = 0;
        for member in members_of_bpf {
            let mut conn = types::connection::default();
            set(&mut conn, member, 1);
            assert_eq!(count(conn), 1, "{member}");
            set(&mut others, member, 0);
        }
        assert_eq!(count(others), 0);
    }

    /// Check what is not counted by itself: the connection of HTTP/2 streams, HTTP/3 when nothing more
    /// is sent, and a stream of HTTP/3 whose connection is not there any more.
    #[test]
    fn streams() {
        let busy = types::connection {
            request: 1,
            ..Default::default()
        };
        let is_multiplexed = 1;
        assert_eq!(
            count(types::connection {
                is_multiplexed,
                ..busy
            }),
            0
        );
        assert_eq!(count(types::connection { is_over: 1, ..busy }), 0);
        let mut stream = busy;
        (stream.stream.pid, stream.stream.connection) = (7, 9);
        assert_eq!(count(stream), 0);
        let parent = types::connection::default();
        let mut entries = HashMap::from([(vec![0], stream), (key(7, 9), parent)]);
        assert_eq!(in_flight(&entries).count(), 1);
        entries.insert(vec![1], busy);
        assert_eq!(in_flight(&entries).count(), 2);
    }

    /// Check keys and values that are too short.
    #[test]
    fn short() {
        let key = types::connection_key {
            pid: 7,
            ..Default::default()
        };
        // SAFETY: integers, without implicit padding.
        let key = unsafe { plain::as_bytes(&key) };
        assert_eq!(pid_of(key), Some(7));
        assert_eq!(pid_of(&key[..3]), None);
        assert!(connection(&[1; 100]).is_none());
    }
}
