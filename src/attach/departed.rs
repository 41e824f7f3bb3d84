// SPDX-License-Identifier: MIT OR Apache-2.0
//! The entries of traced processes that have ended. BPF could find them only by walking whole maps,
//! which takes milliseconds: user space does it instead.

use std::collections::BTreeSet;
use std::collections::HashMap;

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

/// The result of removing the entries of processes that have ended.
pub struct Departed {
    /// The number of requests that were in flight in these.
    pub lost: u64,
    /// The containers of the processes that go on, by their numbers.
    pub containers: BTreeSet<u32>,
}

/// Removes the entries of all processes that `tasks` does not list.
pub fn forget(maps: &NgxMaps<'_>, tasks: &BpfIterator) -> Result<Departed> {
    let all: [&dyn MapCore; 4] = [
        &maps.connections,
        &maps.multiplexes,
        &maps.subrequests,
        &maps.quic_streams,
    ];
    /* Before the processes are listed: a process that starts later has no entry here. */
    let mut keys: Vec<BTreeSet<Vec<u8>>> = all.iter().map(|map| keys_of(*map)).collect();
    let by_descriptor: &dyn MapCore = &maps.descriptors;
    keys.push(keys_of(by_descriptor));
    let live = tasks.values::<types::traced_task>()?;
    let containers = live.iter().map(|task| task.container).collect();
    let live: BTreeSet<u32> = live.iter().map(|task| task.pid).collect();
    let departed = |key: &Vec<u8>| pid_of(key).is_some_and(|pid| !live.contains(&pid));
    keys.iter_mut().for_each(|keys| keys.retain(departed));
    let connections = keys[0].iter().filter_map(|key| {
        let value = maps.connections.lookup(key, MapFlags::ANY).ok()??;
        Some((key.clone(), connection(&value)?))
    });
    let lost = count_in_flight(&connections.collect());
    for (map, keys) in all.into_iter().chain([by_descriptor]).zip(&keys) {
        for key in keys {
            /* The kernel may have destroyed the socket meanwhile. */
            let _ = map.delete(key);
        }
    }
    Ok(Departed { lost, containers })
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

/// Counts the requests in flight. The entries are by key.
fn count_in_flight(entries: &HashMap<Vec<u8>, types::connection>) -> u64 {
    let in_flight = entries.values().filter(|entry| {
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
            && (!is_stream || entries.contains_key(&parent_key(entry)))
    });
    in_flight.count() as u64
}

/// Returns the key of the connection that a stream of HTTP/3 is on.
fn parent_key(entry: &types::connection) -> Vec<u8> {
    let key = types::connection_key {
        pid: entry.stream.pid,
        pad: 0,
        connection: entry.stream.connection,
    };
    // SAFETY: integers, without implicit padding.
    unsafe { plain::as_bytes(&key) }.to_vec()
}

// SAFETY: integers, without implicit padding (-Wpadded).
unsafe impl Plain for types::connection_key {}
