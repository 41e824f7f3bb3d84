// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the kernel's monotonic nanoseconds to the wall clock that people read.

use anyhow::Context as _;
use anyhow::Result;
use jiff::Timestamp;
use rustix::time::ClockId;
use rustix::time::clock_gettime;

/// How often both clocks are read for one difference.
const READINGS: u32 = 4;

/// How far the wall clock is from the monotonic one. Steps and slews of the wall clock change it:
/// read it again from time to time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Wall minus monotonic, nanoseconds.
    offset_ns: i128,
}

impl Clock {
    /// Reads both clocks, the monotonic one before and after, and takes the middle: of a few times
    /// the one that took shortest, since anything may come in between.
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

    /// The wall clock at the moment, in the same form.
    pub fn wall_now() -> String {
        format!("{:.9}", Timestamp::now())
    }

    /// RFC 3339, UTC, nine decimals.
    pub fn wall(self, monotonic_ns: u64) -> Result<String> {
        let timestamp = Timestamp::from_nanosecond(self.offset_ns + i128::from(monotonic_ns))
            .context("a time that no clock shows")?;
        Ok(format!("{timestamp:.9}"))
    }
}

/// One clock.
fn nanoseconds(clock: ClockId) -> i128 {
    let now = clock_gettime(clock);
    i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::Clock;

    /// Check the form, and that all nine decimals are there.
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

    /// Check that the wall clock now is what the offset makes of the monotonic clock now.
    #[test]
    fn now() {
        let monotonic = super::nanoseconds(super::ClockId::Monotonic);
        let text = Clock::now().wall(monotonic.try_into().unwrap()).unwrap();
        let parsed: jiff::Timestamp = text.parse().unwrap();
        assert!(parsed.duration_until(jiff::Timestamp::now()).as_secs() < 60);
    }
}
