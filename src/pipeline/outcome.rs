// SPDX-License-Identifier: MIT OR Apache-2.0
//! What becomes of records. With two outputs, lines and the receiver of `--otlp`, a record is written when both have it,
//! and lost once when one of them lost it. Each output knows what became of its records in their order, so that
//! their numbers alone join them.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// An output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taker {
    /// A file, or stdout.
    Lines,
    /// The receiver of `--otlp`.
    Receiver,
}

/// What has become of a record in an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The output has it.
    Written,
    /// It could not be written.
    Unwritten,
    /// It came after the end.
    Late,
    /// The receiver has not taken it.
    Unsent,
}

impl Fate {
    /// Returns what has become of a record in both outputs.
    fn joined(self, other: Self) -> Self {
        let order = [Self::Late, Self::Unwritten, Self::Unsent];
        let mut worst = order.into_iter();
        let worst = worst.find(|fate| [self, other].contains(fate));
        worst.unwrap_or(Self::Written)
    }
}

/// Records of which one output has reported what became of them and the other one has not: how many one after the
/// other had each fate.
type Runs = VecDeque<(u64, Fate)>;

/// What has become of the records of one kind.
#[derive(Default)]
pub struct Outcome {
    /// The number of those that were written.
    pub written: AtomicU64,
    /// The number of those that could not be written.
    pub unwritten: AtomicU64,
    /// The number of those that came after the end: after `--count` was reached, or after the reader of
    /// the output had closed it.
    pub late: AtomicU64,
    /// The number of those that the receiver of `--otlp` has not taken.
    pub unsent: AtomicU64,
    /// What one output alone has reported. It is set when there are two outputs.
    waiting: OnceLock<Mutex<[Runs; 2]>>,
}

impl Outcome {
    /// Says that there are two outputs, before any record comes.
    pub fn join(&self) {
        self.waiting.get_or_init(Mutex::default);
    }

    /// Notes what has become in one output of the next records.
    pub fn resolve(&self, taker: Taker, fate: Fate, count: u64) {
        let Some(waiting) = self.waiting.get().filter(|_| count > 0) else {
            return self.count(fate, count);
        };
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let [own, others] = match (taker, &mut *waiting) {
            (Taker::Lines, [lines, receiver]) => [lines, receiver],
            (Taker::Receiver, [lines, receiver]) => [receiver, lines],
        };
        match own.back_mut() {
            Some((before, same)) if *same == fate => *before += count,
            _ => own.push_back((count, fate)),
        }
        while let (Some(one), Some(other)) = (own.front_mut(), others.front_mut()) {
            let both = one.0.min(other.0);
            self.count(one.1.joined(other.1), both);
            (one.0, other.0) = (one.0 - both, other.0 - both);
            let is_done =
                [own.front(), others.front()].map(|run| run.is_some_and(|run| run.0 == 0));
            if is_done[0] {
                own.pop_front();
            }
            if is_done[1] {
                others.pop_front();
            }
        }
    }

    /// Counts records whose fate is known.
    fn count(&self, fate: Fate, count: u64) {
        let counter = match fate {
            Fate::Written => &self.written,
            Fate::Unwritten => &self.unwritten,
            Fate::Late => &self.late,
            Fate::Unsent => &self.unsent,
        };
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// Returns the number of those that an output lost.
    pub fn lost(&self) -> u64 {
        let [unwritten, unsent] = [&self.unwritten, &self.unsent];
        unwritten.load(Ordering::Relaxed) + unsent.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::Fate;
    use super::Outcome;
    use super::Runs;
    use super::Taker;

    /// Returns the counts: written, unwritten, late, unsent.
    fn counts(outcome: &Outcome) -> [u64; 4] {
        let Outcome {
            written,
            unwritten,
            late,
            unsent,
            ..
        } = outcome;
        [written, unwritten, late, unsent].map(|count| count.load(Ordering::Relaxed))
    }

    /// Check that one output alone is counted at once.
    #[test]
    fn alone() {
        let outcome = Outcome::default();
        outcome.resolve(Taker::Receiver, Fate::Unsent, 3);
        outcome.resolve(Taker::Receiver, Fate::Written, 2);
        assert_eq!(counts(&outcome), [2, 0, 0, 3]);
        assert_eq!(outcome.lost(), 3);
    }

    /// Check that a record counts once, when both outputs have reported it, whichever is first.
    #[test]
    fn joined() {
        let outcome = Outcome::default();
        outcome.join();
        outcome.resolve(Taker::Lines, Fate::Written, 4);
        outcome.resolve(Taker::Lines, Fate::Written, 1);
        assert_eq!(counts(&outcome), [0; 4]);
        outcome.resolve(Taker::Receiver, Fate::Written, 2);
        assert_eq!(counts(&outcome), [2, 0, 0, 0]);
        outcome.resolve(Taker::Receiver, Fate::Unsent, 4);
        assert_eq!(counts(&outcome), [2, 0, 0, 3]);
        outcome.resolve(Taker::Lines, Fate::Unwritten, 3);
        assert_eq!(counts(&outcome), [2, 1, 0, 3]);
        outcome.resolve(Taker::Lines, Fate::Late, 1);
        outcome.resolve(Taker::Receiver, Fate::Written, 3);
        assert_eq!(counts(&outcome), [2, 3, 1, 3]);
        let waiting = outcome.waiting.get().unwrap().lock().unwrap();
        assert!(waiting.iter().all(Runs::is_empty));
    }
}
