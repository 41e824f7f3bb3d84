// SPDX-License-Identifier: MIT OR Apache-2.0
//! Converts the kernel's monotonic nanoseconds to wall-clock time.

use anyhow::Context as _;
use anyhow::Result;
use jiff::Timestamp;
use rustix::time::ClockId;
use rustix::time::clock_gettime;

/// The number of readings of both clocks for one difference.
const READINGS: u32 = 4;

/// The difference between the wall clock and the monotonic clock. Steps and slews of the wall clock
/// change it, so it has to be read again from time to time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The wall clock minus the monotonic clock, in nanoseconds.
    offset_ns: i128,
}

impl Clock {
    /// Reads the wall clock between two readings of the monotonic clock, and takes their middle. Of
    /// several such readings the one that took the shortest time is used, since an interruption
    /// makes the others less exact.
    pub fn now() -> Self {
        let readings = (0..READINGS).map(|_| {
            let before = nanoseconds(ClockId::Monotonic);
            let wall = nanoseconds(ClockId::Realtime);
            let after = nanoseconds(ClockId::Monotonic);
            (after - before, wall - before.midpoint(after))
        });
        let (_, offset_ns) = readings.min().unwrap_or_default();
        Self { offset_ns }
    }

    /// Returns the wall-clock time of now, in the form of `wall()`.
    pub fn wall_now() -> String {
        format!("{:.9}", Timestamp::now())
    }

    /// Returns the wall-clock time of a moment: RFC 3339, UTC, nine decimals.
    pub fn wall(self, monotonic_ns: u64) -> Result<String> {
        let timestamp = Timestamp::from_nanosecond(self.offset_ns + i128::from(monotonic_ns))
            .context("the time is out of range")?;
        Ok(format!("{timestamp:.9}"))
    }
}

/// Reads a clock, in nanoseconds.
fn nanoseconds(clock: ClockId) -> i128 {
    let now = clock_gettime(clock);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::Clock;

    /// Check the form of times, with all nine decimals.
    #[test]
    fn rfc_3339() {
        let clock = Clock {
            offset_ns: 1_700_000_000_000_000_000,
        };
        assert_eq!(clock.wall(1_000).unwrap(), "2023-11-14T22:13:20.000001000Z");
        assert_eq!(
            clock.wall(1_999_999_999).unwrap(),
            "2023-11-14T22:13:21.999999999Z"
        );
    }

    /// Check that the offset converts the monotonic time of now to the wall-clock time of now.
    #[test]
    fn now() {
        let monotonic = super::nanoseconds(super::ClockId::Monotonic);
        let text = Clock::now().wall(monotonic.try_into().unwrap()).unwrap();
        let parsed: jiff::Timestamp = text.parse().unwrap();
        assert!(parsed.duration_until(jiff::Timestamp::now()).as_secs() < 60);
    }
}
