// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys of a record that say where in the configuration its request was handled, found by the
//! addresses that the record has. BPF announces a place before a record refers to it.

use std::borrow::Cow;
use std::collections::HashMap;

use ngx_bpf_record::Request;
use ngx_bpf_record::values::Cut;

use crate::decode::place::PlaceEvent;
use crate::decode::place::SLOTS;
use crate::decode::texts::WireText;

/// The number of places that all workers have together, until a worker is held to its share.
const PLACES_MAX: usize = 8192;

/// The number of places that each worker may have in any case: those in its slots, which BPF does not announce
/// again, and as many others, so that these are not sought out at each announcement.
const SHARE: usize = 2 * SLOTS;

/// The number of workers whose places are kept. That a worker has ended is not known when the ring buffer
/// had no room for it, so that a new one is kept in place of the one that was idle for longest.
pub const WORKERS_MAX: usize = 4096;

/// A name in the configuration.
struct Name {
    text: String,
    /// True when nginx's name is longer.
    is_cut: bool,
}

impl Name {
    /// Returns a name. `None` when it is empty.
    fn new(text: WireText<'_>) -> Option<Self> {
        Some(Self {
            text: text.lossy()?.into_owned(),
            is_cut: text.is_cut,
        })
    }
}

/// A location and its server, or a group of upstream servers.
struct Place {
    name: Option<Name>,
    server_name: Option<Name>,
    /// Where the server or the group stands in the configuration: `file:line`.
    line: Option<String>,
}

/// The places of one worker.
struct WorkerPlaces {
    /// By the addresses that records have.
    places: HashMap<u64, Place>,
    /// The address that each slot has now.
    slots: [u64; SLOTS],
    /// The number of the last use, of all workers.
    used: u64,
}

impl WorkerPlaces {
    /// Creates the places of a new worker.
    fn new() -> Self {
        Self {
            places: HashMap::new(),
            slots: [0; SLOTS],
            used: 0,
        }
    }

    /// Forgets the places whose slots others have, which BPF would announce again.
    fn forget_others(&mut self) {
        let places = &mut self.places;
        let kept = self.slots.iter();
        let kept = kept.filter_map(|address| places.remove_entry(address));
        self.places = kept.collect();
    }
}

/// The places of all workers.
#[derive(Default)]
pub struct Places {
    /// By the pid.
    workers: HashMap<u32, WorkerPlaces>,
    /// The number of places.
    count: usize,
    /// The number of uses, of all workers.
    uses: u64,
}

impl Places {
    /// Takes over the names of a place. Returns the pid of a worker whose places had to be forgotten for it: BPF
    /// would not announce them again if that worker still runs.
    pub fn announced(&mut self, event: &PlaceEvent<'_>) -> Option<u32> {
        let forgotten = self.make_room(event.pid);
        self.uses += 1;
        let worker = self.workers.entry(event.pid);
        let worker = worker.or_insert_with(WorkerPlaces::new);
        worker.used = self.uses;
        if self.count >= PLACES_MAX && worker.places.len() >= SHARE {
            self.count -= worker.places.len();
            worker.forget_others();
            self.count += worker.places.len();
        }
        worker.slots[event.slot] = event.address;
        let place = Place {
            name: Name::new(event.name),
            server_name: Name::new(event.server_name),
            line: line(event),
        };
        if worker.places.insert(event.address, place).is_none() {
            self.count += 1;
        }
        forgotten
    }

    /// Makes room for a worker, if it is a new one. Returns the worker that was forgotten for it.
    fn make_room(&mut self, pid: u32) -> Option<u32> {
        if self.workers.len() < WORKERS_MAX || self.workers.contains_key(&pid) {
            return None;
        }
        let workers = self.workers.iter();
        let (&idle, _) = workers.min_by_key(|(_, worker)| worker.used)?;
        self.ended(idle);
        Some(idle)
    }

    /// Forgets the places of a worker that has ended.
    pub fn ended(&mut self, pid: u32) {
        let worker = self.workers.remove(&pid);
        self.count -= worker.map_or(0, |worker| worker.places.len());
    }

    /// Adds the names of a location and of a group of upstream servers to a request of the worker. They are
    /// absent when they are not known.
    pub fn add<'a>(&'a mut self, request: &mut Request<'a>, location: u64, upstream: u64) {
        let Some(worker) = self.workers.get_mut(&request.pid) else {
            return;
        };
        self.uses += 1;
        worker.used = self.uses;
        let cuts = &mut request.truncated;
        if let Some(place) = worker.places.get(&location) {
            request.place.location = text(place.name.as_ref(), Cut::Location, cuts);
            request.place.server_name = text(place.server_name.as_ref(), Cut::ServerName, cuts);
            request.place.config.server = place.line.as_deref().map(Cow::Borrowed);
        }
        if let Some(place) = worker.places.get(&upstream) {
            request.place.upstream_name = text(place.name.as_ref(), Cut::UpstreamName, cuts);
            request.place.config.upstream = place.line.as_deref().map(Cow::Borrowed);
        }
    }
}

/// Returns where a place stands in the configuration. `None` when it is not known.
fn line(event: &PlaceEvent<'_>) -> Option<String> {
    let file = event.file.lossy()?;
    (event.line > 0).then(|| format!("{file}:{}", event.line))
}

/// Returns the text of a name, and notes if it is cut.
fn text<'a>(name: Option<&'a Name>, cut: Cut, cuts: &mut Vec<Cut>) -> Option<Cow<'a, str>> {
    let name = name?;
    if name.is_cut {
        cuts.push(cut);
    }
    Some(Cow::Borrowed(&name.text))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use ngx_bpf_record::Request;
    use ngx_bpf_record::values::Cut;

    use super::PLACES_MAX;
    use super::Places;
    use super::SHARE;
    use super::WORKERS_MAX;
    use crate::decode::examples::text;
    use crate::decode::place::PlaceEvent;
    use crate::decode::place::SLOTS;
    use crate::decode::texts::WireText;

    /// Returns a location of a worker.
    fn location(pid: u32, address: u64, name: &str) -> PlaceEvent<'_> {
        PlaceEvent {
            pid,
            slot: usize::try_from(address).unwrap() % SLOTS,
            address,
            name: text(name),
            server_name: text("server"),
            ..Default::default()
        }
    }

    /// Returns the location and the server that a request gets.
    fn found(places: &mut Places, pid: u32, address: u64) -> (Option<String>, Option<String>) {
        let mut request = Request {
            pid,
            ..Default::default()
        };
        places.add(&mut request, address, 0);
        let place = request.place;
        (
            place.location.map(Cow::into_owned),
            place.server_name.map(Cow::into_owned),
        )
    }

    /// Check that names belong to a worker and an address, that a later announcement replaces them, and that
    /// they end with the worker.
    #[test]
    fn by_worker() {
        let mut places = Places::default();
        let server = Some("server".to_owned());
        places.announced(&location(1, 64, "/a"));
        places.announced(&location(2, 64, "/b"));
        assert_eq!(
            found(&mut places, 1, 64),
            (Some("/a".to_owned()), server.clone())
        );
        assert_eq!(
            found(&mut places, 2, 64),
            (Some("/b".to_owned()), server.clone())
        );
        assert_eq!(found(&mut places, 1, 65), (None, None));
        places.announced(&location(1, 64, ""));
        assert_eq!(found(&mut places, 1, 64), (None, server));
        places.ended(1);
        places.ended(9);
        assert_eq!(found(&mut places, 1, 64), (None, None));
        assert_eq!(places.count, 1);
    }

    /// Check that a name that was cut is noted.
    #[test]
    fn cut() {
        let mut places = Places::default();
        let name = WireText {
            is_cut: true,
            ..text("/long")
        };
        places.announced(&PlaceEvent {
            name,
            ..location(1, 64, "")
        });
        let mut request = Request {
            pid: 1,
            ..Default::default()
        };
        places.add(&mut request, 64, 64);
        assert_eq!(request.truncated, [Cut::Location, Cut::UpstreamName]);
    }

    /// Check that the number of places is bounded, and that those that BPF does not announce again stay.
    #[test]
    fn bounded() {
        let mut places = Places::default();
        let many = u64::try_from(PLACES_MAX).unwrap() * 3;
        places.announced(&location(2, 1, "/kept"));
        for address in 1..=many {
            places.announced(&location(1, address, "/x"));
            assert!(places.count <= PLACES_MAX);
        }
        assert!(found(&mut places, 1, many).0.is_some() && found(&mut places, 2, 1).0.is_some());
    }

    /// Check that the places in the slots of each worker stay where their sum is more than the limit, and
    /// that each worker is held to its share then.
    #[test]
    fn shares() {
        let mut places = Places::default();
        let workers = u32::try_from(PLACES_MAX / SLOTS).unwrap() * 3;
        let slots = u64::try_from(SLOTS).unwrap();
        for round in 0..9 {
            for pid in 1..=workers {
                for address in round * slots + 1..=(round + 1) * slots {
                    assert_eq!(places.announced(&location(pid, address, "/x")), None);
                }
            }
        }
        for pid in 1..=workers {
            for address in 8 * slots + 1..=9 * slots {
                assert!(found(&mut places, pid, address).0.is_some(), "{address}");
            }
        }
        let sum = places.workers.values().map(|worker| worker.places.len());
        assert_eq!(places.count, sum.sum::<usize>());
        let shares = places.workers.len() * SHARE;
        assert!(places.count <= PLACES_MAX + shares, "{}", places.count);
    }

    /// Check that workers of which no end was seen are bounded: a new one takes the place of the one
    /// that was idle for longest, and workers with requests stay.
    #[test]
    fn respawning() {
        let mut places = Places::default();
        places.announced(&location(1, 1, "/busy"));
        let full = u32::try_from(WORKERS_MAX).unwrap();
        for pid in 2..=10_000 {
            let forgotten = places.announced(&location(pid, 1, "/y"));
            assert_eq!(forgotten, (pid > full).then(|| pid - full + 1));
            assert!(places.workers.len() <= WORKERS_MAX);
            assert_eq!(places.count, places.workers.len());
            assert!(found(&mut places, 1, 1).0.is_some());
        }
        assert_eq!(places.announced(&location(10_000, 2, "/z")), None);
    }
}
