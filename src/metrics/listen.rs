// SPDX-License-Identifier: MIT OR Apache-2.0
//! The metrics of nginx's listening sockets: how many connections wait to be accepted, and what the kernel
//! has dropped. Sockets with one address (`reuseport`) are counted together.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::exposition::Counter;
use super::exposition::Family;
use super::exposition::Gauge;
use super::exposition::Registry;
use super::labels::Labels;
use super::labels::OTHER;

/// The number of addresses, of all nginx together, that have series of their own.
const ADDRESSES_MAX: usize = 256;

/// A listening socket.
#[derive(Clone, Copy, Debug)]
pub struct Listener {
    /// Its inode: no other socket has the same one at the same time.
    pub inode: u64,
    pub address: SocketAddr,
    /// The connections that wait to be accepted.
    pub waiting: u32,
    /// The most that may wait.
    pub waiting_max: u32,
    /// The segments that the kernel has dropped since the socket was made, modulo 2^32.
    pub drops: u32,
}

/// The listening sockets of an nginx, by pid.
pub type Listeners = BTreeMap<u32, Vec<Listener>>;

/// A process, and an address on which it listens. `None` for all addresses without series of their own.
type Place = (u32, Option<SocketAddr>);

/// What the sockets of one address have dropped.
#[derive(Debug, Default)]
struct Drops {
    /// All drops, also those of sockets that are closed: the sum never decreases.
    total: u64,
    /// Those of each open socket.
    sockets: BTreeMap<u64, u32>,
}

/// The metrics of listening sockets.
#[derive(Default)]
pub struct ListenMetrics {
    waiting: Family<Gauge>,
    waiting_max: Family<Gauge>,
    drops: Family<Counter>,
    /// The places that have series.
    places: BTreeMap<Place, Drops>,
}

impl Drops {
    /// Adds what open sockets have dropped since the last time; of a new one, since it was made.
    fn update(&mut self, sockets: &[Listener]) {
        let known = std::mem::take(&mut self.sockets);
        for socket in sockets {
            /* The kernel gives out an inode number again only after 2^32 others. */
            let before = known.get(&socket.inode).copied().unwrap_or_default();
            self.total += u64::from(socket.drops.wrapping_sub(before));
            self.sockets.insert(socket.inode, socket.drops);
        }
    }
}

impl ListenMetrics {
    /// Registers all metrics of listening sockets.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "nginx_listen_queue_connections",
            "Connections that wait in the queue of a listening socket to be accepted",
            &metrics.waiting,
        );
        registry.register(
            "nginx_listen_queue_max",
            "The backlog of a listening socket: the kernel drops when more connections wait",
            &metrics.waiting_max,
        );
        registry.register(
            "nginx_listen_drops",
            "Segments that the kernel has dropped at a listening socket, mostly because its queue was full",
            &metrics.drops,
        );
        metrics
    }

    /// Updates all metrics by the sockets of each nginx. Those that are not among them have none any more.
    pub fn update(&mut self, listeners: &Listeners) {
        let sockets = self.by_place(listeners);
        let mut gone = std::mem::take(&mut self.places);
        for (place, sockets) in sockets {
            let mut drops = gone.remove(&place).unwrap_or_default();
            drops.update(&sockets);
            let labels = labels(place);
            let sum = |value: fn(&Listener) -> u32| {
                sockets.iter().map(|socket| i64::from(value(socket))).sum()
            };
            let waiting = sum(|socket| socket.waiting);
            self.waiting.with(&labels).set(waiting);
            let waiting_max = sum(|socket| socket.waiting_max);
            self.waiting_max.with(&labels).set(waiting_max);
            self.drops.with(&labels).set(drops.total);
            self.places.insert(place, drops);
        }
        for place in gone.into_keys() {
            let labels = labels(place);
            self.waiting.remove(&labels);
            self.waiting_max.remove(&labels);
            self.drops.remove(&labels);
        }
    }

    /// Sorts sockets by their places. A socket that a process has twice counts once. A place keeps its series
    /// while it is there, and a new one gets its own if there is room.
    fn by_place(&self, listeners: &Listeners) -> BTreeMap<Place, Vec<Listener>> {
        let mut found: BTreeMap<Place, BTreeMap<u64, Listener>> = BTreeMap::new();
        for (pid, sockets) in listeners {
            for socket in sockets {
                let place = (*pid, Some(socket.address));
                let sockets = found.entry(place).or_default();
                sockets.insert(socket.inode, *socket);
            }
        }
        let is_known = |place: &Place| self.places.contains_key(place);
        let known = found.keys().filter(|place| is_known(place)).count();
        let mut room = ADDRESSES_MAX.saturating_sub(known);
        let mut places: BTreeMap<Place, Vec<Listener>> = BTreeMap::new();
        for (mut place, sockets) in found {
            if !is_known(&place) {
                match room.checked_sub(1) {
                    Some(left) => room = left,
                    None => place.1 = None,
                }
            }
            places.entry(place).or_default().extend(sockets.values());
        }
        places
    }
}

/// Returns the labels of a place.
fn labels((pid, address): Place) -> Labels {
    let address = address.map_or_else(|| OTHER.to_owned(), |address| address.to_string());
    vec![("pid", pid.to_string()), ("listen", address)]
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::ADDRESSES_MAX;
    use super::ListenMetrics;
    use super::Listener;
    use crate::metrics::exposition::Format;
    use crate::metrics::exposition::Registry;

    /// Returns a socket whose queue has three connections.
    fn socket(inode: u64, address: &str, drops: u32) -> Listener {
        Listener {
            inode,
            address: address.parse().unwrap(),
            waiting: 3,
            waiting_max: 511,
            drops,
        }
    }

    /// Returns what is served after each update.
    fn served(updates: &[&[(u32, Listener)]]) -> Vec<String> {
        let mut registry = Registry::default();
        let mut metrics = ListenMetrics::register(&mut registry);
        let texts = updates.iter().map(|sockets| {
            let mut listeners = super::Listeners::new();
            for (pid, socket) in *sockets {
                listeners.entry(*pid).or_default().push(*socket);
            }
            metrics.update(&listeners);
            String::from_utf8(registry.encode(Format::OpenMetrics)).unwrap()
        });
        texts.collect()
    }

    /// Check the sums of sockets with one address, that a socket that a process has twice counts once, and
    /// that drops never decrease when one of several sockets is closed.
    #[test]
    fn sums() {
        let v6 = "[::1]:80";
        let texts = served(&[
            &[
                (7, socket(1, "0.0.0.0:80", 5)),
                (7, socket(2, "0.0.0.0:80", 6)),
                (7, socket(2, "0.0.0.0:80", 6)),
                (7, socket(3, v6, 0)),
                (8, socket(4, "0.0.0.0:80", 1)),
            ],
            &[
                (7, socket(2, "0.0.0.0:80", 7)),
                (7, socket(5, "0.0.0.0:80", 2)),
                (7, socket(3, v6, u32::MAX)),
            ],
            &[(7, socket(3, v6, 1))],
        ]);
        let has = |at: usize, line: &str| {
            let text: &String = &texts[at];
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        };
        has(
            0,
            r#"nginx_listen_drops_total{pid="7",listen="0.0.0.0:80"} 11"#,
        );
        has(
            0,
            r#"nginx_listen_drops_total{pid="8",listen="0.0.0.0:80"} 1"#,
        );
        has(
            0,
            r#"nginx_listen_queue_connections{pid="7",listen="0.0.0.0:80"} 6"#,
        );
        has(
            0,
            r#"nginx_listen_queue_max{pid="7",listen="[::1]:80"} 511"#,
        );
        has(
            1,
            r#"nginx_listen_drops_total{pid="7",listen="0.0.0.0:80"} 14"#,
        );
        has(
            1,
            r#"nginx_listen_drops_total{pid="7",listen="[::1]:80"} 4294967295"#,
        );
        has(
            2,
            r#"nginx_listen_drops_total{pid="7",listen="[::1]:80"} 4294967297"#,
        );
        assert!(!texts[1].contains("pid=\"8\"") && !texts[2].contains("0.0.0.0:80"));
    }

    /// Check that the addresses that have series are bounded, and that those that have them keep them.
    #[test]
    fn bounded() {
        let at = |n: usize| {
            let address = SocketAddr::from(([127, 0, 0, 1], n as u16 + 1));
            (7, socket(n as u64, &address.to_string(), 1))
        };
        let first: Vec<_> = (100..100 + ADDRESSES_MAX).map(at).collect();
        let more: Vec<_> = (0..100 + ADDRESSES_MAX).map(at).collect();
        let texts = served(&[&first, &more]);
        let count = |text: &String| text.matches("nginx_listen_queue_max{").count();
        assert_eq!(texts.iter().map(count).collect::<Vec<_>>(), [256, 257]);
        let other = r#"nginx_listen_drops_total{pid="7",listen="other"} 100"#;
        assert!(texts[1].contains(other), "{}", texts[1]);
        assert!(texts[1].contains(r#"listen="127.0.0.1:101""#));
    }
}
