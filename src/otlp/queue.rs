// SPDX-License-Identifier: MIT OR Apache-2.0
//! The batches that wait to be sent. Whoever adds one never waits: where there is no room it is dropped, in its place,
//! so that what becomes of records is known in their order.

use std::collections::VecDeque;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use super::batch::Batch;
use super::batch::Outcome;
use super::batch::Records;

/// The most bytes of batches that wait.
const BYTES_MAX: usize = 8 << 20;

/// One batch, or what was dropped of several.
enum Item {
    Batch(Batch),
    Dropped(Records),
}

/// What is shared by the two threads.
#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    /// The bytes of the batches.
    bytes: usize,
    /// The records of the batch that is being sent.
    in_flight: Records,
    /// When to give up. `None` until the end.
    deadline: Option<Instant>,
    /// Whether the receiver does not take what it gets.
    is_failing: bool,
    /// Whether all is sent, or given up.
    is_over: bool,
}

/// The queue.
pub struct Queue {
    state: Mutex<State>,
    /// Signalled at every change that a thread may wait for.
    changed: Condvar,
    outcome: Outcome,
}

impl Queue {
    /// Creates an empty one, which passes on what becomes of records.
    pub fn new(outcome: Outcome) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            outcome,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change, at most until a moment. Without one it waits for as long as it takes.
    fn wait<'q>(
        &self,
        state: MutexGuard<'q, State>,
        until: Option<Instant>,
    ) -> MutexGuard<'q, State> {
        let Some(until) = until else {
            return self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        };
        let time = until.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout(state, time);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Adds a batch, or drops it when there is no room.
    pub fn push(&self, batch: Batch) {
        let mut state = self.state();
        let bytes = size(&batch);
        let is_empty = state.items.is_empty();
        if is_empty || state.bytes + bytes <= BYTES_MAX {
            state.bytes += bytes;
            state.items.push_back(Item::Batch(batch));
        } else if let Some(Item::Dropped(records)) = state.items.back_mut() {
            *records += batch.records;
        } else {
            state.items.push_back(Item::Dropped(batch.records));
        }
        self.changed.notify_all();
    }

    /// Returns the next batch, for which it waits. `None` when there is none any more. What was dropped before it is
    /// lost now. `sent()` has to follow.
    pub fn next(&self) -> Option<Batch> {
        let mut state = self.state();
        loop {
            match state.items.pop_front() {
                Some(Item::Dropped(records)) => {
                    state.is_failing = true;
                    (self.outcome)(Records::default(), records);
                }
                Some(Item::Batch(batch)) => {
                    state.bytes -= size(&batch);
                    state.in_flight = batch.records;
                    return Some(batch);
                }
                None if state.deadline.is_some() => {
                    state.is_over = true;
                    self.changed.notify_all();
                    return None;
                }
                None => state = self.wait(state, None),
            }
        }
    }

    /// Passes on what has become of the batch that `next()` has returned: this number of its records was rejected, or
    /// all are lost (`None`). `is_failing` says whether the receiver does not take what it gets.
    pub fn sent(&self, rejected: Option<u64>, is_failing: bool) {
        let mut state = self.state();
        if state.is_over {
            /* It was given up meanwhile. */
            return;
        }
        let mut taken = std::mem::take(&mut state.in_flight);
        let lost = match rejected {
            Some(count) => taken.split(count),
            None => std::mem::take(&mut taken),
        };
        state.is_failing = is_failing;
        (self.outcome)(taken, lost);
    }

    /// Waits for a while, or until the end is near. Returns false when there is less time than that.
    pub fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.state();
        loop {
            if state.deadline.is_some_and(|deadline| deadline < until) {
                return false;
            }
            if Instant::now() >= until {
                return true;
            }
            state = self.wait(state, Some(until));
        }
    }

    /// Returns whether the time for the last batches is over.
    pub fn is_given_up(&self) -> bool {
        let deadline = self.state().deadline;
        deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Waits until all batches are sent, at most for this time. Those that are left are lost. Returns false when
    /// there are such, or when the receiver does not take what it gets.
    pub fn finish(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut state = self.state();
        state.deadline = Some(deadline);
        self.changed.notify_all();
        while !state.is_over && Instant::now() < deadline {
            state = self.wait(state, Some(deadline));
        }
        if !state.is_over {
            (state.is_over, state.is_failing) = (true, true);
            let mut lost = std::mem::take(&mut state.in_flight);
            for item in state.items.drain(..) {
                lost += match item {
                    Item::Batch(batch) => batch.records,
                    Item::Dropped(records) => records,
                };
            }
            (self.outcome)(Records::default(), lost);
        }
        !state.is_failing
    }
}

/// Returns the number of bytes of a batch.
fn size(batch: &Batch) -> usize {
    batch.traces.len() + batch.logs.len()
}
