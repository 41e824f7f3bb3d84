// SPDX-License-Identifier: MIT OR Apache-2.0
//! Labels that several metrics have, and how many values they may have.

use std::collections::HashMap;
use std::hash::Hash;

use ngx_bpf_record::format::escape::is_unsafe;

use crate::host::escape::Line;

/// The names and values of labels.
pub type Labels = Vec<(&'static str, String)>;

/// The value for upstreams and paths that have no value of their own.
pub const OTHER: &str = "other";

/// The value for a request without an upstream, or without a status.
pub const NONE: &str = "none";

/// The ticks after which a value that no request has had makes room for another one: ten minutes.
const IDLE_TICKS: u64 = 10 * 60 * 10;

/// Returns a value that does nothing to a terminal, whatever others have named: a control byte is written as
/// `\x1b`, as in lines of text. The format of the metrics itself has only escapes for quotes, backslashes and
/// line feeds.
pub fn safe_value(text: &str) -> String {
    match text.chars().any(is_unsafe) {
        true => Line(text).to_string(),
        false => text.to_owned(),
    }
}

/// The keys that have a value of their own: labels, or combinations of them. Their number is bounded, whatever requests
/// bring.
pub struct LabelValues<K, V = ()> {
    /// The known keys, each with the place of its value.
    known: HashMap<K, usize>,
    /// The values, each with the tick at which its key was last seen.
    values: Vec<(u64, V)>,
    max: usize,
    /// The number of ticks so far.
    now: u64,
    /// The tick before which none of them can have become idle, since none was when it was full last.
    busy_until: u64,
}

/// What a key has.
#[derive(Debug, PartialEq, Eq)]
pub struct TakenIn<'v, K, V> {
    pub value: &'v mut V,
    /// The key that made room for it, and has no value any more.
    pub in_place_of: Option<(K, V)>,
}

impl<K: Clone + Eq + Hash, V> LabelValues<K, V> {
    /// Creates one for at most `max` keys.
    pub fn new(max: usize) -> Self {
        Self {
            known: HashMap::new(),
            values: Vec::new(),
            max,
            now: 0,
            busy_until: 0,
        }
    }

    /// Notes that a request has a key. Returns its value, which `new` creates for a new one. `None` when there is no room
    /// for it.
    pub fn take_in(&mut self, key: &K, new: impl FnOnce() -> V) -> Option<TakenIn<'_, K, V>> {
        let mut in_place_of = None;
        let at = match self.known.get(key) {
            Some(at) => *at,
            None => {
                if self.known.len() >= self.max {
                    let idle = self.idle()?;
                    in_place_of = self.remove(&idle);
                }
                let at = self.values.len();
                self.known.insert(key.clone(), at);
                self.values.push((self.now, new()));
                at
            }
        };
        let (seen, value) = &mut self.values[at];
        *seen = self.now;
        Some(TakenIn { value, in_place_of })
    }

    /// Removes the keys that have gone. Returns them with their values.
    pub fn forget(&mut self, is_gone: impl Fn(&K) -> bool) -> Vec<(K, V)> {
        let keys = self.known.keys().filter(|key| is_gone(key));
        let gone: Vec<K> = keys.cloned().collect();
        gone.iter().filter_map(|key| self.remove(key)).collect()
    }

    /// Removes a key with its value.
    fn remove(&mut self, key: &K) -> Option<(K, V)> {
        let (key, at) = self.known.remove_entry(key)?;
        let (_, value) = self.values.swap_remove(at);
        /* The last value has this place now. */
        let last = self.values.len();
        if let Some(moved) = self.known.values_mut().find(|at| **at == last) {
            *moved = at;
        }
        Some((key, value))
    }

    /// Returns the key that was not seen for the longest time, if that is long enough.
    fn idle(&mut self) -> Option<K> {
        if self.now < self.busy_until {
            return None;
        }
        let seen = self.known.iter().map(|(key, at)| (key, self.values[*at].0));
        let (oldest, seen) = seen.min_by_key(|(_, seen)| *seen)?;
        self.busy_until = seen + IDLE_TICKS;
        (self.now >= self.busy_until).then(|| oldest.clone())
    }

    /// Called ten times a second.
    pub fn tick(&mut self) {
        self.now += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::IDLE_TICKS;
    use super::LabelValues;

    /// Takes in a key, whose value is the key when it is new. Returns the key that has made room for it.
    fn take_in(
        values: &mut LabelValues<&'static str, String>,
        key: &'static str,
    ) -> Option<Option<&'static str>> {
        let taken = values.take_in(&key, || key.to_owned())?;
        assert_eq!(taken.value, key);
        let gone = taken.in_place_of;
        gone.iter().for_each(|(key, value)| assert_eq!(value, key));
        Some(gone.map(|(key, _)| key))
    }

    /// Check that a key makes room only when it was not seen for long.
    #[test]
    fn room() {
        let mut values = LabelValues::new(2);
        assert_eq!(take_in(&mut values, "a"), Some(None));
        assert_eq!(take_in(&mut values, "b"), Some(None));
        for _ in 1..IDLE_TICKS {
            values.tick();
        }
        assert_eq!(take_in(&mut values, "c"), None);
        assert_eq!(take_in(&mut values, "b"), Some(None));
        values.tick();
        assert_eq!(take_in(&mut values, "c"), Some(Some("a")));
        assert_eq!(take_in(&mut values, "a"), None);
        assert_eq!(take_in(&mut values, "b"), Some(None));
    }

    /// Check that each key keeps its own value when others are removed.
    #[test]
    fn forgotten() {
        let mut values = LabelValues::new(5);
        for key in ["a", "b", "c", "d", "e"] {
            take_in(&mut values, key);
        }
        let mut gone = values.forget(|key| ["a", "d", "e"].contains(key));
        gone.sort_unstable();
        let keys: Vec<_> = gone.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, ["a", "d", "e"]);
        assert!(gone.iter().all(|(key, value)| key == value));
        for key in ["b", "c", "f", "g", "h"] {
            assert_eq!(take_in(&mut values, key), Some(None));
        }
        assert_eq!(take_in(&mut values, "i"), None);
    }
}
