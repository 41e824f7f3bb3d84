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

/// The values that a label may have. Their number is bounded, whatever requests bring.
pub struct LabelValues<T> {
    /// The known values, each with the tick at which it was last seen.
    known: HashMap<T, u64>,
    max: usize,
    /// The number of ticks so far.
    now: u64,
    /// The tick before which none of them can have become idle, since none was when it was full last.
    busy_until: u64,
}

/// What became of a value.
#[derive(Debug, PartialEq, Eq)]
pub enum TakenIn<T> {
    /// It has series of its own.
    Known,
    /// The same, in place of another value, which has none any more.
    InPlaceOf(T),
    /// There is no room for it.
    Refused,
}

impl<T: Clone + Eq + Hash> LabelValues<T> {
    /// Creates a label with at most `max` values.
    pub fn new(max: usize) -> Self {
        Self {
            known: HashMap::new(),
            max,
            now: 0,
            busy_until: 0,
        }
    }

    /// Notes that a request has a value.
    pub fn take_in(&mut self, value: &T) -> TakenIn<T> {
        if let Some(seen) = self.known.get_mut(value) {
            *seen = self.now;
            return TakenIn::Known;
        }
        let mut gone = None;
        if self.known.len() >= self.max {
            let Some(idle) = self.idle() else {
                return TakenIn::Refused;
            };
            self.known.remove(&idle);
            gone = Some(idle);
        }
        self.known.insert(value.clone(), self.now);
        gone.map_or(TakenIn::Known, TakenIn::InPlaceOf)
    }

    /// Returns the value that was not seen for the longest time, if that is long enough.
    fn idle(&mut self) -> Option<T> {
        if self.now < self.busy_until {
            return None;
        }
        let (oldest, seen) = self.known.iter().min_by_key(|(_, seen)| **seen)?;
        self.busy_until = *seen + IDLE_TICKS;
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
    use super::TakenIn;

    /// Check that a value makes room only when it was not seen for long.
    #[test]
    fn room() {
        let mut values = LabelValues::new(2);
        assert_eq!(values.take_in(&"a"), TakenIn::Known);
        assert_eq!(values.take_in(&"b"), TakenIn::Known);
        for _ in 1..IDLE_TICKS {
            values.tick();
        }
        assert_eq!(values.take_in(&"c"), TakenIn::Refused);
        assert_eq!(values.take_in(&"b"), TakenIn::Known);
        values.tick();
        assert_eq!(values.take_in(&"c"), TakenIn::InPlaceOf("a"));
        assert_eq!(values.take_in(&"a"), TakenIn::Refused);
        assert_eq!(values.take_in(&"b"), TakenIn::Known);
    }
}
