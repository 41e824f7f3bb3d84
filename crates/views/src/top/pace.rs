// SPDX-License-Identifier: MIT OR Apache-2.0
//! The clock of the screen: the wall clock where records are written now, and the time of the records where they are
//! replayed from a file.

use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use ngx_bpf_record::Record;

use super::window::WINDOW;
use ngx_bpf_record::clock::since_epoch;

/// Returns how long to wait for a record, if the first one was shown at `started`, and records pass `speed` times as
/// fast as they were written. All times of records count from 1970.
fn delay_until(
    first: Duration,
    this: Duration,
    speed: f64,
    started: Instant,
    now: Instant,
) -> Duration {
    let since = this.saturating_sub(first).as_secs_f64() / speed;
    let due = Duration::try_from_secs_f64(since).unwrap_or(Duration::MAX);
    due.saturating_sub(now.saturating_duration_since(started))
}

/// Returns when a record was written, from 1970: when its request, or what else it is about, ended. `None` when it has
/// no time.
pub fn written(record: &Record<'_>) -> Option<Duration> {
    let (time, ns) = match record {
        Record::Request(request) => (request.time.as_deref()?, request.elapsed_ns),
        Record::Connection(connection) => (connection.time.as_deref()?, None),
        Record::Blocked(blocked) => (blocked.time.as_deref()?, Some(blocked.duration_ns)),
        Record::Lost(lost) => (lost.time.as_str(), None),
    };
    since_epoch(time)?.checked_add(Duration::from_nanos(ns.unwrap_or_default()))
}

/// The clock of a screen, which the thread that draws shares with the one that brings records.
pub struct Pace {
    clock: Mutex<Clock>,
    changed: Condvar,
}

/// The state of a clock.
struct Clock {
    /// How many times as fast as the wall clock it goes.
    speed: f64,
    /// Whether records are replayed: then it waits for them, and freezing stops it.
    is_replay: bool,
    /// What it shows at `started`. `None` before the first record of a replay.
    first: Option<Duration>,
    started: Instant,
    /// How far a replay has come: the time of the record that is next, or was the last one. It shows nothing later, also
    /// where its speed is more than the reader of records can do.
    reached: Option<Duration>,
    /// When it was stopped.
    stopped: Option<Instant>,
    is_over: bool,
}

impl Clock {
    /// Returns what it shows.
    fn now(&self, now: Instant) -> Option<Duration> {
        let passed = self
            .stopped
            .unwrap_or(now)
            .saturating_duration_since(self.started);
        let passed = Duration::try_from_secs_f64(passed.as_secs_f64() * self.speed);
        let now = self.first?.saturating_add(passed.unwrap_or(Duration::MAX));
        Some(self.reached.map_or(now, |reached| now.min(reached)))
    }

    /// Stops it, or lets it go on from where it stands.
    fn stop(&mut self, is_stopped: bool) {
        let now = Instant::now();
        match (self.stopped, is_stopped) {
            (None, true) => self.stopped = Some(now),
            (Some(stopped), false) => {
                self.started += now.saturating_duration_since(stopped);
                self.stopped = None;
            }
            _ => {}
        }
    }
}

impl Pace {
    /// Creates the clock of records that are written now.
    pub fn live() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self::new(1.0, false, Some(now.unwrap_or_default()))
    }

    /// Creates the clock of a replay, which shows the time of the records. A speed that is no positive number is 1.
    pub fn replay(speed: f64) -> Self {
        let is_valid = speed.is_finite() && speed > 0.0;
        Self::new(if is_valid { speed } else { 1.0 }, true, None)
    }

    /// Creates a clock that shows this time now.
    fn new(speed: f64, is_replay: bool, first: Option<Duration>) -> Self {
        Self {
            clock: Mutex::new(Clock {
                speed,
                is_replay,
                first,
                started: Instant::now(),
                reached: None,
                stopped: None,
                is_over: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Returns the clock. A thread that panicked with it left it whole.
    fn clock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time that the screen shows, from 1970. `None` before the first record of a replay.
    pub fn now(&self) -> Option<Duration> {
        self.clock().now(Instant::now())
    }

    /// Waits until it is time to show a record that was written at this time, and returns what the clock shows then.
    /// Where nothing was written for longer than the window, that pause is cut short to it. `None` when the end was
    /// asked meanwhile. Where records are written now, it returns at once.
    pub fn wait_for(&self, written: Option<Duration>) -> Option<Duration> {
        let mut clock = self.clock();
        loop {
            let now = Instant::now();
            if clock.is_over {
                return None;
            }
            let Some(this) = written.filter(|_| clock.is_replay) else {
                return Some(clock.now(now).unwrap_or_default());
            };
            if clock.first.is_none() {
                clock.first = Some(this);
                clock.started = now;
            }
            let reached = clock.reached.map_or(this, |reached| reached.max(this));
            clock.reached = Some(reached);
            if clock.stopped.is_some() {
                let woken = self.changed.wait(clock);
                clock = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let shown = clock.now(now).unwrap_or(this);
            let pause = this.saturating_sub(shown).saturating_sub(WINDOW);
            let first = clock.first.unwrap_or(this).saturating_add(pause);
            clock.first = Some(first);
            let delay = delay_until(first, this, clock.speed, clock.started, now);
            if delay.is_zero() {
                return Some(reached);
            }
            let woken = self.changed.wait_timeout(clock, delay);
            clock = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Freezes a replay, or lets it go on. Where records are written now the clock goes on.
    pub fn freeze(&self, is_frozen: bool) {
        let mut clock = self.clock();
        if clock.is_replay {
            clock.stop(is_frozen);
        }
        self.changed.notify_all();
    }

    /// Ends the waiting for records, for ever.
    pub fn end(&self) {
        self.clock().is_over = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;
    use std::time::Instant;

    use super::Pace;
    use super::delay_until;
    use super::written;
    use ngx_bpf_record::Record;
    use ngx_bpf_record::Request;

    /// Check how long a replay waits for a record.
    #[test]
    fn delays() {
        let started = Instant::now();
        let second = Duration::from_secs(1);
        for (this, speed, passed, expected) in [
            (0, 1.0, 0, 0),
            (10, 1.0, 0, 10_000),
            (10, 1.0, 4, 6_000),
            (10, 1.0, 11, 0),
            (10, 4.0, 1, 1_500),
            (10, 0.5, 1, 19_000),
        ] {
            let first = Duration::from_secs(1_795_762_080);
            let now = started + second * passed;
            let delay = delay_until(first, first + second * this, speed, started, now);
            assert_eq!(delay.as_millis(), expected);
            assert!(delay_until(first, first - second, speed, started, now).is_zero());
        }
        let longest = delay_until(Duration::ZERO, Duration::MAX, 1e-9, started, started);
        assert_eq!(longest, Duration::MAX);
    }

    /// Check that a record counts when its request ended.
    #[test]
    fn times() {
        let request = Request {
            time: Some("1970-01-02T01:02:03Z".to_owned()),
            elapsed_ns: Some(2_000_000_000),
            ..Default::default()
        };
        let at = written(&Record::Request(Box::new(request)));
        assert_eq!(at, Some(Duration::from_secs(86_400 + 3_725)));
        assert_eq!(written(&Record::Request(Box::default())), None);
    }

    /// Check that a replay waits, that freezing stops it, and that the end wakes it.
    #[test]
    fn woken() {
        let pace = Pace::replay(1.0);
        let at = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(pace.now(), None);
        assert_eq!(pace.wait_for(at(100)), at(100));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| pace.wait_for(at(110)));
            pace.freeze(true);
            let now = pace.now().unwrap();
            assert!(now >= Duration::from_secs(100));
            assert_eq!(pace.now(), Some(now));
            pace.end();
            assert_eq!(waiting.join().unwrap(), None);
        });
        assert_eq!(pace.wait_for(None), None);
    }

    /// Check that a replay that is faster than its reader shows no later time than that of its records.
    #[test]
    fn fast() {
        let pace = Pace::replay(1e12);
        let at = |seconds| Some(Duration::from_secs(seconds));
        for (written, shown) in [(100, 100), (107, 107), (103, 107)] {
            assert_eq!(pace.wait_for(at(written)), at(shown));
            assert_eq!(pace.now(), at(shown));
        }
    }

    /// Check that a long pause between records is cut short, and that a live screen does not wait.
    #[test]
    fn pauses() {
        let pace = Pace::replay(1e6);
        let at = |seconds| Some(Duration::from_secs(seconds));
        pace.wait_for(at(0));
        assert!(pace.wait_for(at(1_000_000_000)) >= at(1_000_000_000));
        assert!(pace.now() >= at(1_000_000_000));
        let live = Pace::live();
        let shown = live.wait_for(at(9_000_000_000));
        assert!(shown > at(1_700_000_000) && shown <= live.now());
    }
}
